//! Where a value stands, and what it should be: faults are named by their path.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Result;
use crate::{document::DocumentError, json::Value, key::KeyId, role::RoleName};

/// Where in a document we are; put into words only when something is wrong there.
pub(super) struct At<'p> {
    pub(super) parent: Option<&'p Self>,
    pub(super) name: &'p str,
}

impl At<'static> {
    pub(super) const SIGNED: Self = Self {
        parent: None,
        name: "signed",
    };
}

impl<'p> At<'p> {
    pub(super) fn member<'m>(&'m self, name: &'m str) -> At<'m> {
        At {
            parent: Some(self),
            name,
        }
    }

    pub(super) fn fault(&self, why: &str) -> DocumentError {
        let mut names = vec![shorten(self.name)];
        let mut up = self.parent;
        while let Some(at) = up {
            names.push(shorten(at.name));
            up = at.parent;
        }
        names.reverse();
        DocumentError::Form {
            path: names.join("."),
            why: why.to_owned(),
        }
    }

    pub(super) fn object<'v, 'a>(
        &self,
        value: &'v Value<'a>,
    ) -> Result<&'v [(Cow<'a, str>, Value<'a>)]> {
        match value {
            Value::Object(members) => Ok(members),
            Value::Null => Err(self.fault("it is missing")),
            _ => Err(self.fault("it is not an object")),
        }
    }

    /// `null` is an empty list, as Go has it.
    pub(super) fn array<'v, 'a>(&self, value: &'v Value<'a>) -> Result<&'v [Value<'a>]> {
        match value {
            Value::Array(items) => Ok(items),
            Value::Null => Ok(&[]),
            _ => Err(self.fault("it is not a list")),
        }
    }

    /// The members of these names; others are faults.
    pub(super) fn optional<'v, 'a, const N: usize>(
        &self,
        value: &'v Value<'a>,
        names: [&str; N],
    ) -> Result<[Option<&'v Value<'a>>; N]> {
        let mut found = [None; N];
        for (name, value) in self.object(value)? {
            match names.iter().position(|known| known == name) {
                Some(index) => found[index] = Some(value),
                None => return Err(self.member(name).fault("an unknown member")),
            }
        }
        Ok(found)
    }

    /// As [`At::optional`]; what is missing is `null`.
    pub(super) fn members<'v, 'a, const N: usize>(
        &self,
        value: &'v Value<'a>,
        names: [&str; N],
    ) -> Result<[&'v Value<'a>; N]> {
        Ok(self
            .optional(value, names)?
            .map(|found| found.unwrap_or(&Value::Null)))
    }

    pub(super) fn text<'v>(&self, value: &'v Value<'_>) -> Result<&'v str> {
        match value {
            Value::String(text) => Ok(text),
            Value::Null => Err(self.fault("it is missing")),
            _ => Err(self.fault("it is not a string")),
        }
    }

    /// A version or threshold: from 1 to 2^31-1.
    pub(super) fn counter(&self, value: &Value<'_>) -> Result<u32> {
        match value {
            Value::Int(number @ 1..=0x7fff_ffff) => {
                Ok(u32::try_from(*number).expect("the pattern bounds it"))
            }
            Value::Null => Err(self.fault("it is missing")),
            _ => Err(self.fault("it is not a number from 1 to 2147483647")),
        }
    }

    pub(super) fn length(&self, value: &Value<'_>) -> Result<u64> {
        match value {
            Value::Int(number) => u64::try_from(*number).map_err(|_| self.fault("it is negative")),
            Value::Null => Err(self.fault("it is missing")),
            _ => Err(self.fault("it is not a number")),
        }
    }

    pub(super) fn base64(&self, value: &Value<'_>) -> Result<Vec<u8>> {
        STANDARD
            .decode(self.text(value)?)
            .map_err(|_| self.fault("it is not base64"))
    }

    /// Decodes a digest into `buffer`, which is no shorter than the text.
    pub(super) fn digest<'b>(
        &self,
        name: &str,
        text: &str,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8]> {
        let len = STANDARD
            .decode_slice(text, buffer)
            .map_err(|_| self.member(name).fault("it is not base64"))?;
        Ok(&buffer[..len])
    }

    pub(super) fn role(&self, name: &str) -> Result<RoleName> {
        name.parse()
            .map_err(|_| self.fault("it is not the name of a role"))
    }

    pub(super) fn key_id(&self, id: &str) -> Result<KeyId> {
        id.parse()
            .map_err(|_| self.fault("it is not a key ID (64 lower-case hex digits)"))
    }
}

/// Text from outside, made short and printable.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}
