//! The two steps of signing: what to sign, who signs it, and what comes of it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Edit, EditError, Holds, SigningRequest, roles::held_signers};
use crate::{
    document::{Body, FileMeta, Snapshot, to_wire},
    key::{KeyError, PublicKey, Signature},
    role::RoleName,
    time::{Expiry, lifetime},
    verify::{self, Signers, Verified},
};

impl Edit {
    /// First step: root (if new, or within six months of its end and its key held), then every
    /// changed targets role.
    ///
    /// # Errors
    ///
    /// [`EditError::NoKey`]; [`EditError::BadTag`] when a published tag cannot be written again.
    pub fn requests(&self, held: &dyn Holds) -> Result<Vec<SigningRequest>, EditError> {
        let mut requests = Vec::new();
        if let Some(root) = &self.root.draft {
            match held_signers(&RoleName::Root, &self.signers(&RoleName::Root)?, held) {
                Ok(key_ids) => requests.push(SigningRequest {
                    role: RoleName::Root,
                    payload: Arc::new(root.canonical()),
                    key_ids,
                }),
                Err(error) if self.root.draft_is_needed => return Err(error),
                Err(_) => {}
            }
        }
        for (role, draft) in &self.drafts {
            if let Some(tag) = draft.unwritable() {
                let why = "it is published with a control character, which Go cannot write";
                return Err(EditError::BadTag { tag, why });
            }
            let key_ids = held_signers(role, &self.signers(role)?, held)?;
            requests.push(SigningRequest {
                role: role.clone(),
                payload: Arc::clone(draft.payload()),
                key_ids,
            });
        }
        Ok(requests)
    }

    /// Takes the signatures of a step; each is verified.
    ///
    /// # Errors
    ///
    /// [`EditError::Key`] when one does not hold.
    pub fn sign(&mut self, role: &RoleName, signatures: Vec<Signature>) -> Result<(), EditError> {
        let payload = match role {
            RoleName::Root => self.root.draft.as_ref().map(Body::canonical),
            RoleName::Snapshot => self.snapshot.draft.as_ref().map(Body::canonical),
            _ => None,
        };
        let payload = match (&payload, self.drafts.get(role)) {
            (Some(payload), _) => payload.as_slice(),
            (None, Some(draft)) => draft.payload(),
            (None, None) => return Err(EditError::UnknownRole(role.clone())),
        };
        let signers = self.signers(role)?;
        for signature in &signatures {
            let key = signers.keys.iter().find(|(id, _)| *id == signature.key_id);
            let held = match key {
                Some((_, key)) => key.verify(signature.method, payload, &signature.bytes),
                None => Err(KeyError::BadSignature),
            };
            held.map_err(|source| EditError::Key {
                role: role.clone(),
                source,
            })?;
        }
        let all = match role {
            RoleName::Root => &mut self.root.signatures,
            RoleName::Snapshot => &mut self.snapshot.signatures,
            _ => match self.drafts.get_mut(role) {
                Some(draft) => draft.signatures_mut(),
                None => return Err(EditError::UnknownRole(role.clone())),
            },
        };
        for signature in signatures {
            all.retain(|earlier| earlier.key_id != signature.key_id);
            all.push(signature);
        }
        if *role != RoleName::Snapshot {
            self.snapshot.changed();
        }
        Ok(())
    }

