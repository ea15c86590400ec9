//! The control socket: a line says what happens to the card, a line comes back.
//!
//! | line | does |
//! |---|---|
//! | `touch` | touches now; an error when the card is not waiting for it |
//! | `touch-auto`, `touch-after MS`, `touch-never` | touches at once (as at the start), later, or only when told |
//! | `touch-timeout MS`, `touch-cache MS` | how long the card waits, and how long a touch counts (15 s each) |
//! | `await-touch [MS]` | answers `ok NS` when the card begins to wait, at that monotonic time |
//! | `remove`, `insert` | unplugs, plugs in |
//! | `swap SERIAL [FIRMWARE\|foreign]` | the card in the case is another; one that was there before comes back as it was |
//! | `reset` | the card forgets its session |
//! | `delay [INS] MS` | so long for each signature, or for each command of this instruction |
//! | `fault INS SW [N]` | this status word for the next N such commands |
//! | `garbage INS HEX [N]` | these bytes with 9000 |
//! | `raw INS HEX [N]` | these bytes, with no status word added |
//! | `drop INS` | unplugs instead of answering |
//! | `heal` | ends all faults and delays |
//! | `object ID HEX\|-` | puts a data object there, or removes it |
//! | `capacity BYTES` | room for data objects, all together |
//! | `stats`, `stats-reset` | what happened, as JSON; counts afresh |
//! | `trace FILE` | writes all exchanges there, PINs included |
//! | `attestation-root` | the root certificate, DER in hex |
//!
//! An answer is `ok`, `ok DATA`, or `error: WHY`.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use crate::apdu::Status;
use crate::attest;
use crate::device::{Device, Fault, Touching};
use crate::firmware::Firmware;
use crate::piv::Kind;

/// How long `await-touch` waits when it is not told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens at `path`, and serves whoever comes, each in a thread of its own.
///
/// # Errors
/// When there can be no socket at this path.
pub fn listen(device: &Device, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let device = device.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let device = device.clone();
            // A client that went away needs no answer.
            thread::spawn(move || serve(&device, stream));
        }
    });
    Ok(())
}

fn serve(device: &Device, stream: UnixStream) -> io::Result<()> {
    let mut answers = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = match obey(device, &line?) {
            Ok(data) if data.is_empty() => "ok\n".to_owned(),
            Ok(data) => format!("ok {data}\n"),
            Err(why) => format!("error: {why}\n"),
        };
        answers.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Does what a line says, and returns the data of the answer.
///
/// # Errors
/// Says what is wrong with the line, or why it cannot be done now.
pub fn obey(device: &Device, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["await-touch", ref limit @ ..] => {
            let limit = match *limit {
                [] => PATIENCE,
                [limit] => milliseconds(limit)?,
                _ => return Err("await-touch takes one time".into()),
            };
            let since = device.await_touch(limit);
            since
                .map(|since| since.to_string())
                .ok_or_else(|| format!("no wait for a touch within {limit:?}"))
        }
        ["stats"] => Ok(device.stats().to_string()),
        ["attestation-root"] => Ok(hex::encode(attest::root())),
        _ => act(device, &words).map(|()| String::new()),
    }
}

/// The commands whose answer has no data.
fn act(device: &Device, words: &[&str]) -> Result<(), String> {
    match *words {
        ["touch"] if device.touch() => {}
        ["touch"] => return Err("the card is not waiting for a touch".into()),
        ["touch-auto"] => device.set_touching(Touching::After(Duration::ZERO)),
        ["touch-after", after] => device.set_touching(Touching::After(milliseconds(after)?)),
        ["touch-never"] => device.set_touching(Touching::Never),
        ["touch-timeout", time] => device.set_touch_timeout(milliseconds(time)?),
        ["touch-cache", time] => device.set_touch_window(milliseconds(time)?),
        ["remove"] => device.remove(),
        ["insert"] => device.insert(),
        ["swap", serial, ref what @ ..] => swap(device, number(serial)?, what)?,
        ["reset"] => device.reset_session(),
        ["delay", time] => device.delay_signatures(milliseconds(time)?),
        ["delay", ins, time] => device.delay(byte(ins)?, milliseconds(time)?),
        ["fault", ins, status, ref times @ ..] => {
            let status = bytes(status)?;
            if status.len() != 2 {
                return Err("a status word is four hex digits".into());
            }
            let fault = Fault::Answer(status);
            device.fail(byte(ins)?, fault, count(times)?);
        }
        ["garbage", ins, content, ref times @ ..] => {
            let mut content = bytes(content)?;
            content.extend(Status::OK.0.to_be_bytes());
            device.fail(byte(ins)?, Fault::Answer(content), count(times)?);
        }
        ["raw", ins, content, ref times @ ..] => {
            device.fail(byte(ins)?, Fault::Answer(bytes(content)?), count(times)?);
        }
        ["drop", ins] => device.fail(byte(ins)?, Fault::Vanish, 1),
        ["heal"] => device.heal(),
        ["object", id, content] => {
            let id =
                u32::from_str_radix(id, 16).map_err(|_| "an object's name is six hex digits")?;
            let content = match content {
                "-" => None,
                content => Some(bytes(content)?),
            };
            device.put_object(id, content);
        }
        ["capacity", room] => device.set_capacity(number(room)?),
        ["stats-reset"] => device.reset_stats(),
        ["trace", path] => {
            let traced = device.trace(Path::new(path));
            traced.map_err(|err| format!("{path}: {err}"))?;
        }
        _ => return Err(format!("no such command: {}", words.join(" "))),
    }
    Ok(())
}

fn swap(device: &Device, serial: u32, what: &[&str]) -> Result<(), String> {
    if device.present() {
        return Err("remove the card first".into());
    }
    let (firmware, kind) = match *what {
        [] => (Firmware::V5_7, Kind::YubiKey),
        ["foreign"] => (Firmware::V5_7, Kind::Foreign),
        [firmware] => {
            let firmware = Firmware::from_str(firmware).map_err(|err| err.to_string())?;
            (firmware, Kind::YubiKey)
        }
        _ => return Err("swap takes a serial and a firmware".into()),
    };
    device.swap(serial, firmware, kind);
    Ok(())
}

fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

fn byte(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text, 16).map_err(|_| format!("{text} is no instruction in hex"))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    // A dash for no bytes at all, which a line of words cannot say otherwise.
    let text = if text == "-" { "" } else { text };
    hex::decode(text).map_err(|_| format!("{text} is not hex"))
}

fn count(times: &[&str]) -> Result<u32, String> {
    match *times {
        [] => Ok(1),
        [times] => number(times),
        _ => Err("too many words".into()),
    }
}
