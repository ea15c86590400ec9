//! Signing with keys on cards: which card, waiting for it, and for the finger.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use signet_proto::v1::{self, Waiting, waiting::What};
use signet_trust::KeyId;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until, timeout_at},
};

use super::{Present, holder::holder};
use crate::{
    keyring::{Fault, Keyring, Person, person::Work},
    presence::{
        CardName, Wait,
        notice::{Kind, Notifier, Shown},
        question::card_name,
        stream::{Carries, Stream},
    },
    store::{
        Purpose, StoreError,
        piv::{CardFault, CardStore, ToSign},
    },
};

/// How long a card is waited for.
const INSERTION: Duration = Duration::from_secs(60);
/// How long another program may keep a card.
const BUSY: Duration = Duration::from_secs(30);
/// The same, where nobody is there to end it.
const BUSY_UNATTENDED: Duration = Duration::from_secs(5);
/// How often a card that another program holds is tried.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the card waits for a finger (Yubico, "touch policy").
const TOUCH: u32 = 15;
/// Grade of a touch.
const TOUCHED: u32 = 4;
/// Cards that go away in the middle of one signature.
const MAX_LOST: u32 = 5;

/// A signature that is asked for by a key on cards.
#[derive(Clone, Debug)]
pub(in crate::keyring) struct OnCards {
    pub(in crate::keyring) id: KeyId,
    pub(in crate::keyring) purpose: Purpose,
    pub(in crate::keyring) message: Arc<[u8]>,
}

impl OnCards {
    fn borrow(&self) -> ToSign<'_> {
        ToSign {
            id: self.id,
            purpose: self.purpose,
            message: &self.message,
        }
    }
}

/// What cards tell of what they wait for, and what of it the caller was told.
#[derive(Debug)]
pub(in crate::keyring) struct Listening {
    notifier: Notifier,
    sender: UnboundedSender<Wait>,
    waits: UnboundedReceiver<Wait>,
}

impl Listening {
    pub(in crate::keyring) fn new(notifier: &Notifier) -> Self {
        let (sender, waits) = unbounded_channel();
        Self {
            notifier: notifier.clone(),
            sender,
            waits,
        }
    }

    pub(in crate::keyring) fn sender(&self) -> UnboundedSender<Wait> {
        self.sender.clone()
    }

    /// Waits for the work of a card, and tells the caller what it waits for meanwhile.
    pub(in crate::keyring) async fn attend<T, M: Carries>(
        &mut self,
        stream: &Stream<M>,
        summary: &[String],
        there: bool,
        work: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let mut work = std::pin::pin!(work);
        let mut pending: Option<(Wait, Instant)> = None;
        let mut said = false;
        let mut held: Option<(CardName, Instant)> = None;
        let mut notice = None;
        let far = Instant::now() + Duration::from_secs(3600);
        let done = loop {
            let due = pending.as_ref().map_or(far, |(_, due)| *due);
            let until = held.as_ref().map_or(far, |(_, until)| *until);
            tokio::select! {
                biased;
                wait = self.waits.recv() => {
                    pending = match wait {
                        Some(Wait::Over) | None => {
                            held = None;
                            notice = None;
                            if std::mem::take(&mut said) {
                                tell(stream, What::Over(v1::WaitOver {})).await;
                            }
                            None
                        }
                        Some(wait) => {
                            let after = match &wait {
                                Wait::Touch { after, .. } | Wait::Busy { after, .. } => *after,
                                Wait::Over => Duration::ZERO,
                            };
                            Some((wait, Instant::now() + after))
                        }
                    };
                    // At once means before anything else is looked at.
                    if pending.as_ref().is_some_and(|(_, due)| *due <= Instant::now())
                        && let Some((wait, _)) = pending.take()
                    {
                        said = true;
                        notice = self.notice(&wait, summary);
                        say(stream, wait, summary).await;
                    }
                }
                done = &mut work => break done,
                () = sleep_until(until), if held.is_some() => {
                    let card = held.take().map(|(card, _)| card.to_string());
                    return Err(StoreError::from(CardFault::Busy {
                        card: card.unwrap_or_default(),
                        holder: holder_or_another().await,
                    }).into());
                }
                () = sleep_until(due), if pending.is_some() => {
                    if let Some((wait, _)) = pending.take() {
                        said = true;
                        if let Wait::Busy { card, .. } = &wait {
                            let time = if there { BUSY } else { BUSY_UNATTENDED };
                            held = Some((card.clone(), Instant::now() + time));
                        }
                        notice = self.notice(&wait, summary);
                        say(stream, wait, summary).await;
                    }
                }
            }
        };
        drop(notice);
        // What was said in the last moment belongs to this work.
        while let Ok(wait) = self.waits.try_recv() {
            tracing::trace!(?wait, "said too late");
        }
        if said {
            tell(stream, What::Over(v1::WaitOver {})).await;
        }
        Ok(done)
    }

