//! `agent.toml`: the agent's own settings. The command keeps its own in `config.toml` beside it.
//!
//! ```toml
//! default_store = "file"          # or "docker": where new keys go
//! docker_dir = "~/.docker"        # instead of DOCKER_CONFIG of the agent's environment
//! unlock = "15m"                  # how long a typed passphrase is held; an hour at most
//! max_request_mib = 32            # largest request, base and documents together; 100 at most
//! card_idle = "30s"               # an unused card is given back to other programs after this
//! idle_exit = "10m"               # end when nobody was connected for so long and nothing is held
//! attestation_roots = "/etc/…"    # PEM: what attestations of YubiKeys are verified against
//!
//! [[policy]]                      # what is allowed: see `policy.rs`
//! do = "ask"
//!
//! [forward]                       # a second socket, for other machines, and the keys it offers
//! keys = ["release"]              # labels, or the beginning of IDs
//!
//! [presence]
//! pinentry = "auto"               # or "off", or a program: asked when nobody attends
//!
//! [log]
//! witness = "/var/log/signet"     # told of each checkpoint: a file, or ["/usr/bin/command", "…"]
//! journal = false                 # the system's journal is not told
//!
//! [lock]                          # what locks, as `signet lock` does
//! suspend = true                  # the machine goes to sleep
//! screen = true                   # a session of the user is locked
//! card_removed = false            # a card with enrolled keys is taken out
//!
//! [notify]
//! desktop = true                  # touches and waiting requests are shown as notifications
//!
//! [cards.12345678]                # a card, by the number printed on it
//! leave_verified = true           # the PIN is not taken back after each signature
//! ```
//!
//! A file that is absent means these defaults. An unknown member is an error that says what was
//! probably meant: a setting that is silently ignored is worse than none.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Table, Value};

use crate::{
    desktop,
    keyring::{StoreName, Witness, Witnesses},
    policy::{BadPolicy, Policy},
    presence::pinentry::Choice,
    store::{
        hold::{DEFAULT_HOLD, MAX_HOLD},
        piv::DEFAULT_IDLE,
    },
};

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where new keys go when nobody says.
    pub default_store: StoreName,
    /// Docker's configuration directory, if the agent's environment is not to decide.
    pub docker_dir: Option<PathBuf>,
    /// How long a secret typed for a request is held.
    pub unlock: Duration,
    /// Bytes of one request, base and documents together.
    pub max_request: u64,
    /// How long an unused card is kept from other programs that want it for themselves.
    pub card_idle: Duration,
    /// How long nobody is connected before the agent ends by itself; it never does unless told to.
    pub idle_exit: Option<Duration>,
    /// What attestations are verified against.
    pub attestation_roots: Option<PathBuf>,
    /// Cards that keep the PIN between signatures.
    pub leave_verified: BTreeSet<u32>,
    /// What the desktop has to do with the agent.
    pub desktop: desktop::Settings,
    /// Keys that other machines may sign with through the forward socket; none: there is no such
    /// socket.
    pub forward: Vec<String>,
    /// Who is asked when nobody attends.
    pub pinentry: Choice,
    /// Who is told of checkpoints of the log.
    pub witnesses: Witnesses,
    /// What the owner of the keys allows.
    pub policy: Policy,
}

/// Why `agent.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        why: String,
    },
    /// A rule of the policy that is not understood.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Rule, member, and what is wrong.
        source: BadPolicy,
    },
    /// A member that there is not.
    #[error("{}: there is no setting {key:?}{hint}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Its name.
        key: String,
        /// What was probably meant, or what there is.
        hint: String,
    },
    /// A value that the setting cannot have.
    #[error("{}: {key} = {value} does not fit: it is {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// What it has.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

/// The file's name.
const FILE: &str = "agent.toml";
/// A few settings; whoever needs more than this wrote something else.
const MAX_FILE: u64 = 64 * 1024;
const SETTINGS: [&str; 14] = [
    "attestation_roots",
    "card_idle",
    "cards",
    "default_store",
    "docker_dir",
    "forward",
    "idle_exit",
    "lock",
    "log",
    "max_request_mib",
    "notify",
    "policy",
    "presence",
    "unlock",
];
/// The longest `idle_exit`.
const MAX_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a request unless configured otherwise: collections of some 100,000 tags.
const DEFAULT_REQUEST: u64 = 32 * MIB;
/// The most that can be configured.
const MAX_REQUEST: u64 = 100 * MIB;
const MIB: u64 = 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            default_store: StoreName::File,
            docker_dir: None,
            unlock: DEFAULT_HOLD,
            max_request: DEFAULT_REQUEST,
            card_idle: DEFAULT_IDLE,
            idle_exit: None,
            attestation_roots: None,
            leave_verified: BTreeSet::new(),
            desktop: desktop::Settings::default(),
            forward: Vec::new(),
            pinentry: Choice::default(),
            witnesses: Witnesses::default(),
            policy: Policy::default(),
        }
    }
}

