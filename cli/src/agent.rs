//! The agent as the command sees it: a connection that was checked before its first byte.

pub(crate) mod archive;
mod card;
pub(crate) mod change;
mod connect;
pub(crate) mod find;
pub(crate) mod prompt;
mod start;

use signet_proto::v1::{
    self, agent_client::AgentClient as Daemon, cards_client::CardsClient, keys_client::KeysClient,
    log_client::LogClient, presence_client::PresenceClient, signer_client::SignerClient,
};
use tonic::transport::Channel;

use crate::failure::Failure;

pub(crate) use card::change_card;
pub(crate) use change::change;
pub(crate) use connect::{Tolerance, connect};
pub(crate) use start::{LEDGER_DAMAGED, connect_or_start, in_foreground};

/// A connection to the agent. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AgentClient {
    channel: Channel,
    hello: v1::HelloReply,
}

impl AgentClient {
    /// Who answered.
    pub(crate) const fn hello(&self) -> &v1::HelloReply {
        &self.hello
    }

    /// The connection itself.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Signs documents.
    pub(crate) fn signer(&self) -> SignerClient<Channel> {
        SignerClient::new(self.channel.clone())
    }

    /// Lists and changes keys.
    pub(crate) fn keys(&self) -> KeysClient<Channel> {
        KeysClient::new(self.channel.clone())
    }

    /// YubiKeys.
    pub(crate) fn cards(&self) -> CardsClient<Channel> {
        CardsClient::new(self.channel.clone())
    }

    /// The daemon itself.
    pub(crate) fn daemon(&self) -> Daemon<Channel> {
        Daemon::new(self.channel.clone())
    }

    /// The signature log.
    pub(crate) fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
    }

    /// Who answers for requests.
    pub(crate) fn presence(&self) -> PresenceClient<Channel> {
        PresenceClient::new(self.channel.clone())
    }

    /// Keys of every store.
    ///
    /// # Errors
    ///
    /// As the agent says.
    pub(crate) async fn list_keys(&self, docker_dir: String) -> Result<v1::ListKeysReply, Failure> {
        Ok(self
            .keys()
            .list(v1::ListKeysRequest { docker_dir })
            .await?
            .into_inner())
    }

    /// Cards in readers, and those that hold enrolled keys and are not.
    ///
    /// # Errors
    ///
    /// As the agent says.
    pub(crate) async fn list_cards(&self) -> Result<v1::ListCardsReply, Failure> {
        let reply = self.cards().list(v1::ListCardsRequest {}).await?;
        Ok(reply.into_inner())
    }

    /// What the agent has recorded for a GUN.
    ///
    /// # Errors
    ///
    /// As the agent says.
    pub(crate) async fn collection(&self, gun: &str) -> Result<v1::CollectionReply, Failure> {
        let request = v1::CollectionRequest {
            gun: gun.to_owned(),
        };
        Ok(self.signer().collection(request).await?.into_inner())
    }
}
