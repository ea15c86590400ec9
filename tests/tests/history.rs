//! The real history of a repository, replayed through the agent's socket: what it shows of each
//! version, word for word. `tests/data/history/README.md` says where the history comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use signet_proto::v1::{self, report::Outcome, sign_event::Event, sign_request::Message};
use signet_tests::forge::{Forge, now};
use signet_tests::lab::command::clean;
use signet_tests::raw::{Ask, Raw, Talk, chunks};
use signet_tests::steps::files;
use signet_tests::{Home, Lab, Run};
use signet_trust::base::BaseDocuments;
use signet_trust::document::{Body, FileMeta, Root, Snapshot, Targets, Timestamp, to_wire};
use signet_trust::key::Method;
use signet_trust::keyfile::KeyFile;
use signet_trust::time::{Expiry, UnixTime, lifetime};
use signet_trust::verify::Raw as Document;
use signet_trust::{Algorithm, KeyId, PrivateKey, RoleName, Signature};

const GUN: &str = "registry.example.com/acme/app";
/// What `record.sh` used.
const ROOT_PASSPHRASE: &str = "history root passphrase";
const PASSPHRASE: &str = "history repository passphrase";
/// How long a server's timestamps last.
const FORTNIGHT: UnixTime = 14 * 24 * 60 * 60;
/// Larger than any recorded document.
const LIMIT: usize = 1 << 20;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/history")
}

/// One recorded step.
struct Step {
    name: String,
    documents: BTreeMap<RoleName, Vec<u8>>,
}

/// The private keys by the IDs that documents list.
struct Keys {
    held: BTreeMap<KeyId, (PathBuf, PrivateKey)>,
}

struct History {
    steps: Vec<Step>,
    keys: Keys,
}

impl History {
    fn unpacked(dir: &Path) -> Self {
        clean("tar")
            .arg("-xzf")
            .arg(data().join("history.tar.gz"))
            .arg("-C")
            .arg(dir)
            .run()
            .ok();
        let mut steps: BTreeMap<String, Step> = BTreeMap::new();
        for (path, content) in files(&dir.join("steps")) {
            let path = path.strip_prefix(dir.join("steps")).expect("found there");
            let (number, file) = path
                .to_str()
                .and_then(|path| path.split_once('/'))
                .expect("a directory for each step");
            let step = steps.entry(number.to_owned()).or_insert_with(|| Step {
                name: String::new(),
                documents: BTreeMap::new(),
            });
            match file.strip_suffix(".json") {
                Some(role) => {
                    let role = role.parse().expect("files are named by roles");
                    step.documents.insert(role, content);
                }
                None => {
                    let what = String::from_utf8(content).expect("words");
                    step.name = format!("{number} {}", what.trim());
                }
            }
        }
        let held = files(&dir.join("keys")).into_iter().map(|(path, pem)| {
            let file = KeyFile::parse(&pem).expect("notary's own file");
            let passphrase = match file.role.as_deref() {
                Some("root") => ROOT_PASSPHRASE,
                _ => PASSPHRASE,
            };
            let key = file.open(Some(passphrase.as_bytes())).expect("it opens");
            (key.id(), (path, key))
        });
        Self {
            steps: steps.into_values().collect(),
            keys: Keys {
                held: held.collect(),
            },
        }
    }
}

impl Keys {
    /// A key of the server's, which it never let go of: another one, always the same, stands in.
    fn stand_in(id: &KeyId) -> PrivateKey {
        let seed = <sha2::Sha256 as sha2::Digest>::digest(id.0).to_vec();
        PrivateKey::from_material(Algorithm::Ed25519, zeroize::Zeroizing::new(seed))
            .expect("any 32 bytes are a seed")
    }

