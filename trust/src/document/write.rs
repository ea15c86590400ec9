//! Documents to the bytes that are signed: one buffer, members in rising order.

use std::collections::BTreeMap;

use super::{
    Delegation, Delegations, FileMeta, HashesRef, Root, Snapshot, TargetRef, Targets, Timestamp,
};
use crate::{
    json::{write_base64, write_int, write_string},
    key::{KeyId, PublicKey},
    role::RoleName,
    time::Expiry,
};

impl Root {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = start("Root");
        raw(&mut out, ",\"consistent_snapshot\":");
        raw(
            &mut out,
            if self.consistent_snapshot {
                "true"
            } else {
                "false"
            },
        );
        expires(&mut out, &self.expires);
        raw(&mut out, ",\"keys\":");
        keys(&mut out, &self.keys);
        raw(&mut out, ",\"roles\":");
        let roles = self.roles.iter().map(|(name, role)| (name.as_str(), role));
        object(&mut out, by_name(roles), |out, role| {
            raw(out, "{\"keyids\":");
            key_ids(out, &role.key_ids);
            raw(out, ",\"threshold\":");
            write_int(out, role.threshold.into());
            out.push(b'}');
        });
        version(&mut out, self.version);
        out
    }
}

impl Targets {
    pub(super) fn write(&self) -> Vec<u8> {
        write_targets(
            &self.delegations,
            &self.expires,
            self.targets.iter(),
            self.targets.len(),
            self.version,
        )
    }

    /// Whether [`Targets::write`] gives these bytes; written and compared tag by tag.
    pub(super) fn writes(&self, bytes: &[u8]) -> bool {
        let mut rest = Some(bytes);
        let last = write_parts(
            &self.delegations,
            &self.expires,
            self.targets.iter(),
            self.version,
            start("Targets"),
            &mut |part| {
                rest = rest.and_then(|rest| rest.strip_prefix(part.as_slice()));
                part.clear();
            },
        );
        rest == Some(last.as_slice())
    }
}

/// A targets file whose tags need not stand in one map; they come in rising order, about `count`.
pub(crate) fn write_targets<'a>(
    delegations: &Delegations,
    until: &Expiry,
    targets: impl Iterator<Item = (&'a str, TargetRef<'a>)>,
    count: usize,
    at: u32,
) -> Vec<u8> {
    let mut out = start("Targets");
    // A target as docker writes it takes about a hundred bytes.
    out.reserve(count.saturating_mul(112));
    write_parts(delegations, until, targets, at, out, &mut |_| {})
}

/// Writes on `out`, which holds the type; after each tag `part` may take away what is there.
fn write_parts<'a>(
    delegations: &Delegations,
    until: &Expiry,
    targets: impl Iterator<Item = (&'a str, TargetRef<'a>)>,
    at: u32,
    mut out: Vec<u8>,
    part: &mut dyn FnMut(&mut Vec<u8>),
) -> Vec<u8> {
    raw(&mut out, ",\"delegations\":{\"keys\":");
    keys(&mut out, &delegations.keys);
    raw(&mut out, ",\"roles\":");
    match &delegations.roles {
        None => raw(&mut out, "null"),
        Some(roles) => array(&mut out, roles.iter(), delegation),
    }
    out.push(b'}');
    expires(&mut out, until);
    raw(&mut out, ",\"targets\":");
    object(&mut out, targets, |out, of| {
        target(out, of);
        part(out);
    });
    version(&mut out, at);
    out
}

impl Snapshot {
    pub(super) fn write(&self) -> Vec<u8> {
        files("Snapshot", &self.expires, &self.meta, self.version)
    }
}

impl Timestamp {
    pub(super) fn write(&self) -> Vec<u8> {
        files("Timestamp", &self.expires, &self.meta, self.version)
    }
}

fn files(kind: &str, until: &Expiry, meta: &BTreeMap<RoleName, FileMeta>, at: u32) -> Vec<u8> {
    let mut out = start(kind);
    expires(&mut out, until);
    raw(&mut out, ",\"meta\":");
    let meta = meta.iter().map(|(name, file)| (name.as_str(), file));
    object(&mut out, by_name(meta), |out, file| {
        raw(out, "{\"hashes\":");
        hashes(out, file.hashes.as_ref());
        length(out, file.length);
    });
    version(&mut out, at);
    out
}

fn delegation(out: &mut Vec<u8>, role: &Delegation) {
    raw(out, "{\"keyids\":");
    match &role.key_ids {
        None => raw(out, "null"),
        Some(ids) => key_ids(out, ids),
    }
    raw(out, ",\"name\":");
    write_string(out, role.name.as_str());
    if !role.paths.is_empty() {
        raw(out, ",\"paths\":");
        array(out, role.paths.iter(), |out, path| write_string(out, path));
    }
    raw(out, ",\"threshold\":");
    write_int(out, role.threshold.into());
    out.push(b'}');
}

fn target(out: &mut Vec<u8>, target: TargetRef<'_>) {
    out.push(b'{');
    if let Some(custom) = target.custom {
        raw(out, "\"custom\":");
        raw(out, custom);
        out.push(b',');
    }
    raw(out, "\"hashes\":");
    hashes(out, target.hashes);
    length(out, target.length);
}

fn hashes(out: &mut Vec<u8>, hashes: HashesRef<'_>) {
    object(out, hashes.iter(), write_base64);
}

/// The last member of a file or target, and its closing brace.
fn length(out: &mut Vec<u8>, length: u64) {
    raw(out, ",\"length\":");
    write_int(out, i64::try_from(length).unwrap_or(i64::MAX));
    out.push(b'}');
}

fn start(kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    raw(&mut out, "{\"_type\":");
    write_string(&mut out, kind);
    out
}

fn expires(out: &mut Vec<u8>, expires: &Expiry) {
    raw(out, ",\"expires\":");
    write_string(out, expires.as_str());
}

/// The last member of every document, and its closing brace.
fn version(out: &mut Vec<u8>, version: u32) {
    raw(out, ",\"version\":");
    write_int(out, version.into());
    out.push(b'}');
}

fn keys(out: &mut Vec<u8>, keys: &BTreeMap<KeyId, PublicKey>) {
    // IDs of equal length rise in hex as they do in bytes.
    let named = keys.iter().map(|(id, key)| (id.to_string(), key));
    object(out, named, |out, key| key.write_canonical(out));
}

fn key_ids(out: &mut Vec<u8>, ids: &[KeyId]) {
    array(out, ids.iter(), |out, id| {
        write_string(out, &id.to_string())
    });
}

/// Roles sort by the bytes of their names; the type sorts base roles first.
fn by_name<'a, T>(roles: impl Iterator<Item = (&'a str, T)>) -> impl Iterator<Item = (&'a str, T)> {
    let mut roles: Vec<_> = roles.collect();
    roles.sort_unstable_by_key(|(name, _)| *name);
    roles.into_iter()
}

fn object<K: AsRef<str>, T>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (K, T)>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name.as_ref());
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

fn array<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
