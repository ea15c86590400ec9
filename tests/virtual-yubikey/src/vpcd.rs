//! The way into a real PC/SC daemon: vsmartcard's `vpcd`, a reader driver that takes its card
//! from a TCP connection.
//!
//! Both sides send a length of two bytes, big-endian, and then the body. A body of one byte from
//! the reader is an order, anything else a command (vsmartcard, `virtualsmartcard/README.md`).

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_tcp_quickack;

use crate::device::{Device, Outcome};

const POWER_OFF: u8 = 0;
const POWER_ON: u8 = 1;
const RESET: u8 = 2;
const ATR: u8 = 4;
/// How long to leave a reader alone that is not there yet.
const RETRY: Duration = Duration::from_millis(20);

/// Keeps the card in the reader at this port of loopback whenever it is plugged in. Never returns.
pub fn run(device: &Device, port: u16) -> ! {
    loop {
        device.wait_present();
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => {
                // Either end of the connection is the end of this stay in the reader.
                let _ = serve(device, stream);
                device.disconnected();
            }
            Err(_) => device.pause(RETRY),
        }
    }
}

fn serve(device: &Device, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    device.connected(stream.try_clone()?);
    loop {
        let body = read(&mut stream)?;
        let answer = match *body {
            [] => continue,
            [POWER_OFF] => {
                device.power(false);
                continue;
            }
            [POWER_ON] => {
                device.power(true);
                continue;
            }
            [RESET] => {
                device.reset();
                continue;
            }
            [ATR] => device.atr().to_vec(),
            _ => match device.exchange(&body) {
                Outcome::Answer(answer) => answer,
                Outcome::Vanished => return Ok(()),
            },
        };
        let length = u16::try_from(answer.len());
        let length = length.map_err(|_| io::Error::other("an answer of more than 64 KiB"))?;
        // In one piece: what the reader does wrong, we need not.
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_exact(stream, &mut length)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exact(stream, &mut body)?;
    Ok(body)
}

/// The reader writes length and body separately, and its second write waits for the first to be
/// acknowledged: 40 ms later, unless the kernel is told before every read to do so at once.
fn read_exact(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        set_tcp_quickack(&*stream, true)?;
        match stream.read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}