    /// Has an agent take all of them in, labelled by their order of appearance.
    fn import(&self, home: &Home, history: &[Step]) {
        let mut order: Vec<KeyId> = Vec::new();
        for step in history {
            for (role, wire) in &step.documents {
                for id in signers(role, wire) {
                    if !order.contains(&id) {
                        order.push(id);
                    }
                }
            }
        }
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for id in order {
            let Some((path, _)) = self.by_listed(&id, history) else {
                continue;
            };
            let pem = fs::read(path).expect("just unpacked");
            let file = KeyFile::parse(&pem).expect("notary's own file");
            let role = file.role.expect("notary writes it");
            let name = role.strip_prefix("targets/").unwrap_or(&role);
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            let passphrase = if name == "root" {
                ROOT_PASSPHRASE
            } else {
                PASSPHRASE
            };
            home.with_descriptors(&[(3, passphrase)])
                .env("SIGNET_ROOT_PASSPHRASE_FILE", home.passphrase_file())
                .args(["key", "import", "--store", "file", "--passphrase-fd", "3"])
                .args(["--label", &format!("{name} {count}")])
                .arg(path)
                .run()
                .ok();
        }
    }

    /// The key that documents list under this ID; for root, that of a certificate.
    fn by_listed(&self, id: &KeyId, history: &[Step]) -> Option<&(PathBuf, PrivateKey)> {
        let certified = || {
            let wires = history
                .iter()
                .filter_map(|step| step.documents.get(&RoleName::Root));
            let mut roots = wires.map(|wire| parse::<Root>(wire));
            let listed = roots.find_map(|root| root.keys.get(id).cloned())?;
            self.held.get(&listed.canonical_id().ok()?)
        };
        self.held.get(id).or_else(certified)
    }
}

fn parse<T: Body>(wire: &[u8]) -> T {
    Document::<T>::parse(wire.to_vec(), LIMIT)
        .expect("notary wrote it")
        .claimed()
        .clone()
}

/// Who signed a recorded document.
fn signers(role: &RoleName, wire: &[u8]) -> Vec<KeyId> {
    fn ids<T: Body>(wire: &[u8]) -> Vec<KeyId> {
        let raw = Document::<T>::parse(wire.to_vec(), LIMIT).expect("notary wrote it");
        raw.signatures().iter().map(|one| one.key_id).collect()
    }
    match role {
        RoleName::Root => ids::<Root>(wire),
        RoleName::Snapshot => ids::<Snapshot>(wire),
        RoleName::Timestamp => ids::<Timestamp>(wire),
        _ => ids::<Targets>(wire),
    }
}

/// The replay: what a server would serve, and the agent that is asked.
struct Replay<'a> {
    history: &'a History,
    now: UnixTime,
    roots: Vec<Vec<u8>>,
    served: BTreeMap<RoleName, Vec<u8>>,
}

