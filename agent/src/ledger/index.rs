//! The index: which keys were generated, imported or accepted here; and what is left of the others.

use rusqlite::{Connection, OptionalExtension, Row, params};
use signet_trust::{KeyId, KeyType, PublicKey};

use super::{IndexEntry, KnownCard, LedgerError, Place, REMOVED, Tombstone};

/// All enrolled keys, by ID.
pub(super) fn list(db: &Connection) -> Result<Vec<IndexEntry>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT id, role, gun, label, store, key_type, public, enrolled_at, certificates,
                used_opaque, label_claimed
         FROM \"index\" ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    let mut select = db.prepare_cached(
        "SELECT key, serial, slot, pin_policy, touch_policy, origin, firmware, attestation, own,
                proves
         FROM place ORDER BY key, serial, slot",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id = KeyId(row.get(0)?);
        let Some(key) = keys.iter_mut().find(|key| key.id == id) else {
            continue;
        };
        key.places.push(Place {
            serial: row.get(1)?,
            slot: row.get(2)?,
            pin_policy: row.get(3)?,
            touch_policy: row.get(4)?,
            origin: row.get(5)?,
            firmware: row.get(6)?,
            attestation: row.get(7)?,
            own: row.get(8)?,
            proves: row.get(9)?,
        });
    }
    Ok(keys)
}

/// Cards that have a name here.
pub(super) fn cards(db: &Connection) -> Result<Vec<KnownCard>, LedgerError> {
    let mut select = db.prepare_cached("SELECT serial, label, firmware FROM card")?;
    let cards = select.query_map([], |row| {
        Ok(KnownCard {
            serial: row.get(0)?,
            label: row.get(1)?,
            firmware: row.get(2)?,
        })
    })?;
    Ok(cards.collect::<Result<_, _>>()?)
}

/// Names a card.
pub(super) fn name_card(db: &Connection, card: &KnownCard) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO card (serial, label, firmware) VALUES (?1, ?2, ?3)")?
        .execute(params![card.serial, card.label, card.firmware])?;
    Ok(())
}

/// Forgets a card and what lies on it.
pub(super) fn forget_card(db: &Connection, serial: u32) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM card WHERE serial = ?1")?
        .execute([serial])?;
    db.prepare_cached("DELETE FROM place WHERE serial = ?1")?
        .execute([serial])?;
    Ok(())
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
        places: Vec::new(),
        label_claimed: row.get(10)?,
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
                                certificates, used_opaque, label_claimed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET
             role = ?2, gun = ?3, label = ?4, store = ?5, key_type = ?6, public = ?7,
             enrolled_at = ?8, certificates = ?9, used_opaque = ?10, label_claimed = ?11",
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
        key.label_claimed,
    ])?;
    db.prepare_cached("DELETE FROM place WHERE key = ?1")?
        .execute([&key.id.0[..]])?;
    for place in &key.places {
        db.prepare_cached(
            "INSERT INTO place (key, serial, slot, pin_policy, touch_policy, origin, firmware,
                                attestation, own, proves)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            &key.id.0[..],
            place.serial,
            place.slot,
            place.pin_policy,
            place.touch_policy,
            place.origin,
            place.firmware,
            place.attestation,
            place.own,
            place.proves,
        ])?;
    }
    db.prepare_cached("DELETE FROM tombstone WHERE id = ?1 AND reason = ?2")?
        .execute(params![&key.id.0[..], REMOVED])?;
    Ok(())
}

/// Moves a key from the index to the tombstones; one that is not in the index is left alone.
pub(super) fn bury(
    db: &Connection,
    id: &KeyId,
    reason: &str,
    detail: &str,
    time: i64,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO tombstone (id, reason, role, gun, label, store, key_type, public,
                                           time, detail)
         SELECT id, ?2, role, gun, label, store, key_type, public, ?3, ?4 FROM \"index\"
         WHERE id = ?1",
    )?
    .execute(params![&id.0[..], reason, time, detail])?;
    db.prepare_cached("DELETE FROM \"index\" WHERE id = ?1")?
        .execute([&id.0[..]])?;
    db.prepare_cached("DELETE FROM place WHERE key = ?1")?
        .execute([&id.0[..]])?;
    Ok(())
}

/// Takes a tombstone away.
pub(super) fn unbury(db: &Connection, id: &KeyId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM tombstone WHERE id = ?1")?
        .execute([&id.0[..]])?;
    Ok(())
}

/// Records what is left of a key elsewhere; one that is recorded already, or enrolled, stays.
pub(super) fn claim_tombstone(db: &Connection, stone: &Tombstone) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO tombstone (id, reason, role, gun, label, store, key_type, public,
                                          time, detail)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
         WHERE NOT EXISTS (SELECT 1 FROM \"index\" WHERE id = ?1)",
    )?
    .execute(params![
        &stone.id.0[..],
        stone.reason,
        stone.role,
        stone.gun,
        stone.label,
        stone.store,
        stone.public.key_type().as_str(),
        stone.public.public(),
        stone.time,
        stone.detail,
    ])?;
    Ok(())
}

/// What is left of a key that was here.
pub(super) fn tombstone(db: &Connection, id: &KeyId) -> Result<Option<Tombstone>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT id, reason, role, gun, label, store, key_type, public, time, detail
         FROM tombstone WHERE id = ?1",
    )?;
    let mut rows = select.query([&id.0[..]])?;
    rows.next()?.map(stone).transpose()
}

/// What is left of every key that was here, in the order of their IDs.
pub(super) fn tombstones(db: &Connection) -> Result<Vec<Tombstone>, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT id, reason, role, gun, label, store, key_type, public, time, detail
         FROM tombstone ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    let mut stones = Vec::new();
    while let Some(row) = rows.next()? {
        stones.push(stone(row)?);
    }
    Ok(stones)
}

fn stone(row: &Row<'_>) -> Result<Tombstone, LedgerError> {
    let id = KeyId(row.get(0)?);
    Ok(Tombstone {
        id,
        reason: row.get(1)?,
        role: row.get(2)?,
        gun: row.get(3)?,
        label: row.get(4)?,
        store: row.get(5)?,
        public: public(id, &row.get::<_, String>(6)?, row.get(7)?)?,
        time: row.get(8)?,
        detail: row.get(9)?,
    })
}
