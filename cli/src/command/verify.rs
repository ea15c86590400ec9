//! `signet verify`: what `docker pull` with content trust would take, or a failure.

use std::time::Duration;

use signet_trust::pin::Pin;
use tokio::time::timeout;

use super::sign;
use crate::{
    Context,
    args::VerifyArgs,
    collection::{
        cache::TufCache,
        server::{self, Remote},
        tags::{self, REPO_ADMIN, SignedTag},
        update::{self, Current, Wanted},
    },
    failure::{Failure, exit},
    image::{Digest, Image},
    net::trust_server::Access,
};

/// How long the registry may take: what it says is only a warning.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(10);

/// Runs it.
pub(crate) async fn run(args: VerifyArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = sign::parse(&args.image)?;
    if image.digest.is_some() && image.tag.is_none() {
        return Err(
            Failure::usage(format!("{}: signatures are by tag", args.image))
                .fix(format!("`signet verify {}:TAG@sha256:…`", image.familiar())),
        );
    }
    let tag = image.tag_or_latest().to_owned();
    let remote = server::remote(ctx, &image, Access::Read).await?;
    let cache = TufCache::new(&ctx.places.docker, &image.gun);
    let wanted = Wanted {
        pin: if args.no_first_use {
            Pin::Refuse
        } else {
            Pin::FirstUse
        },
        for_write: false,
        chain_from: None,
    };
    // Trust data that is not there is an answer by itself; the registry is only a warning.
    let (current, there) = tokio::try_join!(
        update::fetch(&remote.trust, &cache, &image, wanted),
        async { Ok(ask_registry(&remote, &tag).await) },
    )?;
    let Current::Published(trusted, _) = current else {
        return Err(update::no_trust_data(&image, &remote.trust));
    };
    update::announce(ctx, &remote.trust, &trusted);
    if trusted.offline {
        ctx.ui.warn(format_args!(
            "{} cannot be reached: using what was seen before, which might not be the latest",
            remote.trust.url()
        ));
    }
    let signed = tags::lookup(&trusted, &tag).ok_or_else(|| {
        Failure::new(
            exit::UNTRUSTED,
            "no_trust_data",
            format!("No trust data for {tag}"),
        )
        .fix(format!(
            "`signet inspect {}` lists what is signed",
            image.familiar()
        ))
    })?;
    check_wishes(&image, &args, &signed)?;
    let there = match there {
        Ok(digest) => {
            if digest != signed.digest {
                ctx.ui.warn(format_args!(
                    "the registry's {} is {digest}, which is not what is signed",
                    image.with_tag(&tag)
                ));
            }
            Some(digest)
        }
        Err(error) => {
            ctx.ui.warn(format_args!(
                "where the registry's tag points is not known: {error}"
            ));
            None
        }
    };
    if args.pull {
        pull(ctx, &image, &tag, &signed, &remote).await?;
    }
    if ctx.ui.is_json() {
        let object = serde_json::json!({
            "v": 1,
            "image": image.familiar(),
            "gun": image.gun.as_str(),
            "server": remote.trust.url(),
            "tag": tag,
            "digest": signed.digest.to_string(),
            "size": signed.size,
            "role": signed.role.as_str(),
            "signers": signers(&signed),
            "first_use": trusted.first_use,
            "offline": trusted.offline,
            "pulled": args.pull,
            "registry_digest": there.map(|digest| digest.to_string()),
        });
        ctx.ui.json(&object);
    } else {
        ctx.ui.data(format_args!(
            "{}@{}  signed by {}",
            image.with_tag(&tag),
            signed.digest,
            signers(&signed).join(", ")
        ));
    }
    Ok(())
}

/// What the tag names at the registry, if that says so soon.
async fn ask_registry(remote: &Remote, tag: &str) -> Result<Digest, String> {
    match timeout(REGISTRY_PATIENCE, remote.registry.digest(tag)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the registry takes too long to answer".to_owned()),
    }
}

fn signers(signed: &SignedTag) -> Vec<String> {
    if signed.signers.is_empty() {
        vec![REPO_ADMIN.to_owned()]
    } else {
        signed.signers.clone()
    }
}

/// The digest of the command line and `--signer`.
fn check_wishes(image: &Image, args: &VerifyArgs, signed: &SignedTag) -> Result<(), Failure> {
    let differs = |wanted: &Digest| *wanted != signed.digest;
    if let Some(digest) = image.digest.filter(differs) {
        return Err(Failure::new(
            exit::UNTRUSTED,
            "other_digest",
            format!(
                "{} is signed as {}, not {digest}",
                image.with_tag(&signed.tag),
                signed.digest
            ),
        ));
    }
    match &args.signer {
        Some(signer) if !signed.signers.contains(signer) => Err(Failure::new(
            exit::UNTRUSTED,
            "not_by_signer",
            format!(
                "{} is not signed by {}, but by {}",
                image.with_tag(&signed.tag),
                signet_trust::payload::escape(signer),
                signers(signed).join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

async fn pull(
    ctx: &Context,
    image: &Image,
    tag: &str,
    signed: &SignedTag,
    remote: &Remote,
) -> Result<(), Failure> {
    let credentials = remote
        .credentials
        .get()
        .await
        .map_err(|error| Failure::new(exit::FAILED, "docker.credentials", error))?;
    let engine = server::engine(ctx).await?;
    engine
        .pull(image, &signed.digest, &credentials, &ctx.ui)
        .await?;
    ctx.ui.say(format_args!(
        "Tagging {}@{} as {}",
        image.familiar(),
        signed.digest,
        image.with_tag(tag)
    ));
    engine.tag(image, &signed.digest, tag).await
}