    /// Second step: the snapshot, when its key is held by the client; `None` when the server's.
    ///
    /// # Errors
    ///
    /// [`EditError::NoKey`] when the collection's snapshot key is neither ours nor, as far as the
    /// caller knows, the server's: `server_key` holds the key the server answered with. Without an
    /// answer, a key that is not held is taken to be the server's, as the Go client does: the
    /// server refuses an upload that lacks a snapshot which it cannot make.
    /// [`EditError::Unsigned`] when a document of the first step is not signed.
    pub fn snapshot_request(
        &mut self,
        held: &dyn Holds,
        server_key: Option<&PublicKey>,
    ) -> Result<Option<SigningRequest>, EditError> {
        let signers = self.signers(&RoleName::Snapshot)?;
        let key_ids = match held_signers(&RoleName::Snapshot, &signers, held) {
            Ok(key_ids) => key_ids,
            Err(no_key) => {
                let id = server_key.map(PublicKey::id);
                let is_servers = id.is_none_or(|id| signers.keys.iter().any(|(key, _)| *key == id));
                return match is_servers && !self.snapshot.must_be_ours {
                    true => Ok(None),
                    false => Err(no_key),
                };
            }
        };
        let mut meta = match &self.snapshot.published {
            Some(snapshot) => snapshot.doc().meta.clone(),
            None => BTreeMap::new(),
        };
        for role in self.drafts.keys() {
            let wire = self
                .wire(role)
                .ok_or_else(|| EditError::Unsigned(role.clone()))?;
            meta.insert(role.clone(), FileMeta::of(&wire));
        }
        match self.wire(&RoleName::Root) {
            Some(root) => {
                meta.insert(RoleName::Root, FileMeta::of(&root));
            }
            None if self.root.draft_is_needed => return Err(EditError::Unsigned(RoleName::Root)),
            None => {}
        }
        let snapshot = Snapshot {
            expires: Expiry::at(self.now.saturating_add(lifetime::SNAPSHOT)),
            meta,
            version: self.snapshot.version,
        };
        let payload = snapshot.canonical();
        self.snapshot.changed();
        self.snapshot.draft = Some(snapshot);
        Ok(Some(SigningRequest {
            role: RoleName::Snapshot,
            payload: Arc::new(payload),
            key_ids,
        }))
    }

    /// The wire bytes of everything signed, for one upload.
    #[must_use]
    pub fn finish(mut self) -> BTreeMap<RoleName, Vec<u8>> {
        let mut files: BTreeMap<RoleName, Vec<u8>> = [RoleName::Root, RoleName::Snapshot]
            .into_iter()
            .filter_map(|role| self.wire(&role).map(|wire| (role, wire)))
            .collect();
        let mut drafts = std::mem::take(&mut self.drafts);
        drafts.retain(|role, draft| self.is_signed(role, draft.signatures()));
        // What the drafts replace is not needed any more, and may be large.
        drop(self);
        let drafts = drafts.into_iter();
        files.extend(drafts.map(|(role, draft)| (role, draft.into_wire())));
        files
    }

    /// Whether these are as many signatures as the role needs.
    fn is_signed(&self, role: &RoleName, signatures: &[Signature]) -> bool {
        self.signers(role).is_ok_and(|signers| {
            usize::try_from(signers.threshold).is_ok_and(|wanted| signatures.len() >= wanted)
        })
    }

    /// What would be uploaded for a role: its document, once a threshold signed it.
    fn wire(&self, role: &RoleName) -> Option<Vec<u8>> {
        let enough = |signatures: &[Signature]| self.is_signed(role, signatures).then_some(());
        match role {
            RoleName::Root if self.root.upload_current => {
                self.root.current.as_ref().map(|root| root.wire().to_vec())
            }
            RoleName::Root => {
                let payload = self.root.draft.as_ref()?.canonical();
                enough(&self.root.signatures)?;
                Some(to_wire(&payload, &self.root.signatures))
            }
            RoleName::Snapshot => {
                let payload = self.snapshot.draft.as_ref()?.canonical();
                enough(&self.snapshot.signatures)?;
                Some(to_wire(&payload, &self.snapshot.signatures))
            }
            _ => {
                let draft = self.drafts.get(role)?;
                enough(draft.signatures())?;
                Some(to_wire(draft.payload(), draft.signatures()))
            }
        }
    }

    /// Who signs for a role by the root and delegations in force.
    pub(super) fn signers(&self, role: &RoleName) -> Result<Signers<'_>, EditError> {
        let unknown = || EditError::UnknownRole(role.clone());
        match role.parent() {
            Some(parent) => {
                let parent = self.published.get(&parent).ok_or_else(unknown)?;
                verify::delegation_signers(parent.doc(), role).ok_or_else(unknown)
            }
            None => {
                let current = self.root.current.as_ref().map(Verified::doc);
                let root = self.root.draft.as_ref().or(current).ok_or_else(unknown)?;
                Ok(verify::base_signers(root, role, &self.gun, self.now))
            }
        }
    }
}
