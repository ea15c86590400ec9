use std::sync::OnceLock;

use proptest::prelude::*;
use signet_proto::migration::{self, Head, Note, Offer, Receipt};
use signet_trust::{Algorithm, KeyId, PrivateKey};

use super::{old::Verdict, *};

const KEYS: usize = 3;
const ID: &str = "00112233445566778899aabbccddeeff";
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn keys() -> &'static [PrivateKey] {
    static KEY: OnceLock<Vec<PrivateKey>> = OnceLock::new();
    KEY.get_or_init(|| {
        (0..KEYS)
            .map(|_| PrivateKey::generate(Algorithm::Ed25519).unwrap())
            .collect()
    })
}

fn named(key: &PrivateKey) -> Named {
    Named {
        id: key.id().to_string(),
        role: "root".to_owned(),
        gun: String::new(),
        label: String::new(),
        store: "file".to_owned(),
    }
}

fn moved() -> Vec<(Named, PublicKey)> {
    let pair = |key: &PrivateKey| (named(key), key.public().clone());
    keys().iter().map(pair).collect()
}

fn begun() -> (New, Old) {
    let new = New::begin(ID.to_owned(), RECIPIENT.to_owned(), "new", 1);
    let mut old = Old::begin(&new.offer(), "old", "5".repeat(64), moved(), 2);
    old.packed("a".repeat(64));
    (new, old)
}

/// What `count` keys sign for `new`.
fn proofs(new: &New, mask: u8) -> Vec<(KeyId, Vec<u8>)> {
    let opens = keys()
        .iter()
        .enumerate()
        .filter(|(at, _)| mask & (1 << at) != 0);
    opens
        .map(|(_, key)| {
            let id = key.id();
            let statement = migration::statement(&new.id, &id.to_string(), new.nonce());
            (id, key.sign(statement.as_bytes()).unwrap())
        })
        .collect()
}

fn received(new: &mut New, old: &Old, mask: u8) -> Receipt {
    new.receive(&old.head(), &"a".repeat(64)).unwrap();
    new.prove(&proofs(new, mask));
    new.receipt().unwrap()
}

fn ids() -> Vec<KeyId> {
    keys().iter().map(PrivateKey::id).collect()
}

#[test]
fn a_receipt_retires_what_it_proves_and_the_note_closes() {
    let (mut new, mut old) = begun();
    let receipt = received(&mut new, &old, 7);
    let verdict = old.judge(&receipt).unwrap();
    let mut retire = verdict.retire.clone();
    retire.sort_unstable();
    let mut all = ids();
    all.sort_unstable();
    assert_eq!((retire, verdict.missing.len()), (all, 0));
    old.retiring(&verdict.retire);
    assert_eq!(old.to_remove().len(), KEYS);
    old.removed(&verdict.retire);
    assert_eq!((old.to_remove().len(), old.word()), (0, "retired"));
    assert_eq!(new.held_by_both(), KEYS);
    new.close(&old.note().unwrap()).unwrap();
    assert_eq!((new.state, new.held_by_both()), (NewState::Closed, 0));
}

#[test]
fn a_partial_receipt_retires_no_more_than_it_proves() {
    let (mut new, mut old) = begun();
    let receipt = received(&mut new, &old, 1);
    let verdict = old.judge(&receipt).unwrap();
    assert_eq!(verdict.retire, [keys()[0].id()]);
    assert_eq!(verdict.missing.len(), 2);
    old.retiring(&verdict.retire);
    assert_eq!(old.word(), "sent");
    // Read once more it has nothing left to retire.
    assert_eq!(old.judge(&receipt).unwrap().retire, []);
    // The rest is proved later, in the same migration.
    let rest = received(&mut new, &old, 6);
    assert_eq!(old.judge(&rest).unwrap().retire.len(), 2);
}

#[test]
fn one_false_proof_spoils_a_receipt() {
    let (mut new, old) = begun();
    let good = received(&mut new, &old, 7);
    let mut swapped = good.clone();
    swapped.proofs[0].signature = good.proofs[1].signature.clone();
    let id: KeyId = swapped.proofs[0].key.parse().unwrap();
    assert_eq!(old.judge(&swapped), Err(Refusal::Forged(id)));

    let other = Receipt {
        package: "b".repeat(64),
        ..good.clone()
    };
    assert_eq!(old.judge(&other), Err(Refusal::OtherPackage(ID.to_owned())));

    let stranger = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let mut foreign = good;
    foreign.proofs[0].key = stranger.id().to_string();
    assert_eq!(old.judge(&foreign), Err(Refusal::OtherKey(stranger.id())));
}

