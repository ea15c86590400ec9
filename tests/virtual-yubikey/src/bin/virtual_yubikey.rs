//! A virtual YubiKey in a reader of vpcd's, and the socket that a test directs it by.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use signet_virtual_yubikey::{Device, Firmware, Kind, control, vpcd};

/// Plugs a virtual YubiKey into a reader of vpcd's.
#[derive(Debug, Parser)]
struct Arguments {
    /// The serial.
    #[arg(long)]
    serial: u32,
    /// The firmware, such as 5.7.1.
    #[arg(long, default_value_t = Firmware::V5_7)]
    firmware: Firmware,
    /// Some other maker's PIV card instead of a YubiKey.
    #[arg(long)]
    foreign: bool,
    /// The port of the reader, on loopback.
    #[arg(long, default_value_t = 35963)]
    port: u16,
    /// Where to listen for what happens to the card.
    #[arg(long)]
    control: PathBuf,
    /// A file for all exchanges, PINs included.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Not plugged in at the start.
    #[arg(long)]
    removed: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kind = if arguments.foreign {
        Kind::Foreign
    } else {
        Kind::YubiKey
    };
    let device = Device::new(arguments.serial, arguments.firmware, kind);
    if arguments.removed {
        device.remove();
    }
    if let Some(path) = &arguments.trace {
        let traced = device.trace(path);
        traced.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = &arguments.control;
    let listening = control::listen(&device, path);
    listening.with_context(|| format!("cannot listen at {}", path.display()))?;
    vpcd::run(&device, arguments.port)
}
