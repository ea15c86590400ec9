//! Recorded, then released; and what the server said to it.

use std::sync::Arc;

use signet_proto::v1::{
    self, ItemSignature, Recorded, SignRequest, Signed, report::Outcome, sign_event,
};
use signet_trust::{
    KeyId, RoleName, Signature,
    base::{Lineage, VerifiedBase},
    document::{Document, Root, to_wire},
    guard::{History, Mark, Pass, published},
    payload::{Item, escape},
    verify::Raw,
};

use super::{Head, Open, Request, event};
use crate::{
    keyring::{
        Fault,
        base::compute,
        collection::{Held, Turn},
        sign::Made,
    },
    ledger::{NewEntry, Release, Report, Write},
    presence::stream::Stream,
    service::now,
};

/// Characters kept of what the server said.
const MAX_MESSAGE: usize = 300;

/// Entries in which the time of a superseded signature is looked for.
const LOOK_BACK: u64 = 256;

/// `10:41`, with its date where that is another day.
fn clock(time: i64) -> Option<String> {
    let then = jiff::Timestamp::from_second(time).ok()?;
    let today = jiff::Timestamp::from_second(now())
        .ok()?
        .strftime("%F")
        .to_string();
    let text = then.strftime("%F %H:%M UTC").to_string();
    Some(match text.strip_prefix(&today) {
        Some(clock) => clock.trim_start().to_owned(),
        None => text,
    })
}

/// A document whose signatures were released on this stream.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) role: RoleName,
    /// Index into the items of the request.
    item: usize,
    mark: Mark,
    signatures: Vec<Signature>,
    lineage: Lineage,
    /// The server's answer was reported.
    reported: bool,
}

impl Released {
    /// The file that a client makes of it.
    pub(super) fn wire(&self, items: &[Item]) -> Vec<u8> {
        to_wire(items[self.item].payload.bytes(), &self.signatures)
    }
}