#[test]
fn proofs_of_another_migration_prove_nothing() {
    let (mut new, old) = begun();
    let receipt = received(&mut new, &old, 7);
    let offer = Offer {
        id: "f".repeat(32),
        ..new.offer()
    };
    let mut later = Old::begin(&offer, "old", "6".repeat(64), moved(), 3);
    later.packed("a".repeat(64));
    assert!(matches!(later.judge(&receipt), Err(Refusal::Other { .. })));
    let renamed = Receipt {
        id: offer.id,
        ..receipt
    };
    assert!(matches!(later.judge(&renamed), Err(Refusal::Forged(_))));
}

#[test]
fn a_closing_note_is_the_old_hosts_or_none() {
    let (mut new, mut old) = begun();
    let receipt = received(&mut new, &old, 3);
    old.retiring(&old.judge(&receipt).unwrap().retire);
    let note = old.note().unwrap();
    let more = Note {
        retired: ids().iter().map(ToString::to_string).collect(),
        ..note.clone()
    };
    assert_eq!(new.close(&more), Err(Refusal::NotSealed));
    assert_eq!(new.close(&note).unwrap().len(), 2);
    assert_eq!(new.held_by_both(), 0);
}

#[test]
fn what_is_cancelled_stays_and_no_receipt_retires_it() {
    let (mut new, mut old) = begun();
    let receipt = received(&mut new, &old, 7);
    old.cancel().unwrap();
    assert_eq!(old.judge(&receipt), Err(Refusal::Cancelled(ID.to_owned())));
    assert_eq!(
        old.again(&new.offer()),
        Err(Refusal::Cancelled(ID.to_owned()))
    );
    assert!(old.note().is_none());
}

#[test]
fn another_package_of_the_same_migration_must_be_of_the_same_host() {
    let (mut new, old) = begun();
    received(&mut new, &old, 1);
    let other = Head {
        nonce: "7".repeat(64),
        ..old.head()
    };
    assert_eq!(
        new.receive(&other, &"b".repeat(64)),
        Err(Refusal::SecondPackage(ID.to_owned()))
    );
    new.receive(&old.head(), &"c".repeat(64)).unwrap();
    assert_eq!(new.receipt().unwrap().proofs.len(), 1);
}

/// What is under way between the two hosts.
#[derive(Clone, Debug)]
enum Message {
    Offer(Offer),
    Package(Head, String),
    Receipt(Receipt),
    Note(Note),
}

/// What happens next: which message, and how.
#[derive(Clone, Debug)]
enum Event {
    /// The new host says its offer or receipt (again).
    NewSays,
    /// The old host packs (again), or says its note (again).
    OldSays,
    /// A message arrives; it may arrive again later. The mask: which keys open.
    Arrives {
        which: usize,
        again: bool,
        opens: u8,
    },
    /// A message is lost.
    Lost(usize),
    /// A message is changed on its way.
    Forged(usize),
    CancelOld,
    CancelNew,
    /// Both are killed and started again.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::NewSays),
        3 => Just(Event::OldSays),
        8 => (any::<usize>(), any::<bool>(), any::<u8>())
            .prop_map(|(which, again, opens)| Event::Arrives { which, again, opens }),
        2 => any::<usize>().prop_map(Event::Lost),
        2 => any::<usize>().prop_map(Event::Forged),
        1 => Just(Event::CancelOld),
        1 => Just(Event::CancelNew),
        2 => Just(Event::Restart),
    ]
}

struct World {
    new: New,
    old: Option<Old>,
    /// Keys that the new host holds.
    arrived: Vec<KeyId>,
    under_way: Vec<Message>,
    packages: usize,
}

impl World {
    fn new() -> Self {
        Self {
            new: New::begin(ID.to_owned(), RECIPIENT.to_owned(), "new", 1),
            old: None,
            arrived: Vec::new(),
            under_way: Vec::new(),
            packages: 0,
        }
    }

    fn new_says(&mut self) {
        if self.new.state == NewState::Offered {
            self.under_way.push(Message::Offer(self.new.offer()));
        } else if let Ok(receipt) = self.new.receipt() {
            self.under_way.push(Message::Receipt(receipt));
        }
    }

    fn pack(&mut self) {
        let Some(old) = &mut self.old else { return };
        if old.again(&self.new.offer()).is_ok() {
            self.packages += 1;
            let digest = format!("{:064x}", self.packages);
            old.packed(digest.clone());
            self.under_way.push(Message::Package(old.head(), digest));
        }
        self.under_way.extend(old.note().map(Message::Note));
    }