impl Config {
    /// Reads `agent.toml` in `dir`; the defaults when there is none.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the file and the setting.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let failed = |source| ConfigError::Read {
            path: path.clone(),
            source,
        };
        match std::fs::metadata(&path) {
            Ok(facts) if !facts.is_file() || facts.len() > MAX_FILE => {
                return Err(failed(io::Error::other("it is no file of at most 64 KiB")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        Self::parse(&path, &text)
    }

    /// Programs that the settings name, with their arguments: a witness, checks, a pinentry.
    pub(crate) fn commands(&self) -> Vec<Vec<OsString>> {
        let words = |command: &[String]| command.iter().map(OsString::from).collect();
        let mut commands: Vec<Vec<OsString>> = self.policy.checks().map(words).collect();
        if let Some(Witness::Command(command)) = &self.witnesses.witness {
            commands.push(words(command));
        }
        if let Choice::Program(program) = &self.pinentry {
            commands.push(vec![program.clone().into_os_string()]);
        }
        commands
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                path: path.to_owned(),
                why: error.to_string().trim_end().to_owned(),
            })?;
        let mut config = Self::default();
        for (key, value) in &table {
            let wrong = |key, expected| ConfigError::Value {
                path: path.to_owned(),
                key,
                value: value.to_string(),
                expected,
            };
            match &key[..] {
                "default_store" => {
                    config.default_store = value
                        .as_str()
                        .and_then(StoreName::from_name)
                        .ok_or_else(|| wrong("default_store", "\"file\", \"docker\" or \"piv\""))?;
                }
                "attestation_roots" => {
                    let file = directory(value).ok_or_else(|| {
                        wrong("attestation_roots", "an absolute path, or one below ~/")
                    })?;
                    config.attestation_roots = Some(file);
                }
                "card_idle" => {
                    config.card_idle = value
                        .as_str()
                        .and_then(duration)
                        .ok_or_else(|| wrong("card_idle", "a time such as \"30s\" or \"5m\""))?;
                }
                "cards" => {
                    config.leave_verified = cards(value).ok_or_else(|| {
                        wrong(
                            "cards",
                            "a table [cards.SERIAL] with leave_verified = true or false",
                        )
                    })?;
                }
                "docker_dir" => {
                    let dir = directory(value)
                        .ok_or_else(|| wrong("docker_dir", "an absolute path, or one below ~/"))?;
                    config.docker_dir = Some(dir);
                }
                "lock" => {
                    let lock = &mut config.desktop.lock;
                    let known = [
                        ("card_removed", &mut lock.card_removed),
                        ("screen", &mut lock.screen),
                        ("suspend", &mut lock.suspend),
                    ];
                    switches(path, "lock", value, known)?;
                }
                "notify" => {
                    let known = [("desktop", &mut config.desktop.notify)];
                    switches(path, "notify", value, known)?;
                }
                "forward" => {
                    config.forward = forward(value).ok_or_else(|| {
                        wrong(
                            "forward",
                            "a table with keys = [\"…\"]: labels, or at least 7 digits of IDs",
                        )
                    })?;
                }
                "idle_exit" => {
                    let time = value.as_str().and_then(duration);
                    let time = time.filter(|time| *time <= MAX_IDLE);
                    config.idle_exit = Some(time.ok_or_else(|| {
                        wrong("idle_exit", "a time such as \"10m\", at most \"24h\"")
                    })?);
                }
                "log" => {
                    config.witnesses = witnesses(value).ok_or_else(|| {
                        wrong(
                            "log",
                            "a table with witness = \"/a/file\" or [\"/a/command\", \"…\"], and \
                             journal = true or false",
                        )
                    })?;
                }
                "max_request_mib" => {
                    config.max_request = value
                        .as_integer()
                        .and_then(|mib| u64::try_from(mib).ok()?.checked_mul(MIB))
                        .filter(|bytes| (MIB..=MAX_REQUEST).contains(bytes))
                        .ok_or_else(|| {
                            wrong("max_request_mib", "a number of MiB, from 1 to 100")
                        })?;
                }
                "policy" => {
                    config.policy = Policy::read(value).map_err(|source| ConfigError::Policy {
                        path: path.to_owned(),
                        source,
                    })?;
                }
                "presence" => {
                    config.pinentry = pinentry(value).ok_or_else(|| {
                        wrong(
                            "presence",
                            "a table with pinentry = \"auto\", \"off\" or \"/a/program\"",
                        )
                    })?;
                }
                "unlock" => {
                    config.unlock = value
                        .as_str()
                        .and_then(duration)
                        .filter(|time| *time <= MAX_HOLD)
                        .ok_or_else(|| {
                            wrong(
                                "unlock",
                                "a time such as \"90s\" or \"15m\", at most \"1h\"",
                            )
                        })?;
                }
                _ => {
                    return Err(ConfigError::Unknown {
                        path: path.to_owned(),
                        key: key.clone(),
                        hint: hint(key, &SETTINGS),
                    });
                }
            }
        }
        Ok(config)
    }
}

