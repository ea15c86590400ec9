//! What each firmware can do: Yubico's release notes, as ykman's `yubikit/piv.py` has them.

use std::fmt;
use std::str::FromStr;

/// A firmware version. Any may be chosen, those that Yubico never made included.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Firmware {
    /// The first number.
    pub major: u8,
    /// The second.
    pub minor: u8,
    /// The third.
    pub patch: u8,
}

impl Firmware {
    /// A YubiKey 4: no serial within PIV, no metadata, RSA with ROCA's neighbours.
    pub const V4_3: Self = Self::new(4, 3, 7);
    /// An early YubiKey 5: serial, but no metadata.
    pub const V5_2: Self = Self::new(5, 2, 7);
    /// A YubiKey 5 with metadata and AES management keys, 3DES by default.
    pub const V5_4: Self = Self::new(5, 4, 3);
    /// A YubiKey 5 with Ed25519, keys moved and deleted, AES-192 by default.
    pub const V5_7: Self = Self::new(5, 7, 1);
    /// A version that nobody has seen yet.
    pub const V6_0: Self = Self::new(6, 0, 0);

    /// Any version.
    #[must_use]
    pub const fn new(major: u8, minor: u8, patch: u8) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The answer to GET VERSION.
    #[must_use]
    pub const fn bytes(self) -> [u8; 3] {
        [self.major, self.minor, self.patch]
    }

    /// Whether PIV tells the serial (INS F8).
    #[must_use]
    pub fn tells_serial(self) -> bool {
        self >= Self::new(5, 0, 0)
    }

    /// Whether VERIFY with P1 = FF forgets the PIN.
    ///
    /// Where it does not, only selecting another application does.
    #[must_use]
    pub fn forgets_pin(self) -> bool {
        self >= Self::new(5, 0, 0)
    }

    /// Whether GET METADATA is known.
    #[must_use]
    pub fn has_metadata(self) -> bool {
        self >= Self::new(5, 3, 0)
    }

    /// Whether management keys may be AES.
    #[must_use]
    pub fn has_aes(self) -> bool {
        self >= Self::new(5, 4, 0)
    }

    /// Whether 5.7's algorithms and MOVE KEY are known, and AES-192 is the default.
    #[must_use]
    pub fn is_5_7(self) -> bool {
        self >= Self::new(5, 7, 0)
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The text is no firmware version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownFirmware;

impl fmt::Display for UnknownFirmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a firmware version is three numbers, such as 5.7.1")
    }
}

impl std::error::Error for UnknownFirmware {}

impl FromStr for Firmware {
    type Err = UnknownFirmware;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(u8::from_str);
        let mut next = || parts.next().and_then(Result::ok).ok_or(UnknownFirmware);
        let firmware = Self::new(next()?, next()?, next()?);
        match parts.next() {
            None => Ok(firmware),
            Some(_) => Err(UnknownFirmware),
        }
    }
}
