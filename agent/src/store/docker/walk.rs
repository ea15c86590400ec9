//! What lies in Docker's key directory, as docker would list it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use signet_trust::KeyId;

use crate::store::StoreError;

/// Deeper or larger trees are no key directories: a GUN has at most 128 components.
const MAX_DEPTH: usize = 130;
const MAX_ENTRIES: usize = 100_000;
/// Problems beyond this many are counted, not listed.
const MAX_PROBLEMS: usize = 100;

/// Loadable keys, and everything else that looks like one.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) ids: BTreeSet<KeyId>,
    pub(super) problems: Vec<String>,
}

/// Lists the directory as Go does: recursively, `*.key`, symbolic links skipped.
///
/// # Errors
///
/// [`StoreError::Io`] when `private` itself cannot be read; an absent one is empty.
pub(super) fn walk(private: &Path) -> Result<Files, StoreError> {
    let mut files = Files::default();
    let mut problems = Vec::new();
    let mut left = MAX_ENTRIES;
    let mut todo = vec![(private.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => break,
            Err(source) if depth == 0 => {
                return Err(StoreError::Io {
                    what: "read",
                    path: dir,
                    source,
                });
            }
            Err(error) => {
                problems.push(format!("cannot read {}: {error}", dir.display()));
                continue;
            }
        };
        for entry in entries.flatten() {
            if left == 0 {
                problems.push(format!(
                    "{} holds too many files to list",
                    private.display()
                ));
                todo.clear();
                break;
            }
            left -= 1;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                if depth < MAX_DEPTH {
                    todo.push((path, depth + 1));
                }
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "key") {
                continue;
            }
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::parse);
            match id {
                _ if kind.is_symlink() => problems.push(format!(
                    "{} is a symbolic link, which docker skips; put the file itself there",
                    path.display()
                )),
                _ if !kind.is_file() => {
                    problems.push(format!("{} is not a regular file", path.display()));
                }
                _ if depth > 0 => problems.push(below(private, path)),
                Some(Ok(id)) => {
                    files.ids.insert(id);
                }
                _ => problems.push(format!(
                    "{} is not named <key ID>.key, so docker does not load it; \
                     `signet key import` takes it",
                    path.display()
                )),
            }
        }
    }
    problems.sort_unstable();
    if problems.len() > MAX_PROBLEMS {
        let more = problems.len() - MAX_PROBLEMS;
        problems.truncate(MAX_PROBLEMS);
        problems.push(format!("{more} more problems in {}", private.display()));
    }
    files.problems = problems;
    Ok(files)
}

/// A key in a sub-directory: the layout of notary before 0.4, or a mistake.
fn below(private: &Path, path: PathBuf) -> String {
    let legacy = path
        .strip_prefix(private)
        .ok()
        .and_then(|path| path.components().next())
        .is_some_and(|first| matches!(first.as_os_str().to_str(), Some("root_keys" | "tuf_keys")));
    if legacy {
        format!(
            "{} is in the layout of notary before 0.4; `signet key import {}` takes it",
            path.display(),
            private.display()
        )
    } else {
        format!(
            "{} lies in a sub-directory, where docker lists but does not load it; \
             move it to {}, or `signet key import` it",
            path.display(),
            private.display()
        )
    }
}