    /// For those who look elsewhere: a finger is wanted.
    fn notice(&self, wait: &Wait, summary: &[String]) -> Option<Shown> {
        let Wait::Touch {
            card,
            role,
            gun,
            label,
            ..
        } = wait
        else {
            return None;
        };
        let mut lines = vec![match gun.is_empty() {
            true => format!("{role} key"),
            false => format!("{role} key of {gun}"),
        }];
        if let (Some(line), false) = (lines.first_mut(), label.is_empty()) {
            line.push_str(&format!(" ({label:?})"));
        }
        lines.extend(summary.iter().cloned());
        let title = format!("Touch {card} now");
        Some(self.notifier.show(Kind::Touch, &title, &lines))
    }
}

/// Who holds the card, as far as it can be known.
async fn holder_or_another() -> String {
    let who = tokio::task::spawn_blocking(holder)
        .await
        .unwrap_or_default();
    match who.is_empty() {
        true => "another program".to_owned(),
        false => who,
    }
}

async fn say<M: Carries>(stream: &Stream<M>, wait: Wait, summary: &[String]) {
    let what = match wait {
        Wait::Touch {
            card,
            role,
            gun,
            label,
            ..
        } => What::Touch(v1::TouchNow {
            card: Some(card_name(&card)),
            seconds: TOUCH,
            role,
            gun,
            label,
            summary: summary.to_vec(),
        }),
        Wait::Busy { card, .. } => busy(&card).await,
        Wait::Over => return,
    };
    tell(stream, what).await;
}

async fn busy(card: &CardName) -> What {
    let holder = tokio::task::spawn_blocking(holder).await;
    What::Busy(v1::Busy {
        card: Some(card_name(card)),
        holder: holder.unwrap_or_default(),
        seconds: u32::try_from(BUSY.as_secs()).unwrap_or(u32::MAX),
    })
}

/// Says that none of these cards is there until `found` resolves or the time is over.
pub(super) async fn tell_missing<T, M: Carries>(
    stream: &mut Stream<M>,
    cards: &[CardName],
    time: Duration,
    found: impl Future<Output = T>,
) -> Result<Option<T>, Fault> {
    let missing = What::Missing(v1::CardMissing {
        cards: cards.iter().map(card_name).collect(),
        seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
    });
    tell(stream, missing).await;
    let found = stream
        .while_there(timeout_at(Instant::now() + time, found))
        .await?;
    tell(stream, What::Over(v1::WaitOver {})).await;
    Ok(found.ok())
}

/// A caller that is gone is noticed by whoever sends next.
async fn tell<M: Carries>(stream: &Stream<M>, what: What) {
    let _ = stream.wait(Waiting { what: Some(what) }).await;
}

