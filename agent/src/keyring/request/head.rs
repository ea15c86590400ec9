//! The head of a request, read and bounded before anything is allocated for it.

use std::sync::Arc;

use signet_proto::v1::{
    self, ClaimedContext, Creation, PromptMode, Queued, SignRequest, part::Kind, sign_event,
    sign_request,
};
use signet_trust::{
    Gun, KeyId, RoleName,
    guard::Rule,
    payload::{Item, Payload},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::event;
use crate::{
    daemon::harden,
    keyring::{
        Fault,
        base::{Named, Part, compute},
        collection::digest,
    },
    presence::stream::Stream,
    service::Shared,
};

/// Bytes of one request, whatever is configured.
const MAX_REQUEST: u64 = 100 * 1024 * 1024;
/// Parts of a base: a root chain of a thousand links and as many roles as any collection has.
const MAX_PARTS: usize = 1200;
/// Items of a step.
const MAX_ITEMS: usize = 64;
/// Keys of an item.
const MAX_KEYS: usize = 64;
/// Characters kept of what a caller says of itself.
const MAX_CLAIM: usize = 200;
/// Requests smaller than this need no room made: they are bounded by the connections there are.
const SMALL: u64 = 64 * 1024;

/// What a Start says, without its documents.
#[derive(Debug)]
pub(in crate::keyring) struct Head {
    pub(in crate::keyring) gun: Gun,
    pub(in crate::keyring) creation: Option<Creation>,
    pub(in crate::keyring) context: ClaimedContext,
    pub(in crate::keyring) mode: PromptMode,
    pub(in crate::keyring) allow: Vec<Rule>,
    pub(in crate::keyring) assume_yes: bool,
    pub(in crate::keyring) docker_dir: String,
    pub(in crate::keyring) refetched: bool,
    pub(in crate::keyring) use_last_try: bool,
}

/// The bytes that follow a Start or Step.
#[derive(Debug)]
pub(super) struct Plan {
    base: Announced,
    items: Vec<(RoleName, u64, Vec<KeyId>)>,
}

#[derive(Debug)]
enum Announced {
    Absent,
    Released([u8; 32]),
    Parts(Vec<(Kind, RoleName, [u8; 32], Option<u64>)>),
}

/// Reads a client's message as far as its form goes; for fuzzing. The words of a refusal.
pub fn read_request(bytes: &[u8]) -> Option<String> {
    let message = <SignRequest as prost::Message>::decode(bytes)
        .ok()?
        .message?;
    let plan = match message {
        sign_request::Message::Start(start) => read(start).map(|(_, plan)| plan),
        sign_request::Message::Step(step) => read_step(step),
        _ => return None,
    };
    plan.err().map(|fault| fault.to_string())
}

/// Reads a Start.
pub(super) fn read(start: v1::Start) -> Result<(Head, Plan), Fault> {
    let gun: Gun = start
        .gun
        .parse()
        .map_err(|error| Fault::Usage(format!("{error}")))?;
    let mut allow = start
        .allow
        .iter()
        .map(|rule| rule.parse())
        .collect::<Result<Vec<Rule>, _>>()
        .map_err(|error| Fault::Usage(error.to_string()))?;
    if start.explicit_init && !allow.contains(&Rule::Restart) {
        allow.push(Rule::Restart);
    }
    let base = read_base(start.base.unwrap_or_default())?;
    let items = match (&start.creation, start.step) {
        (None, Some(step)) => read_items(step)?,
        (Some(_), None) => Vec::new(),
        (None, None) => return Err(malformed("a start with nothing to sign")),
        (Some(_), Some(_)) => return Err(malformed("a creation together with a step")),
    };
    let head = Head {
        gun,
        creation: start.creation,
        context: claimed(start.claimed_context.unwrap_or_default()),
        mode: PromptMode::try_from(start.prompt_mode).unwrap_or_default(),
        allow,
        assume_yes: start.assume_yes,
        docker_dir: start.docker_dir,
        refetched: start.refetched,
        use_last_try: start.use_last_try,
    };
    Ok((head, Plan::checked(base, items)?))
}

/// Reads a Step.
pub(super) fn read_step(step: v1::Step) -> Result<Plan, Fault> {
    Plan::checked(Announced::Absent, read_items(step)?)
}

fn read_base(base: v1::Base) -> Result<Announced, Fault> {
    match (base.released.as_slice(), base.parts.len()) {
        ([], 0) => return Ok(Announced::Absent),
        ([], count) if count > MAX_PARTS => {
            return Err(malformed(&format!(
                "a base of {count} parts, more than {MAX_PARTS}"
            )));
        }
        ([], _) => {}
        (released, 0) => return Ok(Announced::Released(hash(released)?)),
        _ => return Err(malformed("a base both by hash and by parts")),
    }
    let part = |part: v1::Part| {
        let kind = Kind::try_from(part.kind).unwrap_or_default();
        let role = match kind {
            Kind::Unspecified => return Err(malformed("a part of the base without a kind")),
            Kind::Root => RoleName::Root,
            Kind::Timestamp => RoleName::Timestamp,
            Kind::Snapshot => RoleName::Snapshot,
            Kind::Targets | Kind::Unlisted => {
                let role: RoleName = role(&part.role)?;
                if !role.is_targets_like() {
                    return Err(malformed(&format!("a part of targets for {role}")));
                }
                role
            }
        };
        let size = (!part.by_hash).then_some(part.size);
        Ok((kind, role, hash(&part.sha256)?, size))
    };
    Ok(Announced::Parts(
        base.parts.into_iter().map(part).collect::<Result<_, _>>()?,
    ))
}

fn read_items(step: v1::Step) -> Result<Vec<(RoleName, u64, Vec<KeyId>)>, Fault> {
    if step.items.is_empty() || step.items.len() > MAX_ITEMS {
        return Err(malformed(&format!("a step of {} items", step.items.len())));
    }
    let mut items: Vec<(RoleName, u64, Vec<KeyId>)> = Vec::with_capacity(step.items.len());
    for item in step.items {
        let role = role(&item.role)?;
        if items.iter().any(|(other, ..)| *other == role) {
            return Err(malformed(&format!("{role} twice in one step")));
        }
        if item.key_ids.is_empty() || item.key_ids.len() > MAX_KEYS {
            return Err(malformed(&format!(
                "{role} with {} keys",
                item.key_ids.len()
            )));
        }
        let mut keys: Vec<KeyId> = Vec::with_capacity(item.key_ids.len());
        for id in &item.key_ids {
            let id: KeyId = id.parse().map_err(|error| malformed(&format!("{error}")))?;
            if keys.contains(&id) {
                return Err(malformed(&format!("{role} with key {id} twice")));
            }
            keys.push(id);
        }
        items.push((role, item.size, keys));
    }
    Ok(items)
}

impl Plan {
    fn checked(base: Announced, items: Vec<(RoleName, u64, Vec<KeyId>)>) -> Result<Self, Fault> {
        let plan = Self { base, items };
        let sum = plan
            .sizes()
            .try_fold(0_u64, u64::checked_add)
            .unwrap_or(u64::MAX);
        if sum > MAX_REQUEST {
            return Err(Fault::TooLarge {
                size: sum,
                limit: MAX_REQUEST,
            });
        }
        Ok(plan)
    }

    fn sizes(&self) -> impl Iterator<Item = u64> {
        let parts = match &self.base {
            Announced::Parts(parts) => parts.as_slice(),
            _ => &[],
        };
        let parts = parts.iter().filter_map(|(.., size)| *size);
        parts.chain(self.items.iter().map(|(_, size, _)| *size))
    }

    /// Bytes that follow.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes().sum()
    }

    /// Takes the chunks: inline parts of the base, then payloads, in the order announced.
    pub(super) async fn receive(
        self,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(Named, Vec<Item>), Fault> {
        let base = match self.base {
            Announced::Absent => Named::Absent,
            Announced::Released(hash) => Named::Released(hash),
            Announced::Parts(announced) => {
                let mut parts = Vec::with_capacity(announced.len());
                for (kind, role, sha256, size) in announced {
                    let wire = match size {
                        Some(size) => {
                            let wire = take(stream, size).await?;
                            if compute(wire.len(), || digest(&wire)) != sha256 {
                                return Err(malformed(&format!(
                                    "the {role} of the base is not what was announced"
                                )));
                            }
                            Some(wire)
                        }
                        None => None,
                    };
                    parts.push(Part {
                        kind,
                        role,
                        sha256,
                        wire,
                    });
                }
                Named::Parts(parts)
            }
        };
        let mut items = Vec::with_capacity(self.items.len());
        for (role, size, key_ids) in self.items {
            let bytes = take(stream, size).await?;
            let payload = compute(bytes.len(), || Payload::read(bytes));
            items.push(Item {
                role,
                payload,
                key_ids,
            });
        }
        Ok((base, items))
    }
}

/// Chunks until `size` bytes are there; none may go beyond.
async fn take(stream: &mut Stream<SignRequest>, size: u64) -> Result<Vec<u8>, Fault> {
    let size = usize::try_from(size).map_err(|_| malformed("a size that does not fit"))?;
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let message = stream.next().await?.and_then(|request| request.message);
        let Some(sign_request::Message::Chunk(chunk)) = message else {
            return Err(malformed("the request was cut before all of it had come"));
        };
        if chunk.data.is_empty() || chunk.data.len() > signet_proto::MAX_CHUNK {
            return Err(malformed(&format!("a chunk of {} bytes", chunk.data.len())));
        }
        if chunk.data.len() > size - bytes.len() {
            return Err(malformed("a chunk that goes beyond its part"));
        }
        if bytes.is_empty() && chunk.data.len() == size {
            return Ok(chunk.data);
        }
        if bytes.is_empty() {
            bytes.reserve_exact(size);
        }
        bytes.extend_from_slice(&chunk.data);
    }
    Ok(bytes)
}

