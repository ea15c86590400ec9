//! What files hold: key blocks, with what names and headers say of them.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use signet_trust::keyfile::{KeyFile, KeyFileError, legacy_name};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, exit},
    ui::text::escape,
};

/// Largest file read: an export bundle, 16 MiB.
const MAX_FILE: u64 = 16 << 20;
/// Most files taken from directories.
const MAX_FILES: usize = 10_000;
/// Deepest directory: old layouts nest one directory per part of a GUN.
const MAX_DEPTH: usize = 16;

/// One private-key block.
pub(crate) struct Block {
    /// File, and place in it where it holds several.
    pub(crate) source: String,
    /// The block, from BEGIN to END.
    pub(crate) pem: Zeroizing<Vec<u8>>,
    /// The file as it is where it holds no other block; else the block.
    pub(crate) whole: Zeroizing<Vec<u8>>,
    /// What a name of the old layout says; headers are the agent's to read.
    pub(crate) role: Option<String>,
    /// As `role`.
    pub(crate) gun: Option<String>,
    /// The ID that the file's name claims.
    pub(crate) expected_id: Option<String>,
}

/// Everything that the paths on the command line lead to.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) blocks: Vec<Block>,
    /// Files that hold no usable key, and why.
    pub(crate) failures: Vec<(String, Failure)>,
    /// What was passed over.
    pub(crate) notes: Vec<String>,
}

/// Reads files and directories.
pub(crate) fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        match fs::metadata(path) {
            Ok(kind) if kind.is_dir() => {
                let mut files = Vec::new();
                walk(path, 0, &mut files, &mut found);
                files.sort();
                for file in files {
                    read(&file, &mut found);
                }
            }
            Ok(_) => read(path, &mut found),
            Err(error) => {
                let failure = Failure::file("read", path, error);
                found.failures.push((path.display().to_string(), failure));
            }
        }
    }
    found
}

fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>, found: &mut Found) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let failure = Failure::file("read", dir, error);
            found.failures.push((dir.display().to_string(), failure));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() {
            found.notes.push(format!(
                "{} is a symbolic link and is left out",
                shown(&path)
            ));
        } else if kind.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, files, found);
        } else if kind.is_file()
            && path
                .extension()
                .is_some_and(|end| end == "key" || end == "pem")
        {
            if files.len() == MAX_FILES {
                found.notes.push(format!(
                    "{} holds more than {MAX_FILES} key files; the rest is left out",
                    shown(dir)
                ));
                return;
            }
            files.push(path);
        }
    }
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

fn read(path: &Path, found: &mut Found) {
    let source = shown(path);
    match read_bounded(path) {
        Err(error) => found
            .failures
            .push((source, Failure::file("read", path, error))),
        Ok(None) => found.failures.push((
            source.clone(),
            bad_file(&source, &"it is larger than 16 MiB, so it is no key file"),
        )),
        Ok(Some(bytes)) => match blocks(&bytes, path) {
            Ok(blocks) => found.blocks.extend(blocks),
            Err(error) => found
                .failures
                .push((source.clone(), bad_file(&source, &error))),
        },
    }
}

fn bad_file(source: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::FAILED, "bad_key_file", format!("{source}: {why}"))
}

/// The file's bytes, wiped after use: a key file need not be encrypted. `None`: too large.
fn read_bounded(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        // A pipe or device: read as it comes, below the same limit.
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        return Ok((bytes.len() as u64 <= MAX_FILE).then_some(bytes));
    }
    let size = file.metadata()?.len();
    if size > MAX_FILE {
        return Ok(None);
    }
    // Room at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_FILE).then_some(bytes))
}