impl Keyring {
    /// Signs with keys on whichever cards hold them, and says where for the log. What one card may
    /// sign together it signs together.
    pub(in crate::keyring) async fn sign_on_cards<M: Carries>(
        &self,
        asked: &[OnCards],
        fresh: bool,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Vec<(Vec<u8>, String)>, Fault> {
        person.show(stream);
        let mut signed: BTreeMap<usize, (Vec<u8>, String)> = BTreeMap::new();
        while let Some(next) = (0..asked.len()).find(|at| !signed.contains_key(at)) {
            let rest: Vec<(usize, OnCards)> = (next..)
                .zip(asked.iter().skip(next))
                .filter(|(at, _)| !signed.contains_key(at))
                .map(|(at, asked)| (at, asked.clone()))
                .collect();
            let made = self.sign_on_card(&rest, fresh, person, stream).await?;
            signed.extend(made);
        }
        Ok(signed.into_values().collect())
    }

    /// Makes the first of these signatures, with those that the same card may make with it; waiting
    /// for the card where somebody is there to put it in, and asking for another touch where one was
    /// missed.
    async fn sign_on_card<M: Carries>(
        &self,
        asked: &[(usize, OnCards)],
        fresh: bool,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Vec<(usize, (Vec<u8>, String))>, Fault> {
        let Some((_, OnCards { id: first, .. })) = asked.first() else {
            return Ok(Vec::new());
        };
        let mut lost = 0;
        let mut busy_since: Option<Instant> = None;
        loop {
            let card = self.card_with(*first, person, stream).await?;
            let together = |id: &KeyId| {
                let slot = card.facts.slot_of(id);
                slot.is_some_and(|slot| slot.problem.is_none() && slot.is_signed_together())
            };
            let mine: Vec<(usize, OnCards)> = asked
                .iter()
                .enumerate()
                .filter(|(at, (_, asked))| *at == 0 || (together(first) && together(&asked.id)))
                .map(|(_, asked)| asked.clone())
                .collect();
            let job = mine.clone();
            let work: Work<CardStore, _> = Arc::new(move |store, presence| {
                let asked: Vec<ToSign<'_>> = job.iter().map(|(_, asked)| asked.borrow()).collect();
                store.sign_all(&asked, presence)
            });
            let signed = person.with_card(&card.worker, stream, fresh, work).await;
            let fault = match signed {
                Err(Fault::Store(StoreError::Card(fault))) => fault,
                Err(fault) => return Err(fault),
                Ok(signatures) => {
                    let how = match person.grade() {
                        TOUCHED => "touched",
                        0 => "by the PIN held",
                        _ => "by the PIN given",
                    };
                    let place = |id: &KeyId| {
                        let slot = card.facts.slot_of(id).map(|slot| slot.slot.to_string());
                        format!("on {} slot {}, {how}", card.name, slot.unwrap_or_default())
                    };
                    let made = mine.iter().zip(signatures);
                    return Ok(made
                        .map(|((at, asked), signature)| (*at, (signature, place(&asked.id))))
                        .collect());
                }
            };
            let fault = match fault {
                CardFault::Missing(_) | CardFault::Swapped(_) | CardFault::NoService
                    if person.is_there() && lost < MAX_LOST =>
                {
                    lost += 1;
                    self.left_behind(&card, stream).await?;
                    continue;
                }
                CardFault::NotTouched(name) if person.is_there() && lost < MAX_LOST => {
                    lost += 1;
                    let question = format!("{name} was not touched in time. Try again?");
                    match person.confirm(stream, &question).await {
                        Ok(_) => continue,
                        Err(Fault::Declined) => CardFault::NotTouched(name),
                        Err(fault) => return Err(fault),
                    }
                }
                CardFault::Busy { card: name, .. } => {
                    let since = *busy_since.get_or_insert_with(Instant::now);
                    if person.is_there() && person.can_go_on() && since.elapsed() < BUSY {
                        if since.elapsed() < AGAIN {
                            tell(stream, busy(&card.name).await).await;
                        }
                        let again = tokio::time::sleep(AGAIN);
                        stream.while_there(again).await?;
                        continue;
                    }
                    let who = tokio::task::spawn_blocking(holder)
                        .await
                        .unwrap_or_default();
                    CardFault::Busy {
                        card: name,
                        holder: match who.is_empty() {
                            true => "another program".to_owned(),
                            false => who,
                        },
                    }
                }
                fault => fault,
            };
            return Err(Fault::from(StoreError::from(fault)));
        }
    }

    /// Until the watcher has noticed as well that the card is gone, or back.
    async fn left_behind<M: Carries>(
        &self,
        card: &Present,
        stream: &mut Stream<M>,
    ) -> Result<(), Fault> {
        /// pcscd looks at its readers every 400 ms.
        const NOTICED: Duration = Duration::from_secs(3);
        let mut changes = self.cards.changes();
        let deadline = Instant::now() + NOTICED;
        let noticed = async {
            loop {
                changes.borrow_and_update();
                let there = self.cards.present();
                let same = |there: &Present| Arc::ptr_eq(&there.worker, &card.worker);
                if !there.iter().any(same) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // One that comes back so quickly that nobody saw it go is simply used again.
        let _ = stream.while_there(timeout_at(deadline, noticed)).await?;
        Ok(())
    }

    /// A card in a reader that holds the key, waited for where somebody is there.
    pub(in crate::keyring) async fn card_with<M: Carries>(
        &self,
        id: KeyId,
        person: &mut Person<'_>,
        stream: &mut Stream<M>,
    ) -> Result<Present, Fault> {
        if let Some((card, _)) = self.cards.with_key(&id).into_iter().next() {
            return Ok(card);
        }
        self.cards.settle().await;
        if let Some((card, _)) = self.cards.with_key(&id).into_iter().next() {
            return Ok(card);
        }
        let names: Vec<CardName> = self
            .index()
            .get(&id)
            .map(|entry| {
                let place = |place: &crate::ledger::Place| CardName {
                    slot: place.slot.clone(),
                    ..self.cards.name(place.serial)
                };
                entry.places.iter().map(place).collect()
            })
            .unwrap_or_default();
        if let Some(obstacle) = self.cards.obstacle() {
            return Err(StoreError::from(obstacle).into());
        }
        // A card that is there without the key that it should hold is not waited for.
        for name in &names {
            if let Some(there) = self.cards.with_serial(name.serial) {
                let slot = name.slot.parse().ok();
                if let (Some(slot), [_]) = (slot, names.as_slice()) {
                    let empty = CardFault::Empty {
                        card: there.name,
                        slot,
                    };
                    return Err(StoreError::from(empty).into());
                }
            }
        }
        if !person.is_there() {
            return Err(StoreError::from(CardFault::Missing(names)).into());
        }
        let found = tell_missing(stream, &names, INSERTION, self.appears(id)).await?;
        found.ok_or_else(|| StoreError::from(CardFault::Missing(names)).into())
    }

    async fn appears(&self, id: KeyId) -> Present {
        /// Where the watcher gave up, it is woken this often while somebody waits.
        const WAKE: Duration = Duration::from_secs(2);
        let mut changes = self.cards.changes();
        loop {
            changes.borrow_and_update();
            if let Some((card, _)) = self.cards.with_key(&id).into_iter().next() {
                return card;
            }
            let _ = timeout_at(Instant::now() + WAKE, changes.changed()).await;
            self.cards.watch().await;
        }
    }
}
