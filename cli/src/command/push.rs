//! `signet push`: pushes through the Docker engine, and signs what that push reported.

use super::sign;
use crate::{
    Context,
    args::PushArgs,
    collection::server,
    failure::{Failure, exit},
    net::{registry::Manifest, trust_server::Access},
};

/// Runs it.
pub(crate) async fn run(args: PushArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = sign::parse(&args.image)?;
    if image.digest.is_some() {
        return Err(
            Failure::usage(format!("{}: cannot push a digest reference", args.image))
                .fix("sign a digest that is in the registry: `signet sign IMAGE:TAG@sha256:…`"),
        );
    }
    let tag = image.tag_or_latest().to_owned();
    let remote = server::remote(ctx, &image, Access::Write).await?;
    let credentials = remote
        .credentials
        .get()
        .await
        .map_err(|error| Failure::new(exit::FAILED, "docker.credentials", error))?;
    let engine = server::engine(ctx).await?;
    // An image that nobody could sign is not pushed.
    ctx.agent().await?;
    let pushed = engine.push(&image, &tag, &credentials, &ctx.ui).await?;
    let manifest = Manifest {
        digest: pushed.digest,
        size: pushed.size,
    };

    let what = image.with_tag(&tag);
    let finish = format!(
        "signet sign{} {what}@{} --size {}",
        flags(&args, ctx),
        manifest.digest,
        manifest.size
    );
    ctx.when_interrupted(not_signed(&what, &Failure::interrupted(), &finish));
    ctx.ui
        .say(format_args!("Signing {what}, {}", manifest.digest));
    let done = sign::sign(ctx, &image, &tag, manifest, &remote.trust, &args.new_keys)
        .await
        .map_err(|failure| not_signed(&what, &failure, &finish))?;
    sign::print(ctx, &image, &tag, manifest, &remote.trust, &done);
    Ok(())
}

/// The flags of this command that `sign` needs as well.
fn flags(args: &PushArgs, ctx: &Context) -> String {
    let given = [
        ("--server", &ctx.globals.server),
        ("--root", &args.new_keys.root),
        ("--store", &args.new_keys.store),
    ];
    given
        .into_iter()
        .filter_map(|(flag, value)| Some(format!(" {flag} {}", quote(value.as_deref()?))))
        .collect()
}

/// Exit 8: the image is out, its signature is not.
fn not_signed(what: &str, failure: &Failure, finish: &str) -> Failure {
    let fix = match &failure.fix {
        Some(fix) => format!("`{finish}` finishes the job ({fix})"),
        None => format!("`{finish}` finishes the job"),
    };
    let message = format!("{what} is pushed, but not signed");
    let mut partial = Failure::new(exit::PARTIAL, "not_signed", message)
        .missing([failure.as_missing(format!("signature of {what}"))])
        .candidates(failure.candidates.clone())
        .fix(fix);
    partial.rule = failure.rule.clone();
    partial
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsigned_push_names_what_is_missing_and_the_way_on() {
        let inner = Failure::new(5, "locked", "wrong passphrase").fix("try again");
        let failure = not_signed("a:1", &inner, "signet sign a:1@sha256:00 --size 1");
        assert_eq!(failure.exit, 8);
        assert_eq!(failure.missing[0].exit, 5);
        assert_eq!(failure.missing[0].reason, "wrong passphrase");
        assert!(
            failure
                .fix
                .as_ref()
                .unwrap()
                .starts_with("`signet sign a:1@sha256:00 --size 1`")
        );
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("https://h:1/x"), "https://h:1/x");
        assert_eq!(quote("my key"), "'my key'");
        assert_eq!(quote("it's"), "'it'\\''s'");
    }
}