impl Replay<'_> {
    fn expires(&self, role: &RoleName) -> Expiry {
        Expiry::at(
            self.now
                + match role {
                    RoleName::Root => lifetime::ROOT,
                    RoleName::Timestamp => FORTNIGHT,
                    _ => lifetime::TARGETS,
                },
        )
    }

    /// A recorded root, dated anew, with our keys where the server's were.
    fn root(&self, wire: &[u8]) -> Root {
        let mut root: Root = parse(wire);
        root.expires = self.expires(&RoleName::Root);
        for role in [RoleName::Timestamp, RoleName::Snapshot] {
            let keys = root.roles.get_mut(&role).expect("all four are there");
            for id in &mut keys.key_ids {
                if self.history.keys.held.contains_key(id) {
                    continue;
                }
                let ours = Keys::stand_in(id);
                root.keys.remove(id);
                root.keys.insert(ours.id(), ours.public().clone());
                *id = ours.id();
            }
        }
        root
    }

    /// A recorded snapshot, dated anew, of what is served here.
    fn snapshot(&self, wire: &[u8]) -> Snapshot {
        let mut snapshot: Snapshot = parse(wire);
        snapshot.expires = self.expires(&RoleName::Snapshot);
        for (role, meta) in &mut snapshot.meta {
            let wire = match role {
                RoleName::Root => self.roots.last(),
                role => self.served.get(role),
            };
            *meta = FileMeta::of(wire.expect("what is listed was published"));
        }
        snapshot
    }

    /// The base of a request about these roles.
    fn base(&self, roles: &[&RoleName]) -> Option<BaseDocuments> {
        let listed: Snapshot = parse(self.served.get(&RoleName::Snapshot)?);
        let part = |role: &RoleName| {
            let asked = *role == RoleName::Targets || roles.contains(&role);
            asked && listed.meta.contains_key(role)
        };
        let targets = self.served.iter().filter(|(role, _)| part(role));
        Some(BaseDocuments {
            roots: self.roots.clone(),
            timestamp: self.served.get(&RoleName::Timestamp).cloned(),
            snapshot: self.served.get(&RoleName::Snapshot).cloned(),
            targets: targets
                .map(|(role, wire)| (role.clone(), wire.clone()))
                .collect(),
            unlisted: BTreeMap::new(),
        })
    }

    fn serve(&mut self, role: &RoleName, canonical: &[u8], signed: &[v1::ItemSignature]) {
        let signatures: Vec<Signature> = signed
            .iter()
            .filter(|one| one.role == role.as_str())
            .map(|one| Signature {
                key_id: one.key_id.parse().expect("an ID"),
                method: Method::from_name(&one.method).expect("a method"),
                bytes: one.signature.clone(),
            })
            .collect();
        let wire = to_wire(canonical, &signatures);
        match role {
            RoleName::Root => self.roots.push(wire),
            role => drop(self.served.insert(role.clone(), wire)),
        }
    }

    /// What the agent showed for a step: a list of lines for each of the two requests.
    fn step(&mut self, raw: &Raw, step: &Step) -> Vec<Vec<String>> {
        let documents = &step.documents;
        let mut items: Vec<(RoleName, Vec<u8>, Vec<KeyId>)> = Vec::new();
        for (role, wire) in documents {
            let canonical = match role {
                RoleName::Root => self.root(wire).canonical(),
                RoleName::Snapshot | RoleName::Timestamp => continue,
                role => {
                    let mut targets: Targets = parse(wire);
                    targets.expires = self.expires(role);
                    targets.canonical()
                }
            };
            items.push((role.clone(), canonical, signers(role, wire)));
        }
        let asked: Vec<&RoleName> = items.iter().map(|(role, ..)| role).collect();
        let mut ask = Ask::new(GUN, self.base(&asked));
        for (role, canonical, keys) in &items {
            ask = ask.bytes(role, canonical.clone(), keys);
        }

        let mut talk = raw.open();
        talk.start(&ask);
        let mut shown = Vec::new();
        let first = signed(&mut talk);
        for (role, canonical, _) in &items {
            self.serve(role, canonical, &first.signatures);
        }
        shown.push(first.summary);

        let wire = &documents[&RoleName::Snapshot];
        let keys = signers(&RoleName::Snapshot, wire);
        let snapshot = self.snapshot(wire);
        if self.history.keys.held.contains_key(&keys[0]) {
            let canonical = snapshot.canonical();
            let item = v1::Item {
                role: RoleName::Snapshot.as_str().to_owned(),
                size: canonical.len() as u64,
                key_ids: keys.iter().map(ToString::to_string).collect(),
            };
            talk.say(Message::Step(v1::Step { items: vec![item] }));
            for chunk in chunks(&canonical) {
                talk.send(chunk);
            }
            let second = signed(&mut talk);
            self.serve(&RoleName::Snapshot, &canonical, &second.signatures);
            shown.push(second.summary);
        } else {
            let ours = Keys::stand_in(&keys[0]);
            let wire = Forge::sign_by(&snapshot, &[(ours.id(), &ours)]);
            self.served.insert(RoleName::Snapshot, wire);
        }
        talk.say(Message::Report(v1::Report {
            outcome: Outcome::Published.into(),
            http_status: 200,
            message: String::new(),
        }));
        match talk.hear().expect("it is recorded") {
            Some(Event::Recorded(_)) => {}
            other => panic!("{}: {other:?}", step.name),
        }

        // What a server does by itself.
        let wire = &documents[&RoleName::Timestamp];
        let ours = Keys::stand_in(&signers(&RoleName::Timestamp, wire)[0]);
        let timestamp = Timestamp {
            expires: self.expires(&RoleName::Timestamp),
            meta: BTreeMap::from([(
                RoleName::Snapshot,
                FileMeta::of(&self.served[&RoleName::Snapshot]),
            )]),
            version: parse::<Timestamp>(wire).version,
        };
        let wire = Forge::sign_by(&timestamp, &[(ours.id(), &ours)]);
        self.served.insert(RoleName::Timestamp, wire);
        shown
    }
}