/// The private-key blocks of a file; at least one.
pub(crate) fn blocks(bytes: &[u8], path: &Path) -> Result<Vec<Block>, KeyFileError> {
    let parsed = KeyFile::parse_all(bytes)?;
    let legacy = legacy_part(path).as_deref().and_then(legacy_name);
    let several = parsed.len() > 1;
    let found = split(bytes)
        .zip(parsed)
        .enumerate()
        .map(|(at, (pem, file))| {
            // In a bundle each block carries the path that it had.
            let (name, legacy) = match &file.path {
                Some(path) => (
                    Some(stem(Path::new(path))),
                    legacy_name(&format!("{path}.key")),
                ),
                None if several => (None, None),
                None => (Some(stem(path)), legacy.clone()),
            };
            let expected_id = match &legacy {
                Some(legacy) => legacy.id.map(|id| id.to_string()),
                None => name.filter(|name| is_id(name)),
            };
            // Of several keys in one file each is called by its ID, else by its place.
            let source = match (several, &expected_id) {
                (false, _) => shown(path),
                (true, Some(id)) => format!("{} (key {id})", shown(path)),
                (true, None) => format!("{} (key {})", shown(path), at + 1),
            };
            let (role, gun) = legacy.map_or((None, None), |legacy| (legacy.role, legacy.gun));
            Block {
                source,
                whole: Zeroizing::new(if several { pem } else { bytes }.to_vec()),
                pem: without_headers(pem, role.is_some(), gun.is_some()),
                role,
                gun,
                expected_id,
            }
        })
        .collect();
    Ok(found)
}

/// The text of each private-key block, in order.
fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = None;
    let mut at = 0;
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(move |line| {
            let begins_at = at;
            at += line.len();
            let text = line.trim_ascii();
            if text.starts_with(b"-----BEGIN ") {
                start = text.ends_with(b"PRIVATE KEY-----").then_some(begins_at);
            } else if text.starts_with(b"-----END ")
                && let Some(start) = start.take()
            {
                return Some(&bytes[start..at]);
            }
            None
        })
}

/// Drops `role` and `gun` headers that the file's name overrules, as notary's own migration does.
fn without_headers(pem: &[u8], role: bool, gun: bool) -> Zeroizing<Vec<u8>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(pem.len()));
    for line in pem.split_inclusive(|byte| *byte == b'\n') {
        if !(role && line.starts_with(b"role:") || gun && line.starts_with(b"gun:")) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// The path from `root_keys` or `tuf_keys` on, where it has one.
fn legacy_part(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path
        .iter()
        .map(|part| part.to_str())
        .collect::<Option<_>>()?;
    let at = parts
        .iter()
        .rposition(|part| *part == "root_keys" || *part == "tuf_keys")?;
    Some(parts[at..].join("/"))
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn is_id(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nrole: targets\n\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn only_private_keys_are_taken_from_a_bundle() {
        let bundle = format!("note\n{CERT}{ONE}{CERT}{ONE}");
        let found: Vec<_> = split(bundle.as_bytes()).collect();
        assert_eq!(found, [ONE.as_bytes(), ONE.as_bytes()]);
    }

    #[test]
    fn a_block_without_an_end_is_none() {
        assert_eq!(split(b"-----BEGIN PRIVATE KEY-----\nAAAA\n").count(), 0);
        assert_eq!(split(b"").count(), 0);
    }

    #[test]
    fn an_old_name_overrules_the_headers() {
        let kept = without_headers(ONE.as_bytes(), true, false);
        assert!(!String::from_utf8_lossy(&kept).contains("role"));
        assert_eq!(
            legacy_part(Path::new("/h/trust/private/tuf_keys/reg/app/x_targets.key")).as_deref(),
            Some("tuf_keys/reg/app/x_targets.key")
        );
        assert_eq!(legacy_part(Path::new("/h/trust/private/x.key")), None);
    }

    #[test]
    fn a_file_that_is_no_key_file_fails_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.key"), b"no PEM").unwrap();
        fs::write(dir.path().join("notes.txt"), b"not looked at").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b.key")).unwrap();
        let found = find(&[dir.path().to_owned(), dir.path().join("gone")]);
        assert!(found.blocks.is_empty());
        assert_eq!(found.failures.len(), 2);
        assert_eq!(found.notes.len(), 1);
    }
}
