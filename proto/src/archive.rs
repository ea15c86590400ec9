//! What a backup holds, and how it is written and read: a tar in gzip, inside the age format.
//!
//! The agent fills an archive and takes one in; the command packs, encrypts and opens it. Both
//! share this one reading of it. Nothing here touches a disk.
//!
//! ```text
//! manifest.json                     what is in it (first, so that a stream is checked as it comes)
//! docker/trust/private/<id>.key     Docker's tree, byte for byte
//! recover.sh                        recovery with age alone
//! signet/keyring.age, root.age      the native keyrings, as they lie
//! signet/keys/<id>.age              native keys, as they lie
//! signet/state.json                 guard state and tombstones
//! ```
//!
//! An archive is hostile input: every size and count is bounded before anything is allocated, and
//! a path that leaves the archive, a link, a device or a second member of one name ends the
//! reading.

use std::{
    collections::HashSet,
    io::{self, BufRead, Read, Write},
};

use flate2::{Compression, GzBuilder, bufread::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Entry, EntryType, Header};

pub mod manifest;

pub use manifest::{BadManifest, Manifest};

/// Most members of one archive: 10,000 keys in two stores.
pub const MAX_MEMBERS: usize = 20_000;
/// Largest key file or keyring.
pub const MAX_MEMBER: u64 = 64 * 1024;
/// Largest `manifest.json` or `state.json`.
pub const MAX_DOCUMENT: u64 = 24 * 1024 * 1024;
/// Bytes of all members together: so much a reader may hold in memory, and a restore twice.
pub const MAX_TOTAL: u64 = 32 * 1024 * 1024;
/// Longest path of a member, and of the extended header that holds one.
pub const MAX_PATH: usize = 1024;

/// Longest pax header taken; those of real tars hold a path and some times.
const MAX_PAX: u64 = 16 * 1024;
/// Everything that a reader unpacks, passed-over files, headers and padding included: a tarball of
/// a whole `trust` directory has the metadata of every repository in it.
const MAX_UNPACKED: u64 = 512 * 1024 * 1024;
/// Directories on the way to the members; made 0700, as docker makes its own.
const DIRECTORIES: [&str; 5] = [
    "docker/",
    "docker/trust/",
    "docker/trust/private/",
    "signet/",
    "signet/keys/",
];

/// Where the members are.
pub mod path {
    /// What is in the archive.
    pub const MANIFEST: &str = "manifest.json";
    /// Recovery with age alone.
    pub const RECOVER: &str = "recover.sh";
    /// Guard state and tombstones.
    pub const STATE: &str = "signet/state.json";
    /// The keyring of repository and signer keys.
    pub const KEYRING: &str = "signet/keyring.age";
    /// The keyring of root keys.
    pub const ROOT: &str = "signet/root.age";
    /// The agent's settings.
    pub const POLICY: &str = "signet/agent.toml";

    /// A native key.
    #[must_use]
    pub fn native(id: &str) -> String {
        format!("signet/keys/{id}.age")
    }

    /// A key of Docker's directory.
    #[must_use]
    pub fn docker(id: &str) -> String {
        format!("docker/trust/private/{id}.key")
    }
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A second member of one name.
    #[error("it holds {0:?} twice")]
    Duplicate(String),
    /// A path that is absolute, leaves the archive, or cannot be shown.
    #[error("it holds a member with the path {0:?}, which does not stay inside the archive")]
    Escapes(String),
    /// Cut, changed, or no archive at all.
    #[error("it is damaged or no archive: {0}")]
    Io(#[from] io::Error),
    /// A symbolic or hard link, a device, a pipe, or something that no backup holds.
    #[error("it holds {path:?}, which is {what} and no file")]
    NoFile {
        /// The member.
        path: String,
        /// `a link`, `a device`, …
        what: &'static str,
    },
    /// More than there can be.
    #[error("it holds {0}")]
    TooMuch(&'static str),
}

/// A file of an archive.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    /// Relative, with `/`, without `.` and `..`.
    pub path: String,
    /// Its content.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({:?}, {} bytes)", self.path, self.data.len())
    }
}

