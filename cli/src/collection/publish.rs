//! Changing a collection: fetch, edit, sign, upload, report; again when somebody was faster.
//!
//! The lock of the collection is held from fetching the base to the server's answer. A request is
//! repeated on the same stream, so that the person is asked once.

mod create;
mod draft;
mod request;
mod upload;

use std::collections::{BTreeMap, HashSet};

use prost::bytes::Bytes;
use signet_proto::v1;
use signet_trust::{
    Gun, KeyId, RoleName,
    edit::{Edit, EditError, SigningRequest},
    pin::Pin,
    update::Trusted,
};

use draft::{Drafted, is_stranger};

use super::{
    cache::TufCache,
    keys, lock,
    session::{self, Content, Said, Session},
    update::{self, Current, Wanted},
};
use crate::{
    Context,
    agent::AgentClient,
    args::NewKeysArgs,
    failure::{Failure, exit},
    image::{Digest, Image},
    net::trust_server::TrustServer,
    ui::text::{escape, short_id},
};

/// What is to be different afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A tag is signed.
    Add {
        tag: String,
        digest: Digest,
        /// Bytes of the manifest.
        size: u64,
    },
    /// A tag, or with `None` every tag, is signed no more.
    Remove { tag: Option<String> },
    /// The collection exists.
    Init,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Roles with their new versions.
    pub(crate) versions: BTreeMap<RoleName, u32>,
    /// Tags that were removed.
    pub(crate) removed: Vec<String>,
    /// Tags that still count, with the roles that list them: their keys are not here.
    pub(crate) left: Vec<(String, RoleName)>,
    /// Set when the collection was made in this run.
    pub(crate) created: Option<CreatedKeys>,
    /// Entries of the agent's log.
    pub(crate) log_entries: Vec<u64>,
    /// What was published.
    documents: BTreeMap<RoleName, Bytes>,
}

/// Keys of a new collection, by canonical ID.
#[derive(Clone, Debug)]
pub(crate) struct CreatedKeys {
    pub(crate) root: String,
    pub(crate) targets: String,
}

/// Tries before a run gives up against faster ones.
const MAX_TRIES: u32 = 8;
/// Fetches of a base that stays older than what the agent has seen.
const MAX_STALE: u32 = 3;

/// Makes a change and publishes it.
///
/// # Errors
///
/// Exit 1 after too many lost races or a server that went back, exit 3 for a base that is not to
/// be trusted, otherwise as the agent, the server or the trust library say.
pub(crate) async fn publish(
    ctx: &mut Context,
    image: &Image,
    server: &TrustServer,
    change: &Change,
    new_keys: &NewKeysArgs,
) -> Result<Done, Failure> {
    let agent = ctx.agent().await?;
    let _lock = lock::acquire(&ctx.places.home, &image.gun, &ctx.ui).await?;
    let keys = agent.list_keys(ctx.docker_dir()).await?.keys;
    let mut run = Run {
        cache: TufCache::new(&ctx.places.docker, &image.gun),
        held: keys::held(&keys),
        agent,
        keys,
        image,
        server,
        change,
        new_keys,
        session: None,
        all_inline: false,
        refetched: false,
        raised: BTreeMap::new(),
        announced: false,
        resuming: false,
        resume_failed: false,
    };
    let mut stale = 0;
    let mut last = String::new();
    for _ in 0..MAX_TRIES {
        let again = match run.attempt(ctx).await? {
            Outcome::Done(done) => return Ok(done),
            Outcome::Again(again) => again,
        };
        match again {
            Again::Parts => run.all_inline = true,
            Again::Anew | Again::Version => {}
            Again::Refetch => {
                run.refetched = true;
                server.bypass_caches();
            }
            Again::Race(message) => {
                server.bypass_caches();
                ctx.ui.say(format_args!(
                    "{} was changed by somebody else meanwhile; signing the next version",
                    image.gun
                ));
                last = message;
            }
            Again::Stale(reason) => {
                server.bypass_caches();
                stale += 1;
                if stale >= MAX_STALE {
                    return Err(went_back(server, &reason));
                }
                last = reason;
            }
        }
    }
    Err(Failure::new(
        exit::FAILED,
        "lost_race",
        format!("{}: gave up after {MAX_TRIES} tries: {last}", image.gun),
    )
    .fix("run the command again when others are done"))
}

fn went_back(server: &TrustServer, reason: &str) -> Failure {
    Failure::new(
        exit::FAILED,
        "stale_base",
        format!(
            "{}: still the same after {MAX_STALE} tries: {reason}",
            server.url()
        ),
    )
    .fix(
        "a cache on the way may be behind: try later; if the server really went back \
         (restored from a backup), --allow rollback accepts what it has now",
    )
    .rule("rollback")
}

