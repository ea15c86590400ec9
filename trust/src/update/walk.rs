//! From the timestamp down to the last delegation.

use std::collections::VecDeque;

use super::{Fetched, Stage, Update, UpdateError, parse};
use crate::{
    document::{Body, Snapshot, Targets, Timestamp},
    role::RoleName,
    verify::{self, Signers, Verified, VerifyError, limit},
};

/// What a document delegates to, in its order. Names that are no direct children are not followed.
pub(super) fn children(role: &RoleName, document: &Targets) -> Vec<RoleName> {
    let listed = document.delegations.roles.iter().flatten();
    let names = listed.map(|delegation| &delegation.name);
    names
        .filter(|name| name.parent().as_ref() == Some(role))
        .cloned()
        .collect()
}

impl Update {
    /// After a document was taken: the next one. After a failure: the root, once, because its
    /// keys may have changed.
    pub(super) fn go_on(&mut self, taken: Result<(), UpdateError>) -> Result<(), UpdateError> {
        let gone_on = taken.and_then(|()| self.advance());
        match gone_on {
            Err(UpdateError::Unreachable) => Err(UpdateError::Unreachable),
            Err(_) if !self.retried && !self.offline => {
                self.retried = true;
                let known = self.root().wire();
                let stated = self.stated(&RoleName::Root);
                let stated = stated.filter(|meta| !verify::matches(meta, known)).cloned();
                self.stage = Stage::Root { stated };
                self.timestamp = None;
                // What was fetched need not be fetched again.
                self.cached.snapshot = self.snapshot.take().or(self.cached.snapshot.take());
                self.cached.targets.append(&mut self.targets);
                self.queue = VecDeque::from([RoleName::Targets]);
                self.skipped.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// Takes from the cache what it has, up to the first file that must be fetched.
    fn advance(&mut self) -> Result<(), UpdateError> {
        if self.snapshot.is_none() {
            let stated = self.stated_snapshot();
            let cached = self.cached.snapshot.clone();
            let Some(found) = cached.filter(|found| verify::matches(stated, found.wire())) else {
                self.stage = Stage::Snapshot;
                return Ok(());
            };
            self.check(&RoleName::Snapshot, &found)?;
            self.accept_snapshot(found)?;
        }
        while let Some(role) = self.queue.pop_front() {
            // One that is not the one wanted makes room for it; its version is remembered.
            let cached = self.cached.targets.remove(&role);
            let Some(stated) = self.stated(&role) else {
                continue;
            };
            match cached.filter(|found| verify::matches(stated, found.wire())) {
                Some(found) => {
                    let checked = self.check_targets(&role, &found);
                    self.accept_targets(&role, checked.map(|()| found))?;
                }
                None => {
                    self.stage = Stage::Targets(role);
                    return Ok(());
                }
            }
        }
        self.start_history();
        Ok(())
    }

    pub(super) fn receive_timestamp(&mut self, fetched: Fetched) -> Result<(), UpdateError> {
        let timestamp = match fetched {
            Fetched::Bytes(wire) if wire.len() > limit::TIMESTAMP => {
                let (size, limit) = (wire.len(), limit::TIMESTAMP);
                let source = crate::document::DocumentError::TooLarge { size, limit };
                return Err(VerifyError::Unreadable {
                    role: RoleName::Timestamp,
                    source,
                }
                .into());
            }
            Fetched::Bytes(wire) => self.read::<Timestamp>(&RoleName::Timestamp, wire)?,
            Fetched::Missing => return Err(UpdateError::NoTrustData(self.gun.clone())),
            Fetched::Unreachable => {
                let cached = self
                    .cached
                    .timestamp
                    .take()
                    .filter(|_| !self.options.for_write);
                let cached = cached.ok_or(UpdateError::Unreachable)?;
                self.offline = true;
                self.check(&RoleName::Timestamp, &cached)?;
                cached
            }
        };
        self.timestamp = Some(timestamp);
        Ok(())
    }

    pub(super) fn receive_snapshot(&mut self, fetched: Fetched) -> Result<(), UpdateError> {
        let role = RoleName::Snapshot;
        let wire = bytes(&role, fetched)?;
        if !verify::matches(self.stated_snapshot(), &wire) {
            return Err(VerifyError::Mismatch {
                role,
                listed_in: RoleName::Timestamp,
            }
            .into());
        }
        let snapshot = self.read(&role, wire)?;
        self.accept_snapshot(snapshot)
    }

    /// A snapshot that is to be believed; it must name the root that we trust, else there is a
    /// newer one.
    fn accept_snapshot(&mut self, snapshot: Verified<Snapshot>) -> Result<(), UpdateError> {
        let is_current = verify::matches(&snapshot.doc().meta[&RoleName::Root], self.root().wire());
        self.snapshot = Some(snapshot);
        if !is_current {
            let (role, listed_in) = (RoleName::Root, RoleName::Snapshot);
            return Err(VerifyError::Mismatch { role, listed_in }.into());
        }
        Ok(())
    }

    pub(super) fn receive_targets(
        &mut self,
        role: &RoleName,
        fetched: Fetched,
    ) -> Result<(), UpdateError> {
        let wire = bytes(role, fetched)?;
        let stated = self
            .stated(role)
            .expect("only roles of the snapshot are fetched");
        if !verify::matches(stated, &wire) {
            let (role, listed_in) = (role.clone(), RoleName::Snapshot);
            return Err(VerifyError::Mismatch { role, listed_in }.into());
        }
        let document = self.read_targets(role, wire);
        self.accept_targets(role, document)
    }

    /// What is wrong with `targets` is wrong with the collection; a delegation that is expired or
    /// not signed is left out, with all below it.
    fn accept_targets(
        &mut self,
        role: &RoleName,
        document: Result<Verified<Targets>, VerifyError>,
    ) -> Result<(), UpdateError> {
        match document {
            Ok(document) => {
                self.queue.extend(children(role, document.doc()));
                self.targets.insert(role.clone(), document);
                Ok(())
            }
            Err(
                reason @ (VerifyError::Expired { .. }
                | VerifyError::Threshold { .. }
                | VerifyError::Unreadable { .. }
                | VerifyError::UnknownRole(_)),
            ) if *role != RoleName::Targets => {
                self.skipped.push((role.clone(), reason));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Signatures, rollback and expiry of a document that a base role signs.
    fn check<T: Body>(&self, role: &RoleName, found: &Verified<T>) -> Result<(), VerifyError> {
        let now = self.options.now;
        let signers = verify::base_signers(self.root().doc(), role, &self.gun, now);
        found.verify_again(role, &signers)?;
        self.check_age(role, found)
    }

    fn check_targets(&self, role: &RoleName, found: &Verified<Targets>) -> Result<(), VerifyError> {
        let Some(parent) = role.parent() else {
            return self.check(role, found);
        };
        found.verify_again(role, &self.delegated(role, &parent)?)?;
        self.check_age(role, found)
    }

    fn read<T: Body>(&self, role: &RoleName, wire: Vec<u8>) -> Result<Verified<T>, VerifyError> {
        let now = self.options.now;
        let signers = verify::base_signers(self.root().doc(), role, &self.gun, now);
        let found = parse(role, wire)?.verify(role, &signers)?;
        self.check_age(role, &found)?;
        Ok(found)
    }

    fn read_targets(
        &self,
        role: &RoleName,
        wire: Vec<u8>,
    ) -> Result<Verified<Targets>, VerifyError> {
        let Some(parent) = role.parent() else {
            return self.read(role, wire);
        };
        let found = parse(role, wire)?.verify(role, &self.delegated(role, &parent)?)?;
        self.check_age(role, &found)?;
        Ok(found)
    }

    fn check_age<T: Body>(&self, role: &RoleName, found: &Verified<T>) -> Result<(), VerifyError> {
        self.cached.check_rollback(role, found.doc().version())?;
        found.check_expiry(role, self.options.now)
    }

    fn delegated(&self, role: &RoleName, parent: &RoleName) -> Result<Signers<'_>, VerifyError> {
        self.targets
            .get(parent)
            .and_then(|parent| verify::delegation_signers(parent.doc(), role))
            .ok_or_else(|| VerifyError::UnknownRole(role.clone()))
    }
}

fn bytes(role: &RoleName, fetched: Fetched) -> Result<Vec<u8>, UpdateError> {
    match fetched {
        Fetched::Bytes(wire) => Ok(wire),
        Fetched::Missing => Err(UpdateError::Missing(role.to_string())),
        Fetched::Unreachable => Err(UpdateError::Unreachable),
    }
}