/// SHA-256 in hex, as the manifest has it.
#[must_use]
pub fn digest(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

/// Writes an archive, member by member: first the manifest, then the others in the order of their
/// paths. The same members give the same bytes.
pub struct Writer<W: Write> {
    tar: Builder<GzEncoder<W>>,
    time: u64,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// An archive on `out`, of files as they were at `time` (Unix seconds).
    ///
    /// # Errors
    ///
    /// When `out` fails.
    pub fn new(out: W, time: u64) -> io::Result<Self> {
        // No name and no time in the gzip header: 0 is "none" (RFC 1952, 2.3.1).
        let gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
        let mut tar = Builder::new(gzip);
        tar.mode(tar::HeaderMode::Deterministic);
        Ok(Self { tar, time })
    }

    /// Adds a member.
    ///
    /// # Errors
    ///
    /// When the path is too long, or `out` fails.
    pub fn add(&mut self, path: &str, data: &[u8]) -> io::Result<()> {
        let mode = if path == path::RECOVER { 0o700 } else { 0o600 };
        if path == path::MANIFEST {
            self.append(path, data, mode)?;
            for directory in DIRECTORIES {
                self.append(directory, &[], 0o700)?;
            }
            return Ok(());
        }
        self.append(path, data, mode)
    }

    fn append(&mut self, path: &str, data: &[u8], mode: u32) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path)?;
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_entry_type(if path.ends_with('/') {
            EntryType::Directory
        } else {
            EntryType::Regular
        });
        header.set_cksum();
        self.tar.append(&header, data)
    }

    /// Ends the archive; what it was written to.
    ///
    /// # Errors
    ///
    /// When `out` fails.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

/// Reads every member that `wanted` gives a size for (its most bytes), in order. What it does not
/// want is passed over, but must be a file or a directory all the same.
///
/// `input` may be gzipped or not.
///
/// # Errors
///
/// [`ArchiveError`].
pub fn read(
    input: impl BufRead,
    wanted: impl FnMut(&str) -> Option<u64>,
    take: impl FnMut(Member),
) -> Result<(), ArchiveError> {
    read_up_to(MAX_TOTAL, input, wanted, take)
}

/// As [`read`], with another bound than [`MAX_TOTAL`] on what is read.
///
/// # Errors
///
/// [`ArchiveError`].
pub fn read_up_to(
    most: u64,
    mut input: impl BufRead,
    mut wanted: impl FnMut(&str) -> Option<u64>,
    mut take: impl FnMut(Member),
) -> Result<(), ArchiveError> {
    let gzipped = input.fill_buf()?.first() == Some(&0x1f);
    let unpacked: Box<dyn Read + '_> = if gzipped {
        Box::new(GzDecoder::new(&mut input))
    } else {
        Box::new(&mut input)
    };
    let mut limited = Limited {
        input: unpacked,
        left: MAX_UNPACKED,
    };
    read_tar(&mut limited, most, &mut wanted, &mut take)?;
    drop(limited);
    if !input.fill_buf()?.is_empty() {
        return Err(ArchiveError::TooMuch("something after its end"));
    }
    Ok(())
}

fn read_tar(
    input: &mut impl Read,
    most: u64,
    wanted: &mut dyn FnMut(&str) -> Option<u64>,
    take: &mut dyn FnMut(Member),
) -> Result<(), ArchiveError> {
    let mut seen = HashSet::new();
    let mut long_path = None;
    let mut total = 0_u64;
    let mut count = 0_usize;
    let mut archive = tar::Archive::new(&mut *input);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        count += 1;
        // Long names and directories are entries of their own.
        if count > 4 * MAX_MEMBERS {
            return Err(ArchiveError::TooMuch("too many entries"));
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                long_path = Some(gnu_path(&mut entry)?);
                continue;
            }
            EntryType::XHeader => {
                if let Some(path) = pax_path(&mut entry)? {
                    long_path = Some(path);
                }
                continue;
            }
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let raw = match long_path.take() {
            Some(path) => path,
            None => entry.path_bytes().into_owned(),
        };
        let path = checked(&raw)?;
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => {}
            _ => {
                return Err(ArchiveError::NoFile {
                    path,
                    what: what(kind),
                });
            }
        }
        // Old tars mark a directory by its name alone.
        if raw.ends_with(b"/") {
            continue;
        }
        if !seen.insert(path.clone()) {
            return Err(ArchiveError::Duplicate(path));
        }
        if seen.len() > MAX_MEMBERS {
            return Err(ArchiveError::TooMuch("too many files"));
        }
        let Some(limit) = wanted(&path) else { continue };
        let size = entry.header().entry_size()?;
        total = total.saturating_add(size);
        if size > limit {
            return Err(ArchiveError::TooMuch("a file larger than any of its kind"));
        }
        if total > most {
            return Err(ArchiveError::TooMuch("more than 32 MiB of keys"));
        }
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        entry.read_to_end(&mut data)?;
        if data.len() as u64 != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut").into());
        }
        take(Member { path, data });
    }
    drain(input)
}

