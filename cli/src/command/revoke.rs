//! `signet revoke`: removes the signature of a tag, or of every tag.

use super::sign;
use crate::{
    Context,
    args::{NewKeysArgs, RevokeArgs},
    collection::{
        publish::{self, Change, Done},
        server,
    },
    failure::{Failure, Missing, exit},
    image::Image,
    net::trust_server::Access,
};

/// Runs it.
pub(crate) async fn run(args: RevokeArgs, ctx: &mut Context) -> Result<(), Failure> {
    let image = sign::parse(&args.image)?;
    if image.digest.is_some() {
        return Err(Failure::usage(format!(
            "{}: a tag is revoked, not a digest",
            args.image
        )));
    }
    if image.tag.is_none() && !ctx.globals.yes {
        let question = format!("Remove every signature of {}?", image.familiar());
        if !ctx.ui.confirm(&question).await? {
            return Err(Failure::new(
                exit::REFUSED,
                "declined",
                "nothing was revoked",
            ));
        }
    }
    let remote = server::remote(ctx, &image, Access::Write).await?;
    let change = Change::Remove {
        tag: image.tag.clone(),
    };
    let done =
        publish::publish(ctx, &image, &remote.trust, &change, &NewKeysArgs::default()).await?;
    for tag in &done.removed {
        ctx.ui.say(format_args!(
            "Successfully deleted signature for {}",
            image.with_tag(tag)
        ));
    }
    if !done.left.is_empty() {
        return Err(partial(&image, &done));
    }
    if ctx.ui.is_json() {
        let mut object = sign::facts(&image, &remote.trust, &done);
        object["revoked"] = done.removed.into();
        ctx.ui.json(&object);
    } else {
        for tag in &done.removed {
            ctx.ui.data(image.with_tag(tag));
        }
    }
    Ok(())
}

/// Exit 8: some tags still count.
fn partial(image: &Image, done: &Done) -> Failure {
    let missing = done.left.iter().map(|(tag, role)| Missing {
        what: format!("{} in {role}", image.with_tag(tag)),
        reason: "its key is not here".to_owned(),
        exit: exit::FAILED,
    });
    let message = format!("some signatures of {} remain", image.familiar());
    Failure::new(exit::PARTIAL, "partly_revoked", message)
        .missing(missing)
        .fix("whoever holds the keys of these roles can revoke them")
}
