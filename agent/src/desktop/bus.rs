//! Where the buses are (D-Bus specification, "Server Addresses"), and a connection to one.
//!
//! Of the transports only `unix:path=` and `unix:abstract=` are used: an address out of the
//! environment must not make the agent run a program (`unixexec:`) or speak to another machine
//! (`tcp:`). The bus of a session is the user's own; another user's would learn what is signed.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::sockopt::socket_peercred;
use tokio::{net::UnixStream, time::timeout};
use zbus::{Connection, connection::Builder};

/// Where the system's bus listens unless said otherwise (D-Bus specification, "System message bus").
const SYSTEM: &str = "/var/run/dbus/system_bus_socket";
/// How long a bus, or whoever answers on it, may take for one thing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one bus that are tried.
const MAX_ADDRESSES: usize = 8;

/// A socket that a bus listens on: a path, or after a NUL a name of the abstract namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(PathBuf);

/// A bus: its sockets, best first, and who may own it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bus {
    addresses: Vec<Address>,
    own: bool,
}

/// Both buses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buses {
    pub(super) system: Bus,
    pub(super) session: Option<Bus>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    /// Nothing in the address that is a unix socket.
    #[error("the bus has no unix socket")]
    NoSocket,
    /// Another user listens.
    #[error("the bus of the session belongs to uid {0}")]
    Foreign(u32),
    /// It cannot be reached.
    #[error("the bus cannot be reached")]
    Reach(#[from] std::io::Error),
    /// It takes too long.
    #[error("the bus does not answer")]
    Slow,
    /// It says no, or something that is not understood.
    #[error("the bus refused")]
    Refused(#[from] zbus::Error),
}

impl Buses {
    /// Where the environment says they are, else where they usually are.
    #[must_use]
    pub fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| var(name).filter(|value| !value.is_empty());
        let system = match set("DBUS_SYSTEM_BUS_ADDRESS") {
            Some(address) => addresses(&address),
            None => vec![Address(SYSTEM.into())],
        };
        let session = match set("DBUS_SESSION_BUS_ADDRESS") {
            Some(address) => Some(addresses(&address)),
            None => set("XDG_RUNTIME_DIR").map(|dir| vec![Address(Path::new(&dir).join("bus"))]),
        };
        Self {
            system: Bus {
                addresses: system,
                own: false,
            },
            session: session.map(|addresses| Bus {
                addresses,
                own: true,
            }),
        }
    }
}

impl Bus {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, BusError> {
        let mut failed = BusError::NoSocket;
        for address in &self.addresses {
            match timeout(PATIENCE, self.reach(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = BusError::Slow,
            }
        }
        Err(failed)
    }

    async fn reach(&self, Address(path): &Address) -> Result<Connection, BusError> {
        let stream = UnixStream::connect(path).await?;
        if self.own {
            let owner = socket_peercred(&stream)
                .map_err(std::io::Error::from)?
                .uid
                .as_raw();
            if owner != 0 && owner != rustix::process::getuid().as_raw() {
                return Err(BusError::Foreign(owner));
            }
        }
        let connection = Builder::unix_stream(stream)
            .method_timeout(PATIENCE)
            .build()
            .await?;
        Ok(connection)
    }
}

/// The unix sockets in a list of addresses; what else is in it is left out.
fn addresses(list: &OsStr) -> Vec<Address> {
    let all = list.as_bytes().split(|byte| *byte == b';');
    all.filter_map(address).take(MAX_ADDRESSES).collect()
}

fn address(text: &[u8]) -> Option<Address> {
    let pairs = text.strip_prefix(b"unix:")?;
    pairs.split(|byte| *byte == b',').find_map(|pair| {
        let (mut name, value) = match pair.strip_prefix(b"path=") {
            Some(path) => (Vec::new(), path),
            None => (vec![0], pair.strip_prefix(b"abstract=")?),
        };
        name.extend(unescape(value)?);
        let fits = name.len() > 1 && (name.first() == Some(&0) || name.first() == Some(&b'/'));
        fits.then(|| Address(PathBuf::from(OsStr::from_bytes(&name))))
    })
}

/// `%2f` is a slash.
fn unescape(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => *byte,
        });
    }
    (!out.contains(&0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &str) -> Vec<String> {
        let all = addresses(OsStr::new(list)).into_iter();
        all.map(|Address(path)| path.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn only_unix_sockets_are_taken_from_an_address() {
        assert_eq!(
            paths(
                "unixexec:path=/bin/sh;tcp:host=a,port=1;unix:path=/a%20b,guid=0;unix:abstract=/x"
            ),
            ["/a b", "\0/x"]
        );
        assert_eq!(
            paths("unix:guid=0,path=/run/user/1000/bus"),
            ["/run/user/1000/bus"]
        );
        for nothing in [
            "",
            "unix:",
            "unix:path=",
            "unix:path=relative",
            "unix:tmpdir=/tmp",
            "unix:path=/a%0",
            "unix:path=/a%00b",
            "unix:path=/a%zz",
            "autolaunch:",
        ] {
            assert_eq!(paths(nothing), Vec::<String>::new(), "{nothing}");
        }
        assert_eq!(paths(&"unix:path=/a;".repeat(100)).len(), MAX_ADDRESSES);
    }

    #[test]
    fn the_usual_places_are_taken_where_the_environment_names_none() {
        let buses = Buses::from_env(|name| (name == "XDG_RUNTIME_DIR").then(|| "/run/u".into()));
        assert_eq!(buses.system.addresses, [Address(SYSTEM.into())]);
        assert_eq!(
            buses.session.unwrap().addresses,
            [Address("/run/u/bus".into())]
        );
        assert!(Buses::from_env(|_| None).session.is_none());
    }
}