/// Room in memory for a large request, given back to the system with it.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Drop for Room {
    fn drop(&mut self) {
        // Not on the way of an answer.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(harden::give_memory_back);
        }
    }
}

/// Waits until there is room in memory for this many bytes, saying so when it has to wait.
pub(super) async fn make_room(
    shared: &Shared,
    bytes: u64,
    stream: &mut Stream<SignRequest>,
) -> Result<Option<Room>, Fault> {
    if bytes > shared.max_request {
        return Err(Fault::TooLarge {
            size: bytes,
            limit: shared.max_request,
        });
    }
    if bytes <= SMALL {
        return Ok(None);
    }
    let units =
        u32::try_from(bytes.div_ceil(Shared::UNIT as u64)).map_err(|_| Fault::TooLarge {
            size: bytes,
            limit: MAX_REQUEST,
        })?;
    let room: Arc<Semaphore> = Arc::clone(&shared.room);
    if let Ok(permit) = Arc::clone(&room).try_acquire_many_owned(units) {
        return Ok(Some(Room(permit)));
    }
    stream
        .send(event(sign_event::Event::Queued(Queued { behind: 1 })))
        .await?;
    let permit = stream.while_there(room.acquire_many_owned(units)).await?;
    Ok(Some(Room(permit.map_err(|_| Fault::Stopping)?)))
}

