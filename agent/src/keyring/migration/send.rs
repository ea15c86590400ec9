//! The offer of the new host, and the package of the old one.

use std::{
    collections::BTreeMap, fs, io::Write as _, iter, os::unix::fs::MetadataExt as _, path::Path,
    time::UNIX_EPOCH,
};

use age::x25519::{Identity, Recipient};
use sha2::{Digest as _, Sha256};
use signet_proto::{
    archive::{
        Manifest, Writer,
        manifest::{self, FORMAT},
        path,
    },
    migration::{MEMBER, Offer, host_name},
    v1::{self, BackupDone, BackupRequest},
};
use signet_trust::{KeyId, KeyType, PublicKey, payload::escape};
use zeroize::Zeroizing;

use super::{
    Identities, Migrations, done, new_record, old_record, short, step_entry, tell_new, tell_old,
};
use crate::{
    backup::RECOVER,
    keyring::{
        Fault, Keyring, Person, StoreName,
        backup::{Include, Members, send_member},
        list::Listed,
    },
    migration::{Named, New, NewState, Old},
    presence::stream::Stream,
    service::now,
};

/// The member that a package travels as.
pub(super) const PACKAGE: &str = "package";

impl Keyring {
    /// New host: a one-time identity, and the line that says whom to encrypt to.
    pub(super) async fn offer(
        &self,
        offer: &v1::MigrateOffer,
        host: &str,
        home: &Path,
        person: &Person<'_>,
    ) -> Result<BackupDone, Fault> {
        let all = self.migrations().await?;
        let mut resumed = offer.resume.iter().filter_map(|id| all.received(id));
        let from = match offer.from.as_str() {
            "" => String::new(),
            from => host_name(from),
        };
        // A connection that dropped before the old host could know of it.
        let mut unused = all.new.iter().filter(|new| {
            new.state == NewState::Offered && !from.is_empty() && new.offered_to == from
        });
        let again = resumed.find(|new| new.is_open()).or_else(|| unused.next());
        if let Some(new) = again {
            let line = new.offer().to_string().into_bytes();
            return Ok(done(tell_new(new), line, 0));
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Fault::Internal("the system gives no randomness"))?;
        let id = hex::encode(id);
        let identity = Identity::generate();
        let mut new = New::begin(id.clone(), identity.to_public().to_string(), host, now());
        new.offered_to = from;
        let identities = Identities::of(home);
        let name = id.clone();
        self.file
            .run(move |_| identities.keep(&name, &identity))
            .await??;
        let entry = step_entry(
            "offer",
            format!("ready to receive keys, migration {id}"),
            person,
        );
        let number = self.record(new_record(&new), vec![entry]).await?;
        let line = new.offer().to_string().into_bytes();
        Ok(done(tell_new(&new), line, number))
    }

