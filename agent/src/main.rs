//! `signetd`: starts the agent, or says which one this is.

use std::process::ExitCode;

fn main() -> ExitCode {
    signet_agent::daemon::main(std::env::args_os().skip(1))
}
