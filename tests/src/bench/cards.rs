//! A signature by a virtual YubiKey whose computation takes as long as a real one's: what the
//! commands of several programs say to the card for it, and how long they take as a whole.

pub mod held;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cost;
use super::table::{Table, middle, time};
use crate::lab::cards::{Card, Stats};
use crate::steps::SIZE;
use crate::{Cards, Firmware, Home, Lab, Run as _};

const SERIAL: u32 = 11_111_111;
const PIN: &str = "73aBc!";
const GUN: &str = "registry.example.com/bench/cards";
/// What a YubiKey 5 takes for a P-256 signature, about.
const COMPUTING: Duration = Duration::from_millis(70);
/// GENERAL AUTHENTICATE (SP 800-73-4, part 2, section 3.2.4).
const SIGN: u8 = 0x87;

/// Measures each `runs` times: whole commands, `signet sign` with its publication by a trust server.
///
/// # Errors
///
/// When a program fails.
pub fn table(lab: &Lab, runs: usize) -> Result<Table> {
    let cards = Cards::builder().card(Firmware::V5_4, SERIAL).start();
    let home = lab.home().with_cards(&cards);
    prepare(&home)?;
    let card = cards.card(SERIAL);
    card.delay_of(SIGN, COMPUTING);
    let mut table = Table::new(
        "One signature by a card that computes 70 ms: whole commands, beginning to end",
        &["who", "exchanges", "resets", "wall", "over the card's own"],
    );
    let mut number = 0;
    let mut signet = || {
        number += 1;
        sign(&home, number)
    };
    home.signet().arg("lock").run().ok();
    row(&mut table, "signet sign, after lock", card, 1, &mut signet)?;
    let who = "signet sign, verified and published";
    row(&mut table, who, card, runs, &mut signet)?;

    let dir = lab.fresh_dir("c");
    let input = dir.join("input");
    fs::write(&input, [0x5a; 600])?;
    row(&mut table, "yubico-piv-tool", card, runs, &mut || {
        let mut command = cards.command("yubico-piv-tool");
        command
            .args(["--reader", card.reader(), "--action", "verify-pin"])
            .args(["--pin", PIN, "--sign", "--slot", "9a"])
            .args(["--algorithm", "ECCP256", "--hash", "SHA256", "--input"])
            .arg(&input)
            .arg("--output")
            .arg(dir.join("piv-tool"));
        command
    })?;
    row(
        &mut table,
        "pkcs11-tool, libykcs11",
        card,
        runs,
        &mut || {
            let mut command = cards.command("pkcs11-tool");
            command
                .args(["--module", "/usr/lib/x86_64-linux-gnu/libykcs11.so.2"])
                .args(["--login", "--pin", PIN, "--sign", "--id", "01"])
                .args(["--mechanism", "ECDSA-SHA256", "--input-file"])
                .arg(&input)
                .arg("--output-file")
                .arg(dir.join("pkcs11"));
            command
        },
    )?;
    let mut again = Vec::new();
    for _ in 0..runs.min(5) {
        card.remove();
        card.insert();
        let plugged = Instant::now();
        cost::wall_of(&mut signet())?;
        again.push(plugged.elapsed());
    }
    table.row(&[
        "signet sign, from replugged".to_owned(),
        String::new(),
        String::new(),
        time(middle(again)),
    ]);
    Ok(table)
}

fn prepare(home: &Home) -> Result<()> {
    let with_pin = |args: &[&str]| {
        let mut command = home.with_descriptors(&[(3, PIN)]);
        command.args(args).args(["--pin-fd", "3"]).run().ok();
    };
    let sheet = home.user_home().join("sheet");
    let sheet = sheet.to_str().context("the lab's paths are text")?;
    with_pin(&["card", "setup", "--recovery-sheet", sheet]);
    let generate = ["key", "generate", "--touch-policy", "never", "--role"];
    for role in [
        &["root", "--store", "piv:11111111:9c"][..],
        &["targets", "--gun", GUN, "--store", "piv:11111111:9a"],
    ] {
        with_pin(&[&generate, role].concat());
    }
    cost::wall_of(&mut sign(home, 0))?;
    Ok(())
}

fn sign(home: &Home, number: u32) -> Command {
    let mut command = home.with_descriptors(&[(3, PIN)]);
    let image = format!("{GUN}:t{number}@sha256:{number:064x}");
    command.args(["sign", &image, "--size", SIZE, "--pin-fd", "3"]);
    command
}

fn row(
    table: &mut Table,
    who: &str,
    card: &Card,
    runs: usize,
    command: &mut dyn FnMut() -> Command,
) -> Result<()> {
    let mut walls = Vec::new();
    let mut last: Option<Stats> = None;
    for _ in 0..runs {
        card.reset_stats();
        walls.push(cost::wall_of(&mut command())?);
        last = Some(card.stats());
    }
    let stats = last.context("no runs")?;
    let wall = middle(walls);
    table.row(&[
        who.to_owned(),
        stats.exchanges.to_string(),
        stats.resets.to_string(),
        time(wall),
        time(wall.saturating_sub(COMPUTING)),
    ]);
    Ok(())
}
