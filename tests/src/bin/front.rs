//! A front that asks nobody itself, as later ones may: it has the agent rotate the keyring, says of
//! every prompt on its own stream that nobody can answer it there, and tells how it ended.
//!
//! Usage: signet-front SOCKET, with `GPG_TTY` and `TERM` in the environment, or without.

use std::{io::Write as _, path::PathBuf};

use hyper_util::rt::TokioIo;
use signet_proto::v1::{
    Answer, ClaimedContext, KeyChange, KeyRequest, PromptMode, RotateKeyring, Unavailable, answer,
    key_change::Change, key_event::Event, key_request::Message, keys_client::KeysClient,
};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let socket = std::env::args_os().nth(1).map(PathBuf::from);
    let socket = socket.ok_or_else(|| anyhow::anyhow!("usage: signet-front SOCKET"))?;
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://signet.invalid")
        .connect_with_connector(connector)
        .await?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (sender, messages) = mpsc::channel(8);
    let change = KeyChange {
        change: Some(Change::KeyringRotate(RotateKeyring { root: false })),
        claimed_context: Some(ClaimedContext {
            command: "a front".to_owned(),
            terminal: variable("GPG_TTY"),
            terminal_type: variable("TERM"),
            ..ClaimedContext::default()
        }),
        prompt_mode: PromptMode::Any.into(),
        ..KeyChange::default()
    };
    let request = |message| KeyRequest {
        message: Some(message),
    };
    sender.send(request(Message::Change(change))).await?;
    let call = KeysClient::new(channel)
        .change(ReceiverStream::new(messages))
        .await;
    let mut events = match call {
        Ok(events) => events.into_inner(),
        Err(status) => anyhow::bail!("{}", status.message()),
    };
    loop {
        match events.message().await {
            Ok(Some(event)) => match event.event {
                Some(Event::Prompt(prompt)) => {
                    let answer = Answer {
                        prompt_id: prompt.id,
                        answer: Some(answer::Answer::Unavailable(Unavailable {})),
                        grant_seconds: 0,
                    };
                    sender.send(request(Message::Answer(answer))).await?;
                }
                Some(Event::Done(_)) => {
                    return Ok(writeln!(std::io::stdout(), "done")?);
                }
                _ => {}
            },
            Ok(None) => anyhow::bail!("the agent hung up"),
            Err(status) => anyhow::bail!("{}", status.message()),
        }
    }
}
