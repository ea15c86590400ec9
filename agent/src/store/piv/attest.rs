//! Attestation: a certificate by which a YubiKey states that a key was made on it (Yubico, "PIV
//! attestation").
//!
//! It says where a key was made, not that it is safe. It is verified offline, against Yubico's root
//! for firmware before 5.7.4, which is built in, and certificates that the owner of this machine names
//! (`attestation_roots` of `agent.toml`); no stand-in is made. The card's own certificate (slot F9) is no proper CA certificate, so what is
//! checked is signatures, names, the serial number and the key.

use der::Decode as _;
use signet_trust::{Method, PublicKey};
use x509_cert::Certificate;

use super::{
    apdu::{command, send},
    applet,
    card::{CardError, Exchange},
    encode, facts,
    slot::{PinPolicy, Slot, TouchPolicy, Version},
    tlv,
};

/// The object of the card's own certificate (slot F9).
const OWN_CERTIFICATE: u32 = 0x5f_ff01;
/// 1.3.6.1.4.1.41482.3 and below (Yubico, "PIV attestation: attestation certificate").
const YUBICO: &str = "1.3.6.1.4.1.41482.3.";

/// Yubico PIV Root CA Serial 263751, SHA-256
/// 63ece914e54dd87915f34033c85af4c0696ba1512f8add66ced738331207b546; taken from the crate `sshcerts`
/// 0.13.2 (`docs/decisions`).
const YUBICO_ROOT: &str = include_str!("roots/yubico-piv-263751.pem");

/// The certificates that are built in.
///
/// # Errors
///
/// Never, as a test says.
pub fn bundled() -> Result<Vec<Vec<u8>>, String> {
    read_roots(YUBICO_ROOT)
}

/// What an attestation states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Firmware of the card.
    pub version: Option<Version>,
    /// Serial number of the card.
    pub serial: Option<u32>,
    /// Policies of the key.
    pub pin: Option<PinPolicy>,
    /// See `pin`.
    pub touch: Option<TouchPolicy>,
    /// Form of the card.
    pub form: &'static str,
    /// The key.
    pub public: Option<PublicKey>,
}

impl Statement {
    /// Reads an attestation certificate, without trusting it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::from_der(der)
            .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
        let mut statement = Self {
            public: facts::public_key(&certificate),
            ..Self::default()
        };
        let extensions = certificate.tbs_certificate().extensions();
        for extension in extensions.into_iter().flatten() {
            let oid = extension.extn_id.to_string();
            let Some(kind) = oid.strip_prefix(YUBICO) else {
                continue;
            };
            let value = extension.extn_value.as_bytes();
            match (kind, value) {
                ("3", [major, minor, patch]) => {
                    statement.version = Some(Version(*major, *minor, *patch));
                }
                ("7", value) => {
                    let digits = tlv::only(value, 0x02).map_err(|error| error.to_string())?;
                    if digits.len() > 5 {
                        return Err("its serial number is none".to_owned());
                    }
                    let number = digits
                        .iter()
                        .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
                    statement.serial = u32::try_from(number).ok();
                }
                ("8", [pin, touch]) => {
                    statement.pin = PinPolicy::from_byte(*pin);
                    statement.touch = TouchPolicy::from_byte(*touch);
                }
                ("9", [form]) => statement.form = form_of(*form),
                _ => {}
            }
        }
        Ok(statement)
    }
}

/// Forms of YubiKeys (Yubico, "form factor"); the upper bits say FIPS and Security Key.
fn form_of(byte: u8) -> &'static str {
    match byte & 0x0f {
        1 => "USB-A keychain",
        2 => "USB-A nano",
        3 => "USB-C keychain",
        4 => "USB-C nano",
        5 => "USB-C and Lightning",
        6 => "USB-A bio",
        7 => "USB-C bio",
        _ => "",
    }
}

/// Asks for the attestation of the key in a slot: DER.
pub(super) fn fetch(card: &mut dyn Exchange, slot: Slot) -> Result<Vec<u8>, CardError> {
    Ok(send(card, command(0xf9, slot.key(), 0, &[]))?
        .ok()?
        .to_vec())
}

/// The card's own certificate, by which it signs attestations: DER.
pub(super) fn fetch_own(card: &mut dyn Exchange) -> Result<Vec<u8>, CardError> {
    let object = applet::get_data(card, OWN_CERTIFICATE)?
        .ok_or(CardError::Malformed("no certificate of its own"))?;
    Ok(tlv::find(&object, 0x70)?.to_vec())
}

