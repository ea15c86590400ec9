//! Values to documents: every member known, every number bounded, every fault with its path.

mod at;

use std::{collections::BTreeMap, ops::Range};

use at::{At, shorten};

use super::{
    Body, Delegation, Delegations, Document, DocumentError, FileMeta, Hashes, RoleKeys, Root,
    Snapshot, Tags, Target, Targets, Timestamp,
};
use crate::{
    json::{self, Streamed, Value},
    key::{KeyId, KeyType, Method, PublicKey, Signature},
    role::RoleName,
    time::Expiry,
};

type Result<T> = std::result::Result<T, DocumentError>;

/// A file taken apart.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub(crate) body: T,
    /// Where the bytes that are signed stand in it, as nearly always; else they are made anew.
    pub(crate) canonical: std::result::Result<Range<usize>, Vec<u8>>,
    pub(crate) signatures: Vec<Signature>,
}

/// Reads a file: tags one by one where its signed bytes stand in it, else as a tree of values, which
/// takes several times its size.
pub(crate) fn file<T: Body>(wire: &[u8]) -> Result<Read<T>> {
    if let Some((file, tags, canonical)) = streamed(wire, &["signed", "targets"])
        && let Ok((signed, signatures)) = envelope(&file)
        && let Ok(body) = T::from_streamed(signed, tags)
    {
        return Ok(Read {
            body,
            canonical: Ok(canonical),
            signatures,
        });
    }
    tree(wire)
}

/// Reads any file, with a value for everything in it.
pub(super) fn tree<T: Body>(wire: &[u8]) -> Result<Read<T>> {
    let file = json::parse(wire)?;
    let (signed, signatures) = envelope(&file)?;
    Ok(Read {
        body: T::from_value(signed)?,
        canonical: Err(signed.canonical()),
        signatures,
    })
}

/// Reads signed bytes without a tree of their tags; `None` when that cannot be done.
pub(super) fn canonical(bytes: &[u8]) -> Option<Document> {
    let (signed, tags, canonical) = streamed(bytes, &["targets"])?;
    if canonical != (0..bytes.len()) {
        return None;
    }
    any(&signed, tags).ok()
}

/// Everything but the tags; the tags, if they are there; and where the object that holds them is.
fn streamed<'a>(bytes: &'a [u8], path: &[&str]) -> Option<(Value<'a>, Option<Tags>, Range<usize>)> {
    let at = At::SIGNED.member("targets");
    let mut tags: Option<Tags> = None;
    let Streamed { value, canonical } = json::parse_streaming(bytes, path, &mut |name, value| {
        read_target(&at.member(name), value)
            .is_ok_and(|target| tags.get_or_insert_default().push(name, target.as_ref()))
    })?;
    if let Some(tags) = &mut tags {
        tags.shrink();
    }
    Some((value, tags, canonical))
}

/// Reads the `signed` member as the type that it names.
pub(super) fn any(signed: &Value<'_>, tags: Option<Tags>) -> Result<Document> {
    let kind = signed.get("_type").unwrap_or(&Value::Null);
    match At::SIGNED.member("_type").text(kind)? {
        "Root" => Root::read(signed).map(Document::Root),
        "Snapshot" => Snapshot::read(signed).map(Document::Snapshot),
        "Targets" => Targets::read(signed, tags).map(Document::Targets),
        "Timestamp" => Timestamp::read(signed).map(Document::Timestamp),
        other => Err(DocumentError::WrongType {
            expected: "Root, Snapshot, Targets or Timestamp",
            found: shorten(other),
        }),
    }
}

