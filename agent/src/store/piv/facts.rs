//! What a card is and holds, read when it arrives and then known by heart: signing reads nothing.

use der::Decode;
use signet_trust::{Algorithm, KeyId, KeyType, PublicKey};
use x509_cert::Certificate;

use super::{
    apdu,
    applet::{self, Retries},
    attest,
    card::{CardError, Exchange},
    enrolled::EnrolledKeys,
    slot::{PinPolicy, Slot, TouchPolicy, Version},
    tlv,
};

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardFacts {
    /// Printed on it.
    pub serial: u32,
    /// Firmware.
    pub version: Version,
    /// Slots with a key or a certificate.
    pub slots: Vec<SlotFacts>,
    /// Tries left of the PIN, where known.
    pub pin_tries: Option<u8>,
    /// Tries left of the PUK, where known (firmware 5.3).
    pub puk_tries: Option<u8>,
    /// Factory defaults that are known to be in force: PIN, PUK, management key.
    pub defaults: [bool; 3],
    /// `3des`, `aes128` …; empty: not known.
    pub management: &'static str,
    /// The management key lies on the card, under the PIN.
    pub protected: bool,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// Which.
    pub slot: Slot,
    /// Its public key, where known.
    pub public: Option<PublicKey>,
    /// Of the public key.
    pub id: Option<KeyId>,
    /// Of the public key.
    pub algorithm: Option<Algorithm>,
    /// When it wants the PIN, where known.
    pub pin: Option<PinPolicy>,
    /// When it wants a finger, where known.
    pub touch: Option<TouchPolicy>,
    /// Made on the card, where known.
    pub generated: Option<bool>,
    /// Common name of its certificate.
    pub subject: Option<String>,
    /// The card does not tell what key this is; it is the one that is enrolled as lying there, and
    /// its first signature will tell.
    pub assumed: bool,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl CardFacts {
    /// The slot that holds a key.
    #[must_use]
    pub fn slot_of(&self, id: &KeyId) -> Option<&SlotFacts> {
        self.slots.iter().find(|slot| slot.id.as_ref() == Some(id))
    }

    /// A slot, if there is something in it.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Option<&SlotFacts> {
        self.slots.iter().find(|facts| facts.slot == slot)
    }
}

/// Reads everything. The application is selected.
pub(super) fn read(
    card: &mut dyn Exchange,
    enrolled: &EnrolledKeys,
) -> Result<CardFacts, CardError> {
    let version = applet::version(card)?;
    let mut facts = CardFacts {
        serial: applet::serial(card, version)?,
        version,
        ..CardFacts::default()
    };
    if version < Version::OLDEST {
        return Ok(facts);
    }
    for slot in Slot::all() {
        match read_slot(card, slot, version) {
            Ok(None) => facts.slots.extend(assume(&facts, slot, enrolled)),
            Ok(found) => facts.slots.extend(found),
            // What one slot answers must not hide the others; a card that is gone is gone.
            Err(error @ (CardError::Malformed(_) | CardError::Status(_))) => {
                facts.slots.push(SlotFacts {
                    problem: Some(format!("it cannot be read: {error}")),
                    ..SlotFacts::empty(slot)
                });
            }
            Err(error) => return Err(error),
        }
    }
    read_credentials(card, &mut facts)?;
    Ok(facts)
}

/// Reads what may change while the card stays: tries and defaults.
pub(super) fn read_credentials(
    card: &mut dyn Exchange,
    facts: &mut CardFacts,
) -> Result<(), CardError> {
    if facts.version >= Version::METADATA {
        let pin = lenient(applet::retries(card, applet::PIN))?.unwrap_or_default();
        let puk = lenient(applet::retries(card, applet::PUK))?.unwrap_or_default();
        let known = |retries: Retries| (retries.total > 0).then_some(retries.left);
        facts.pin_tries = known(pin);
        facts.puk_tries = known(puk);
        facts.defaults = [pin.is_default, puk.is_default, false];
        if let Some(answer) = lenient(applet::metadata(card, applet::MANAGEMENT))? {
            facts.defaults[2] = tlv::find(&answer, 0x05).is_ok_and(|value| value == [1]);
            facts.management = match tlv::find(&answer, 0x01) {
                Ok([0x03]) => "3des",
                Ok([0x08]) => "aes128",
                Ok([0x0a]) => "aes192",
                Ok([0x0c]) => "aes256",
                _ => "",
            };
        }
    } else {
        facts.pin_tries = lenient(applet::pin_tries(card, facts.version))?.flatten();
        facts.management = if facts.version < Version::AES {
            "3des"
        } else {
            ""
        };
    }
    facts.protected = lenient(super::provision::is_protected(card))?.unwrap_or(false);
    Ok(())
}

