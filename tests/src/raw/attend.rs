//! Somebody who attends, and says whatever a test wants him to.

use std::sync::Arc;

use signet_proto::v1::{
    self, Answer, AttendEvent, AttendPrompt, AttendRequest, AttendStart, answer, attend_event,
    attend_request, presence_client::PresenceClient,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{PATIENCE, Raw};

/// One attendant.
#[derive(Debug)]
pub struct Attendant {
    runtime: Arc<Runtime>,
    sender: mpsc::Sender<AttendRequest>,
    events: Streaming<AttendEvent>,
}

impl Raw {
    /// Attends from now on, and answers.
    ///
    /// # Errors
    /// When the agent does not take attendants on this connection.
    pub fn attend(&self) -> Result<Attendant, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let start = AttendRequest {
            message: Some(attend_request::Message::Start(AttendStart::default())),
        };
        sender.try_send(start).expect("there is room");
        let mut client = PresenceClient::new(self.channel.clone());
        let call = client.attend(ReceiverStream::new(receiver));
        let events = self.runtime.block_on(call)?.into_inner();
        let mut attendant = Attendant {
            runtime: Arc::clone(&self.runtime),
            sender,
            events,
        };
        // From here on prompts come to him.
        match attendant.hear()? {
            Some(attend_event::Event::Attending(_)) => Ok(attendant),
            other => panic!("the agent says {other:?}"),
        }
    }
}

impl Attendant {
    /// What the agent says next; `None` when it has ended the stream.
    ///
    /// # Errors
    /// Its status.
    ///
    /// # Panics
    /// When nothing comes for a minute.
    pub fn hear(&mut self) -> Result<Option<attend_event::Event>, Status> {
        let next = self.events.message();
        let patient = async { tokio::time::timeout(PATIENCE, next).await };
        match self.runtime.block_on(patient) {
            Ok(Ok(Some(event))) => Ok(Some(event.event.expect("an event says something"))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(status),
            Err(_) => panic!("nobody asks the attendant"),
        }
    }

    /// The next question for him.
    ///
    /// # Panics
    /// When none comes.
    pub fn prompt(&mut self) -> AttendPrompt {
        loop {
            match self.hear() {
                Ok(Some(attend_event::Event::Prompt(prompt))) => return prompt,
                Ok(Some(_)) => {}
                other => panic!("no prompt: {other:?}"),
            }
        }
    }

    /// Answers the question of this name.
    ///
    /// # Panics
    /// When the agent has hung up.
    pub fn answer(&self, id: &str, answer: answer::Answer) {
        let answer = Answer {
            prompt_id: id.to_owned(),
            answer: Some(answer),
            grant_seconds: 0,
        };
        let message = Some(attend_request::Message::Answer(answer));
        self.sender
            .try_send(AttendRequest { message })
            .expect("the agent reads");
    }

    /// Says yes or no to the next question, which is a yes/no question; its words.
    ///
    /// # Panics
    /// When it is another one.
    pub fn says(&mut self, yes: bool) -> v1::NeedConfirm {
        let prompt = self.prompt().prompt.expect("a prompt");
        self.answer(&prompt.id, answer::Answer::Yes(yes));
        match prompt.ask {
            Some(v1::prompt::Ask::Confirm(need)) => need,
            other => panic!("not a yes/no question: {other:?}"),
        }
    }

    /// Types the secret of the next question, which is for a passphrase; its words.
    ///
    /// # Panics
    /// When it is another one.
    pub fn types(&mut self, secret: &str) -> v1::NeedPassphrase {
        let prompt = self.prompt().prompt.expect("a prompt");
        let typed = v1::Secret {
            value: secret.as_bytes().to_vec(),
            source: v1::secret::Source::Typed.into(),
        };
        self.answer(&prompt.id, answer::Answer::Secret(typed));
        match prompt.ask {
            Some(v1::prompt::Ask::Passphrase(need)) => need,
            other => panic!("not a question for a passphrase: {other:?}"),
        }
    }
}
