use proptest::prelude::*;

use super::*;

fn policy(text: &str) -> Result<Policy, String> {
    let table: toml::Table = text.parse().unwrap();
    Policy::read(&table["policy"]).map_err(|error| error.to_string())
}

const NOON: i64 = 1_800_000_000 + 4 * 3600;

fn asked() -> Asked<'static> {
    Asked {
        gun: "reg.corp/app/web",
        role: "targets",
        key: "3f2a91c0",
        label: "release",
        payload: Kind::Targets,
        expires: Some(NOON + 300 * DAY),
        exe: Some(Path::new("/usr/bin/signet")),
        cgroup: Some("/user.slice/runner.service"),
        confirmed: true,
        overrides: false,
        signed_today: 0,
        now: NOON,
    }
}

#[test]
fn without_rules_the_defaults_decide() {
    let none = Policy::default();
    let decided = decide(&none, &asked());
    assert_eq!((decided.verdict, decided.grade), (Verdict::Allow, 0));
    for grave in [
        Asked {
            role: "root",
            ..asked()
        },
        Asked {
            overrides: true,
            ..asked()
        },
        Asked {
            payload: Kind::Opaque,
            ..asked()
        },
    ] {
        let decided = decide(&none, &grave);
        assert_eq!((decided.rule, decided.grade), (None, 3));
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = policy(
        "[[policy]]\nname = \"web\"\nguns = [\"reg.corp/app/*\"]\ndo = \"ask\"\n\
         [[policy]]\nname = \"rest\"\ndo = \"deny\"\n",
    )
    .unwrap();
    let decided = decide(&rules, &asked());
    assert_eq!(decided.rule.as_deref(), Some("web"));
    assert_eq!((decided.verdict, decided.grade), (Verdict::Ask, 2));
    let other = Asked {
        gun: "reg.corp/db",
        ..asked()
    };
    let decided = decide(&rules, &other);
    assert_eq!(decided.verdict, Verdict::Deny);
    assert_eq!(decided.why, "the rule \"rest\" denies it");
}

#[test]
fn every_condition_of_a_rule_has_to_fit() {
    for (condition, other) in [
        (
            "guns = [\"*/web\"]",
            Asked {
                gun: "reg.corp/app/webs",
                ..asked()
            },
        ),
        (
            "roles = [\"targets\"]",
            Asked {
                role: "targets/releases",
                ..asked()
            },
        ),
        (
            "keys = [\"release\"]",
            Asked {
                label: "other",
                ..asked()
            },
        ),
        (
            "keys = [\"3f2a91c\"]",
            Asked {
                key: "3f2a91d0",
                ..asked()
            },
        ),
        (
            "payloads = [\"targets\"]",
            Asked {
                payload: Kind::Snapshot,
                ..asked()
            },
        ),
        (
            "exe = [\"/usr/bin/signet\"]",
            Asked {
                exe: None,
                ..asked()
            },
        ),
        (
            "unit = [\"runner.service\"]",
            Asked {
                cgroup: Some("/runner.service.d"),
                ..asked()
            },
        ),
        (
            "hours = \"08:00-18:00\"",
            Asked {
                now: NOON + 8 * 3600,
                ..asked()
            },
        ),
    ] {
        let rules = policy(&format!("[[policy]]\n{condition}\ndo = \"ask\"\n")).unwrap();
        assert!(decide(&rules, &asked()).rule.is_some(), "{condition}");
        assert_eq!(decide(&rules, &other).rule, None, "{condition}");
    }
}

#[test]
fn what_rests_on_the_caller_never_allows_what_is_grave_or_who_is_not_confirmed() {
    let rules = policy(
        "[[policy]]\nexe = [\"/usr/bin/signet\"]\ndo = \"allow\"\n\
         [[policy]]\nname = \"rest\"\ndo = \"deny\"\n",
    )
    .unwrap();
    assert_eq!(decide(&rules, &asked()).verdict, Verdict::Allow);
    for other in [
        Asked {
            role: "root",
            ..asked()
        },
        Asked {
            overrides: true,
            ..asked()
        },
        Asked {
            payload: Kind::Opaque,
            ..asked()
        },
        Asked {
            confirmed: false,
            ..asked()
        },
    ] {
        assert_eq!(decide(&rules, &other).rule.as_deref(), Some("rest"));
    }
    // A denial holds for whoever may be meant.
    let denied = policy("[[policy]]\nexe = [\"/usr/bin/signet\"]\ndo = \"deny\"\n").unwrap();
    let unsure = Asked {
        confirmed: false,
        ..asked()
    };
    assert_eq!(decide(&denied, &unsure).verdict, Verdict::Deny);
}

#[test]
fn expiry_and_number_are_bounds_of_the_rule_that_fits() {
    let rules = policy("[[policy]]\ndo = \"allow\"\nmax_expiry = \"300d\"\nper_day = 2\n").unwrap();
    assert_eq!(decide(&rules, &asked()).verdict, Verdict::Allow);
    let later = Asked {
        expires: Some(NOON + 301 * DAY),
        ..asked()
    };
    let why = decide(&rules, &later).why;
    assert_eq!(
        why,
        "it expires in 301 days, and the rule \"rule 1\" allows 300"
    );
    let often = Asked {
        signed_today: 2,
        ..asked()
    };
    assert_eq!(decide(&rules, &often).verdict, Verdict::Deny);
}

#[test]
fn what_is_not_understood_is_an_error_that_names_it() {
    for (text, words) in [
        (
            "[[policy]]\nname = \"a\"\ndoo = \"allow\"",
            "has no member \"doo\"",
        ),
        ("[[policy]]\nname = \"a\"", "does not say what to do"),
        (
            "[[policy]]\ndo = \"maybe\"",
            "\"allow\", \"ask\" or \"deny\"",
        ),
        ("[[policy]]\ndo = \"ask\"\ngrade = 5", "1 to 4"),
        (
            "[[policy]]\ndo = \"ask\"\nhours = \"25:00-26:00\"",
            "08:00-18:00",
        ),
        ("[[policy]]\ndo = \"ask\"\nkeys = [\"3f2\"]", "7 digits"),
        ("[[policy]]\ndo = \"ask\"\nexe = [\"signet\"]", "absolute"),
        (
            "[[policy]]\ndo = \"ask\"\npayloads = [\"mirrors\"]",
            "root, targets",
        ),
        ("[[policy]]\ndo = \"ask\"\nguns = []", "a list of texts"),
        (
            "[[policy]]\ndo = \"ask\"\ncheck = [\"scan\"]",
            "an absolute path",
        ),
        (
            "[[policy]]\nname = \"a\"\ndo = \"ask\"\n[[policy]]\nname = \"a\"\ndo = \"ask\"",
            "two rules have the name",
        ),
    ] {
        let error = policy(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn stars_stand_for_any_characters() {
    let fits = |pattern: &str, text: &str| Pattern(pattern.to_owned()).fits(text);
    assert!(fits("*", "") && fits("*", "a/b") && fits("a*c", "ac") && fits("a*b*c", "a1b2b3c"));
    assert!(!fits("a*a", "a") && !fits("a*b*c", "acb") && !fits("", "a") && fits("", ""));
    assert!(!fits("ab*bc", "abc"));
}

#[test]
fn hours_may_reach_over_midnight() {
    let night = Hours {
        from: 22 * 60,
        until: 6 * 60,
    };
    assert!(night.hold(23 * 3600) && night.hold(5 * 3600) && !night.hold(12 * 3600));
}

proptest! {
    #[test]
    fn no_rule_lowers_what_is_asked_for_root_overrides_and_opaque(
        verdict in 0..3u8, grade in 0..5u32, confirm: bool, which in 0..3u8, confirmed: bool,
    ) {
        let verdict = [Verdict::Allow, Verdict::Ask, Verdict::Deny][usize::from(verdict)];
        let rules = Policy { rules: vec![Rule { verdict, grade, confirm, ..Rule::default() }] };
        let mut asked = Asked { confirmed, ..asked() };
        match which {
            0 => asked.role = "root",
            1 => asked.overrides = true,
            _ => asked.payload = Kind::Opaque,
        }
        let decided = decide(&rules, &asked);
        prop_assert!(decided.verdict == Verdict::Deny || decided.grade >= 3);
    }
}
