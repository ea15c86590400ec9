//! The body of an upload to a notary server (§3.2).
//!
//! Written by hand: the file name of a delegation is `targets/releases`, slash and all, which form
//! encoders strip or escape.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use signet_trust::RoleName;

use super::NetError;

/// A multipart body, the `Content-Type` that announces it, and the documents in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
    /// They share the memory of the body.
    pub(crate) documents: BTreeMap<RoleName, Bytes>,
}

impl Upload {
    /// One part per document; 16 random bytes in the boundary cannot occur in metadata.
    ///
    /// # Errors
    ///
    /// [`NetError::Setup`] when the system has no random numbers.
    pub(crate) fn of(documents: BTreeMap<RoleName, Vec<u8>>) -> Result<Self, NetError> {
        let mut token = [0; 16];
        getrandom::fill(&mut token)
            .map_err(|error| NetError::Setup(format!("no random numbers: {error}")))?;
        Ok(upload(documents, token))
    }
}

fn upload(documents: BTreeMap<RoleName, Vec<u8>>, token: [u8; 16]) -> Upload {
    let boundary = format!("signet-{}", hex::encode(token));
    let size: usize = documents.values().map(|bytes| bytes.len() + 300).sum();
    let mut body = Vec::with_capacity(size + 100);
    let mut places = Vec::with_capacity(documents.len());
    for (role, bytes) in documents {
        body.extend_from_slice(
            format!(
                "--{boundary}\r\n\
                 Content-Disposition: form-data; name=\"files\"; filename=\"{role}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        places.push((role, body.len()..body.len() + bytes.len()));
        body.extend_from_slice(&bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let body = Bytes::from(body);
    let documents = places.into_iter();
    Upload {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        documents: documents
            .map(|(role, place)| (role, body.slice(place)))
            .collect(),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slash_of_a_delegation_stays() {
        let documents = BTreeMap::from([
            (RoleName::Targets, b"{}".to_vec()),
            ("targets/releases".parse().unwrap(), b"{\"a\":1}".to_vec()),
        ]);
        let upload = upload(documents.clone(), [7; 16]);
        let sent = upload.documents.into_iter();
        let sent: BTreeMap<_, _> = sent.map(|(role, wire)| (role, wire.to_vec())).collect();
        assert_eq!(sent, documents);
        let b = format!("signet-{}", "07".repeat(16));
        assert_eq!(
            upload.content_type,
            format!("multipart/form-data; boundary={b}")
        );
        assert_eq!(
            String::from_utf8(upload.body.to_vec()).unwrap(),
            format!(
                "--{b}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"targets\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n{{}}\r\n\
                 --{b}\r\nContent-Disposition: form-data; name=\"files\"; \
                 filename=\"targets/releases\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n{{\"a\":1}}\r\n--{b}--\r\n"
            )
        );
    }
}
