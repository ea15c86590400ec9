//! A second PC/SC client, for tests: what else may happen at a reader while Signet uses it.

#![allow(
    clippy::print_stdout,
    reason = "its standard output is what a test reads"
)]

use std::ffi::{CStr, CString};
use std::io::Read as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use pcsc::{Card, Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use serde_json::json;

/// Does to a reader what another program might.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints every change of every reader, as a line of JSON, until it is ended.
    Watch,
    /// Prints which reader holds which serial. Selects PIV, and so ends sessions.
    Serials,
    /// Sends commands in hex, and prints the answers, a line each.
    Send {
        /// The reader.
        #[arg(long)]
        reader: CString,
        /// How to leave the card.
        #[arg(long, value_enum, default_value_t = Leave::Card)]
        leave: Leave,
        /// The commands; nothing is sent before them.
        commands: Vec<String>,
    },
    /// Connects, and disconnects with a reset.
    Reset {
        /// The reader.
        #[arg(long)]
        reader: CString,
    },
    /// Prints `held`, and keeps others out until standard input ends.
    Hold {
        /// The reader.
        #[arg(long)]
        reader: CString,
        /// What to hold.
        #[arg(long, value_enum, default_value_t = Hold::Exclusive)]
        mode: Hold,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Leave {
    /// As it is.
    Card,
    /// Reset.
    Reset,
    /// Without power.
    Unpower,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hold {
    /// An exclusive connection: others cannot connect.
    Exclusive,
    /// A transaction: others connect, and wait.
    Transaction,
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Watch => watch(),
        What::Serials => serials(),
        What::Send {
            reader,
            leave,
            commands,
        } => send(&reader, leave, &commands),
        What::Reset { reader } => {
            let card = connect(&service()?, &reader, ShareMode::Shared)?;
            disconnect(card, Disposition::ResetCard)
        }
        What::Hold { reader, mode } => hold(&reader, mode),
    }
}

fn service() -> Result<Context> {
    Context::establish(Scope::User).context("pcscd does not answer")
}

fn connect(context: &Context, reader: &CStr, mode: ShareMode) -> Result<Card> {
    let connected = context.connect(reader, mode, Protocols::T1);
    connected.with_context(|| format!("cannot connect to {}", reader.to_string_lossy()))
}

fn disconnect(card: Card, disposition: Disposition) -> Result<()> {
    card.disconnect(disposition)
        .map_err(|(_, err)| err)
        .context("cannot disconnect")
}

fn transmit(card: &Card, command: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = vec![0; pcsc::MAX_BUFFER_SIZE_EXTENDED];
    let answer = card.transmit(command, &mut buffer);
    Ok(answer.context("the card does not answer")?.to_vec())
}

fn send(reader: &CStr, leave: Leave, commands: &[String]) -> Result<()> {
    let card = connect(&service()?, reader, ShareMode::Shared)?;
    for command in commands {
        let command = hex::decode(command).with_context(|| format!("{command} is not hex"))?;
        println!("{}", hex::encode(transmit(&card, &command)?));
    }
    let disposition = match leave {
        Leave::Card => Disposition::LeaveCard,
        Leave::Reset => Disposition::ResetCard,
        Leave::Unpower => Disposition::UnpowerCard,
    };
    disconnect(card, disposition)
}

fn hold(reader: &CStr, mode: Hold) -> Result<()> {
    let share = match mode {
        Hold::Exclusive => ShareMode::Exclusive,
        Hold::Transaction => ShareMode::Shared,
    };
    let mut card = connect(&service()?, reader, share)?;
    let until_told = || -> Result<()> {
        println!("held");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    };
    if matches!(mode, Hold::Transaction) {
        let transaction = card.transaction().context("cannot begin a transaction")?;
        until_told()?;
        let ended = transaction.end(Disposition::LeaveCard);
        ended.map_err(|(_, err)| err).context("cannot end it")?;
    } else {
        until_told()?;
    }
    disconnect(card, Disposition::LeaveCard)
}

fn serials() -> Result<()> {
    let context = service()?;
    for reader in context.list_readers_owned().context("no readers")? {
        match context.connect(&reader, ShareMode::Shared, Protocols::T1) {
            Ok(card) => {
                let name = reader.to_string_lossy();
                println!("{}", json!({"reader": name, "serial": serial(&card)?}));
                disconnect(card, Disposition::LeaveCard)?;
            }
            Err(pcsc::Error::NoSmartcard | pcsc::Error::RemovedCard) => {}
            Err(err) => bail!("cannot connect to {}: {err}", reader.to_string_lossy()),
        }
    }
    Ok(())
}

/// The serial: from PIV, from OTP where PIV does not tell, and none of a card by somebody else.
fn serial(card: &Card) -> Result<Option<u32>> {
    const PIV: &[u8] = &[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8];
    const OTP: &[u8] = &[0, 0xa4, 4, 0, 8, 0xa0, 0, 0, 5, 0x27, 0x20, 1, 1];
    for (application, command) in [(PIV, [0, 0xf8, 0, 0, 0]), (OTP, [0, 1, 0x10, 0, 0])] {
        transmit(card, application)?;
        let answer = transmit(card, &command)?;
        if let Ok([a, b, c, d, 0x90, 0]) = <[u8; 6]>::try_from(answer) {
            return Ok(Some(u32::from_be_bytes([a, b, c, d])));
        }
    }
    Ok(None)
}

fn watch() -> ! {
    loop {
        if let Ok(context) = Context::establish(Scope::User) {
            println!("{}", json!({"service": true}));
            // It ends when pcscd does, and that is one of the changes to tell.
            let _ = watch_service(&context);
            println!("{}", json!({"service": false}));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn watch_service(context: &Context) -> Result<(), pcsc::Error> {
    let mut states: Vec<ReaderState> = Vec::new();
    loop {
        for name in context.list_readers_owned()? {
            if !states.iter().any(|state| state.name() == name.as_c_str()) {
                states.push(ReaderState::new(name, State::UNAWARE));
            }
        }
        let limit = Duration::from_millis(if states.is_empty() { 20 } else { 500 });
        match context.get_status_change(limit, &mut states) {
            Ok(()) => {}
            Err(pcsc::Error::Timeout) => continue,
            Err(err) => return Err(err),
        }
        for state in &mut states {
            let event = state.event_state();
            if event.contains(State::CHANGED) {
                let change = json!({
                    "reader": state.name().to_string_lossy(),
                    "count": state.event_count(),
                    "present": event.contains(State::PRESENT),
                    "exclusive": event.contains(State::EXCLUSIVE),
                    "in_use": event.contains(State::INUSE),
                });
                println!("{change}");
            }
            state.sync_current_state();
        }
    }
}