fn role(name: &str) -> Result<RoleName, Fault> {
    name.parse().map_err(|error| malformed(&format!("{error}")))
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], Fault> {
    bytes
        .try_into()
        .map_err(|_| malformed("a hash that is not 32 bytes long"))
}

/// What a caller says of itself, fit to be shown.
pub(in crate::keyring) fn claimed(claimed: ClaimedContext) -> ClaimedContext {
    ClaimedContext {
        command: claim(&claimed.command),
        image: claim(&claimed.image),
        server: claim(&claimed.server),
        terminal: claim(&claimed.terminal),
        terminal_type: claim(&claimed.terminal_type),
    }
}

/// What a caller says of itself, cut and without anything that could move a cursor.
fn claim(text: &str) -> String {
    let cut: String = text.chars().take(MAX_CLAIM).collect();
    signet_trust::payload::escape(&cut)
}

fn malformed(why: &str) -> Fault {
    Fault::Malformed(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> v1::Start {
        v1::Start {
            gun: "reg/a".to_owned(),
            step: Some(v1::Step {
                items: vec![v1::Item {
                    role: "targets".to_owned(),
                    size: 10,
                    key_ids: vec!["ab".repeat(32)],
                }],
            }),
            ..v1::Start::default()
        }
    }

    #[test]
    fn a_request_is_bounded_before_anything_is_read() {
        let mut huge = start();
        huge.step.as_mut().unwrap().items[0].size = MAX_REQUEST + 1;
        assert!(matches!(read(huge), Err(Fault::TooLarge { .. })));
        let mut overflowing = start();
        let part = v1::Part {
            kind: Kind::Root.into(),
            sha256: vec![0; 32],
            size: u64::MAX,
            ..v1::Part::default()
        };
        overflowing.base = Some(v1::Base {
            parts: vec![part.clone(), part],
            released: Vec::new(),
        });
        assert!(matches!(read(overflowing), Err(Fault::TooLarge { .. })));
    }

    #[test]
    fn what_is_out_of_form_is_named() {
        let mut twice = start();
        let step = twice.step.as_mut().unwrap();
        step.items.push(step.items[0].clone());
        assert_eq!(
            read(twice).unwrap_err().to_string(),
            "the request is malformed: targets twice in one step"
        );
        let mut gun = start();
        gun.gun = "../x".to_owned();
        assert!(
            read(gun)
                .unwrap_err()
                .to_string()
                .contains("is not a repository name")
        );
        let mut rule = start();
        rule.allow = vec!["everything".to_owned()];
        assert!(
            read(rule)
                .unwrap_err()
                .to_string()
                .contains("is not a rule")
        );
    }
}