impl Request<'_> {
    /// What the guard found released and never arrived, with the time at which that was.
    pub(super) async fn superseded(
        &self,
        pass: &Pass,
        turn: &Turn,
    ) -> Result<Vec<(RoleName, Mark, Option<String>)>, Fault> {
        let mut found = Vec::with_capacity(pass.supersedes.len());
        for (role, mark) in &pass.supersedes {
            let hash = mark.hash;
            if let Some(time) = turn.released_at(role, &hash) {
                found.push((role.clone(), *mark, clock(time)));
                continue;
            }
            let time = self
                .keyring
                .recorder
                .run(move |ledger| {
                    let (newest, _) = ledger.head()?;
                    let from = newest.saturating_sub(LOOK_BACK) + 1;
                    let entries = ledger.entries(from, LOOK_BACK)?;
                    let signed = entries.iter().rev().find(|entry| {
                        entry.entry.kind == "sign" && entry.entry.payload == Some(hash)
                    });
                    Ok(signed.map(|entry| entry.entry.time))
                })
                .await?;
            found.push((role.clone(), *mark, time.and_then(clock)));
        }
        Ok(found)
    }

    /// Writes state and entries, and hands out the signatures once they are durable.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn release(
        &mut self,
        before: usize,
        made: Vec<Made>,
        pass: Pass,
        history: Arc<History>,
        summary: Vec<String>,
        mut turn: Turn,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let open = self
            .open
            .as_mut()
            .expect("a step belongs to an open request");
        let caller = self.person.caller.describe();
        let grade = self.person.grade();
        let rule = pass
            .overrides
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        let time = now();
        let words = summary.join("; ");
        let entries: Vec<NewEntry> = made
            .iter()
            .map(|made| {
                let item = &open.items[made.item];
                NewEntry {
                    kind: "sign",
                    time,
                    gun: open.head.gun.to_string(),
                    role: item.role.to_string(),
                    version: version(item),
                    key: Some(made.canonical),
                    payload: Some(item.payload.hash()),
                    summary: match made.place.as_str() {
                        "" => words.clone(),
                        place => format!("{words}; {place}"),
                    },
                    caller: caller.clone(),
                    grade,
                    rule: rule.clone(),
                    outcome: "released".to_owned(),
                    facts: self.person.facts(&made.place),
                }
            })
            .collect();
        let mut documents: Vec<Released> = Vec::with_capacity(open.items.len() - before);
        for (index, item) in open.items.iter().enumerate().skip(before) {
            documents.push(Released {
                role: item.role.clone(),
                item: index,
                mark: Mark {
                    version: version(item),
                    hash: item.payload.hash(),
                },
                signatures: made
                    .iter()
                    .filter(|made| made.item == index)
                    .map(|made| made.signature.clone())
                    .collect(),
                lineage: pass.lineage,
                reported: false,
            });
        }
        let root_wire = root_to_record(&pass, open.base.as_ref(), &documents, &open.items);
        let opaque: Vec<KeyId> = made
            .iter()
            .filter(|made| open.items[made.item].payload.document().is_err())
            .map(|made| made.canonical)
            .collect();
        let mut next = History::clone(&history);
        for lineage in &pass.superseded_lineages {
            next.collections.remove(lineage);
        }
        next.collections.insert(pass.lineage, pass.state.clone());
        let lineage = pass.lineage;
        let new_lineage = pass.new_lineage;
        let release = Release {
            gun: open.head.gun.clone(),
            decided_on: Arc::unwrap_or_clone(history),
            pass,
            root_wire,
            entries,
        };
        let numbers = match self.keyring.recorder.write(Write::Release(release)).await {
            Ok(numbers) => numbers,
            Err(fault) => {
                turn.forget_history();
                return Err(fault);
            }
        };
        let newest = numbers.last().copied().unwrap_or(0);
        turn.set_history(next);
        for document in &documents {
            turn.set_released(&document.role, document.mark.hash, time);
        }
        if new_lineage {
            // A second step is asked about with the same base.
            open.base = open.base.take().map(|base| base.in_lineage(lineage));
        }
        if let Some(base) = &open.base
            && turn
                .held
                .as_ref()
                .is_none_or(|held| !is_same(&held.base, base))
        {
            turn.held = Some(Held::new(base.clone(), None));
            drop(turn);
            self.keyring.collections.trim();
        } else {
            drop(turn);
        }
        for id in opaque {
            self.keyring.mark_opaque(id, &caller).await?;
        }
        let signatures = made
            .into_iter()
            .zip(numbers)
            .map(|(made, log_entry)| ItemSignature {
                role: open.items[made.item].role.to_string(),
                key_id: made.signature.key_id.to_string(),
                method: made.signature.method.as_str().to_owned(),
                signature: made.signature.bytes,
                log_entry,
            })
            .collect();
        open.released.extend(documents);
        stream.set_finishing(true);
        let sent = stream
            .send(event(sign_event::Event::Signed(Signed {
                signatures,
                summary,
            })))
            .await;
        self.keyring.checkpoint_if_due(newest).await;
        sent
    }

    /// What the server answered.
    pub(super) async fn report(
        &mut self,
        report: v1::Report,
        stream: &mut Stream<SignRequest>,
    ) -> Result<(), Fault> {
        let outcome = Outcome::try_from(report.outcome).unwrap_or_default();
        let (word, arrived) = match outcome {
            Outcome::Published => ("published", true),
            Outcome::Rejected => ("rejected", false),
            Outcome::Unknown | Outcome::Unspecified => ("unknown", false),
        };
        let Some(open) = self.open.as_mut() else {
            return Err(Fault::Malformed("a report without a request".to_owned()));
        };
        let fresh: Vec<&mut Released> = open
            .released
            .iter_mut()
            .filter(|document| !document.reported)
            .collect();
        let Some(lineage) = fresh.first().map(|document| document.lineage) else {
            return Err(Fault::Malformed("a report of nothing released".to_owned()));
        };
        let marks: Vec<(RoleName, Mark)> = fresh
            .into_iter()
            .map(|document| {
                document.reported = true;
                (document.role.clone(), document.mark)
            })
            .collect();
        let gun = open.head.gun.clone();
        let cut: String = report.message.chars().take(MAX_MESSAGE).collect();
        let entry = NewEntry {
            kind: "publish",
            time: now(),
            gun: gun.to_string(),
            role: marks
                .iter()
                .map(|(role, _)| role.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            version: marks
                .iter()
                .map(|(_, mark)| mark.version)
                .max()
                .unwrap_or(0),
            summary: match report.http_status {
                0 => escape(&cut),
                status => format!("HTTP {status} {}", escape(&cut))
                    .trim_end()
                    .to_owned(),
            },
            caller: self.person.caller.describe(),
            outcome: word.to_owned(),
            facts: self.person.facts(""),
            ..NewEntry::default()
        };
        let mut turn = self.keyring.collections.enter(&gun, stream).await?;
        let root = open
            .released
            .iter()
            .filter(|document| arrived && document.role == RoleName::Root)
            .map(|document| document.wire(&open.items))
            .next_back();
        let history = turn.history(&gun, &self.keyring.recorder).await?;
        let state = history
            .collections
            .get(&lineage)
            .map(|state| published(state, &marks));
        let write = Report {
            gun: gun.clone(),
            lineage,
            released: marks,
            arrived,
            entry,
        };
        self.keyring.recorder.write(Write::Report(write)).await?;
        // Only now: until it had arrived, a base showed the root before it.
        if let (Some(root), Some(state)) = (root, state.clone()) {
            let gun = gun.clone();
            self.keyring
                .recorder
                .run(move |ledger| ledger.observe(&gun, lineage, Some(&root), &state))
                .await?;
        }
        if let Some(state) = state.filter(|_| arrived) {
            let mut history = Arc::unwrap_or_clone(history);
            history.collections.insert(lineage, state);
            turn.set_history(history);
        }
        if arrived {
            if let Some(open) = self.open.take() {
                advance(open, &mut turn);
            }
            // What comes on this stream is another change.
            self.earlier = None;
            self.person.forget();
        }
        drop(turn);
        stream.set_finishing(false);
        stream
            .send(event(sign_event::Event::Recorded(Recorded {})))
            .await
    }
}