/// Reads the rest: tar's own padding, so that gzip's checksum is reached, and nothing else.
fn drain(input: &mut impl Read) -> Result<(), ArchiveError> {
    let mut rest = [0; 8192];
    loop {
        match input.read(&mut rest) {
            Ok(0) => return Ok(()),
            Ok(count) if rest[..count].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return Err(ArchiveError::TooMuch("something after its end")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn what(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink | EntryType::Link | EntryType::GNULongLink => "a link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        _ => "of a kind that no backup has",
    }
}

/// The path in GNU's entry of its own: the bytes up to the first NUL.
fn gnu_path<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let mut path = small(entry, MAX_PATH as u64 + 1)?;
    if let Some(end) = path.iter().position(|byte| *byte == 0) {
        path.truncate(end);
    }
    Ok(path)
}

/// The path in a pax header (POSIX.1-2001, `LEN KEY=VALUE\n` records), if it has one.
fn pax_path<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<Vec<u8>>, ArchiveError> {
    let records = small(entry, MAX_PAX)?;
    let mut rest = &records[..];
    let mut path = None;
    let broken = || ArchiveError::Io(io::Error::other("an extended header is broken"));
    while !rest.is_empty() {
        let space = rest
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(broken)?;
        let length: usize = std::str::from_utf8(&rest[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(broken)?;
        if length <= space + 1 || length > rest.len() {
            return Err(broken());
        }
        let (record, after) = rest.split_at(length);
        rest = after;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(value.to_vec());
        } else if record.starts_with(b"size=") || record.starts_with(b"GNU.sparse") {
            // What these describe is not what follows; no key file needs them.
            return Err(ArchiveError::TooMuch("a sparse or enormous file"));
        }
    }
    Ok(path)
}

fn small<R: Read>(entry: &mut Entry<'_, R>, limit: u64) -> Result<Vec<u8>, ArchiveError> {
    if entry.header().entry_size()? > limit {
        return Err(ArchiveError::TooMuch("a header larger than any real one"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path that stays inside, without `./` before it and `/` behind it.
fn checked(raw: &[u8]) -> Result<String, ArchiveError> {
    let shown = || String::from_utf8_lossy(&raw[..raw.len().min(MAX_PATH)]).into_owned();
    let text = std::str::from_utf8(raw).map_err(|_| ArchiveError::Escapes(shown()))?;
    if text.is_empty()
        || text.len() > MAX_PATH
        || text.starts_with('/')
        || text.chars().any(|c| c.is_control() || c == '\\')
    {
        return Err(ArchiveError::Escapes(shown()));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(ArchiveError::Escapes(shown())),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Ends a reader that unpacks to more than it should.
struct Limited<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("it unpacks to more than 512 MiB"))?;
        Ok(count)
    }
}

/// The most bytes that one of our own members may have; `None` for what none of ours is called.
#[must_use]
pub fn size_limit(path: &str) -> Option<u64> {
    match path {
        path::MANIFEST | path::STATE => Some(MAX_DOCUMENT),
        path::RECOVER | path::KEYRING | path::ROOT | path::POLICY => Some(MAX_MEMBER),
        _ => key_of(path).map(|_| MAX_MEMBER),
    }
}

/// The key ID in the path of a key file, as the archive names it.
#[must_use]
pub fn key_of(path: &str) -> Option<&str> {
    let native = path
        .strip_prefix("signet/keys/")
        .and_then(|name| name.strip_suffix(".age"));
    let docker = || {
        path.strip_prefix("docker/trust/private/")
            .and_then(|name| name.strip_suffix(".key"))
    };
    native.or_else(docker).filter(|id| is_id(id))
}

/// 64 lower-case hex digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
