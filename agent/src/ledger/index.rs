//! The index: which keys were generated, imported or accepted here; and what is left of the others.

use rusqlite::{Connection, OptionalExtension, Row, params};
use signet_trust::{KeyId, KeyType, PublicKey};

use super::{IndexEntry, LedgerError, Tombstone};

/// Why a key went, as far as this version writes it.
const REMOVED: &str = "removed";

/// All enrolled keys, by ID.
pub(super) fn list(db: &Connection) -> Result<Vec<IndexEntry>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT id, role, gun, label, store, key_type, public, enrolled_at, certificates,
                used_opaque
         FROM \"index\" ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    Ok(keys)
}

fn read(row: &Row<'_>) -> Result<IndexEntry, LedgerError> {
    let id = KeyId(row.get(0)?);
    let public = public(id, &row.get::<_, String>(5)?, row.get(6)?)?;
    let certificates: Vec<u8> = row.get(8)?;
    Ok(IndexEntry {
        id,
        role: row.get(1)?,
        gun: row.get(2)?,
        label: row.get(3)?,
        store: row.get(4)?,
        public,
        enrolled_at: row.get(7)?,
        certificates: certificates
            .chunks_exact(32)
            .map(|id| KeyId(id.try_into().expect("chunks of 32")))
            .collect(),
        used_opaque: row.get(9)?,
    })
}

/// A public key that is the one its row is about.
fn public(id: KeyId, key_type: &str, bytes: Vec<u8>) -> Result<PublicKey, LedgerError> {
    let wrong = || LedgerError::Row(format!("the index holds another public key for key {id}"));
    let key_type = KeyType::from_name(key_type).ok_or_else(wrong)?;
    let public = PublicKey::new(key_type, bytes);
    if public.id() == id {
        Ok(public)
    } else {
        Err(wrong())
    }
}

/// Enrols a key or changes what is said of it. A tombstone that `remove` left goes.
pub(super) fn enrol(db: &Connection, key: &IndexEntry) -> Result<(), LedgerError> {
    if !key.label.is_empty() {
        let taken: Option<[u8; 32]> = db
            .prepare_cached("SELECT id FROM \"index\" WHERE label = ?1 AND id <> ?2")?
            .query_row(params![key.label, &key.id.0[..]], |row| row.get(0))
            .optional()?;
        if let Some(id) = taken {
            return Err(LedgerError::LabelTaken {
                label: key.label.clone(),
                id: KeyId(id),
            });
        }
    }
    let certificates: Vec<u8> = key.certificates.iter().flat_map(|id| id.0).collect();
    db.prepare_cached(
        "INSERT INTO \"index\" (id, role, gun, label, store, key_type, public, enrolled_at,
                                certificates, used_opaque)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET
             role = ?2, gun = ?3, label = ?4, store = ?5, key_type = ?6, public = ?7,
             enrolled_at = ?8, certificates = ?9, used_opaque = ?10",
    )?
    .execute(params![
        &key.id.0[..],
        key.role,
        key.gun,
        key.label,
        key.store,
        key.public.key_type().as_str(),
        key.public.public(),
        key.enrolled_at,
        certificates,
        key.used_opaque,
    ])?;
    db.prepare_cached("DELETE FROM tombstone WHERE id = ?1 AND reason = ?2")?
        .execute(params![&key.id.0[..], REMOVED])?;
    Ok(())
}

/// Moves a key from the index to the tombstones; one that is not in the index is left alone.
pub(super) fn remove(db: &Connection, id: &KeyId, time: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO tombstone (id, reason, role, gun, label, store, key_type, public,
                                           time)
         SELECT id, ?2, role, gun, label, store, key_type, public, ?3 FROM \"index\"
         WHERE id = ?1",
    )?
    .execute(params![&id.0[..], REMOVED, time])?;
    db.prepare_cached("DELETE FROM \"index\" WHERE id = ?1")?
        .execute([&id.0[..]])?;
    Ok(())
}

/// What is left of a key that was here.
pub(super) fn tombstone(db: &Connection, id: &KeyId) -> Result<Option<Tombstone>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT reason, role, gun, label, store, key_type, public, time FROM tombstone
         WHERE id = ?1",
    )?;
    let mut rows = select.query([&id.0[..]])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(Tombstone {
        id: *id,
        reason: row.get(0)?,
        role: row.get(1)?,
        gun: row.get(2)?,
        label: row.get(3)?,
        store: row.get(4)?,
        public: public(*id, &row.get::<_, String>(5)?, row.get(6)?)?,
        time: row.get(7)?,
    }))
}
