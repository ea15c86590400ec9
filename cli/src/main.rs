//! The `signet` command; called as `docker-signet`, a Docker CLI plugin.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    signet_cli::main_from_env()
}