/// The held base after what was released arrived.
fn advance(open: Open, turn: &mut Turn) {
    // A first root that goes up again is a base without timestamp: nothing to compare later ones with.
    let Some(base) = open.base.filter(|base| base.timestamp().is_some()) else {
        turn.held = None;
        return;
    };
    let Some(last) = open.released.last() else {
        return;
    };
    let (tip, lineage) = (last.mark.hash, last.lineage);
    let items = Arc::unwrap_or_clone(open.items);
    let bytes: usize = items.iter().map(|item| item.payload.bytes().len()).sum();
    let next = compute(bytes, || {
        let mut documents: Vec<(Item, Vec<Signature>)> = items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| {
                let released = open
                    .released
                    .iter()
                    .find(|document| document.item == index)?;
                Some((item, released.signatures.clone()))
            })
            .collect();
        // Who delegates comes before who is delegated to.
        documents.sort_by(|(a, _), (b, _)| a.role.cmp(&b.role));
        let mut documents = documents.into_iter();
        documents.try_fold(base, |base, (item, signatures)| {
            base.advanced_here(item, signatures)
        })
    });
    turn.held = next.map(|base| {
        let base = match base.lineage() {
            None => base.in_lineage(lineage),
            Some(_) => base,
        };
        Held::new(base, Some(tip))
    });
}

/// Whether both are of the same documents: bases share them when cloned.
fn is_same(held: &VerifiedBase, base: &VerifiedBase) -> bool {
    held.lineage() == base.lineage() && held.marks().eq(base.marks())
}

fn version(item: &Item) -> u32 {
    item.payload.document().map_or(0, Document::version)
}

/// The root by which later bases of this collection are known: its first one, or the newest that
/// the base shows. A rotated root is recorded when it has arrived.
fn root_to_record(
    pass: &Pass,
    base: Option<&VerifiedBase>,
    released: &[Released],
    items: &[Item],
) -> Option<Vec<u8>> {
    match base {
        Some(base) if pass.new_lineage || base.roots().len() > 1 => {
            Some(base.root().wire().to_vec())
        }
        Some(_) => None,
        None => released
            .iter()
            .find(|document| document.role == RoleName::Root)
            .map(|document| document.wire(items)),
    }
}

/// Version of recorded wire bytes of a root; 0 when they cannot be read.
pub(super) fn root_version(wire: &[u8]) -> u32 {
    Raw::<Root>::parse(wire.to_vec(), wire.len()).map_or(0, |root| root.claimed().version)
}

/// Adds to the words what the guard found: overrides, and what is replaced.
pub(super) fn describe(
    history: &History,
    pass: &Pass,
    supersedes: &[(RoleName, Mark, Option<String>)],
    head: &Head,
    lines: &mut Vec<String>,
) {
    for rule in &pass.overrides {
        lines.push(format!("overrides the rule `{rule}` (--allow {rule})"));
    }
    for (role, mark, when) in supersedes {
        let when = when
            .as_ref()
            .map(|when| format!(" of {when}"))
            .unwrap_or_default();
        lines.push(format!(
            "replaces v{}{when}, which the server does not have ({role} {}…)",
            mark.version,
            hex::encode(&mark.hash[..12])
        ));
    }
    if pass.new_lineage && !history.collections.is_empty() && pass.superseded_lineages.is_empty() {
        lines.push(format!(
            "begins a second collection under the name {}: everyone who pulled the other one will \
             be refused this one",
            head.gun
        ));
    }
    claims(head, lines);
}

/// Adds what the caller says of itself.
pub(in crate::keyring) fn claims(head: &Head, lines: &mut Vec<String>) {
    let claims = [
        ("image", &head.context.image),
        ("command", &head.context.command),
        ("server", &head.context.server),
    ];
    for (what, claim) in claims {
        if !claim.is_empty() {
            lines.push(format!("claimed {what}: {claim}"));
        }
    }
}