/// What makes no sense is taken for unknown, where nothing hangs on it.
fn lenient<T>(result: Result<T, CardError>) -> Result<Option<T>, CardError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(CardError::Malformed(_) | CardError::Status(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl SlotFacts {
    pub(super) fn empty(slot: Slot) -> Self {
        Self {
            slot,
            public: None,
            id: None,
            algorithm: None,
            pin: None,
            touch: None,
            generated: None,
            subject: None,
            assumed: false,
            problem: None,
        }
    }

    /// Whether the card itself says which key this is.
    pub(super) fn tells(&self) -> bool {
        self.public.is_some() && !self.assumed
    }

    /// Whether its signature may share one PIN and one transaction with others: it wants the PIN no
    /// more than once, and no finger is waited for meanwhile.
    #[must_use]
    pub fn is_signed_together(&self) -> bool {
        matches!(self.pin, Some(PinPolicy::Never | PinPolicy::Once))
            && self.touch == Some(TouchPolicy::Never)
    }

    pub(super) fn set_public(&mut self, public: PublicKey) {
        self.id = Some(public.id());
        self.algorithm = public.algorithm().ok();
        self.public = Some(public);
    }
}

/// One slot; `None` when there is nothing in it.
pub(super) fn read_slot(
    card: &mut dyn Exchange,
    slot: Slot,
    version: Version,
) -> Result<Option<SlotFacts>, CardError> {
    if version < Version::METADATA {
        return read_by_certificate(card, slot, version);
    }
    let answer = match applet::metadata(card, slot.key()) {
        Ok(answer) => answer,
        Err(CardError::Status(apdu::NO_KEY | apdu::NOT_FOUND)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut facts = metadata(slot, &answer)?;
    match lenient(applet::get_data(card, slot.certificate())) {
        Ok(Some(Some(object))) => match certificate(&object) {
            Ok(certificate) => facts.subject = Some(common_name(&certificate)),
            Err(why) => facts.subject = Some(format!("unreadable: {why}")),
        },
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    Ok(Some(facts))
}

/// Before firmware 5.3 a card does not tell of a key without a certificate that was put into it. One
/// that is enrolled is taken to be there: every signature is verified before it is released.
fn assume(facts: &CardFacts, slot: Slot, enrolled: &EnrolledKeys) -> Option<SlotFacts> {
    if facts.version >= Version::METADATA {
        return None;
    }
    let of_card = enrolled.get(&facts.serial)?;
    let key = of_card.iter().find(|key| key.slot == slot)?;
    let mut assumed = SlotFacts::empty(slot);
    assumed.set_public(key.public.clone());
    assumed.pin = key.pin;
    assumed.touch = key.touch;
    assumed.assumed = true;
    Some(assumed)
}

/// Before firmware 5.3 a key is known by its certificate, or by the card's attestation that it was
/// made there (firmware 4.3).
fn read_by_certificate(
    card: &mut dyn Exchange,
    slot: Slot,
    version: Version,
) -> Result<Option<SlotFacts>, CardError> {
    let (mut facts, mut attested) = (SlotFacts::empty(slot), None);
    if version >= Version::ATTESTATION
        && let Some(der) = lenient(attest::fetch(card, slot))?
        && let Ok(statement) = attest::Statement::parse(&der)
    {
        facts.generated = Some(true);
        facts.pin = statement.pin;
        facts.touch = statement.touch;
        attested = statement.public;
    }
    let Some(object) = applet::get_data(card, slot.certificate())? else {
        return Ok(attested.map(|public| {
            facts.set_public(public);
            facts
        }));
    };
    let certificate = match certificate(&object) {
        Ok(certificate) => certificate,
        Err(why) => {
            facts.problem = Some(format!("its certificate cannot be read: {why}"));
            return Ok(Some(facts));
        }
    };
    facts.subject = Some(common_name(&certificate));
    match public_key(&certificate) {
        Some(public) => facts.set_public(public),
        None => facts.problem = Some("its certificate holds no key that is supported".to_owned()),
    }
    Ok(Some(facts))
}

/// GET METADATA of a slot (Yubico, "PIV extensions: get metadata").
pub fn metadata(slot: Slot, answer: &[u8]) -> Result<SlotFacts, CardError> {
    let mut facts = SlotFacts::empty(slot);
    let [id] = *tlv::find(answer, 0x01)? else {
        return Err(CardError::Malformed("an algorithm that is none"));
    };
    if let [pin, touch] = *tlv::find(answer, 0x02)? {
        facts.pin = match pin {
            0 => Some(slot.default_pin_policy()),
            pin => PinPolicy::from_byte(pin),
        };
        facts.touch = TouchPolicy::from_byte(touch);
    }
    facts.generated = match tlv::find(answer, 0x03) {
        Ok([1]) => Some(true),
        Ok([2]) => Some(false),
        _ => None,
    };
    let Some(algorithm) = applet::algorithm(id) else {
        facts.problem = Some(format!(
            "its algorithm ({id:02x}) is none that documents are signed with"
        ));
        return Ok(facts);
    };
    let public = public_of(algorithm, tlv::find(answer, 0x04)?)?;
    if public.algorithm() != Ok(algorithm) {
        return Err(CardError::Malformed("a key of another algorithm"));
    }
    facts.set_public(public);
    Ok(facts)
}

/// A public key as cards write it: a point, or modulus and exponent.
pub(super) fn public_of(algorithm: Algorithm, bytes: &[u8]) -> Result<PublicKey, CardError> {
    const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let spki = |algorithm: &[u8], key: &[u8]| {
        tlv::tlv(0x30, &[algorithm, &tlv::tlv(0x03, &[&[0], key])]).to_vec()
    };
    let malformed = CardError::Malformed("a public key that is none");
    let key = match algorithm {
        Algorithm::P256 | Algorithm::P384 => {
            let (curve, len) = match algorithm {
                Algorithm::P256 => (P256, 65),
                _ => (P384, 97),
            };
            let point = tlv::only(bytes, 0x86)?;
            if point.len() != len || point.first() != Some(&4) {
                return Err(malformed);
            }
            let algorithm = tlv::tlv(0x30, &[EC_PUBLIC_KEY, curve]);
            PublicKey::new(KeyType::Ecdsa, spki(&algorithm, point))
        }
        Algorithm::Ed25519 => {
            let point = tlv::only(bytes, 0x86)?;
            if point.len() != 32 {
                return Err(malformed);
            }
            PublicKey::new(KeyType::Ed25519, point.to_vec())
        }
        Algorithm::Rsa(bits) => {
            let modulus = tlv::find(bytes, 0x81)?;
            let exponent = tlv::find(bytes, 0x82)?;
            if modulus.len() != bits as usize / 8 || exponent.is_empty() || exponent.len() > 8 {
                return Err(malformed);
            }
            let key = tlv::tlv(0x30, &[&unsigned(modulus), &unsigned(exponent)]);
            PublicKey::new(KeyType::Rsa, spki(RSA, &key))
        }
    };
    Ok(key)
}

/// A non-negative INTEGER.
pub(super) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    let sign: &[u8] = match digits.first() {
        Some(first) if *first < 0x80 => &[],
        _ => &[0],
    };
    tlv::tlv(0x02, &[sign, digits]).to_vec()
}

/// A certificate as its object holds it (SP 800-73-4, part 1, table 10).
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn certificate(object: &[u8]) -> Result<Certificate, String> {
    let der = tlv::find(object, 0x70).map_err(|error| error.to_string())?;
    if tlv::find(object, 0x71).is_ok_and(|info| info.iter().any(|byte| byte & 1 == 1)) {
        return Err("it is compressed".to_owned());
    }
    Certificate::from_der(der).map_err(|error| format!("it is no X.509 certificate ({error})"))
}

/// The key in a certificate, where it is of a kind that is supported.
pub(super) fn public_key(certificate: &Certificate) -> Option<PublicKey> {
    let info = certificate.tbs_certificate().subject_public_key_info();
    let public = match info.algorithm.oid.to_string().as_str() {
        // RFC 8410
        "1.3.101.112" => PublicKey::new(
            KeyType::Ed25519,
            info.subject_public_key.as_bytes()?.to_vec(),
        ),
        // RFC 3279 §2.3.1 and §2.3.5
        "1.2.840.113549.1.1.1" => PublicKey::new(KeyType::Rsa, der::Encode::to_der(info).ok()?),
        "1.2.840.10045.2.1" => PublicKey::new(KeyType::Ecdsa, der::Encode::to_der(info).ok()?),
        _ => return None,
    };
    public.algorithm().is_ok().then_some(public)
}

/// `root`, or all of the subject where it has no common name.
pub(super) fn common_name(certificate: &Certificate) -> String {
    let subject = certificate.tbs_certificate().subject().to_string();
    let name = subject
        .split([',', '+'])
        .find_map(|part| part.trim().strip_prefix("CN="))
        .unwrap_or(&subject);
    let name: String = name.chars().take(200).collect();
    signet_trust::payload::escape(&name)
}
