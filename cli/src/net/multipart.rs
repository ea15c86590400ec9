//! The body of an upload to a notary server (§3.2).
//!
//! Written by hand: the file name of a delegation is `targets/releases`, slash and all, which form
//! encoders strip or escape.

use std::collections::BTreeMap;

use signet_trust::RoleName;

/// A multipart body and the `Content-Type` that announces it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// One part per document. `token` makes the boundary; 16 random bytes cannot occur in metadata.
pub(crate) fn upload(documents: &BTreeMap<RoleName, Vec<u8>>, token: [u8; 16]) -> Upload {
    let boundary = format!("signet-{}", hex::encode(token));
    let size: usize = documents.values().map(|bytes| bytes.len() + 300).sum();
    let mut body = Vec::with_capacity(size + 100);
    for (role, bytes) in documents {
        body.extend_from_slice(
            format!(
                "--{boundary}\r\n\
                 Content-Disposition: form-data; name=\"files\"; filename=\"{role}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Upload {
        content_type: format!("multipart/form-data; boundary={boundary}"),
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
        let upload = upload(&documents, [7; 16]);
        let b = format!("signet-{}", "07".repeat(16));
        assert_eq!(
            upload.content_type,
            format!("multipart/form-data; boundary={b}")
        );
        assert_eq!(
            String::from_utf8(upload.body).unwrap(),
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
