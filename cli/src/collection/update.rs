//! Fetching and verifying a collection: the pure workflow of `signet_trust::update`, driven over
//! server and cache. What was verified is saved, raw.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};
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
    /// A collection, verified; and what the cache had before.
    Published(Box<Trusted>, Before),
    /// The server has nothing under this name. With what the cache has.
    Nothing(Box<Cached>),
}

/// What the cache had when it was read, by hash: large documents are not held for it.
#[derive(Debug, Default)]
pub(crate) struct Before(BTreeMap<RoleName, [u8; 32]>);

impl Before {
    fn of(cached: &Cached) -> Self {
        let single = [
            (RoleName::Root, &cached.root),
            (RoleName::Timestamp, &cached.timestamp),
            (RoleName::Snapshot, &cached.snapshot),
        ];
        let single = single
            .into_iter()
            .filter_map(|(role, wire)| Some((role, wire.as_ref()?)));
        let targets = cached.targets.iter();
        let targets = targets.map(|(role, wire)| (role.clone(), wire));
        let all = single.chain(targets);
        Self(all.map(|(role, wire)| (role, sha256(wire))).collect())
    }

    fn has(&self, role: &RoleName, wire: &[u8]) -> bool {
        self.0.get(role).is_some_and(|hash| *hash == sha256(wire))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// How much longer a file may be than what lists it says, to be called another file: then it is
/// not the one that is listed. What goes on for longer is the server's fault.
const LONGER: usize = 1 << 20;

/// Fetches and verifies. A reader's cache takes what was verified; a writer saves with
/// [`save`] once the change is published, so that a run that fails writes nothing.
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
    let before = Before::of(&cached);
    let for_write = wanted.for_write;
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
        let most = match file {
            File::ByHash(..) => limit.saturating_add(LONGER),
            File::Current(_) | File::Version(..) => limit,
        };
        let fetched = match server.get(&file, most).await {
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
                return Ok(Current::Nothing(Box::new(cache.load()?)));
            }
            Err(error) => return Err(explain(&error, last_error, image, server)),
        }
    }
    let trusted = update.finish();
    if !for_write {
        save(cache, &before, &trusted, &BTreeMap::new())?;
    }
    Ok(Current::Published(Box::new(trusted), before))
}

/// Seconds since 1970.
pub(crate) fn now() -> UnixTime {
    jiff::Timestamp::now().as_second()
}

/// Saves what differs from what was there; `newer` are documents published since.
///
/// # Errors
///
/// When the cache cannot be written.
pub(crate) fn save(
    cache: &TufCache,
    before: &Before,
    trusted: &Trusted,
    newer: &BTreeMap<RoleName, Bytes>,
) -> Result<(), Failure> {
    let mut current = vec![
        (&RoleName::Root, trusted.root().wire()),
        (&RoleName::Timestamp, trusted.timestamp.wire()),
        (&RoleName::Snapshot, trusted.snapshot.wire()),
    ];
    let old = trusted.targets.iter();
    let old = old.filter(|(role, _)| !newer.contains_key(role));
    current.extend(old.map(|(role, document)| (role, document.wire())));
    let mut changed: Vec<(&RoleName, &[u8])> = current
        .into_iter()
        .filter(|(role, wire)| !before.has(role, wire))
        .collect();
    let newer = newer.iter().filter(|(role, _)| role.is_targets_like());
    changed.extend(newer.map(|(role, wire)| (role, wire.as_ref())));
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
    if let (Some(network), false) = (&network, matches!(error, UpdateError::Verify(_))) {
        return network.clone().into();
    }
    let untrusted = |code: &str, message: String| {
        let failure = Failure::new(exit::UNTRUSTED, format!("trust.{code}"), message);
        match &network {
            // What the cache has did not do in place of what the server did not say.
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
        UpdateError::Unreachable => Failure::new(
            exit::FAILED,
            "net.unreachable",
            format!("the trust server {} cannot be reached", server.url()),
        ),
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