/// A table of truth values.
fn switches<const N: usize>(
    path: &Path,
    table: &'static str,
    value: &Value,
    mut known: [(&str, &mut bool); N],
) -> Result<(), ConfigError> {
    let wrong = |value: &Value| ConfigError::Value {
        path: path.to_owned(),
        key: table,
        value: value.to_string(),
        expected: "a table of settings that are true or false",
    };
    for (name, switch) in value.as_table().ok_or_else(|| wrong(value))? {
        let names = known.each_ref().map(|(known, _)| *known);
        let Some((_, setting)) = known.iter_mut().find(|(known, _)| known == name) else {
            return Err(ConfigError::Unknown {
                path: path.to_owned(),
                key: format!("{table}.{name}"),
                hint: hint(name, &names),
            });
        };
        **setting = switch.as_bool().ok_or_else(|| wrong(value))?;
    }
    Ok(())
}

/// Cards with `leave_verified = true`.
fn cards(value: &Value) -> Option<BTreeSet<u32>> {
    let mut left = BTreeSet::new();
    for (serial, settings) in value.as_table()? {
        let serial: u32 = serial.parse().ok()?;
        for (name, value) in settings.as_table()? {
            match (name.as_str(), value.as_bool()?) {
                ("leave_verified", true) => {
                    left.insert(serial);
                }
                ("leave_verified", false) => {}
                _ => return None,
            }
        }
    }
    Some(left)
}

/// Who is told of checkpoints.
fn pinentry(value: &Value) -> Option<Choice> {
    let table = value.as_table()?;
    let choice = match table.get("pinentry")? {
        Value::String(word) if word == "auto" => Choice::Installed,
        Value::String(word) if word == "off" => Choice::Off,
        program => Choice::Program(directory(program)?),
    };
    (table.len() == 1).then_some(choice)
}

/// Keys by label or the beginning of their ID; at least one.
fn forward(value: &Value) -> Option<Vec<String>> {
    let table = value.as_table()?;
    let keys = table.get("keys")?.as_array()?;
    let keys: Option<Vec<String>> = keys
        .iter()
        .map(|key| Some(key.as_str()?.to_owned()).filter(|key| !key.is_empty()))
        .collect();
    keys.filter(|keys| table.len() == 1 && !keys.is_empty())
}

fn witnesses(value: &Value) -> Option<Witnesses> {
    let mut told = Witnesses::default();
    for (name, value) in value.as_table()? {
        match name.as_str() {
            "journal" => told.no_journal = !value.as_bool()?,
            "witness" => {
                told.witness = Some(match value.as_array() {
                    None => Witness::File(directory(value)?),
                    Some(words) => {
                        let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
                        let words = words.filter(|words| {
                            let program = words.first().map(Path::new);
                            program.is_some_and(Path::is_absolute)
                        })?;
                        Witness::Command(words.into_iter().map(str::to_owned).collect())
                    }
                });
            }
            _ => return None,
        }
    }
    Some(told)
}

fn directory(value: &Value) -> Option<PathBuf> {
    let text = value.as_str()?;
    let path = match text.strip_prefix("~/") {
        Some(below) => PathBuf::from(std::env::var_os("HOME")?).join(below),
        None => PathBuf::from(text),
    };
    path.is_absolute().then_some(path)
}

