//! The file: where it may lie, how it is opened, and its schema by version.
//!
//! `PRAGMA user_version` counts the migrations that were applied; each runs in one transaction with
//! its number, so that a kill between two leaves the older version, whole. A file of a newer
//! version is refused: an older agent would record less than the newer one relies on.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::LedgerError;

/// Migrations in order; never edited once released, only added to.
const MIGRATIONS: &[&str] = &[
    r#"
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys that were generated, imported or accepted here.
CREATE TABLE "index" (
    id           BLOB PRIMARY KEY CHECK (length(id) = 32),
    role         TEXT NOT NULL,
    gun          TEXT,
    label        TEXT NOT NULL,
    store        TEXT NOT NULL,
    key_type     TEXT NOT NULL,
    public       BLOB NOT NULL,
    enrolled_at  INTEGER NOT NULL,
    certificates BLOB NOT NULL CHECK (length(certificates) % 32 = 0),
    used_opaque  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX index_label ON "index" (label) WHERE label <> '';

-- A GUN and the digest of the first root that was made or verified here.
CREATE TABLE collection (
    number    INTEGER PRIMARY KEY,
    gun       TEXT NOT NULL,
    lineage   BLOB NOT NULL CHECK (length(lineage) = 32),
    root      BLOB,
    timestamp INTEGER,
    UNIQUE (gun, lineage)
) STRICT;

-- What the guard remembers of each role. standing: 1 released, 2 published.
CREATE TABLE guard (
    collection     INTEGER NOT NULL REFERENCES collection ON DELETE CASCADE,
    role           TEXT NOT NULL,
    seen_version   INTEGER,
    seen_hash      BLOB,
    signed_version INTEGER,
    signed_hash    BLOB,
    standing       INTEGER,
    published      INTEGER,
    PRIMARY KEY (collection, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    number  INTEGER PRIMARY KEY,
    time    INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    gun     TEXT NOT NULL,
    role    TEXT NOT NULL,
    version INTEGER NOT NULL,
    key     BLOB,
    payload BLOB,
    summary TEXT NOT NULL,
    caller  TEXT NOT NULL,
    grade   INTEGER NOT NULL,
    rule    TEXT NOT NULL,
    outcome TEXT NOT NULL,
    hash    BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER log_is_never_changed BEFORE UPDATE ON log
BEGIN SELECT raise(ABORT, 'the log is never changed'); END;
CREATE TRIGGER log_is_never_shortened BEFORE DELETE ON log
BEGIN SELECT raise(ABORT, 'the log is never shortened'); END;

-- Keys that were here and are not any more.
CREATE TABLE tombstone (
    id       BLOB PRIMARY KEY CHECK (length(id) = 32),
    reason   TEXT NOT NULL,
    role     TEXT NOT NULL,
    gun      TEXT,
    label    TEXT NOT NULL,
    store    TEXT NOT NULL,
    key_type TEXT NOT NULL,
    public   BLOB NOT NULL,
    time     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"#,
    r#"
-- Cards by the number printed on them.
CREATE TABLE card (
    serial   INTEGER PRIMARY KEY,
    label    TEXT NOT NULL,
    firmware TEXT NOT NULL
) STRICT;

-- Where enrolled keys lie on cards. A key may lie on several.
CREATE TABLE place (
    key          BLOB NOT NULL CHECK (length(key) = 32),
    serial       INTEGER NOT NULL,
    slot         TEXT NOT NULL,
    pin_policy   TEXT NOT NULL,
    touch_policy TEXT NOT NULL,
    origin       TEXT NOT NULL,
    firmware     TEXT NOT NULL,
    attestation  BLOB NOT NULL,
    own          BLOB NOT NULL,
    proves       TEXT NOT NULL,
    PRIMARY KEY (key, serial, slot)
) STRICT, WITHOUT ROWID;
"#,
    r#"
-- A label that an archive gave a key, and nobody here has confirmed.
ALTER TABLE "index" ADD COLUMN label_claimed INTEGER NOT NULL DEFAULT 0;
-- Why a key went, in words: where it was moved to.
ALTER TABLE tombstone ADD COLUMN detail TEXT NOT NULL DEFAULT '';

-- Floors of the guard that only an archive claims: no verified base has reached them yet.
CREATE TABLE claim (
    gun     TEXT NOT NULL,
    lineage BLOB NOT NULL CHECK (length(lineage) = 32),
    role    TEXT NOT NULL,
    version INTEGER NOT NULL,
    source  TEXT NOT NULL,
    PRIMARY KEY (gun, lineage, role)
) STRICT, WITHOUT ROWID;
"#,
    r#"
-- Who asked and how it was answered, as canonical JSON; empty: not recorded.
ALTER TABLE log ADD COLUMN facts TEXT NOT NULL DEFAULT '';

-- What the log's newest entry was at a time; signature and public key are empty where no keyring
-- was open.
CREATE TABLE checkpoint (
    number    INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    head      BLOB NOT NULL CHECK (length(head) = 32),
    public    BLOB NOT NULL CHECK (length(public) IN (0, 32)),
    signature BLOB NOT NULL CHECK (length(signature) IN (0, 64)),
    PRIMARY KEY (number, public)
) STRICT, WITHOUT ROWID;
"#,
    r#"
-- Keys that move to another host or come from one: how far that is, as JSON. side: old or new.
CREATE TABLE migration (
    id     TEXT NOT NULL,
    side   TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (id, side)
) STRICT, WITHOUT ROWID;
"#,
];

/// `file` and other tools name the type of an SQLite file by this: "Sgnt".
const APPLICATION_ID: i32 = 0x5367_6e74;
/// Nobody but a person with the sqlite3 command ever holds the file's lock.
const BUSY: Duration = Duration::from_secs(5);
/// Statements kept prepared: more than there are.
const STATEMENTS: usize = 64;

/// Opens or creates the database, private to the user and at the newest version.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    create(path).map_err(|source| LedgerError::Io {
        path: path.to_owned(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // SQLite refuses a path that has a link in any component: those above the home may be links.
    let real = match path.parent().map(fs::canonicalize) {
        Some(Ok(dir)) => dir.join(path.file_name().unwrap_or_default()),
        _ => path.to_owned(),
    };
    let mut db = Connection::open_with_flags(real, flags)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -1024;",
    )?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(LedgerError::Damaged {
            path: path.to_owned(),
            why: format!("its file system does not allow a write-ahead log ({mode})"),
        });
    }
    migrate(&mut db)?;
    Ok(db)
}

/// Makes an empty file of mode 0600, durably, so that SQLite's own files get that mode, too.
fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(file) => {
            file.sync_all()?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let facts = fs::symlink_metadata(path)?;
            if !facts.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            if facts.mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn migrate(db: &mut Connection) -> Result<(), LedgerError> {
    let known = u32::try_from(MIGRATIONS.len()).expect("a handful");
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    if found == known {
        return Ok(());
    }
    for migration in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}