/// One run of [`publish`].
struct Run<'a> {
    agent: AgentClient,
    cache: TufCache,
    image: &'a Image,
    server: &'a TrustServer,
    change: &'a Change,
    new_keys: &'a NewKeysArgs,
    keys: Vec<v1::KeyInfo>,
    held: HashSet<KeyId>,
    session: Option<Session>,
    /// The agent lacked parts that it said it held.
    all_inline: bool,
    refetched: bool,
    /// Versions that the guard named.
    raised: BTreeMap<RoleName, u32>,
    announced: bool,
    /// What is uploaded is a first root of an earlier run.
    resuming: bool,
    /// The server did not take that: it is another one, and has none of the keys named there.
    resume_failed: bool,
}

enum Outcome {
    Done(Done),
    Again(Again),
}

enum Again {
    /// With a first root made now, instead of the one of an earlier run.
    Anew,
    Parts,
    Race(String),
    Refetch,
    Stale(String),
    /// The guard named another version.
    Version,
}

impl Run<'_> {
    async fn attempt(&mut self, ctx: &mut Context) -> Result<Outcome, Failure> {
        let known = self.agent.collection(self.gun().as_str()).await?;
        let wanted = Wanted {
            pin: Pin::FirstUse,
            for_write: true,
            chain_from: known
                .lineages
                .iter()
                .map(|l| l.root_version)
                .filter(|v| *v > 0)
                .min(),
        };
        match update::fetch(self.server, &self.cache, self.image, wanted).await? {
            Current::Published(mut trusted, before) => {
                let outcome = self.change(ctx, &mut trusted, &known).await?;
                self.remember(ctx, &outcome, &before, &trusted);
                Ok(outcome)
            }
            Current::Nothing(cached) => self.first_publish(ctx, &cached, &known).await,
        }
    }

    /// The next version of a published collection. What it replaces is taken out of `trusted`.
    async fn change(
        &mut self,
        ctx: &mut Context,
        trusted: &mut Trusted,
        known: &v1::CollectionReply,
    ) -> Result<Outcome, Failure> {
        self.announce(ctx, trusted);
        let drafted = match self
            .draft(trusted, &|id: &KeyId| self.held.contains(id))
            .await
        {
            // Not a repository that is known here: the guard comes before the question of keys.
            Err(failure) if failure.code == "no_key" && is_stranger(trusted, known) => self
                .draft(trusted, &|_: &KeyId| true)
                .await
                .map_err(|_| failure)?,
            drafted => drafted?,
        };
        let Drafted {
            mut edit,
            mut done,
            mut requests,
            unlisted,
        } = drafted;
        self.leave_root(ctx, trusted, &edit, &mut requests);
        let (parts, inline) = self.base(trusted, &requests, &unlisted, known);
        let start = v1::Start {
            base: Some(v1::Base {
                parts,
                released: Vec::new(),
            }),
            step: Some(session::step(&requests)),
            ..self.start(ctx)
        };
        let mut inline = inline;
        inline.extend(requests.iter().map(session::payload));
        if let Some(again) = self
            .sign_first_step(ctx, start, inline, &mut edit, &requests, &mut done)
            .await?
        {
            return Ok(Outcome::Again(again));
        }
        for request in requests {
            trusted.targets.remove(&request.role);
        }
        self.finish(ctx, edit, done).await
    }

    fn gun(&self) -> &Gun {
        &self.image.gun
    }

    /// First contact, skipped delegations: said once.
    fn announce(&mut self, ctx: &Context, trusted: &Trusted) {
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        update::announce(ctx, self.server, trusted);
    }

    /// A root that ends within six months is signed anew with whatever else is; but a run without
    /// a person does not fail for want of the root passphrase.
    fn leave_root(
        &self,
        ctx: &Context,
        trusted: &Trusted,
        edit: &Edit,
        requests: &mut Vec<SigningRequest>,
    ) {
        if !edit.root_needs_resign() {
            return;
        }
        if ctx.globals.no_input {
            requests.retain(|request| request.role != RoleName::Root);
        }
        if !requests
            .iter()
            .any(|request| request.role == RoleName::Root)
        {
            ctx.ui.warn(format_args!(
                "the root of {} ends at {}: sign once at a terminal where its key is",
                self.gun(),
                trusted.root().doc().expires
            ));
        }
    }

    /// Sends a request and waits until something other than a question comes back.
    async fn ask(
        &mut self,
        ctx: &mut Context,
        start: v1::Start,
        inline: Vec<Content>,
    ) -> Result<Said, Failure> {
        let mut session = match self.session.take() {
            Some(session) => {
                session.again(start, inline);
                session
            }
            None => Session::open(&self.agent, start, inline).await?,
        };
        // A stream that failed is over; the next request opens another.
        let said = session.next(ctx).await?;
        self.session = Some(session);
        Ok(said)
    }

    /// The first step: `Some` when the request has to be made again.
    async fn sign_first_step(
        &mut self,
        ctx: &mut Context,
        start: v1::Start,
        inline: Vec<Content>,
        edit: &mut Edit,
        requests: &[SigningRequest],
        done: &mut Done,
    ) -> Result<Option<Again>, Failure> {
        match self.ask(ctx, start, inline).await {
            Ok(Said::Signed(signatures)) => {
                self.take(edit, requests, &signatures, done)?;
                Ok(None)
            }
            Ok(Said::NeedParts) if !self.all_inline => Ok(Some(Again::Parts)),
            Ok(Said::Stale(reason)) => Ok(Some(Again::Stale(reason))),
            Ok(other) => Err(unexpected(&other)),
            Err(failure) => self.again_after(failure, requests).map(Some),
        }
    }

    /// A refusal that asks for one more fetch, or names another version.
    fn again_after(
        &mut self,
        failure: Failure,
        requests: &[SigningRequest],
    ) -> Result<Again, Failure> {
        if failure.code == "guard.refetch" && !self.refetched {
            return Ok(Again::Refetch);
        }
        // Only the agent knows which versions of a delegation that is not listed were published.
        let unlisted = requests
            .iter()
            .find(|request| request.role.parent().is_some());
        if failure.next > 0
            && failure
                .rule
                .as_deref()
                .is_some_and(|rule| matches!(rule, "rollback" | "gap"))
            && let Some(request) = unlisted
            && self.raised.get(&request.role) != Some(&failure.next)
        {
            self.raised.insert(request.role.clone(), failure.next);
            return Ok(Again::Version);
        }
        Err(failure)
    }

    /// Takes the signatures of a step into the edit.
    fn take(
        &self,
        edit: &mut Edit,
        requests: &[SigningRequest],
        signatures: &[v1::ItemSignature],
        done: &mut Done,
    ) -> Result<(), Failure> {
        for request in requests {
            done.versions
                .insert(request.role.clone(), version_of(&request.payload));
            let of_role = session::signatures_of(&request.role, signatures)?;
            edit.sign(&request.role, of_role)
                .map_err(|error| self.explain(&error))?;
        }
        done.log_entries
            .extend(signatures.iter().map(|signature| signature.log_entry));
        Ok(())
    }

    fn explain(&self, error: &EditError) -> Failure {
        let message = format!("{}: {error}", self.gun());
        match error {
            EditError::NoKey { needed, .. } | EditError::NoSignableRole { needed, .. } => {
                if let Some(key) = keys::moved_away(&self.keys, needed) {
                    let problem = escape(&key.problem);
                    let message = format!("{message}; key {}: {problem}", short_id(&key.key_id));
                    return Failure::new(exit::FAILED, "no_key", message)
                        .fix("sign on the host that has the key now");
                }
                Failure::new(exit::FAILED, "no_key", message).fix(
                    "`signet key list` shows the keys at hand; \
                     `signet key import FILE` brings one here",
                )
            }
            EditError::BadTag { .. } => Failure::new(exit::USAGE, "bad_tag", message),
            EditError::NotSigned(tag) => Failure::new(
                exit::UNTRUSTED,
                "not_signed",
                format!("No trust data for {tag}"),
            ),
            _ => {
                let message = match std::error::Error::source(error) {
                    Some(source) => format!("{message}: {source}"),
                    None => message,
                };
                Failure::new(exit::FAILED, "edit", message)
            }
        }
    }
}

fn unexpected(said: &Said) -> Failure {
    let what = match said {
        Said::Created(_) => "keys that were not asked for",
        Said::NeedParts => "once more for parts that it was sent",
        Said::Recorded => "a report that was not made",
        Said::Signed(_) => "signatures that were not asked for",
        Said::Stale(_) => "a base where there is none",
    };
    Failure::new(
        exit::FAILED,
        "agent",
        format!("the agent answered with {what}"),
    )
}

/// The version of a document in its canonical form, whose last member it is.
fn version_of(payload: &[u8]) -> u32 {
    const NAME: &[u8] = b"\"version\":";
    let number = payload
        .windows(NAME.len())
        .rposition(|window| window == NAME)
        .and_then(|at| payload.get(at + NAME.len()..)?.strip_suffix(b"}"));
    number
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_end_of_a_payload() {
        assert_eq!(
            version_of(br#"{"targets":{"\"version\":3}":{}},"version":12}"#),
            12
        );
        assert_eq!(version_of(b"{}"), 0);
    }
}
