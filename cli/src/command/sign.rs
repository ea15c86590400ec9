//! `signet sign`: signs what is in the registry already.

use crate::{
    Context,
    args::{NewKeysArgs, SignArgs},
    collection::{
        publish::{self, Change, Done},
        server,
    },
    failure::Failure,
    image::{Digest, Image},
    net::{
        NetError,
        registry::Manifest,
        trust_server::{Access, TrustServer},
    },
};

/// Runs it.
pub(crate) async fn run(args: SignArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = parse(&args.image)?;
    if image.digest.is_some() && image.tag.is_none() {
        return Err(
            Failure::usage(format!("{}: which tag is to name this digest?", args.image))
                .fix(format!("`signet sign {}:TAG@sha256:…`", image.familiar())),
        );
    }
    if args.size.is_some() && image.digest.is_none() {
        return Err(Failure::usage(
            "--size goes with a digest: IMAGE:TAG@sha256:…",
        ));
    }
    let tag = image.tag_or_latest().to_owned();
    let remote = server::remote(ctx, &image, Access::Write).await?;
    let manifest = match (image.digest, args.size) {
        (Some(digest), Some(size)) => Manifest { digest, size },
        (digest, _) => {
            let reference = digest.map_or_else(|| tag.clone(), |digest| digest.to_string());
            let found =
                remote
                    .registry
                    .manifest(&reference)
                    .await
                    .map_err(|error| match error {
                        NetError::Missing { .. } => Failure::from(error).fix(format!(
                            "push it first: `signet push {}`",
                            image.with_tag(&tag)
                        )),
                        other => other.into(),
                    })?;
            check_digest(&image, digest, found)?;
            ctx.ui
                .say(format_args!("{} is {}", image.with_tag(&tag), found.digest));
            found
        }
    };
    let done = sign(ctx, &image, &tag, manifest, &remote.trust, &args.new_keys).await?;
    print(ctx, &image, &tag, manifest, &remote.trust, &done);
    Ok(())
}

/// Reads an IMAGE.
///
/// # Errors
///
/// Exit 2.
pub(crate) fn parse(text: &str) -> Result<Image, Failure> {
    text.parse().map_err(|error: crate::image::BadImage| {
        Failure::new(crate::failure::exit::USAGE, "bad_image", error.to_string())
    })
}

/// A registry that answers with other content than was asked for lies.
fn check_digest(image: &Image, asked: Option<Digest>, found: Manifest) -> Result<(), Failure> {
    match asked {
        Some(asked) if asked != found.digest => Err(Failure::new(
            crate::failure::exit::FAILED,
            "net.digest",
            format!(
                "the registry of {} answered with {} when asked for {asked}",
                image.familiar(),
                found.digest
            ),
        )),
        _ => Ok(()),
    }
}

/// Signs one tag and publishes.
///
/// # Errors
///
/// As [`publish::publish`].
pub(crate) async fn sign(
    ctx: &mut Context,
    image: &Image,
    tag: &str,
    manifest: Manifest,
    server: &TrustServer,
    new_keys: &NewKeysArgs,
) -> Result<Done, Failure> {
    let change = Change::Add {
        tag: tag.to_owned(),
        digest: manifest.digest,
        size: manifest.size,
    };
    let done = publish::publish(ctx, image, server, &change, new_keys).await?;
    if done.created.is_some() {
        ctx.ui
            .say(format_args!("Finished initializing trust of {}", image.gun));
    }
    ctx.ui
        .say(format_args!("Successfully signed {}", image.with_tag(tag)));
    Ok(done)
}

/// What was signed: one line, or one object.
pub(crate) fn print(
    ctx: &Context,
    image: &Image,
    tag: &str,
    manifest: Manifest,
    server: &TrustServer,
    done: &Done,
) {
    if !ctx.ui.is_json() {
        return ctx
            .ui
            .data(format_args!("{}@{}", image.with_tag(tag), manifest.digest));
    }
    let mut object = facts(image, server, done);
    object["tag"] = tag.into();
    object["digest"] = manifest.digest.to_string().into();
    object["size"] = manifest.size.into();
    ctx.ui.json(&object);
}

/// What every change of a collection reports.
pub(crate) fn facts(image: &Image, server: &TrustServer, done: &Done) -> serde_json::Value {
    let documents: Vec<_> = done
        .versions
        .iter()
        .map(|(role, version)| serde_json::json!({"role": role.as_str(), "version": version}))
        .collect();
    let keys = done.created.as_ref();
    serde_json::json!({
        "v": 1,
        "image": image.familiar(),
        "gun": image.gun.as_str(),
        "server": server.url(),
        "documents": documents,
        "log_entries": done.log_entries,
        "created": done.created.is_some(),
        "keys": keys.map(|keys| serde_json::json!({"root": keys.root, "targets": keys.targets})),
    })
}
