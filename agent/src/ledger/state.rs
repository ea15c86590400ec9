//! Collections and guard state: read once, compared and written in the transaction that releases.
//!
//! The agent is the only writer, so what was read or written stays in memory; `PRAGMA data_version`,
//! asked inside each transaction, tells when somebody else has written after all, and then
//! everything is read again.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};
use signet_trust::{
    Gun, RoleName,
    base::{Lineage, RecordedRoot},
    guard::{History, Mark, RoleState, Standing, State},
};

use super::{LedgerError, Release};

/// What is recorded for a GUN, with the numbers of its collections.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) history: History,
    numbers: BTreeMap<Lineage, i64>,
}

/// GUNs as they were last read or written.
pub(super) type Cache = HashMap<Gun, Known>;

const RELEASED: u32 = 1;
const PUBLISHED: u32 = 2;

/// Everything recorded for a GUN.
pub(super) fn read(db: &Connection, gun: &Gun) -> Result<Known, LedgerError> {
    let mut known = Known::default();
    let mut collections =
        db.prepare_cached("SELECT number, lineage, timestamp FROM collection WHERE gun = ?1")?;
    let mut rows = collections.query([gun.as_str()])?;
    while let Some(row) = rows.next()? {
        let (number, lineage) = (row.get(0)?, Lineage(row.get(1)?));
        let state = State {
            timestamp: row.get(2)?,
            roles: roles(db, number)?,
        };
        known.numbers.insert(lineage, number);
        known.history.collections.insert(lineage, state);
    }
    Ok(known)
}

fn roles(db: &Connection, collection: i64) -> Result<BTreeMap<RoleName, RoleState>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT role, seen_version, seen_hash, signed_version, signed_hash, standing, published
         FROM guard WHERE collection = ?1",
    )?;
    let mut rows = select.query([collection])?;
    let mut roles = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let role = name.parse().map_err(|_| {
            LedgerError::Row(format!(
                "the guard state of a collection names the role {name:?}"
            ))
        })?;
        let mark = |version: Option<u32>, hash: Option<[u8; 32]>| match (version, hash) {
            (Some(version), Some(hash)) => Ok(Some(Mark { version, hash })),
            (None, None) => Ok(None),
            _ => Err(LedgerError::Row(format!(
                "the guard state of {name} is half written"
            ))),
        };
        let signed = match (
            mark(row.get(3)?, row.get(4)?)?,
            row.get::<_, Option<u32>>(5)?,
        ) {
            (Some(mark), Some(RELEASED)) => Some((mark, Standing::Released)),
            (Some(mark), Some(PUBLISHED)) => Some((mark, Standing::Published)),
            (None, None) => None,
            _ => {
                return Err(LedgerError::Row(format!(
                    "the guard state of {name} is half written"
                )));
            }
        };
        let state = RoleState {
            seen: mark(row.get(1)?, row.get(2)?)?,
            signed,
            published: row.get(6)?,
        };
        roles.insert(role, state);
    }
    Ok(roles)
}

/// Newest recorded root of each lineage.
pub(super) fn roots(db: &Connection, gun: &Gun) -> rusqlite::Result<Vec<RecordedRoot>> {
    let mut select = db.prepare_cached(
        "SELECT lineage, root FROM collection WHERE gun = ?1 AND root IS NOT NULL ORDER BY number",
    )?;
    let rows = select.query_map([gun.as_str()], |row| {
        Ok(RecordedRoot {
            lineage: Lineage(row.get(0)?),
            wire: row.get(1)?,
        })
    })?;
    rows.collect()
}

/// GUNs that have a collection.
pub(super) fn guns(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = db.prepare_cached("SELECT DISTINCT gun FROM collection ORDER BY gun")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// Writes what a release moves, if the history still is what it was decided on.
pub(super) fn release(
    db: &Connection,
    known: &mut Known,
    release: &Release,
) -> Result<(), LedgerError> {
    if known.history != release.decided_on {
        return Err(LedgerError::Moved(release.gun.clone()));
    }
    for lineage in &release.pass.superseded_lineages {
        if let Some(number) = known.numbers.remove(lineage) {
            db.prepare_cached("DELETE FROM guard WHERE collection = ?1")?
                .execute([number])?;
            db.prepare_cached("DELETE FROM collection WHERE number = ?1")?
                .execute([number])?;
        }
        known.history.collections.remove(lineage);
    }
    let root = release.root_wire.as_deref();
    write(
        db,
        known,
        &release.gun,
        release.pass.lineage,
        root,
        &release.pass.state,
    )
}

/// Writes a collection's state: what differs from what is recorded, and a new root.
pub(super) fn write(
    db: &Connection,
    known: &mut Known,
    gun: &Gun,
    lineage: Lineage,
    root: Option<&[u8]>,
    state: &State,
) -> Result<(), LedgerError> {
    let before = known.history.collections.get(&lineage);
    let number = match known.numbers.get(&lineage) {
        Some(number) => {
            if root.is_some() {
                db.prepare_cached("UPDATE collection SET root = ?2 WHERE number = ?1")?
                    .execute(params![number, root])?;
            }
            if before.is_none_or(|before| before.timestamp != state.timestamp) {
                db.prepare_cached("UPDATE collection SET timestamp = ?2 WHERE number = ?1")?
                    .execute(params![number, state.timestamp])?;
            }
            *number
        }
        None => {
            db.prepare_cached(
                "INSERT INTO collection (gun, lineage, root, timestamp) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![gun.as_str(), &lineage.0[..], root, state.timestamp])?;
            let number = db.last_insert_rowid();
            known.numbers.insert(lineage, number);
            number
        }
    };
    if let Some(before) = before {
        for gone in before
            .roles
            .keys()
            .filter(|role| !state.roles.contains_key(role))
        {
            db.prepare_cached("DELETE FROM guard WHERE collection = ?1 AND role = ?2")?
                .execute(params![number, gone.as_str()])?;
        }
    }
    for (role, after) in &state.roles {
        if before.and_then(|before| before.roles.get(role)) != Some(after) {
            write_role(db, number, role, after)?;
        }
    }
    if before != Some(state) {
        known.history.collections.insert(lineage, state.clone());
    }
    Ok(())
}

fn write_role(
    db: &Connection,
    collection: i64,
    role: &RoleName,
    state: &RoleState,
) -> rusqlite::Result<()> {
    let signed = state.signed.as_ref().map(|(mark, _)| mark);
    let standing = state.signed.as_ref().map(|(_, standing)| match standing {
        Standing::Released => RELEASED,
        Standing::Published => PUBLISHED,
    });
    db.prepare_cached(
        "INSERT INTO guard (collection, role, seen_version, seen_hash, signed_version, signed_hash,
                            standing, published)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (collection, role) DO UPDATE SET
             seen_version = ?3, seen_hash = ?4, signed_version = ?5, signed_hash = ?6,
             standing = ?7, published = ?8",
    )?
    .execute(params![
        collection,
        role.as_str(),
        state.seen.map(|mark| mark.version),
        state.seen.as_ref().map(|mark| &mark.hash[..]),
        signed.map(|mark| mark.version),
        signed.map(|mark| &mark.hash[..]),
        standing,
        state.published,
    ])?;
    Ok(())
}

/// A number that changes when another connection has written.
pub(super) fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    let version = db
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0))
}
