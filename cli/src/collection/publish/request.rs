//! What goes to the agent: the head of a request, and the base that it is compared with.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use signet_proto::v1::{self, part::Kind};
use signet_trust::{RoleName, edit::SigningRequest, update::Trusted};

use super::{Change, Run};
use crate::{
    Context,
    collection::session::{Content, Part},
};

/// Smaller documents cost less sent than asked for.
const BY_HASH_FROM: usize = 4 << 10;

impl Run<'_> {
    /// The base of a request: heads, and the bytes of those that go along.
    pub(super) fn base(
        &self,
        trusted: &Trusted,
        requests: &[SigningRequest],
        unlisted: &[(RoleName, Vec<u8>)],
        known: &v1::CollectionReply,
    ) -> (Vec<v1::Part>, Vec<Content>) {
        let mut parts = Vec::new();
        for root in &trusted.root_chain {
            parts.push(self.part(Kind::Root, &RoleName::Root, root, known));
        }
        let (timestamp, snapshot) = (&trusted.timestamp, &trusted.snapshot);
        parts.push(self.part(Kind::Timestamp, &RoleName::Timestamp, timestamp, known));
        parts.push(self.part(Kind::Snapshot, &RoleName::Snapshot, snapshot, known));
        let mut wanted = vec![RoleName::Targets];
        for request in requests {
            let above = std::iter::successors(Some(request.role.clone()), RoleName::parent);
            wanted.extend(above.filter(RoleName::is_targets_like));
        }
        wanted.sort();
        wanted.dedup();
        for role in &wanted {
            if let Some(document) = trusted.targets.get(role) {
                parts.push(self.part(Kind::Targets, role, document, known));
            }
        }
        for (role, wire) in unlisted {
            parts.push(self.part(Kind::Unlisted, role, wire, known));
        }
        let inline = parts
            .iter_mut()
            .filter_map(|part| part.inline.take())
            .collect();
        (parts.into_iter().map(|part| part.head).collect(), inline)
    }

    pub(super) fn part(
        &self,
        kind: Kind,
        role: &RoleName,
        document: &(impl AsRef<[u8]> + Clone + Send + Sync + 'static),
        known: &v1::CollectionReply,
    ) -> Part {
        let wire = document.as_ref();
        let sha256 = Sha256::digest(wire).to_vec();
        let by_hash =
            !self.all_inline && wire.len() >= BY_HASH_FROM && known.held.contains(&sha256);
        let size = if by_hash { 0 } else { wire.len() as u64 };
        let head = v1::Part {
            kind: kind.into(),
            role: role.to_string(),
            sha256,
            size,
            by_hash,
        };
        Part {
            head,
            inline: (!by_hash).then(|| Arc::new(document.clone()) as Content),
        }
    }

    /// What every request of this run says.
    pub(super) fn start(&self, ctx: &Context) -> v1::Start {
        let image = match self.change {
            Change::Add { tag, .. } | Change::Remove { tag: Some(tag) } => self.image.with_tag(tag),
            _ => self.image.familiar(),
        };
        v1::Start {
            gun: self.gun().to_string(),
            base: None,
            step: None,
            creation: None,
            claimed_context: Some(ctx.claimed(&image, self.server.url())),
            prompt_mode: ctx.prompt_mode().into(),
            allow: ctx.allow(),
            assume_yes: ctx.globals.yes,
            docker_dir: ctx.docker_dir(),
            explicit_init: *self.change == Change::Init,
            refetched: self.refetched,
            use_last_try: ctx.globals.use_last_try,
        }
    }
}
