//! Floors of the guard that only an archive claims.
//!
//! A restore raises guard state to what its archive says was signed. Until a verified base has
//! reached such a version nobody but the archive has told of it, and whoever meets an older base
//! learns that.

use rusqlite::{Connection, params};
use signet_trust::{Gun, base::Lineage};

use super::{Ledger, LedgerError};

/// A version that an archive claims of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of which collection.
    pub lineage: Lineage,
    /// root, targets, timestamp …
    pub role: String,
    /// At least this one was signed or seen, it says.
    pub version: u32,
    /// The archive, in words.
    pub source: String,
}

impl Ledger {
    /// GUNs of which an archive claims something that no verified base has reached.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn claimed_guns(&self) -> Result<Vec<String>, LedgerError> {
        self.reading(|ledger| {
            let mut select = ledger
                .db
                .prepare_cached("SELECT DISTINCT gun FROM claim ORDER BY gun")?;
            let guns = select.query_map([], |row| row.get(0))?;
            Ok(guns.collect::<Result<_, _>>()?)
        })
    }

    /// What archives claim of a GUN.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn claims(&self, gun: &Gun) -> Result<Vec<Claim>, LedgerError> {
        self.reading(|ledger| {
            let mut select = ledger.db.prepare_cached(
                "SELECT lineage, role, version, source FROM claim WHERE gun = ?1",
            )?;
            let claims = select.query_map([gun.as_str()], |row| {
                Ok(Claim {
                    lineage: Lineage(row.get(0)?),
                    role: row.get(1)?,
                    version: row.get(2)?,
                    source: row.get(3)?,
                })
            })?;
            Ok(claims.collect::<Result<_, _>>()?)
        })
    }

    /// Forgets claims that a verified base has borne out.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Sqlite`], [`LedgerError::Damaged`].
    pub fn bear_out(&mut self, gun: &Gun, claims: &[Claim]) -> Result<(), LedgerError> {
        self.writing(|writing| {
            for claim in claims {
                writing
                    .db
                    .prepare_cached(
                        "DELETE FROM claim WHERE gun = ?1 AND lineage = ?2 AND role = ?3
                         AND version <= ?4",
                    )?
                    .execute(params![
                        gun.as_str(),
                        &claim.lineage.0[..],
                        claim.role,
                        claim.version
                    ])?;
            }
            Ok(())
        })
    }
}

/// Records a claim; the highest of a role stands.
pub(super) fn record(db: &Connection, gun: &Gun, claim: &Claim) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO claim (gun, lineage, role, version, source) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (gun, lineage, role) DO UPDATE SET version = ?4, source = ?5
         WHERE version < ?4",
    )?
    .execute(params![
        gun.as_str(),
        &claim.lineage.0[..],
        claim.role,
        claim.version,
        claim.source
    ])?;
    Ok(())
}
