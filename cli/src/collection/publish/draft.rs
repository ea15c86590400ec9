//! The change put into documents, ready to be signed.

use signet_proto::v1;
use signet_trust::{
    RoleName,
    document::{Hashes, Target, Targets},
    edit::{Edit, Holds, SigningRequest, signable_roles},
    update::{File, Trusted},
    verify::{Raw, base_signers, delegation_signers, limit},
};

use super::{Change, Done, Run};
use crate::{
    collection::{tags, update},
    failure::{Failure, exit},
    image::Digest,
    net::NetError,
};

/// What is to be signed.
pub(super) struct Drafted {
    pub(super) edit: Edit,
    pub(super) done: Done,
    pub(super) requests: Vec<SigningRequest>,
    /// What the server still serves of delegations that its snapshot does not list.
    pub(super) unlisted: Vec<(RoleName, Vec<u8>)>,
}

impl Run<'_> {
    /// The next version of a published collection, signed by keys that `holds` knows.
    pub(super) async fn draft(
        &self,
        trusted: &Trusted,
        holds: &dyn Holds,
    ) -> Result<Drafted, Failure> {
        let mut edit = Edit::of(trusted, update::now());
        let mut done = Done::default();
        let roles = self.apply(&mut edit, trusted, holds, &mut done)?;
        let unlisted = self.unlisted(trusted, &roles).await?;
        for (role, wire) in &unlisted {
            if let Ok(raw) = Raw::<Targets>::parse(wire.clone(), limit::ROLE) {
                edit.set_version(role, raw.claimed().version.saturating_add(1));
            }
        }
        for (role, version) in &self.raised {
            edit.set_version(role, *version);
        }
        let requests = self.requests(&edit, holds)?;
        Ok(Drafted {
            edit,
            done,
            requests,
            unlisted,
        })
    }

    pub(super) fn requests(
        &self,
        edit: &Edit,
        holds: &dyn Holds,
    ) -> Result<Vec<SigningRequest>, Failure> {
        edit.requests(holds).map_err(|error| self.explain(&error))
    }

    /// Puts the change into the edit; the roles that it touches.
    fn apply(
        &self,
        edit: &mut Edit,
        trusted: &Trusted,
        holds: &dyn Holds,
        done: &mut Done,
    ) -> Result<Vec<RoleName>, Failure> {
        match self.change {
            Change::Init => Err(Failure::new(
                exit::FAILED,
                "exists",
                format!(
                    "{} has trust data already on {}",
                    self.gun(),
                    self.server.host()
                ),
            )
            .fix(format!(
                "sign a tag: `signet sign {}`",
                self.image.with_tag("TAG")
            ))),
            Change::Add { tag, digest, size } => {
                let roles = self.signable(trusted, tag, holds)?;
                for role in &roles {
                    edit.add(role, tag, target(digest, *size))
                        .map_err(|error| self.explain(&error))?;
                }
                Ok(roles)
            }
            Change::Remove { tag } => {
                let tags: Vec<String> = match tag {
                    Some(tag) => vec![tag.clone()],
                    None => {
                        let mut tags: Vec<String> = tags::all(trusted)
                            .into_iter()
                            .map(|signed| signed.tag)
                            .collect();
                        tags.dedup();
                        tags
                    }
                };
                let mut touched = Vec::new();
                for tag in &tags {
                    let holding: Vec<&RoleName> = trusted
                        .targets
                        .iter()
                        .filter(|(_, document)| document.doc().targets.contains_key(tag))
                        .map(|(role, _)| role)
                        .collect();
                    let (ours, others): (Vec<&RoleName>, Vec<&RoleName>) = holding
                        .into_iter()
                        .partition(|role| can_sign(trusted, role, holds));
                    for role in &ours {
                        edit.remove(role, tag)
                            .map_err(|error| self.explain(&error))?;
                    }
                    if !ours.is_empty() {
                        done.removed.push(tag.clone());
                    }
                    touched.extend(ours.into_iter().cloned());
                    let others = others.into_iter().filter(|role| tags::counts(role));
                    done.left
                        .extend(others.map(|role| (tag.clone(), role.clone())));
                }
                touched.sort();
                touched.dedup();
                if touched.is_empty() {
                    return Err(self.nothing_to_remove(tag.as_deref(), done));
                }
                Ok(touched)
            }
        }
    }

    /// No tag could be removed: none is signed, or only by keys that are not here.
    fn nothing_to_remove(&self, tag: Option<&str>, done: &Done) -> Failure {
        if let Some((tag, role)) = done.left.first() {
            return Failure::new(
                exit::FAILED,
                "no_key",
                format!(
                    "{}: {tag} is signed in {role}, and its key is not here",
                    self.gun()
                ),
            );
        }
        let what = tag.map_or_else(
            || format!("No tag of {} is signed", self.image.familiar()),
            |tag| format!("No trust data for {tag}"),
        );
        Failure::new(exit::UNTRUSTED, "not_signed", what)
    }

    /// Roles that take this tag with the keys at hand; where there is none, whose key it takes.
    fn signable(
        &self,
        trusted: &Trusted,
        tag: &str,
        holds: &dyn Holds,
    ) -> Result<Vec<RoleName>, Failure> {
        signable_roles(trusted, tag, holds).map_err(|error| {
            let mut failure = self.explain(&error);
            let delegations = trusted.top().doc().delegations.roles.iter().flatten();
            let signers: Vec<&str> = delegations
                .filter(|one| one.paths.iter().any(|path| tag.starts_with(path.as_str())))
                .map(|one| tags::signer_name(&one.name))
                .collect();
            if failure.code == "no_key" && !signers.is_empty() {
                failure
                    .message
                    .push_str(&format!(" (signers: {})", signers.join(", ")));
            }
            failure
        })
    }

    /// What the server still serves of delegations that its snapshot does not list.
    async fn unlisted(
        &self,
        trusted: &Trusted,
        roles: &[RoleName],
    ) -> Result<Vec<(RoleName, Vec<u8>)>, Failure> {
        let mut found = Vec::new();
        for role in roles {
            if trusted.snapshot.doc().meta.contains_key(role) {
                continue;
            }
            match self
                .server
                .get(&File::Current(role.clone()), limit::ROLE)
                .await
            {
                Ok(wire) => found.push((role.clone(), wire)),
                Err(NetError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

/// Whether enough keys of a published role are held.
fn can_sign(trusted: &Trusted, role: &RoleName, holds: &dyn Holds) -> bool {
    let signers = match role.parent() {
        None => Some(base_signers(
            trusted.root().doc(),
            role,
            &trusted.gun,
            update::now(),
        )),
        Some(parent) => trusted
            .targets
            .get(&parent)
            .and_then(|parent| delegation_signers(parent.doc(), role)),
    };
    signers.is_some_and(|signers| {
        let held = signers
            .keys
            .iter()
            .filter(|(_, key)| key.canonical_id().is_ok_and(|id| holds.holds(&id)));
        held.count() as u64 >= u64::from(signers.threshold)
    })
}

/// Whether the agent knows other roots under this name, and this is none of them.
pub(super) fn is_stranger(trusted: &Trusted, known: &v1::CollectionReply) -> bool {
    use sha2::{Digest as _, Sha256};
    let is_this = |lineage: &v1::Lineage| {
        lineage.root_sha256.is_empty()
            || trusted.root_chain.iter().any(|root| {
                Sha256::digest(root.wire()).as_slice() == lineage.root_sha256.as_slice()
            })
    };
    !known.lineages.is_empty() && !known.lineages.iter().any(is_this)
}

/// A tag as docker writes it: digest and size of the manifest.
pub(super) fn target(digest: &Digest, size: u64) -> Target {
    Target {
        custom: None,
        hashes: Hashes::of_sha256(digest.0),
        length: size,
    }
}