/// What is shown, in a form that is the same every day.
fn block(name: &str, shown: &[Vec<String>], now: UnixTime) -> String {
    let mut text = format!("== {name}\n");
    for (index, lines) in shown.iter().enumerate() {
        if index > 0 {
            text += "-- and then\n";
        }
        for line in lines {
            text += &format!("{line}\n");
        }
    }
    for (words, lasts) in [("10-YEARS", lifetime::ROOT), ("3-YEARS", lifetime::TARGETS)] {
        let at = Expiry::at(now + lasts);
        let (day, _) = at.as_str().split_once('T').expect("a date and a time");
        text = text.replace(day, words);
    }
    text
}

#[test]
fn every_version_of_a_real_history_is_shown_word_for_word() {
    let lab = Lab::builder().build();
    let home = lab.home();
    home.has_keyrings();
    home.unlocks();
    let history = History::unpacked(&lab.fresh_dir("history"));
    history.keys.import(&home, &history.steps);
    let raw = Raw::connect(&home);
    let mut replay = Replay {
        history: &history,
        now: now(),
        roots: Vec::new(),
        served: BTreeMap::new(),
    };
    let mut text = String::new();
    let mut words = Vec::new();
    for step in &history.steps {
        let shown = replay.step(&raw, step);
        text += &block(&step.name, &shown, replay.now);
        words.extend(shown);
    }
    assert!(history.steps.len() >= 50, "{}", history.steps.len());

    let golden = data().join("summaries.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &text).expect("the source is ours");
    }
    let wanted = fs::read_to_string(&golden).expect("it is part of the source");
    for (is, should) in text.split("== ").zip(wanted.split("== ")) {
        assert_eq!(is, should, "the words have changed");
    }
    assert_eq!(text.len(), wanted.len(), "a step more, or less");

    // The log has the same words, one entry for each signature.
    let log = raw.log();
    let mut logged: Vec<&str> = log
        .iter()
        .filter(|entry| entry.kind == "sign")
        .map(|entry| entry.summary.as_str())
        .collect();
    logged.dedup();
    let words: Vec<String> = words.iter().map(|lines| lines.join("; ")).collect();
    assert_eq!(logged, words);
    home.signet().args(["log", "verify"]).run().ok();
}

/// Hears until something is signed; whoever is asked on the way reads the very words that come
/// with the signatures.
fn signed(talk: &mut Talk<'_>) -> v1::Signed {
    let mut asked = Vec::new();
    loop {
        match talk.hear().expect("it is signed") {
            Some(Event::Prompt(prompt)) => {
                let Some(v1::prompt::Ask::Passphrase(passphrase)) = &prompt.ask else {
                    panic!("{prompt:?}")
                };
                asked.push(passphrase.summary.clone());
                talk.answer(&prompt);
            }
            Some(Event::Signed(signed)) => {
                assert!(
                    asked.iter().all(|words| *words == signed.summary),
                    "{asked:?}"
                );
                return signed;
            }
            Some(Event::Queued(_) | Event::Notice(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
