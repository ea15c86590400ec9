//! What every command is given: output, flags, secrets, places, and the way to the agent.

use std::{cell::RefCell, rc::Rc};

use signet_proto::{endpoint::Endpoint, v1};

use crate::{
    agent::{self, AgentClient, Tolerance},
    args::{Cli, Globals},
    command::migrate::wire::Peer,
    failure::Failure,
    home,
    secrets::{Held, Secrets},
    ui::{Ui, text::escape},
};

/// The surroundings of one command.
pub(crate) struct Context {
    /// Output and questions.
    pub(crate) ui: Ui,
    /// Flags that every command knows.
    pub(crate) globals: Globals,
    /// Passphrases from descriptors, files and variables.
    pub(crate) secrets: Secrets,
    /// Home, configuration, socket, Docker's directory.
    pub(crate) places: Endpoint,
    /// The summary said last, so that two prompts of one request do not say it twice.
    pub(crate) told: Vec<String>,
    /// A PIN that was chosen in this command: the PUK must differ from it.
    pub(crate) chosen_pin: Option<Held>,
    /// Questions are answered at the other end of a connection.
    pub(crate) relay: Option<Peer>,
    /// The command line, for the agent's prompts and log.
    command_line: String,
    agent: Option<AgentClient>,
    /// What an interruption means from here on, where it is not "nothing was left half done".
    half_done: HalfDone,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.command_line)
    }
}

/// Shared with what waits for signals.
pub(crate) type HalfDone = Rc<RefCell<Option<Failure>>>;

impl Context {
    /// Reads the environment for `cli`.
    ///
    /// # Errors
    ///
    /// Exit 2 for flags or variables that make no sense, exit 4 for `sudo -E`.
    pub(crate) fn new(cli: &Cli, ui: Ui, command_line: String) -> Result<Self, Failure> {
        let places = home::places()?;
        Ok(Self {
            ui,
            globals: cli.globals.clone(),
            secrets: Secrets::new(&cli.globals, &cli.command, |name| std::env::var_os(name))?,
            places,
            told: Vec::new(),
            chosen_pin: None,
            relay: None,
            command_line,
            agent: None,
            half_done: HalfDone::default(),
        })
    }

    /// The agent: the one that answers, else one that is started now (but for `--no-autostart`).
    /// Connected once; later calls hand out the same connection.
    ///
    /// # Errors
    ///
    /// Exit 6: none answers and none can be started, it is not ours, or it serves another home.
    pub(crate) async fn agent(&mut self) -> Result<AgentClient, Failure> {
        if let Some(agent) = &self.agent {
            return Ok(agent.clone());
        }
        let autostart = !self.globals.no_autostart;
        let agent = agent::connect_or_start(&self.places, autostart).await?;
        self.agent = Some(agent.clone());
        Ok(agent)
    }

    /// The agent if one answers, whatever home it serves; never starts one.
    ///
    /// # Errors
    ///
    /// Exit 6: what listens there is not ours.
    pub(crate) async fn running_agent(&mut self) -> Result<Option<AgentClient>, Failure> {
        agent::connect(&self.places, Tolerance::AnyHome).await
    }

    /// Says what a secret or a touch is about to be used for, once for each different summary.
    pub(crate) fn tell(&mut self, summary: &[String]) {
        if self.told == summary {
            return;
        }
        for line in summary {
            self.ui.say(escape(line));
        }
        self.told = summary.to_vec();
    }

    /// Says how the command ends if it is interrupted from here on.
    pub(crate) fn when_interrupted(&self, failure: Failure) {
        *self.half_done.borrow_mut() = Some(failure);
    }

    /// What [`Context::when_interrupted`] was told, for the one who waits for signals.
    pub(crate) fn half_done(&self) -> HalfDone {
        Rc::clone(&self.half_done)
    }

    /// How the agent may ask on behalf of this command.
    pub(crate) const fn prompt_mode(&self) -> v1::PromptMode {
        if self.globals.no_input {
            v1::PromptMode::None
        } else {
            v1::PromptMode::Any
        }
    }

    /// What this command says of itself; shown by the agent as claimed.
    pub(crate) fn claimed(&self, image: &str, server: &str) -> v1::ClaimedContext {
        v1::ClaimedContext {
            command: self.command_line.clone(),
            image: image.to_owned(),
            server: server.to_owned(),
            terminal: variable("GPG_TTY"),
            terminal_type: variable("TERM"),
        }
    }

    /// The overrides asked for, as they go on the wire.
    pub(crate) fn allow(&self) -> Vec<String> {
        self.globals
            .allow
            .iter()
            .map(|rule| rule.as_str().to_owned())
            .collect()
    }

    /// Docker's key directory as this command sees it, for the agent to compare with its own.
    pub(crate) fn docker_dir(&self) -> String {
        self.places
            .docker
            .join("trust/private")
            .to_string_lossy()
            .into_owned()
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
