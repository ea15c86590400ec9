//! What changes a card: management key, keys, certificates, PIN and PUK.
//!
//! The commands are those of SP 800-73-4, part 2, and Yubico's extensions. Objects are laid out as
//! ykman does it, so that either program finds what the other one set up.

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use signet_trust::{Algorithm, PublicKey};
use zeroize::Zeroizing;

use super::{
    apdu::{self, command, send},
    applet::{self, MANAGEMENT, algorithm_id},
    card::{CardError, Exchange},
    facts::public_of,
    pin::padded,
    slot::{PinPolicy, Slot, TouchPolicy, Version},
    tlv,
};

/// Printed information, readable under the PIN: holds the management key (ykman's layout).
const PRINTED: u32 = 0x5f_c109;
/// Yubico's administrative data.
const ADMIN: u32 = 0x5f_ff00;
/// Flag of [`ADMIN`]: the management key is stored under the PIN.
const PROTECTED: u8 = 0x02;
/// The factory's management key: 3DES before firmware 5.7, AES-192 from then on (Yubico, "PIV PIN,
/// PUK and management key").
const FACTORY: [u8; 24] = [
    1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
];
/// Most bytes of an object (Yubico, "PIV objects"; SP 800-73-4 asks for less).
const MAX_OBJECT: usize = 3052;

/// Kinds of management keys, with the card's number of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    TripleDes,
    Aes128,
    Aes192,
    Aes256,
}

impl Cipher {
    fn id(self) -> u8 {
        match self {
            Self::TripleDes => 0x03,
            Self::Aes128 => 0x08,
            Self::Aes192 => 0x0a,
            Self::Aes256 => 0x0c,
        }
    }

    /// As `CardFacts::management` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TripleDes => "3des",
            Self::Aes128 => "aes128",
            Self::Aes192 => "aes192",
            Self::Aes256 => "aes256",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::TripleDes, Self::Aes128, Self::Aes192, Self::Aes256]
            .into_iter()
            .find(|cipher| cipher.name() == name)
    }

    pub(super) fn key_len(self) -> usize {
        match self {
            Self::TripleDes | Self::Aes192 => 24,
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }

    /// The best that a card can do.
    pub(super) fn best(version: Version) -> Self {
        if version < Version::AES {
            Self::TripleDes
        } else {
            Self::Aes256
        }
    }

    /// One block in or out; `None` where key or block have another length.
    fn block(self, key: &[u8], input: &[u8], encrypt: bool) -> Option<Zeroizing<Vec<u8>>> {
        fn run<C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt>(
            key: &[u8],
            input: &[u8],
            encrypt: bool,
        ) -> Option<Zeroizing<Vec<u8>>> {
            let cipher = C::new_from_slice(key).ok()?;
            let mut block = Block::<C>::try_from(input).ok()?;
            if encrypt {
                cipher.encrypt_block(&mut block);
            } else {
                cipher.decrypt_block(&mut block);
            }
            Some(Zeroizing::new(block.to_vec()))
        }
        match self {
            Self::TripleDes => run::<des::TdesEde3>(key, input, encrypt),
            Self::Aes128 => run::<aes::Aes128>(key, input, encrypt),
            Self::Aes192 => run::<aes::Aes192>(key, input, encrypt),
            Self::Aes256 => run::<aes::Aes256>(key, input, encrypt),
        }
    }

    fn block_len(self) -> usize {
        match self {
            Self::TripleDes => 8,
            _ => 16,
        }
    }
}

/// A management key with its kind.
pub(super) struct ManagementKey {
    pub(super) cipher: Cipher,
    pub(super) key: Zeroizing<Vec<u8>>,
}

impl ManagementKey {
    /// The factory's, of the kind that a card of this firmware is delivered with.
    pub(super) fn factory(version: Version) -> Self {
        Self {
            cipher: if version < Version::CURVES {
                Cipher::TripleDes
            } else {
                Cipher::Aes192
            },
            key: Zeroizing::new(FACTORY.to_vec()),
        }
    }

    /// A random one.
    pub(super) fn random(cipher: Cipher) -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new(vec![0; cipher.key_len()]);
        getrandom::fill(&mut key)?;
        Ok(Self { cipher, key })
    }
}

/// Whether the card says that its management key is stored under the PIN.
pub(super) fn is_protected(card: &mut dyn Exchange) -> Result<bool, CardError> {
    let Some(object) = applet::get_data(card, ADMIN)? else {
        return Ok(false);
    };
    let flags = tlv::find(tlv::only(&object, 0x80)?, 0x81);
    Ok(matches!(flags, Ok([flags]) if flags & PROTECTED != 0))
}