    /// Old host: packs the keys and holds them as leaving.
    pub(super) async fn send(
        &self,
        send: &v1::MigrateSend,
        host: &str,
        docker_dir: &str,
        home: &Path,
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<BackupDone, Fault> {
        let offer = Offer::parse(&send.offer).map_err(crate::migration::Refusal::from)?;
        let recipient: Recipient = offer.recipient.parse().map_err(|_| {
            Fault::Usage(
                "the offer is damaged: its recipient has a typing error; copy it whole".to_owned(),
            )
        })?;
        let all = self.migrations().await?;
        if all.received(&offer.id).is_some() {
            return Err(Fault::Usage(
                "this offer is this host's own: it is given to the host that has the keys"
                    .to_owned(),
            ));
        }
        let before = all.sent(&offer.id);
        if let Some(old) = before {
            old.again(&offer)?;
        }
        let listed = match before {
            Some(old) => self.still_leaving(old, docker_dir).await?,
            None => self.chosen(&send.keys, &all, docker_dir).await?,
        };
        if listed.is_empty() {
            return Err(Fault::Usage(
                "there is no key here that could move: keys on cards move only when they are \
                 named, with their card"
                    .to_owned(),
            ));
        }
        if listed.iter().any(|key| key.store == StoreName::Docker) {
            self.same_docker_dir(docker_dir)?;
        }
        let mut summary = vec![
            format!(
                "moves {} keys to {}, encrypted to",
                listed.len(),
                offer.host
            ),
            format!("  {}", offer.recipient),
        ];
        summary.extend(listed.iter().map(|key| format!("  {}", key.describe())));
        person.about(summary);
        if !send.compared {
            person
                .confirm(
                    stream,
                    &format!("Does {} show this same recipient?", offer.host),
                )
                .await?;
        }
        let (manifest, mut members) = self
            .pack_move(&offer, host, &listed, person, stream)
            .await?;
        let (keys, left) = movable(&manifest, &members, &listed);
        for id in &left {
            members.retain(|path, _| signet_proto::archive::key_of(path) != Some(id.as_str()));
        }
        let mut old = match before {
            Some(old) => old.clone(),
            None => {
                let mut nonce = [0; 32];
                getrandom::fill(&mut nonce)
                    .map_err(|_| Fault::Internal("the system gives no randomness"))?;
                Old::begin(&offer, host, hex::encode(nonce), keys, now())
            }
        };
        if old.is_over() {
            return Err(Fault::Usage(
                "none of the keys opened, so none can be told from another: give their passphrases"
                    .to_owned(),
            ));
        }
        let mut head = old.head();
        if head.keys.iter().any(|key| key.store == "docker") {
            head.docker = self.docker_mark();
        }
        members.insert(MEMBER.to_owned(), Zeroizing::new(head.to_json()));
        let unopened: BTreeMap<String, String> = manifest
            .keys
            .iter()
            .filter(|key| !key.problem.is_empty() && key.cards.is_empty())
            .map(|key| (key.id.clone(), key.problem.clone()))
            .collect();
        let package = packed(manifest, &members, &left, &recipient)?;
        let digest = hex::encode(Sha256::digest(&package));
        old.packed(digest.clone());
        let mut told = tell_old(&old);
        for key in &mut told.keys {
            // It moves all the same: the new host needs what opens it, not this one.
            if let Some(problem) = unopened.get(&key.key_id) {
                key.problem = format!("it did not open here: {problem}");
            }
        }
        told.keys.extend(unpacked(&listed, &left));
        let entry = step_entry(
            "send",
            format!(
                "migration {}: {} keys leave for {}, package {digest}",
                old.id,
                old.leaving().count(),
                old.to
            ),
            person,
        );
        let identities = Identities::of(home);
        self.file.run(move |_| identities.make_dir()).await??;
        // From here on a receipt for it counts: before anybody can have it.
        let number = self.record(old_record(&old), vec![entry]).await?;
        send_member(PACKAGE, &package, stream).await?;
        Ok(done(told, Vec::new(), number))
    }

    /// What tells this directory of Docker's keys from another: two homes that share one must not
    /// move keys to each other, for the old one would remove the files of both. Inode and birth are
    /// the same wherever the directory is seen from.
    pub(super) fn docker_mark(&self) -> String {
        let dir = self.docker_dir.join("trust").join("private");
        let Ok(facts) = fs::metadata(dir) else {
            return String::new();
        };
        let born = facts.created().ok();
        let born = born.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mark = format!("{} {:?}", facts.ino(), born.unwrap_or_default());
        hex::encode(Sha256::digest(mark))
    }

    /// Keys of a migration that is sent again.
    async fn still_leaving(&self, old: &Old, docker_dir: &str) -> Result<Vec<Listed>, Fault> {
        let ids: Vec<KeyId> = old.leaving().filter_map(Named::key_id).collect();
        let (listed, _) = self.list(docker_dir).await?;
        let wanted = listed.into_iter().filter(|key| ids.contains(&key.id));
        Ok(once_each(wanted.collect()))
    }

    /// The keys that a person asked for, or all that can move.
    async fn chosen(
        &self,
        names: &[String],
        all: &Migrations,
        docker_dir: &str,
    ) -> Result<Vec<Listed>, Fault> {
        let mut keys = Vec::new();
        if names.is_empty() {
            let (listed, _) = self.list(docker_dir).await?;
            let files = |key: &Listed| matches!(key.store, StoreName::File | StoreName::Docker);
            let here = |key: &Listed| matches!(key.info().state.as_str(), "enrolled" | "new");
            keys.extend(listed.into_iter().filter(|key| files(key) && here(key)));
        }
        for name in names {
            let key = self.find(name, docker_dir).await?;
            match key.info().state.as_str() {
                "enrolled" | "new" => keys.push(key),
                state => {
                    return Err(Fault::Usage(format!(
                        "{} cannot move: it is {state} here",
                        key.describe()
                    )));
                }
            }
        }
        let keys = once_each(keys);
        for old in all.old.iter().filter(|old| !old.cancelled) {
            let leaving: Vec<KeyId> = old.leaving().filter_map(Named::key_id).collect();
            if let Some(key) = keys.iter().find(|key| leaving.contains(&key.id)) {
                return Err(Fault::Usage(format!(
                    "{} is leaving for {} already, in migration {}: finish that one, or `signet \
                     migrate cancel {}`",
                    key.describe(),
                    old.to,
                    short(&old.id),
                    old.id
                )));
            }
        }
        Ok(keys)
    }

    async fn pack_move(
        &self,
        offer: &Offer,
        host: &str,
        listed: &[Listed],
        person: &mut Person<'_>,
        stream: &mut Stream<BackupRequest>,
    ) -> Result<(Manifest, Members), Fault> {
        let mut manifest = Manifest {
            format: FORMAT,
            id: offer.id.clone(),
            host: host.to_owned(),
            created: now(),
            signet: env!("CARGO_PKG_VERSION").to_owned(),
            keys: Vec::new(),
            files: Vec::new(),
            log: None,
            notes: Vec::new(),
        };
        let any = |store| listed.iter().any(|key| key.store == store);
        let include = Include {
            docker: any(StoreName::Docker),
            file: any(StoreName::File),
            cards: any(StoreName::Piv),
            state: true,
        };
        let mut members = Members::new();
        self.pack(
            &include,
            listed,
            &mut manifest,
            &mut members,
            person,
            stream,
        )
        .await?;
        self.pack_state(&mut manifest, &mut members).await?;
        // Settings are the host's own.
        members.remove(path::POLICY);
        members.insert(
            path::RECOVER.to_owned(),
            Zeroizing::new(RECOVER.as_bytes().to_vec()),
        );
        Ok((manifest, members))
    }
}

/// One key may lie in two stores: the enrolled one is meant.
fn once_each(keys: Vec<Listed>) -> Vec<Listed> {
    let mut once: BTreeMap<KeyId, Listed> = BTreeMap::new();
    for key in keys {
        match once.get(&key.id) {
            Some(known) if known.is_enrolled() => {}
            _ => {
                once.insert(key.id, key);
            }
        }
    }
    once.into_values().collect()
}

/// The keys that can move, with what proves them later; and the IDs of those that cannot.
fn movable(
    manifest: &Manifest,
    members: &Members,
    listed: &[Listed],
) -> (Vec<(Named, PublicKey)>, Vec<String>) {
    let mut keys = Vec::new();
    let mut left = Vec::new();
    for key in &manifest.keys {
        let here = listed.iter().find(|listed| listed.id.to_string() == key.id);
        let public = read_public(key).or_else(|| here.and_then(|here| here.public.clone()));
        let public = public.filter(|public| public.id().to_string() == key.id);
        let packed = !key.file.is_empty() && members.contains_key(&key.file);
        match public {
            Some(public) if packed || !key.cards.is_empty() => {
                let named = Named {
                    id: key.id.clone(),
                    role: key.role.clone(),
                    gun: key.gun.clone(),
                    label: key.label.clone(),
                    store: key.store.clone(),
                };
                keys.push((named, public));
            }
            _ => left.push(key.id.clone()),
        }
    }
    (keys, left)
}

fn read_public(key: &manifest::Key) -> Option<PublicKey> {
    let key_type = KeyType::from_name(&key.key_type)?;
    let public = hex::decode(&key.public)
        .ok()
        .filter(|public| !public.is_empty())?;
    Some(PublicKey::new(key_type, public))
}

/// What is said of keys that stay because nothing could tell a proof of theirs.
fn unpacked(listed: &[Listed], left: &[String]) -> Vec<v1::MigratingKey> {
    let stays = listed
        .iter()
        .filter(|key| left.contains(&key.id.to_string()));
    stays
        .map(|key| {
            let info = key.info();
            v1::MigratingKey {
                key_id: info.key_id,
                role: info.role,
                gun: info.gun,
                label: escape(&info.label),
                store: info.store,
                state: "stays".to_owned(),
                problem: "it did not open, and was never enrolled here: its passphrase is needed"
                    .to_owned(),
                exit: 5,
            }
        })
        .collect()
}

/// The package: an archive, encrypted to the offer's recipient.
fn packed(
    mut manifest: Manifest,
    members: &Members,
    left: &[String],
    recipient: &Recipient,
) -> Result<Vec<u8>, Fault> {
    let failed = |_| Fault::Internal("a package cannot be written to memory");
    manifest.keys.retain(|key| !left.contains(&key.id));
    for (path, data) in members {
        if signet_proto::archive::key_of(path).is_none() && path != MEMBER {
            manifest.files.push(manifest::File {
                path: path.clone(),
                sha256: signet_proto::archive::digest(data),
            });
        }
    }
    let recipients = iter::once(recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients)
        .map_err(|_| Fault::Internal("a package cannot be encrypted"))?;
    let out = encryptor.wrap_output(Vec::new()).map_err(failed)?;
    let time = u64::try_from(manifest.created).unwrap_or(0);
    let mut writer = Writer::new(out, time).map_err(failed)?;
    writer
        .add(path::MANIFEST, &manifest.to_json())
        .map_err(failed)?;
    for (path, data) in members {
        writer.add(path, data).map_err(failed)?;
    }
    let mut out = writer.finish().map_err(failed)?;
    out.flush().map_err(failed)?;
    out.finish().map_err(failed)
}
