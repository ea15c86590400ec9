//! Trust in a newer root: directly, or one by one from the last that is trusted.

use super::{Fetched, Stage, Update, UpdateError, parse};
use crate::{
    document::{FileMeta, Root},
    pin::Pin,
    role::RoleName,
    verify::{self, Raw, VerifyError},
};

impl Update {
    /// The newest root, or what the server says it is.
    pub(super) fn receive_root(
        &mut self,
        fetched: Fetched,
        stated: Option<&FileMeta>,
    ) -> Result<(), UpdateError> {
        let wire = match fetched {
            Fetched::Bytes(wire) => wire,
            Fetched::Missing if stated.is_some() => {
                self.stage = Stage::Root { stated: None };
                return Ok(());
            }
            Fetched::Missing => return Err(UpdateError::NoTrustData(self.gun.clone())),
            Fetched::Unreachable => {
                // An expired anchor is why we came here: that is the better reason.
                if let Some(root) = self.roots.last().filter(|_| !self.options.for_write) {
                    root.check_expiry(&RoleName::Root, self.options.now)?;
                }
                return Err(UpdateError::Unreachable);
            }
        };
        if stated.is_some_and(|meta| !verify::matches(meta, &wire)) {
            let (role, listed_in) = (RoleName::Root, RoleName::Snapshot);
            return Err(VerifyError::Mismatch { role, listed_in }.into());
        }
        let raw = parse::<Root>(&RoleName::Root, wire)?;
        let (gun, now) = (&self.gun, self.options.now);
        let Some(trusted) = self.roots.last() else {
            let root = verify::first_root(raw, gun, &self.options.pin, now)?;
            root.check_expiry(&RoleName::Root, now)?;
            self.roots.push(root);
            self.stage = Stage::Timestamp;
            return Ok(());
        };
        let (seen, found) = (trusted.doc().version, raw.claimed().version);
        if raw.canonical() == trusted.canonical() {
            // The same root, perhaps with other signatures: the file counts, snapshots hash it.
            let root = verify::first_root(raw, gun, &Pin::FirstUse, now)?;
            root.check_expiry(&RoleName::Root, now)?;
            self.roots.pop();
            self.roots.push(root);
            self.stage = Stage::Timestamp;
            return Ok(());
        }
        if found < seen {
            return Err(VerifyError::Rollback {
                role: RoleName::Root,
                found,
                seen,
            }
            .into());
        }
        if found <= seen.saturating_add(1) {
            return self.accept(raw);
        }
        // More than one ahead. Go tries it directly first; a newest root that the last trusted keys
        // signed needs no links.
        match verify::next_root(raw.clone(), trusted, gun, now) {
            Ok(_) => self.accept(raw),
            Err(_) if found - seen > MAX_LINKS => Err(VerifyError::RootChain {
                version: found,
                by: "its predecessor",
            }
            .into()),
            Err(_) => {
                self.stage = Stage::RootLink {
                    version: seen + 1,
                    newest: Box::new(raw),
                };
                Ok(())
            }
        }
    }

    /// A root on the way to the newest. It may have expired.
    pub(super) fn receive_link(
        &mut self,
        fetched: Fetched,
        version: u32,
        newest: Raw<Root>,
    ) -> Result<(), UpdateError> {
        let wire = match fetched {
            Fetched::Bytes(wire) => wire,
            Fetched::Missing => return Err(UpdateError::Missing(format!("{version}.root.json"))),
            Fetched::Unreachable => return Err(UpdateError::Unreachable),
        };
        let raw = parse::<Root>(&RoleName::Root, wire)?;
        check_version(&raw, version)?;
        let root = verify::next_root(raw, self.root(), &self.gun, self.options.now)?;
        self.roots.push(root);
        self.rotated = true;
        if version + 1 == newest.claimed().version {
            return self.accept(newest);
        }
        self.stage = Stage::RootLink {
            version: version + 1,
            newest: Box::new(newest),
        };
        Ok(())
    }

    /// A newest root that follows the last trusted one.
    fn accept(&mut self, raw: Raw<Root>) -> Result<(), UpdateError> {
        let version = raw.claimed().version;
        if version == self.root().doc().version {
            // Other content under the number of a root that is trusted.
            return Err(VerifyError::RootChain {
                version,
                by: "its predecessor",
            }
            .into());
        }
        let root = verify::next_root(raw, self.root(), &self.gun, self.options.now)?;
        root.check_expiry(&RoleName::Root, self.options.now)?;
        self.roots.push(root);
        self.rotated = !self.first_use;
        self.stage = Stage::Timestamp;
        Ok(())
    }

    /// Everything is there; the agent may want roots from before the anchor.
    pub(super) fn start_history(&mut self) {
        let anchor = self.roots.first().map_or(0, |root| root.doc().version);
        self.stage = match self.options.chain_from {
            Some(version @ 1..)
                if version < anchor && anchor - version <= MAX_LINKS && !self.offline =>
            {
                Stage::History { version }
            }
            _ => Stage::Done,
        };
    }

    /// A root before the anchor. One that is not to be had ends the search: the chain then starts
    /// at the anchor, and it is the agent's to say whether that is enough.
    pub(super) fn receive_history(
        &mut self,
        fetched: Fetched,
        version: u32,
    ) -> Result<(), UpdateError> {
        let Fetched::Bytes(wire) = fetched else {
            self.history.clear();
            self.stage = Stage::Done;
            return Ok(());
        };
        let (gun, now) = (&self.gun, self.options.now);
        let raw = parse::<Root>(&RoleName::Root, wire)?;
        check_version(&raw, version)?;
        let root = match self.history.last() {
            Some(previous) => verify::next_root(raw, previous, gun, now)?,
            None => verify::first_root(raw, gun, &Pin::FirstUse, now)?,
        };
        let anchor = self.roots.first().expect("a root was trusted before");
        self.stage = if version + 1 == anchor.doc().version {
            anchor.check_follows(&root, gun, now)?;
            Stage::Done
        } else {
            Stage::History {
                version: version + 1,
            }
        };
        self.history.push(root);
        Ok(())
    }
}

/// `N.root.json` must be version N: else a server could lead us in circles.
fn check_version(raw: &Raw<Root>, wanted: u32) -> Result<(), VerifyError> {
    let version = raw.claimed().version;
    if version == wanted {
        return Ok(());
    }
    Err(VerifyError::RootChain {
        version: wanted,
        by: "its predecessor",
    })
}

/// Roots that one run fetches one by one, at most: a root that changed every day for three years.
const MAX_LINKS: u32 = 1_000;
