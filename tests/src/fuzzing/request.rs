//! Bytes that the two binaries read: a server's error, a client's request.

/// See [`super::fuzz_error_body`].
pub(super) fn error_body(data: &[u8]) {
    let text = signet_cli::read_error_body(data);
    assert!(text.len() < 8192, "{} bytes of message", text.len());
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

/// See [`super::fuzz_grpc_request`].
pub(super) fn sign_request(data: &[u8]) {
    if let Some(refusal) = signet_agent::read_request(data) {
        assert!(refusal.len() < 8192, "{} bytes of refusal", refusal.len());
    }
}