/// Verifies the attestation of `key` on the card `serial`, up to one of `roots`.
///
/// # Errors
///
/// Why it proves nothing, in words.
pub fn verify(
    der: &[u8],
    own: &[u8],
    serial: u32,
    key: &PublicKey,
    roots: &[Vec<u8>],
) -> Result<Statement, String> {
    let statement = Statement::parse(der)?;
    if statement.public.as_ref() != Some(key) {
        return Err("it is about another key".to_owned());
    }
    if statement.serial != Some(serial) {
        return Err("it is about another card".to_owned());
    }
    signed_by(der, own)?;
    if roots.is_empty() {
        return Err("no root bundled".to_owned());
    }
    let held = roots.iter().any(|root| root == own);
    let signed = || roots.iter().any(|root| signed_by(own, root).is_ok());
    if held || signed() {
        return Ok(statement);
    }
    // A root of that name whose signature it is not is another matter than one that is not there.
    let own = Certificate::from_der(own).map_err(|error| error.to_string())?;
    let issuer = own.tbs_certificate().issuer();
    let named = roots.iter().any(|root| {
        Certificate::from_der(root).is_ok_and(|root| root.tbs_certificate().subject() == issuer)
    });
    if named {
        return Err("the card's own certificate is signed by none of the known roots".to_owned());
    }
    let issuer: String = issuer.to_string().chars().take(200).collect();
    Err(format!(
        "no root bundled for its issuer {}",
        signet_trust::payload::escape(&issuer)
    ))
}

/// Whether one certificate is named and signed by another.
fn signed_by(der: &[u8], issuer: &[u8]) -> Result<(), String> {
    let parse = |der| Certificate::from_der(der).map_err(|error| format!("{error}"));
    let (certificate, by) = (parse(der)?, parse(issuer)?);
    if certificate.tbs_certificate().issuer() != by.tbs_certificate().subject() {
        return Err("its issuer has another name".to_owned());
    }
    let malformed = |error: tlv::TlvError| error.to_string();
    let inner = tlv::only(der, 0x30).map_err(malformed)?;
    let (_, rest) = tlv::take(inner).map_err(malformed)?;
    let signed = inner
        .get(..inner.len() - rest.len())
        .ok_or_else(|| "it ends early".to_owned())?;
    let bits = certificate
        .signature()
        .as_bytes()
        .ok_or_else(|| "its signature is no whole bytes".to_owned())?;
    let key =
        facts::public_key(&by).ok_or_else(|| "its issuer's key is not supported".to_owned())?;
    let (method, signature) = match certificate.signature_algorithm().oid.to_string().as_str() {
        // sha256WithRSAEncryption (RFC 4055 §5)
        "1.2.840.113549.1.1.11" => (Method::RsaPkcs1v15, bits.to_vec()),
        // ecdsa-with-SHA256 (RFC 5758 §3.2)
        "1.2.840.10045.4.3.2" => {
            let algorithm = key.algorithm().map_err(|error| error.to_string())?;
            let plain = encode::signature(algorithm, bits)
                .map_err(|_| "its signature is none".to_owned())?;
            (Method::Ecdsa, plain)
        }
        other => return Err(format!("its signature algorithm {other} is not supported")),
    };
    key.verify(method, signed, &signature)
        .map_err(|_| "its signature does not verify".to_owned())
}

/// The certificates of a PEM file.
///
/// # Errors
///
/// When there is something else in it.
pub fn read_roots(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    Certificate::load_pem_chain(pem.as_bytes())
        .map_err(|error| format!("it is no list of PEM certificates ({error})"))?
        .iter()
        .map(|certificate| der::Encode::to_der(certificate).map_err(|error| error.to_string()))
        .collect()
}

/// PEM of a certificate.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_root_that_is_built_in_is_the_one_that_yubico_published_and_signs_itself() {
        let roots = bundled().unwrap();
        let [root] = roots.as_slice() else {
            panic!("{} roots", roots.len())
        };
        assert_eq!(
            hex::encode(Sha256::digest(root)),
            "63ece914e54dd87915f34033c85af4c0696ba1512f8add66ced738331207b546"
        );
        assert_eq!(signed_by(root, root), Ok(()));
    }
}