/// Takes a file apart: its `signed` value, and the signatures that can be read. As in Go, unknown
/// members are passed over here (nothing signs them), and so are signatures of unknown method or
/// whose key ID is none.
fn envelope<'v, 'a>(file: &'v Value<'a>) -> Result<(&'v Value<'a>, Vec<Signature>)> {
    let at = At {
        parent: None,
        name: "the file",
    };
    at.object(file)?;
    let signed = file
        .get("signed")
        .ok_or_else(|| at.fault("it has no member \"signed\""))?;
    let at = At {
        parent: None,
        name: "signatures",
    };
    let mut signatures = Vec::new();
    let listed = at.array(file.get("signatures").unwrap_or(&Value::Null))?;
    if listed.len() > MAX_SIGNATURES {
        return Err(at.fault("more than 1,024 signatures"));
    }
    for signature in listed {
        at.object(signature)?;
        let text = |name| {
            at.member(name)
                .text(signature.get(name).unwrap_or(&Value::Null))
        };
        let (key_id, method) = (text("keyid")?, text("method")?);
        let bytes = at
            .member("sig")
            .base64(signature.get("sig").unwrap_or(&Value::Null))?;
        if let (Ok(key_id), Some(method)) = (key_id.parse(), Method::from_name(method)) {
            signatures.push(Signature {
                key_id,
                method,
                bytes,
            });
        }
    }
    Ok((signed, signatures))
}

impl Root {
    pub(super) fn read(signed: &Value<'_>) -> Result<Self> {
        let at = At::SIGNED;
        let [kind, consistent, expires, keys, roles, version] = at.members(
            signed,
            [
                "_type",
                "consistent_snapshot",
                "expires",
                "keys",
                "roles",
                "version",
            ],
        )?;
        check_type("Root", kind)?;
        let consistent_snapshot = match consistent {
            Value::Bool(flag) => *flag,
            _ => {
                return Err(at
                    .member("consistent_snapshot")
                    .fault("it is not true or false"));
            }
        };
        let keys = read_keys(&at.member("keys"), keys)?;
        let at = at.member("roles");
        let mut read = BTreeMap::new();
        for (name, role) in at.object(roles)? {
            let at = at.member(name);
            let name = at.role(name)?;
            if !BASE.contains(&name) {
                return Err(at.fault("a root lists the four base roles only"));
            }
            let [key_ids, threshold] = at.members(role, ["keyids", "threshold"])?;
            let key_ids = read_key_ids(&at.member("keyids"), key_ids)?.unwrap_or_default();
            for id in &key_ids {
                if !keys.contains_key(id) {
                    return Err(at.member("keyids").fault("a key is not among \"keys\""));
                }
            }
            let threshold = at.member("threshold").counter(threshold)?;
            read.insert(name, RoleKeys { key_ids, threshold });
        }
        for name in &BASE {
            if !read.contains_key(name) {
                return Err(at.member(name.as_str()).fault("the role is missing"));
            }
        }
        Ok(Self {
            consistent_snapshot,
            expires: read_expiry(expires)?,
            keys,
            roles: read,
            version: read_version(version)?,
        })
    }
}

