//! What makes a first root acceptable.

use crate::{
    cert::{CertError, Certificate},
    document::Root,
    gun::Gun,
    key::KeyId,
    role::RoleName,
    time::UnixTime,
};

/// Trust pinning of one collection (notary `trustpinning`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// Trust on first use: any root with a valid certificate for the GUN.
    #[default]
    FirstUse,
    /// Only these certificates (metadata key IDs).
    Certificates(Vec<KeyId>),
    /// First use is refused.
    Refuse,
}

/// Why a first root is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// No root certificate is valid for this GUN now; the first one's fault.
    #[error("no root certificate is valid for this repository")]
    Certificate(#[source] CertError),
    /// The root names no certificate at all.
    #[error("the root lists no certificate")]
    NoCertificate,
    /// None of the pinned certificates is among the root's.
    #[error("none of the pinned certificates signs for it")]
    NotPinned,
    /// First contact, and the caller refuses first use.
    #[error("this repository has not been seen before, and first use is refused")]
    Refused,
}

impl Pin {
    /// Whether `root` may be the first root of `gun`.
    ///
    /// # Errors
    ///
    /// With what is missing.
    pub fn check(&self, root: &Root, gun: &Gun, now: UnixTime) -> Result<(), PinError> {
        if *self == Self::Refuse {
            return Err(PinError::Refused);
        }
        let listed = root
            .roles
            .get(&RoleName::Root)
            .map(|role| role.key_ids.as_slice());
        let mut fault = None;
        let mut valid = Vec::new();
        for id in listed.unwrap_or_default() {
            let Some(key) = root.keys.get(id).filter(|key| key.key_type().is_x509()) else {
                continue;
            };
            let checked = Certificate::from_pem(key.public())
                .map_err(CertError::Unreadable)
                .and_then(|certificate| certificate.check(gun, now));
            match checked {
                Ok(()) => valid.push(*id),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        match (self, fault) {
            (_, Some(fault)) if valid.is_empty() => Err(PinError::Certificate(fault)),
            (_, None) if valid.is_empty() => Err(PinError::NoCertificate),
            (Self::Certificates(pinned), _) if !valid.iter().any(|id| pinned.contains(id)) => {
                Err(PinError::NotPinned)
            }
            _ => Ok(()),
        }
    }
}
