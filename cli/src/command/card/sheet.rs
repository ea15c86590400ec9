//! The recovery sheet of a card: PUK and management key, on the terminal or in a new file.
//!
//! Never on stdout, in JSON or in a log: those are kept, copied and shown to others.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use signet_proto::v1::{CardInfo, RecoverySheet};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    failure::{Failure, exit},
    ui::{Ui, card::named, terminal},
};

/// Bytes that no sheet reaches, so that writing it never leaves a copy behind.
const ROOM: usize = 4 * 1024;

/// The text of a sheet, wiped.
pub(super) struct Sheet(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Sheet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sheet(..)")
    }
}

impl Sheet {
    /// The sheet of a card; the secrets are wiped where they came from.
    pub(super) fn new(card: &CardInfo, mut recovery: RecoverySheet) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
        let serial = card.card.as_ref().map_or(0, |card| card.serial);
        let algorithm = match recovery.management_algorithm.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
        let mut add = |bytes: &[u8]| text.extend_from_slice(bytes);
        add(format!(
            "Recovery sheet of the {}, {date}\n\n",
            named(card.card.as_ref())
        )
        .as_bytes());
        if !recovery.puk.is_empty() {
            add(b"  PUK             ");
            add(&recovery.puk);
            add(b"\n");
        }
        if !recovery.management_key.is_empty() {
            add(b"  management key  ");
            add(&recovery.management_key);
            add(format!("{algorithm}\n").as_bytes());
        }
        add(b"\n");
        if !recovery.puk.is_empty() {
            add(format!(
                "A blocked PIN is replaced with the PUK: signet card pin {serial} --puk\n"
            )
            .as_bytes());
        } else {
            add(format!(
                "The PUK is the one that was set before. If nobody has it, as after a setup that was\n\
                 cut off, {}\nsets a new one; the PIN stays.\n",
                new_puk(serial)
            )
            .as_bytes());
        }
        add(b"The management key makes, takes in and deletes keys on this card. It lies on the card, too,\n\
              protected by the PIN: whoever has the PIN also has the management key.\n\
              Keep this sheet away from the card, where nobody else comes.\n");
        recovery.puk.zeroize();
        recovery.management_key.zeroize();
        Self(text)
    }
}

/// What sets a PUK without the old one: the card takes PIN and management key for it.
fn new_puk(serial: u32) -> String {
    format!("signet card setup {serial} --pin-tries 3 --puk-tries 3")
}

/// Where a sheet goes. Dropping it unwritten removes the file that was made for it.
#[derive(Debug)]
pub(super) struct Place(Option<(PathBuf, File)>);

impl Place {
    /// Makes the file, or sees that there is a terminal.
    ///
    /// # Errors
    ///
    /// Exit 1: the file is there already or cannot be made. Exit 2: neither file nor terminal.
    pub(super) fn open(file: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = file else {
            if terminal::is_there() {
                return Ok(Self(None));
            }
            return Err(Failure::usage(
                "there is no terminal to show the recovery sheet on (PUK and management key)",
            )
            .fix("write it to a new file: --recovery-sheet FILE"));
        };
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(file) => Ok(Self(Some((path, file)))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
                exit::FAILED,
                "file_exists",
                format!(
                    "{} is there already, and is not overwritten",
                    path.display()
                ),
            )
            .fix("name a file that does not exist")),
            Err(error) => Err(Failure::file("make", &path, error)),
        }
    }

    /// Writes the sheet; the file that it is in, if any.
    ///
    /// # Errors
    ///
    /// Exit 8: the card is set up, and nobody has its sheet.
    pub(super) fn write(
        mut self,
        sheet: &Sheet,
        serial: u32,
        ui: &Ui,
    ) -> Result<Option<PathBuf>, Failure> {
        let Some((path, mut file)) = self.0.take() else {
            return if terminal::show_bytes(&sheet.0) {
                Ok(None)
            } else {
                Err(lost(serial, "the terminal is gone"))
            };
        };
        let written = file
            .write_all(&sheet.0)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory(&path));
        let Err(error) = written else {
            return Ok(Some(path));
        };
        let failure = Failure::file("write", &path, error);
        ui.warn(&failure);
        if terminal::show_bytes(&sheet.0) {
            return Ok(None);
        }
        Err(lost(serial, &failure.message))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((path, _)) = self.0.take() {
            let _ = fs::remove_file(path);
        }
    }
}

fn sync_directory(file: &Path) -> io::Result<()> {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn lost(serial: u32, why: &str) -> Failure {
    Failure::new(
        exit::PARTIAL,
        "no_recovery_sheet",
        format!("the card is set up, but its recovery sheet could not be shown or kept: {why}"),
    )
    .fix(format!(
        "`{}` sets another PUK and makes another sheet; the PIN stays",
        new_puk(serial)
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::args::Globals;

    fn sheet() -> Sheet {
        let recovery = RecoverySheet {
            puk: b"87654321".to_vec(),
            management_key: b"ab".repeat(32),
            management_algorithm: "aes256".into(),
        };
        Sheet::new(&super::super::list::tests::card(), recovery)
    }

    #[test]
    fn a_sheet_has_both_secrets_and_says_what_the_pin_opens() {
        let sheet = sheet();
        let text = String::from_utf8(sheet.0.to_vec()).unwrap();
        for part in [
            "serial 12345678",
            "87654321",
            &"ab".repeat(32),
            "aes256",
            "whoever has the PIN also has the management key",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(sheet.0.len() < ROOM);
        assert_eq!(format!("{sheet:?}"), "Sheet(..)");
    }

    #[test]
    fn a_sheet_without_a_puk_says_how_one_is_set() {
        let recovery = RecoverySheet {
            management_key: b"ab".repeat(32),
            ..RecoverySheet::default()
        };
        let sheet = Sheet::new(&super::super::list::tests::card(), recovery);
        let text = String::from_utf8(sheet.0.to_vec()).unwrap();
        assert!(
            text.contains("signet card setup 12345678 --pin-tries 3 --puk-tries 3"),
            "{text}"
        );
        assert!(!text.contains("  PUK "), "{text}");
    }

    #[test]
    fn a_sheet_goes_to_a_new_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet");
        let ui = Ui::new(&Globals::default());
        let place = Place::open(Some(path.clone())).unwrap();
        let written = place.write(&sheet(), 12_345_678, &ui);
        assert_eq!(written.unwrap(), Some(path.clone()));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            Place::open(Some(path.clone())).unwrap_err().exit,
            exit::FAILED
        );
        assert!(path.exists());

        // Nothing was set up: nothing is left.
        let unused = dir.path().join("unused");
        drop(Place::open(Some(unused.clone())).unwrap());
        assert!(!unused.exists());
    }
}