    fn arrives(&mut self, message: Message, opens: u8) {
        match message {
            Message::Offer(offer) => {
                if self.old.is_none() {
                    self.old = Some(Old::begin(&offer, "old", "5".repeat(64), moved(), 2));
                }
                self.pack();
            }
            Message::Package(head, digest) => {
                if self.new.receive(&head, &digest).is_ok() {
                    let made: Vec<_> = proofs(&self.new, opens)
                        .into_iter()
                        .filter(|(id, _)| head.keys.iter().any(|key| key.id == id.to_string()))
                        .collect();
                    // Taken in and proved in one transaction.
                    self.arrived.extend(made.iter().map(|(id, _)| *id));
                    self.new.prove(&made);
                }
            }
            Message::Receipt(receipt) => {
                let Some(old) = &mut self.old else { return };
                if let Ok(Verdict { retire, .. }) = old.judge(&receipt) {
                    old.retiring(&retire);
                }
            }
            Message::Note(note) => {
                let _ = self.new.close(&note);
            }
        }
    }

    fn restart(&mut self) {
        self.new = serde_json::from_str(&serde_json::to_string(&self.new).unwrap()).unwrap();
        if let Some(old) = &mut self.old {
            let mut again: Old =
                serde_json::from_str(&serde_json::to_string(old).unwrap()).unwrap();
            let ids = again.to_remove();
            again.removed(&ids);
            *old = again;
        }
    }

    fn forge(&mut self, which: usize) {
        let Some(at) = which.checked_rem(self.under_way.len()) else {
            return;
        };
        let before = (self.new.clone(), self.old.clone());
        let forged = match self.under_way[at].clone() {
            Message::Receipt(mut receipt) => {
                let Some(first) = receipt.proofs.first_mut() else {
                    return;
                };
                first.signature = "00".repeat(64);
                Message::Receipt(receipt)
            }
            Message::Note(mut note) => {
                note.retired = ids().iter().map(ToString::to_string).collect();
                note.mac = "0".repeat(64);
                Message::Note(note)
            }
            _ => return,
        };
        self.arrives(forged, 7);
        assert_eq!((&self.new, &self.old), (&before.0, &before.1), "forged");
    }

    /// What must always hold.
    fn check(&self) {
        for key in keys() {
            let id = key.id();
            let on_old = self.old.as_ref().is_none_or(|old| {
                let gone = [Departure::Retiring, Departure::Retired];
                !old.keys
                    .iter()
                    .any(|key| key.named.id == id.to_string() && gone.contains(&key.state))
            });
            let on_new = self.arrived.contains(&id);
            assert!(on_old || on_new, "{id} is on neither host");
            let told = self
                .new
                .keys
                .iter()
                .any(|key| key.named.id == id.to_string() && key.retired);
            assert!(!told || !on_old, "{id} is said to be retired and is not");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_loss_repetition_or_reordering_loses_a_key(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        let mut cancelled = false;
        for event in events {
            match event {
                Event::NewSays => world.new_says(),
                Event::OldSays => world.pack(),
                Event::Arrives { which, again, opens } => {
                    let Some(at) = which.checked_rem(world.under_way.len()) else { continue };
                    let message = match again {
                        true => world.under_way[at].clone(),
                        false => world.under_way.remove(at),
                    };
                    world.arrives(message, opens);
                }
                Event::Lost(which) => {
                    if let Some(at) = which.checked_rem(world.under_way.len()) {
                        world.under_way.remove(at);
                    }
                }
                Event::Forged(which) => world.forge(which),
                Event::CancelOld => {
                    if let Some(old) = &mut world.old {
                        cancelled |= old.cancel().is_ok();
                    }
                }
                Event::CancelNew => cancelled |= world.new.cancel().is_ok(),
                Event::Restart => world.restart(),
            }
            world.check();
        }
        if cancelled {
            return Ok(());
        }
        // Whatever was lost: said once more, in order, it comes to its end.
        world.under_way.clear();
        let offer = Message::Offer(world.new.offer());
        world.arrives(offer, 7);
        for message in std::mem::take(&mut world.under_way) {
            world.arrives(message, 7);
        }
        world.new_says();
        for message in std::mem::take(&mut world.under_way) {
            world.arrives(message, 7);
        }
        world.restart();
        world.pack();
        for message in std::mem::take(&mut world.under_way) {
            world.arrives(message, 7);
        }
        world.check();
        prop_assert_eq!(world.old.as_ref().map(Old::word), Some("retired"));
        prop_assert_eq!(world.new.state, NewState::Closed);
    }
}