impl Targets {
    /// `tags`: read before, and left out of `signed`.
    pub(super) fn read(signed: &Value<'_>, tags: Option<Tags>) -> Result<Self> {
        let at = At::SIGNED;
        let [kind, delegations, expires, targets, version] = at.members(
            signed,
            ["_type", "delegations", "expires", "targets", "version"],
        )?;
        check_type("Targets", kind)?;
        let at = at.member("targets");
        let listed = at.object(targets)?;
        let targets = match tags {
            Some(tags) => tags,
            None => listed
                .iter()
                .map(|(name, value)| {
                    Ok((
                        name.as_ref().to_owned(),
                        read_target(&at.member(name), value)?,
                    ))
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            delegations: read_delegations(delegations)?,
            expires: read_expiry(expires)?,
            targets,
            version: read_version(version)?,
        })
    }
}

impl Snapshot {
    pub(super) fn read(signed: &Value<'_>) -> Result<Self> {
        let (expires, meta, version) = read_files("Snapshot", signed)?;
        for role in [RoleName::Root, RoleName::Targets] {
            require_sha256(&meta, &role)?;
        }
        Ok(Self {
            expires,
            meta,
            version,
        })
    }
}

impl Timestamp {
    pub(super) fn read(signed: &Value<'_>) -> Result<Self> {
        let (expires, meta, version) = read_files("Timestamp", signed)?;
        require_sha256(&meta, &RoleName::Snapshot)?;
        Ok(Self {
            expires,
            meta,
            version,
        })
    }
}

fn read_files(
    kind: &'static str,
    signed: &Value<'_>,
) -> Result<(Expiry, BTreeMap<RoleName, FileMeta>, u32)> {
    let at = At::SIGNED;
    let [found, expires, meta, version] =
        at.members(signed, ["_type", "expires", "meta", "version"])?;
    check_type(kind, found)?;
    let at = at.member("meta");
    let mut files = BTreeMap::new();
    for (name, file) in at.object(meta)? {
        let at = at.member(name);
        let [hashes, length] = at.members(file, ["hashes", "length"])?;
        let hashes = read_hashes(&at.member("hashes"), hashes)?;
        let length = at.member("length").length(length)?;
        files.insert(at.role(name)?, FileMeta { hashes, length });
    }
    Ok((read_expiry(expires)?, files, read_version(version)?))
}

/// notary `tuf/data/{snapshot,timestamp}.go`: mandatory entries, each with a SHA-256.
fn require_sha256(meta: &BTreeMap<RoleName, FileMeta>, role: &RoleName) -> Result<()> {
    match meta.get(role).and_then(|file| file.hashes.sha256()) {
        Some(_) => Ok(()),
        None => {
            let at = At::SIGNED.member("meta");
            Err(at.member(role.as_str()).fault("its SHA-256 is missing"))
        }
    }
}

fn read_target(at: &At<'_>, value: &Value<'_>) -> Result<Target> {
    let [custom, hashes, length] = at.optional(value, ["custom", "hashes", "length"])?;
    let custom = custom.map(|custom| {
        String::from_utf8(custom.canonical()).expect("canonical bytes of text are text")
    });
    let hashes = read_hashes(&at.member("hashes"), hashes.unwrap_or(&Value::Null))?;
    let length = at.member("length").length(length.unwrap_or(&Value::Null))?;
    Ok(Target {
        custom,
        hashes,
        length,
    })
}

fn read_hashes(at: &At<'_>, value: &Value<'_>) -> Result<Hashes> {
    let members = at.object(value)?;
    // Docker writes one, and very many of them: decoded without an allocation.
    let mut buffer = [0; 128];
    if let [(name, Value::String(text))] = members
        && text.len() <= buffer.len()
    {
        let digest = at.digest(name, text, &mut buffer)?;
        return Ok(Hashes::pack([(name.as_ref(), digest)].into_iter()));
    }
    let mut digests = BTreeMap::new();
    for (name, digest) in members {
        let at = at.member(name);
        if name.len() > MAX_DIGEST {
            return Err(at.fault("the name of an algorithm is too long"));
        }
        let digest = at.base64(digest)?;
        if digest.len() > MAX_DIGEST {
            return Err(at.fault("it is too long for a digest"));
        }
        digests.insert(name.as_ref().to_owned(), digest);
    }
    Ok(digests.into())
}

/// Go writes the member always; it reads its absence and `null` as "none".
fn read_delegations(value: &Value<'_>) -> Result<Delegations> {
    let at = At::SIGNED.member("delegations");
    if *value == Value::Null {
        return Ok(Delegations {
            keys: BTreeMap::new(),
            roles: None,
        });
    }
    let [keys, roles] = at.optional(value, ["keys", "roles"])?;
    let keys = read_keys(&at.member("keys"), keys.unwrap_or(&Value::Null))?;
    let at = at.member("roles");
    let roles = match roles.unwrap_or(&Value::Null) {
        Value::Null => None,
        listed => {
            let read = |role| read_delegation(&at, role);
            Some(
                at.array(listed)?
                    .iter()
                    .map(read)
                    .collect::<Result<Vec<_>>>()?,
            )
        }
    };
    let mut names: Vec<&str> = roles
        .iter()
        .flatten()
        .map(|role| role.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(at.member(pair[0]).fault("the role is listed twice"));
    }
    Ok(Delegations { keys, roles })
}

fn read_delegation(at: &At<'_>, value: &Value<'_>) -> Result<Delegation> {
    let [key_ids, name, paths, threshold] =
        at.optional(value, ["keyids", "name", "paths", "threshold"])?;
    let text = at.member("name").text(name.unwrap_or(&Value::Null))?;
    let name = at.member(text).role(text)?;
    if !matches!(name, RoleName::Delegation(_)) {
        return Err(at.member(text).fault("a base role cannot be delegated"));
    }
    let at = at.member(text);
    let key_ids = read_key_ids(&at.member("keyids"), key_ids.unwrap_or(&Value::Null))?;
    let paths_at = at.member("paths");
    let paths = paths_at
        .array(paths.unwrap_or(&Value::Null))?
        .iter()
        .map(|path| paths_at.text(path).map(str::to_owned))
        .collect::<Result<_>>()?;
    let threshold = at
        .member("threshold")
        .counter(threshold.unwrap_or(&Value::Null))?;
    Ok(Delegation {
        key_ids,
        name,
        paths,
        threshold,
    })
}

fn read_keys(at: &At<'_>, value: &Value<'_>) -> Result<BTreeMap<KeyId, PublicKey>> {
    let mut keys = BTreeMap::new();
    if *value == Value::Null {
        return Ok(keys);
    }
    for (id, key) in at.object(value)? {
        let at = at.member(id);
        let [key_type, halves] = at.members(key, ["keytype", "keyval"])?;
        let name = at.member("keytype").text(key_type)?;
        let key_type = KeyType::from_name(name)
            .ok_or_else(|| at.member("keytype").fault("an unknown type of key"))?;
        let at_halves = at.member("keyval");
        let [private, public] = at_halves.optional(halves, ["private", "public"])?;
        if !matches!(private, None | Some(Value::Null)) {
            return Err(at_halves
                .member("private")
                .fault("a private key in a public document"));
        }
        let public = at_halves
            .member("public")
            .base64(public.unwrap_or(&Value::Null))?;
        keys.insert(at.key_id(id)?, PublicKey::new(key_type, public));
    }
    Ok(keys)
}

fn read_key_ids(at: &At<'_>, value: &Value<'_>) -> Result<Option<Vec<KeyId>>> {
    if *value == Value::Null {
        return Ok(None);
    }
    at.array(value)?
        .iter()
        .map(|id| at.key_id(at.text(id)?))
        .collect::<Result<_>>()
        .map(Some)
}

fn check_type(expected: &'static str, found: &Value<'_>) -> Result<()> {
    let found = At::SIGNED.member("_type").text(found)?;
    if found == expected {
        return Ok(());
    }
    Err(DocumentError::WrongType {
        expected,
        found: shorten(found),
    })
}

fn read_expiry(value: &Value<'_>) -> Result<Expiry> {
    let at = At::SIGNED.member("expires");
    Expiry::parse(at.text(value)?).map_err(|error| at.fault(&error.to_string()))
}

fn read_version(value: &Value<'_>) -> Result<u32> {
    At::SIGNED.member("version").counter(value)
}

const BASE: [RoleName; 4] = [
    RoleName::Root,
    RoleName::Snapshot,
    RoleName::Targets,
    RoleName::Timestamp,
];
/// Longer than every digest and every name of one; `Hashes` holds it.
const MAX_DIGEST: usize = 1024;
/// Far more than the keys of any role; bounds the signatures that a hostile file can have checked.
const MAX_SIGNATURES: usize = 1024;
