//! The 24 slots whose keys sign, their policies, and where their certificates lie.

use std::{fmt, str::FromStr};

/// A slot (Yubico, "PIV slots"; SP 800-73-4, part 1, table 4b): 9a authentication, 9c signature,
/// 9d key management, 9e card authentication, 82 to 95 retired key management. On a YubiKey every
/// one of them signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

/// What is no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no slot; there are 9a, 9c, 9d, 9e and 82 to 95")]
pub struct BadSlot(String);

/// First and last of the retired ones.
const RETIRED: std::ops::RangeInclusive<u8> = 0x82..=0x95;

impl Slot {
    /// Digital signature.
    pub const SIGNATURE: Self = Self(0x9c);

    /// Card authentication: its key is for programs that have no PIN.
    pub const CARD_AUTHENTICATION: Self = Self(0x9e);

    /// All 24, in the order in which they are listed.
    pub fn all() -> impl Iterator<Item = Self> {
        [0x9a, 0x9c, 0x9d, 0x9e]
            .into_iter()
            .chain(RETIRED)
            .map(Self)
    }

    /// Those that a new key may be put in unasked, in the order in which they are tried. 9e is left
    /// out: other programs take its key for one that needs no PIN.
    pub fn for_new_keys() -> impl Iterator<Item = Self> {
        [0x9c, 0x9a, 0x9d].into_iter().chain(RETIRED).map(Self)
    }

    /// The reference of its key.
    #[must_use]
    pub fn key(self) -> u8 {
        self.0
    }

    /// The data object of its certificate (SP 800-73-4, part 1, table 3).
    #[must_use]
    pub fn certificate(self) -> u32 {
        match self.0 {
            0x9a => 0x5f_c105,
            0x9c => 0x5f_c10a,
            0x9d => 0x5f_c10b,
            0x9e => 0x5f_c101,
            retired => 0x5f_c10d + u32::from(retired - RETIRED.start()),
        }
    }

    /// The PIN policy of a key that was made without one (Yubico, "PIN and touch policies").
    #[must_use]
    pub fn default_pin_policy(self) -> PinPolicy {
        match self.0 {
            0x9c => PinPolicy::Always,
            0x9e => PinPolicy::Never,
            _ => PinPolicy::Once,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

impl FromStr for Slot {
    type Err = BadSlot;

    fn from_str(text: &str) -> Result<Self, BadSlot> {
        Self::all()
            .find(|slot| slot.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| BadSlot(text.chars().take(16).collect()))
    }
}

/// When a key wants the PIN. The numbers are the card's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once in a session.
    Once,
    /// Before each signature.
    Always,
}

/// When a key wants a finger. The numbers are the card's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchPolicy {
    /// Never.
    Never,
    /// For each signature.
    Always,
    /// Unless there was one in the last 15 seconds.
    Cached,
}

impl PinPolicy {
    /// By its number; the ones of the Bio series (match once, match always) count as what they ask
    /// of a card without a reader for fingers.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Never),
            2 | 4 => Some(Self::Once),
            3 | 5 => Some(Self::Always),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Once => 2,
            Self::Always => 3,
        }
    }

    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Once => "once",
            Self::Always => "always",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Never, Self::Once, Self::Always]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }
}

impl TouchPolicy {
    /// By its number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Never),
            2 => Some(Self::Always),
            3 => Some(Self::Cached),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Never => 1,
            Self::Always => 2,
            Self::Cached => 3,
        }
    }

    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Always => "always",
            Self::Cached => "cached",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Never, Self::Always, Self::Cached]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }
}

/// Firmware of a YubiKey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8, pub u8, pub u8);

impl Version {
    /// GET METADATA (Yubico, "PIV extensions").
    pub const METADATA: Self = Self(5, 3, 0);
    /// AES management keys.
    pub const AES: Self = Self(5, 4, 0);
    /// Ed25519, move and delete, Yubico's own cryptography (YSA-2024-03).
    pub const CURVES: Self = Self(5, 7, 0);
    /// Attestation, touch policy `cached`.
    pub const ATTESTATION: Self = Self(4, 3, 0);
    /// The serial number without leaving the PIV application.
    pub const SERIAL: Self = Self(5, 0, 0);
    /// The oldest that is used: policies and P-384.
    pub const OLDEST: Self = Self(4, 0, 0);

    /// RSA keys generated on it can be factored (CVE-2017-15361, YSA-2017-01).
    #[must_use]
    pub fn has_roca(self) -> bool {
        (Self(4, 2, 6)..Self(4, 3, 5)).contains(&self)
    }

    /// ECDSA keys can be read out with the card in hand (YSA-2024-03).
    #[must_use]
    pub fn has_eucleak(self) -> bool {
        self < Self::CURVES
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_24_slots_with_an_object_each() {
        let mut objects: Vec<u32> = Slot::all().map(Slot::certificate).collect();
        assert_eq!(objects.last(), Some(&0x5f_c120));
        objects.sort_unstable();
        objects.dedup();
        assert_eq!(objects.len(), 24);
        assert!(Slot::for_new_keys().all(|slot| slot.to_string() != "9e"));
    }

    #[test]
    fn a_slot_is_read_as_it_is_written_and_nothing_else_is_one() {
        for slot in Slot::all() {
            assert_eq!(slot.to_string().to_uppercase().parse(), Ok(slot));
        }
        for text in ["", "9b", "96", "81", "f9", "9", "9cc", "auto"] {
            assert!(text.parse::<Slot>().is_err(), "{text}");
        }
    }
}