/// `90s`, `15m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// What was probably meant by an unknown name, or what names there are.
fn hint(unknown: &str, settings: &[&str]) -> String {
    let unknown: String = unknown.chars().take(32).collect();
    let nearest = settings
        .iter()
        .map(|known| {
            (
                distance(&unknown.to_lowercase().replace('-', "_"), known),
                known,
            )
        })
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, known)) if distance <= known.len() / 3 => {
            format!("; did you mean {known:?}?")
        }
        _ => format!("; there are {}", settings.join(", ")),
    }
}

/// Levenshtein's distance, in characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/c/agent.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_absent_file_means_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_setting_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let text = "default_store = \"docker\"\ndocker_dir = \"/d\"\nunlock = \"1h\"\n\
                    max_request_mib = 100\ncard_idle = \"5m\"\nidle_exit = \"10m\"\nattestation_roots = \"/r.pem\"\n\
                    [log]\njournal = false\nwitness = [\"/bin/w\", \"x\"]\n\
                    [forward]\nkeys = [\"release\"]\n\
                    [presence]\npinentry = \"off\"\n\
                    [lock]\nsuspend = false\ncard_removed = true\n[notify]\ndesktop = false\n\
                    [cards.123]\nleave_verified = true\n[cards.4]\nleave_verified = false\n";
        std::fs::write(dir.path().join(FILE), text).unwrap();
        assert_eq!(
            Config::load(dir.path()).unwrap(),
            Config {
                default_store: StoreName::Docker,
                docker_dir: Some("/d".into()),
                unlock: MAX_HOLD,
                max_request: MAX_REQUEST,
                card_idle: Duration::from_secs(300),
                idle_exit: Some(Duration::from_secs(600)),
                attestation_roots: Some("/r.pem".into()),
                leave_verified: BTreeSet::from([123]),
                forward: vec!["release".to_owned()],
                pinentry: Choice::Off,
                desktop: desktop::Settings {
                    lock: desktop::LockOn {
                        suspend: false,
                        screen: true,
                        card_removed: true,
                    },
                    notify: false,
                },
                policy: Policy::default(),
                witnesses: Witnesses {
                    no_journal: true,
                    witness: Some(Witness::Command(vec!["/bin/w".into(), "x".into()])),
                },
            }
        );
    }

    #[test]
    fn every_setting_is_documented() {
        let page = include_str!("../../docs/settings.md");
        for name in SETTINGS {
            let documented = ["", "[", "[["].map(|bracket| format!("| `{bracket}{name}"));
            assert!(documented.iter().any(|row| page.contains(row)), "{name}");
        }
    }

    #[test]
    fn an_unknown_setting_says_what_was_meant() {
        for (written, meant) in [
            ("unlok", "unlock"),
            ("default-store", "default_store"),
            ("docker_dri", "docker_dir"),
        ] {
            let error = parse(&format!("{written} = \"x\"")).unwrap_err();
            assert!(error.contains(written) && error.contains(&format!("did you mean {meant:?}")));
            assert!(error.starts_with("/c/agent.toml"));
        }
        let error = parse("[lock]\nsuspnd = true").unwrap_err();
        assert!(error.contains("no setting \"lock.suspnd\"; did you mean \"suspend\"?"));
        let error = parse("[lock]\nlid = true").unwrap_err();
        assert!(
            error.ends_with("; there are card_removed, screen, suspend"),
            "{error}"
        );
        let error = parse("colour = 1").unwrap_err();
        assert!(
            error.contains(
                "there are attestation_roots, card_idle, cards, default_store, docker_dir, \
                 forward, idle_exit, lock, log, max_request_mib, notify, policy, presence, unlock"
            ),
            "{error}"
        );
    }

    #[test]
    fn values_that_do_not_fit_name_setting_and_what_it_takes() {
        for text in [
            "unlock = \"2h\"",
            "unlock = \"15\"",
            "unlock = \"m\"",
            "unlock = \"0s\"",
            "unlock = \"15é\"",
            "unlock = 15",
            "idle_exit = \"25h\"",
            "unlock = \"99999999999999999999s\"",
            "docker_dir = \"relative\"",
            "default_store = \"usb\"",
            "card_idle = 30",
            "attestation_roots = \"relative\"",
            "[cards.abc]\nleave_verified = true",
            "[cards.1]\nleave = true",
            "cards = 1",
            "lock = true",
            "[lock]\nscreen = \"yes\"",
            "[notify]\ndesktop = 1",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("does not fit: it is"), "{error}");
        }
    }

    #[test]
    fn what_is_no_toml_is_an_error_with_its_line() {
        let error = parse("unlock = \"15m\"\ndefault_store\n").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