/// The management key stored under the PIN, which has been given.
pub(super) fn stored_key(card: &mut dyn Exchange) -> Result<Option<Zeroizing<Vec<u8>>>, CardError> {
    let object = match applet::get_data(card, PRINTED) {
        Ok(Some(object)) => object,
        Ok(None) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Others keep printed information there, which is not ours to judge.
    let key = tlv::only(&object, 0x88).and_then(|inner| tlv::find(inner, 0x89));
    Ok(key.ok().map(|key| Zeroizing::new(key.to_vec())))
}

/// Stores a management key under the PIN and reads it back.
pub(super) fn store_key(card: &mut dyn Exchange, key: &[u8]) -> Result<(), CardError> {
    put_data(card, PRINTED, &tlv::tlv(0x88, &[&tlv::tlv(0x89, &[key])]))?;
    match stored_key(card)? {
        Some(stored) if stored[..] == *key => Ok(()),
        _ => Err(CardError::Malformed(
            "another management key than was just stored",
        )),
    }
}

/// Says that the management key is stored under the PIN; what else is in the object stays.
pub(super) fn flag_stored_key(card: &mut dyn Exchange) -> Result<(), CardError> {
    let object = applet::get_data(card, ADMIN)?;
    let mut flags = PROTECTED;
    let mut others = Vec::new();
    if let Some(object) = &object
        && let Ok(inner) = tlv::only(object, 0x80)
    {
        for element in tlv::all(inner)? {
            match (element.tag, element.value) {
                (0x81, [known]) => flags |= known,
                // A salt is of a management key derived from the PIN: that one is gone now.
                (0x81 | 0x82, _) => {}
                (tag, value) => others.extend_from_slice(&tlv::tlv(tag, &[value])),
            }
        }
    }
    let inner = tlv::tlv(0x81, &[&[flags]]);
    put_data(card, ADMIN, &tlv::tlv(0x80, &[&inner, &others]))
}

/// Proves to the card that we know its management key, and has it prove the same.
pub(super) fn authenticate(
    card: &mut dyn Exchange,
    management: &ManagementKey,
) -> Result<(), CardError> {
    let ManagementKey { cipher, key } = management;
    let wrong = CardError::Status(apdu::NOT_SATISFIED);
    let ask = |card: &mut dyn Exchange, inner: &[u8]| {
        let template = tlv::tlv(0x7c, &[inner]);
        send(card, command(0x87, cipher.id(), MANAGEMENT, &template))?.ok()
    };
    let answer = ask(card, &[0x80, 0x00])?;
    let witness = tlv::find(tlv::only(&answer, 0x7c)?, 0x80)?;
    let witness = cipher.block(key, witness, false).ok_or(wrong.clone())?;
    let mut challenge = Zeroizing::new(vec![0; cipher.block_len()]);
    getrandom::fill(&mut challenge)
        .map_err(|_| CardError::Other("the system has no randomness".to_owned()))?;
    let inner = [
        &tlv::tlv(0x80, &[&witness])[..],
        &tlv::tlv(0x81, &[&challenge]),
    ]
    .concat();
    let answer = ask(card, &inner)?;
    let proof = tlv::find(tlv::only(&answer, 0x7c)?, 0x82)?;
    let expected = cipher.block(key, &challenge, true).ok_or(wrong.clone())?;
    if proof == &expected[..] {
        Ok(())
    } else {
        Err(wrong)
    }
}

/// Sets the management key; the old one has been proved.
pub(super) fn set_management_key(
    card: &mut dyn Exchange,
    new: &ManagementKey,
) -> Result<(), CardError> {
    let len = u8::try_from(new.key.len()).expect("at most 32 bytes");
    let data = Zeroizing::new([&[new.cipher.id(), MANAGEMENT, len][..], &new.key].concat());
    send(card, command(0xff, 0xff, 0xff, &data))?.ok().map(drop)
}

/// Writes a data object; nothing in it deletes it.
pub(super) fn put_data(
    card: &mut dyn Exchange,
    object: u32,
    value: &[u8],
) -> Result<(), CardError> {
    if value.len() > MAX_OBJECT {
        return Err(CardError::Status(apdu::FULL));
    }
    let id = object.to_be_bytes();
    let parts = [tlv::tlv(0x5c, &[&id[1..]]), tlv::tlv(0x53, &[value])];
    let data = Zeroizing::new([&parts[0][..], &parts[1][..]].concat());
    send(card, command(0xdb, 0x3f, 0xff, &data))?.ok().map(drop)
}

/// Writes the certificate of a slot, as it is.
pub(super) fn put_certificate(
    card: &mut dyn Exchange,
    slot: Slot,
    der: &[u8],
) -> Result<(), CardError> {
    let object = [
        &tlv::tlv(0x70, &[der])[..],
        &tlv::tlv(0x71, &[&[0]]),
        &tlv::tlv(0xfe, &[]),
    ]
    .concat();
    put_data(card, slot.certificate(), &object)
}

fn policies(pin: PinPolicy, touch: TouchPolicy) -> Zeroizing<Vec<u8>> {
    let mut out = tlv::tlv(0xaa, &[&[pin.byte()]]);
    out.extend_from_slice(&tlv::tlv(0xab, &[&[touch.byte()]]));
    out
}

/// Makes a key in a slot, in place of what is there.
pub(super) fn generate(
    card: &mut dyn Exchange,
    slot: Slot,
    algorithm: Algorithm,
    (pin, touch): (PinPolicy, TouchPolicy),
) -> Result<PublicKey, CardError> {
    let id = algorithm_id(algorithm).ok_or(CardError::Status(apdu::WRONG_DATA))?;
    let inner = tlv::tlv(0x80, &[&[id]]);
    let data = tlv::tlv(0xac, &[&inner, &policies(pin, touch)]);
    let answer = send(card, command(0x47, 0, slot.key(), &data))?.ok()?;
    public_of(algorithm, tlv::only(&answer, 0x7f49)?)
}

/// Puts a key made elsewhere into a slot, in place of what is there. `material` is as
/// [`signet_trust::PrivateKey`] has it.
pub(super) fn import(
    card: &mut dyn Exchange,
    slot: Slot,
    (algorithm, material): (Algorithm, &[u8]),
    (pin, touch): (PinPolicy, TouchPolicy),
) -> Result<(), CardError> {
    let id = algorithm_id(algorithm).ok_or(CardError::Status(apdu::WRONG_DATA))?;
    let mut data = Zeroizing::new(Vec::with_capacity(material.len() + 64));
    match algorithm {
        Algorithm::P256 | Algorithm::P384 => {
            data.extend_from_slice(&tlv::tlv(0x06, &[material]));
        }
        Algorithm::Ed25519 => data.extend_from_slice(&tlv::tlv(0x07, &[material])),
        Algorithm::Rsa(bits) => {
            // RSAPrivateKey (RFC 8017 §A.1.2): version, n, e, d, then what the card wants.
            let numbers = tlv::all(tlv::only(material, 0x30)?)?;
            let half = bits as usize / 16;
            for (tag, number) in (1..=5).zip(numbers.get(4..9).unwrap_or_default()) {
                let zeros = number.value.iter().take_while(|byte| **byte == 0).count();
                let digits = number.value.get(zeros..).unwrap_or_default();
                let pad = half
                    .checked_sub(digits.len())
                    .ok_or(CardError::Status(apdu::WRONG_DATA))?;
                let pad = Zeroizing::new(vec![0; pad]);
                data.extend_from_slice(&tlv::tlv(tag, &[&pad, digits]));
            }
        }
    }
    data.extend_from_slice(&policies(pin, touch));
    send(card, command(0xfe, id, slot.key(), &data))?
        .ok()
        .map(drop)
}

/// Deletes the key in a slot (firmware 5.7).
pub(super) fn delete(card: &mut dyn Exchange, slot: Slot) -> Result<(), CardError> {
    send(card, command(0xf6, 0xff, slot.key(), &[]))?
        .ok()
        .map(drop)
}

/// Changes PIN or PUK, knowing the old one; the status word says what the card made of it.
pub(super) fn change(
    card: &mut dyn Exchange,
    reference: u8,
    old: &[u8],
    new: &[u8],
) -> Result<u16, CardError> {
    let data = Zeroizing::new([&padded(old)[..], &padded(new)[..]].concat());
    Ok(send(card, command(0x24, 0, reference, &data))?.status)
}

/// Sets a PIN by the PUK, and unblocks it.
pub(super) fn unblock(card: &mut dyn Exchange, puk: &[u8], pin: &[u8]) -> Result<u16, CardError> {
    let data = Zeroizing::new([&padded(puk)[..], &padded(pin)[..]].concat());
    Ok(send(card, command(0x2c, 0, applet::PIN, &data))?.status)
}

/// Sets how many tries PIN and PUK have; both are the factory's afterwards. Needs both the PIN and
/// the management key.
pub(super) fn set_tries(card: &mut dyn Exchange, pin: u8, puk: u8) -> Result<(), CardError> {
    send(card, command(0xfa, pin, puk, &[]))?.ok().map(drop)
}

/// Blocks PIN and PUK by wrong values, without which the card takes no reset, and resets.
pub(super) fn reset(card: &mut dyn Exchange) -> Result<(), CardError> {
    /// The most tries that a card can have.
    const TRIES: usize = 256;
    let mut wrong = [0; 8];
    for reference in [applet::PIN, applet::PUK] {
        for _ in 0..TRIES {
            // Random bytes are nobody's PIN.
            getrandom::fill(&mut wrong)
                .map_err(|_| CardError::Other("the system has no randomness".to_owned()))?;
            let status = match reference {
                applet::PIN => applet::verify(card, &wrong)?,
                _ => change(card, reference, &wrong, &wrong)?,
            };
            match apdu::tries(status) {
                Some(0) => break,
                Some(_) => {}
                None => return Err(CardError::Status(status)),
            }
        }
    }
    send(card, command(0xfb, 0, 0, &[]))?.ok().map(drop)
}
