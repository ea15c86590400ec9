//! The PIV application: state, sessions, and which command goes where.
//!
//! A [`Piv`] is one key's whole memory. It promises that a command is answered from that memory
//! alone, that a reset or a loss of power forgets the session and nothing else, and that no
//! command, however malformed, panics.

mod authenticate;
mod manage;
mod metadata;
mod objects;
mod pins;
mod select;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::apdu::{Answer, Command, Status};
use crate::attest;
use crate::credential::Credential;
use crate::firmware::Firmware;
use crate::keys::PrivateKey;
use crate::management::ManagementKey;
use crate::touch::Touch;

/// What kind of card answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A YubiKey.
    YubiKey,
    /// Some other maker's PIV card: SP 800-73 and nothing of Yubico's.
    Foreign,
}

/// The numbers of slots and references in P2.
pub(crate) mod slot {
    pub(crate) const PIN: u8 = 0x80;
    pub(crate) const PUK: u8 = 0x81;
    pub(crate) const SIGNATURE: u8 = 0x9c;
    pub(crate) const CARD_AUTHENTICATION: u8 = 0x9e;
    pub(crate) const MANAGEMENT: u8 = 0x9b;
    pub(crate) const ATTESTATION: u8 = 0xf9;

    /// Whether a key may be kept there.
    pub(crate) fn holds_keys(slot: u8) -> bool {
        matches!(
            slot,
            0x9a | SIGNATURE | 0x9d | CARD_AUTHENTICATION | 0x82..=0x95 | ATTESTATION
        )
    }
}

/// Policies, by their numbers in GENERATE and metadata.
pub(crate) mod policy {
    pub(crate) const PIN_NEVER: u8 = 1;
    pub(crate) const PIN_ONCE: u8 = 2;
    pub(crate) const PIN_ALWAYS: u8 = 3;
    pub(crate) const TOUCH_NEVER: u8 = 1;
    pub(crate) const TOUCH_ALWAYS: u8 = 2;
    pub(crate) const TOUCH_CACHED: u8 = 3;
}

/// Bytes that all data objects take together at most: what Yubico says of the YubiKey 5, rounded.
const CAPACITY: usize = 51_200;
/// Bytes of a command sent in pieces at most.
const BUFFER: usize = 4096;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Applet {
    Piv,
    Otp,
    Management,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Generated = 1,
    Imported = 2,
}

#[derive(Debug)]
struct SlotKey {
    key: PrivateKey,
    pin_policy: u8,
    touch_policy: u8,
    origin: Origin,
}

/// What a reset forgets.
#[derive(Debug, Default)]
struct Session {
    applet: Option<Applet>,
    pin_verified: bool,
    /// Verified, and no key used since: what the policy *always* asks for.
    pin_fresh: bool,
    managed: bool,
    witness: Option<Vec<u8>>,
    challenge: Option<Vec<u8>>,
    chain: Option<Command>,
    pending: Vec<u8>,
}

/// The application, with all that it remembers.
pub struct Piv {
    serial: u32,
    firmware: Firmware,
    kind: Kind,
    pin: Credential,
    puk: Credential,
    management: ManagementKey,
    keys: BTreeMap<u8, SlotKey>,
    objects: BTreeMap<u32, Vec<u8>>,
    capacity: usize,
    session: Session,
    touched: Option<Instant>,
    touch: Box<dyn Touch>,
}

