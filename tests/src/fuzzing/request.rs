//! Bytes that the two binaries read: a server's error, a client's request.

use prost::Message as _;
use signet_proto::v1::{Start, Step, sign_request::Message};
use signet_trust::{Gun, KeyId, RoleName, guard::Rule, payload::escape};

/// See [`super::fuzz_error_body`].
pub(super) fn error_body(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(300)]).escape_default().to_string();
    assert!(text.len() < 8192, "{} bytes of message", text.len());
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

/// See [`super::fuzz_grpc_request`].
pub(super) fn sign_request(data: &[u8]) {
    let Ok(request) = signet_proto::v1::SignRequest::decode(data) else {
        return;
    };
    match request.message {
        Some(Message::Start(start)) => read_start(&start),
        Some(Message::Step(step)) => read_step(&step),
        _ => {}
    }
}

fn read_start(start: &Start) {
    if let Ok(gun) = start.gun.parse::<Gun>() {
        assert!(
            !gun.as_str()
                .split('/')
                .any(|part| matches!(part, "" | "." | ".."))
        );
    }
    for rule in &start.allow {
        let _ = rule.parse::<Rule>();
    }
    if let Some(context) = &start.claimed_context {
        assert!(!escape(&context.command).chars().any(char::is_control));
    }
    for part in start.base.iter().flat_map(|base| &base.parts) {
        let _ = part.role.parse::<RoleName>();
    }
    if let Some(step) = &start.step {
        read_step(step);
    }
}

fn read_step(step: &Step) {
    for item in &step.items {
        if let Ok(role) = item.role.parse::<RoleName>() {
            assert_eq!(role.as_str(), item.role);
        }
        for id in &item.key_ids {
            if let Ok(parsed) = id.parse::<KeyId>() {
                assert_eq!(parsed.to_string(), *id);
            }
        }
    }
}
