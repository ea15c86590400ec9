//! Fetching and verifying a collection: the pure workflow of `signet_trust::update`, driven over
//! server and cache. What was verified is saved, raw.

use signet_trust::{
    RoleName,
    pin::Pin,
    time::UnixTime,
    update::{Cached, Fetched, File, Options, Step, Trusted, Update, UpdateError},
    verify::{Verified, VerifyError},
};

use super::cache::TufCache;
use crate::{
    Context,
    failure::{Failure, exit},
    image::Image,
    net::{NetError, trust_server::TrustServer},
};

/// How a collection is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// For collections without a cached root.
    pub(crate) pin: Pin,
    /// A write: nothing of the cache stands in for the server.
    pub(crate) for_write: bool,
    /// Earliest root version that the agent needs.
    pub(crate) chain_from: Option<u32>,
}

/// What is published.
#[derive(Debug)]
pub(crate) enum Current {
    /// A collection, verified.
    Published(Box<Trusted>),
    /// The server has nothing under this name. With what the cache has.
    Nothing(Box<Cached>),
}

/// Fetches and verifies, and saves to the cache what changed.
///
/// # Errors
///
/// Exit 3 for what is not to be trusted, exit 1 for servers that do not answer as they should.
pub(crate) async fn fetch(
    server: &TrustServer,
    cache: &TufCache,
    image: &Image,
    wanted: Wanted,
) -> Result<Current, Failure> {
    let cached = cache.load()?;
    let before = cached.clone();
    let options = Options {
        pin: wanted.pin,
        now: now(),
        for_write: wanted.for_write,
        chain_from: wanted.chain_from,
    };
    let mut update = Update::new(image.gun.clone(), cached, options)
        .map_err(|error| explain_cached(&error, image, cache))?;
    let mut absent = false;
    let mut last_error: Option<NetError> = None;
    while let Step::Fetch { file, limit } = update.step() {
        let fetched = match server.get(&file, limit).await {
            Ok(bytes) => Fetched::Bytes(bytes),
            Err(NetError::Missing { .. }) => {
                // A collection without a timestamp is none: the server makes one with the first.
                absent |= matches!(
                    file,
                    File::Current(RoleName::Root) | File::Current(RoleName::Timestamp)
                );
                Fetched::Missing
            }
            Err(error) if error.is_outage() => {
                last_error = Some(error);
                Fetched::Unreachable
            }
            Err(error) => return Err(error.into()),
        };
        match update.receive(fetched) {
            Ok(()) => {}
            Err(UpdateError::NoTrustData(_) | UpdateError::Missing(_)) if absent => {
                return Ok(Current::Nothing(Box::new(before)));
            }
            Err(error) => return Err(explain(&error, last_error, image, server)),
        }
    }
    let trusted = update.finish();
    save(cache, &before, &trusted)?;
    Ok(Current::Published(Box::new(trusted)))
}

/// Seconds since 1970.
pub(crate) fn now() -> UnixTime {
    jiff::Timestamp::now().as_second()
}

/// Saves what differs from what was there.
fn save(cache: &TufCache, before: &Cached, trusted: &Trusted) -> Result<(), Failure> {
    let mut changed: Vec<(&RoleName, &[u8])> = Vec::new();
    for (role, old, new) in [
        (&RoleName::Root, &before.root, trusted.root().wire()),
        (
            &RoleName::Timestamp,
            &before.timestamp,
            trusted.timestamp.wire(),
        ),
        (
            &RoleName::Snapshot,
            &before.snapshot,
            trusted.snapshot.wire(),
        ),
    ] {
        if old.as_deref() != Some(new) {
            changed.push((role, new));
        }
    }
    for (role, document) in &trusted.targets {
        if before.targets.get(role).map(Vec::as_slice) != Some(document.wire()) {
            changed.push((role, document.wire()));
        }
    }
    if changed.is_empty() {
        Ok(())
    } else {
        cache.save(changed)
    }
}

