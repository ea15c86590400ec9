//! Choosing an application, and the two others that clients ask: OTP for the serial of old
//! firmware, and management for what the device is.

use super::{Applet, Kind, Piv, Session};
use crate::apdu::{Answer, Command, Status};
use crate::tlv::encode;

/// The PIV application in full (SP 800-73-4 part 1, 2.2); five bytes of it select it.
const PIV: [u8; 11] = [0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0];
const OTP: [u8; 8] = [0xa0, 0, 0, 5, 0x27, 0x20, 1, 1];
const MANAGEMENT: [u8; 8] = [0xa0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17];
/// A USB-A keychain (ykman, `FORM_FACTOR`).
pub(super) const FORM: u8 = 1;

impl Piv {
    pub(super) fn select(&mut self, command: &Command) -> Answer {
        let id = command.data.as_slice();
        if command.p1 != 4 {
            return Err(Status::PARAMETERS);
        }
        let yubikey = self.kind == Kind::YubiKey;
        let applet = if id.len() >= 5 && PIV.starts_with(id) {
            Applet::Piv
        } else if yubikey && id.len() >= 7 && OTP.starts_with(id) {
            Applet::Otp
        } else if yubikey && id.len() >= 7 && MANAGEMENT.starts_with(id) {
            Applet::Management
        } else {
            return Err(Status::NOT_FOUND);
        };
        self.session = Session {
            applet: Some(applet),
            ..Session::default()
        };
        Ok(match applet {
            Applet::Piv => self.template(),
            Applet::Otp => [&self.firmware.bytes()[..], &[1, 0, 0]].concat(),
            Applet::Management => format!("Virtual mgr - FW version {}", self.firmware).into(),
        })
    }

    /// The application property template.
    fn template(&self) -> Vec<u8> {
        let id = encode(0x4f, &[0, 0, 0x10, 0, 1, 0]);
        let authority = encode(0x79, &encode(0x4f, &[0xa0, 0, 0, 3, 8]));
        let label = match self.kind {
            Kind::YubiKey => Vec::new(),
            Kind::Foreign => encode(0x50, b"Another maker's PIV card"),
        };
        encode(0x61, &[id, label, authority].concat())
    }

    /// The OTP application: nothing but the serial (ykman, `CONFIG_SLOT`).
    pub(super) fn otp(&self, command: &Command) -> Answer {
        match (command.ins, command.p1) {
            (0x01, 0x10) => Ok(self.serial.to_be_bytes().to_vec()),
            (0x03, _) => Ok([&self.firmware.bytes()[..], &[1, 0, 0]].concat()),
            _ => Err(Status::INSTRUCTION),
        }
    }

    /// The management application's READ CONFIG (ykman, `DeviceInfo`).
    pub(super) fn device_information(&self, command: &Command) -> Answer {
        if command.ins != 0x1d {
            return Err(Status::INSTRUCTION);
        }
        if command.p1 != 0 {
            return Err(Status::PARAMETERS);
        }
        // OTP and PIV, over USB.
        let capabilities = [0x00, 0x11];
        let elements = [
            encode(0x01, &capabilities),
            encode(0x02, &self.serial.to_be_bytes()),
            encode(0x03, &capabilities),
            encode(0x04, &[FORM]),
            encode(0x05, &self.firmware.bytes()),
            encode(0x06, &[0, 0]),
            encode(0x07, &[0x0f]),
            encode(0x08, &[0]),
            encode(0x0a, &[0]),
        ]
        .concat();
        let length = u8::try_from(elements.len()).expect("a few bytes each");
        Ok([&[length][..], &elements].concat())
    }
}