impl std::fmt::Debug for Piv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piv")
            .field("serial", &self.serial)
            .field("firmware", &self.firmware)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Piv {
    /// A card as it leaves the factory.
    ///
    /// # Panics
    /// When the system has no randomness for the attestation key.
    #[must_use]
    pub fn new(serial: u32, firmware: Firmware, kind: Kind, touch: Box<dyn Touch>) -> Self {
        let mut piv = Self {
            serial,
            firmware,
            kind,
            pin: Credential::pin(),
            puk: Credential::puk(),
            management: ManagementKey::factory(firmware),
            keys: BTreeMap::new(),
            objects: BTreeMap::new(),
            capacity: CAPACITY,
            session: Session::default(),
            touched: None,
            touch,
        };
        if kind == Kind::Foreign {
            let default = ManagementKey::factory(Firmware::V4_3);
            piv.management = default;
            return piv;
        }
        let key = attest::key(firmware);
        let certificate = objects::certificate(&attest::intermediate(&key));
        piv.objects.insert(objects::ATTESTATION, certificate);
        let attestation = SlotKey {
            key,
            pin_policy: policy::PIN_NEVER,
            touch_policy: policy::TOUCH_NEVER,
            origin: Origin::Imported,
        };
        piv.keys.insert(slot::ATTESTATION, attestation);
        piv
    }

    /// The serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The firmware.
    #[must_use]
    pub fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// Tries left for the PIN.
    #[must_use]
    pub fn pin_tries(&self) -> u8 {
        self.pin.left()
    }

    /// Tries left for the PUK.
    #[must_use]
    pub fn puk_tries(&self) -> u8 {
        self.puk.left()
    }

    /// Whether the PIN counts as verified right now.
    #[must_use]
    pub fn pin_verified(&self) -> bool {
        self.session.pin_verified
    }

    /// Whether the management key counts as proved right now.
    #[must_use]
    pub fn managed(&self) -> bool {
        self.session.managed
    }

    /// What it answers to a reset (ISO/IEC 7816-3), as pcscd shows it.
    #[must_use]
    pub fn atr(&self) -> &'static [u8] {
        const YUBIKEY_5: &[u8] = &[
            0x3b, 0xfd, 0x13, 0, 0, 0x81, 0x31, 0xfe, 0x15, 0x80, 0x73, 0xc0, 0x21, 0xc0, 0x57,
            0x59, 0x75, 0x62, 0x69, 0x4b, 0x65, 0x79, 0x40,
        ];
        const YUBIKEY_4: &[u8] = &[
            0x3b, 0xf8, 0x13, 0, 0, 0x81, 0x31, 0xfe, 0x15, 0x59, 0x75, 0x62, 0x69, 0x6b, 0x65,
            0x79, 0x34, 0xd4,
        ];
        const OTHER: &[u8] = &[0x3b, 0x80, 1, 0x81];
        match (self.kind, self.firmware.major) {
            (Kind::Foreign, _) => OTHER,
            (Kind::YubiKey, 4) => YUBIKEY_4,
            (Kind::YubiKey, _) => YUBIKEY_5,
        }
    }

    /// Forgets the session: power lost, or a reset by whichever handle.
    pub fn reset_session(&mut self) {
        self.session = Session::default();
        self.touched = None;
    }

    /// Forgets PIN and management key within the session, as nobody's command could.
    pub fn forget(&mut self) {
        self.session.pin_verified = false;
        self.session.pin_fresh = false;
        self.session.managed = false;
    }

    /// Has all data objects together take at most this many bytes.
    pub fn set_capacity(&mut self, bytes: usize) {
        self.capacity = bytes;
    }

    /// Puts a data object's content there without any command; `None` removes it.
    pub fn put_object(&mut self, id: u32, content: Option<Vec<u8>>) {
        match content {
            Some(content) => self.objects.insert(id, content),
            None => self.objects.remove(&id),
        };
    }

    /// Answers a command.
    #[must_use]
    pub fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        let command = match Command::parse(command) {
            Ok(command) => command,
            Err(status) => return status.0.to_be_bytes().to_vec(),
        };
        self.answer(command)
    }

    fn answer(&mut self, command: Command) -> Vec<u8> {
        if command.ins == 0xc0 && command.class == 0 {
            return self.portion(command.expected);
        }
        self.session.pending.clear();
        let expected = command.expected;
        match self.whole(command) {
            Ok(Some(command)) => {
                let answer = dispatch(self, &command);
                self.give(answer, expected)
            }
            Ok(None) => Status::OK.0.to_be_bytes().to_vec(),
            Err(status) => status.0.to_be_bytes().to_vec(),
        }
    }

    /// The command once all its pieces are there.
    fn whole(&mut self, mut command: Command) -> Result<Option<Command>, Status> {
        if command.class & !0x10 != 0 {
            self.session.chain = None;
            return Err(Status::CLASS);
        }
        let same = |chain: &Command| {
            (chain.ins, chain.p1, chain.p2) == (command.ins, command.p1, command.p2)
        };
        if let Some(mut chain) = self.session.chain.take().filter(same) {
            chain.data.append(&mut command.data);
            command.data = chain.data;
        }
        if command.data.len() > BUFFER {
            return Err(Status::LENGTH);
        }
        if !command.chained() {
            return Ok(Some(command));
        }
        self.session.chain = Some(command);
        Ok(None)
    }

    /// An answer in the portions that the client takes.
    fn give(&mut self, answer: Answer, expected: usize) -> Vec<u8> {
        match answer {
            Ok(data) => {
                self.session.pending = data;
                self.portion(expected)
            }
            Err(status) => status.0.to_be_bytes().to_vec(),
        }
    }

    fn portion(&mut self, expected: usize) -> Vec<u8> {
        let length = self.session.pending.len().min(expected);
        let rest = self.session.pending.split_off(length);
        let mut portion = std::mem::replace(&mut self.session.pending, rest);
        let left = self.session.pending.len();
        let status = match u8::try_from(left) {
            Ok(0) => Status::OK,
            Ok(left) => Status(0x6100 | u16::from(left)),
            Err(_) => Status(0x6100),
        };
        portion.extend(status.0.to_be_bytes());
        portion
    }
}

fn dispatch(piv: &mut Piv, command: &Command) -> Answer {
    if command.ins == 0xa4 {
        return piv.select(command);
    }
    let yubikey = piv.kind == Kind::YubiKey;
    match piv.session.applet {
        Some(Applet::Piv) => {}
        Some(Applet::Otp) => return piv.otp(command),
        Some(Applet::Management) => return piv.device_information(command),
        None => return Err(Status::INSTRUCTION),
    }
    match command.ins {
        0x20 => piv.verify(command),
        0x24 => piv.change_reference(command),
        0x2c => piv.reset_retry(command),
        0x47 => piv.generate(command),
        0x87 => piv.authenticate(command),
        0xcb => piv.get_data(command),
        0xdb => piv.put_data(command),
        0xfd if yubikey => Ok(piv.firmware.bytes().to_vec()),
        0xf8 if yubikey && piv.firmware.tells_serial() => Ok(piv.serial.to_be_bytes().to_vec()),
        0xf7 if yubikey && piv.firmware.has_metadata() => piv.metadata(command),
        0xf9 if yubikey => piv.attest(command),
        0xfa if yubikey => piv.set_retries(command),
        0xfb if yubikey => piv.factory(command),
        0xfe if yubikey => piv.import(command),
        0xff if yubikey => piv.set_management(command),
        0xf6 if yubikey && piv.firmware.is_5_7() => piv.relocate(command),
        _ => Err(Status::INSTRUCTION),
    }
}

#[cfg(test)]
mod tests;