fn explain_cached(error: &UpdateError, image: &Image, cache: &TufCache) -> Failure {
    Failure::new(
        exit::UNTRUSTED,
        "trust.cached_root",
        format!(
            "the root of {} that this machine has seen is not usable: {error}",
            image.gun
        ),
    )
    .fix(format!(
        "if you know why, move {} away: the next command then trusts the server's root anew",
        cache.directory().join("root.json").display()
    ))
}

/// The failure that a broken update ends in.
fn explain(
    error: &UpdateError,
    network: Option<NetError>,
    image: &Image,
    server: &TrustServer,
) -> Failure {
    let gun = &image.gun;
    let untrusted = |code: &str, message: String| {
        let failure = Failure::new(exit::UNTRUSTED, format!("trust.{code}"), message);
        match &network {
            // Half an outage: documents of before and after it need not fit together.
            Some(network) => failure.fix(format!("the server did not answer all: {network}")),
            None => failure,
        }
    };
    match error {
        UpdateError::NoTrustData(_) => no_trust_data(image, server),
        UpdateError::Missing(what) => untrusted(
            "missing",
            format!(
                "{}: trust data of {gun} is incomplete: the server has no {what}",
                server.url()
            ),
        ),
        UpdateError::Unreachable => match network {
            Some(network) => network.into(),
            None => Failure::new(
                exit::FAILED,
                "net.unreachable",
                format!("the trust server {} cannot be reached", server.url()),
            ),
        },
        UpdateError::Verify(error) => match error {
            VerifyError::Expired { .. } => untrusted(
                "expired",
                format!("trust data of {gun} is out of date: {error}"),
            ),
            VerifyError::Rollback { .. } => untrusted(
                "rollback",
                format!(
                    "trust data of {gun} went back, which may be an attack: {error} \
                     (server {})",
                    server.url()
                ),
            ),
            VerifyError::RootChain { .. } => untrusted(
                "root_changed",
                format!(
                    "the root of {gun} at {} does not follow from the one that this machine \
                     trusts: it was made anew, this is another server, or an attack: {error}",
                    server.url()
                ),
            ),
            VerifyError::Pin { .. } => {
                let why = std::error::Error::source(error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                untrusted("pin", format!("the root of {gun} is not trusted: {why}"))
            }
            VerifyError::Threshold { .. } => untrusted(
                "threshold",
                format!("trust data of {gun} has insufficient signatures: {error}"),
            ),
            VerifyError::Mismatch { .. } => untrusted(
                "mismatch",
                format!("trust data of {gun} does not fit together: {error}"),
            ),
            _ => untrusted(
                "unreadable",
                format!("trust data of {gun} is not valid: {error}"),
            ),
        },
        _ => untrusted("invalid", format!("trust data of {gun}: {error}")),
    }
}

/// Exit 3: nothing is published under this name.
pub(crate) fn no_trust_data(image: &Image, server: &TrustServer) -> Failure {
    Failure::new(
        exit::UNTRUSTED,
        "no_trust_data",
        format!(
            "{} does not have trust data for {}",
            server.host(),
            image.gun
        ),
    )
}

/// Says what a person should know of a collection that was fetched.
pub(crate) fn announce(ctx: &Context, server: &TrustServer, trusted: &Trusted) {
    if trusted.first_use {
        ctx.ui.say(format_args!(
            "first contact with {}: its root key is trusted from now on (root {}, server {})",
            trusted.gun,
            root_ids(trusted.root()).join(", "),
            server.host(),
        ));
    }
    if trusted.rotated {
        ctx.ui.say(format_args!(
            "the root of {} was renewed: version {}, signed by the one before it",
            trusted.gun,
            trusted.root().doc().version
        ));
    }
    for (role, why) in &trusted.skipped {
        ctx.ui
            .warn(format_args!("{role} of {} is not used: {why}", trusted.gun));
    }
}

fn root_ids(root: &Verified<signet_trust::document::Root>) -> Vec<String> {
    root.doc()
        .roles
        .get(&RoleName::Root)
        .into_iter()
        .flat_map(|keys| &keys.key_ids)
        .map(|id| id.to_string()[..10].to_owned())
        .collect()
}
