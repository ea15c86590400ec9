//! Connecting, and whether what listens is this user's agent.
//!
//! The agent checks its callers; the command checks the agent likewise before it sends a byte: the
//! socket's directory belongs to this user and is closed to others, and so does the process that
//! listens. A passphrase must not end with somebody who put a socket where ours should be.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use signet_proto::{endpoint::Endpoint, v1};
use tokio::{net::UnixStream, time::timeout};
use tonic::transport::Endpoint as Address;

use super::AgentClient;
use crate::failure::{Failure, exit};

/// How long an agent may take to say hello. It asks nobody anything for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which agents a command puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Only the one of this home.
    OwnHome,
    /// Any of this user's: `status`, `lock` and `agent stop` work on whatever answers.
    AnyHome,
}

/// Connects to the agent if one listens.
///
/// # Errors
///
/// Exit 6: it is not this user's, it speaks another protocol, or (unless tolerated) it serves
/// another home.
pub(crate) async fn connect(
    places: &Endpoint,
    tolerance: Tolerance,
) -> Result<Option<AgentClient>, Failure> {
    let greeted = timeout(PATIENCE, greet(places)).await;
    let Some(client) = greeted.map_err(|_| silent(&places.socket))?? else {
        return Ok(None);
    };
    if client.hello.protocol != signet_proto::PROTOCOL {
        return Err(Failure::new(
            exit::NO_AGENT,
            "agent_version",
            format!(
                "the agent at {} is signetd {} with protocol {}, this is signet {} with protocol {}",
                places.socket.display(),
                client.hello.version,
                client.hello.protocol,
                env!("CARGO_PKG_VERSION"),
                signet_proto::PROTOCOL
            ),
        )
        .fix("stop it (kill its process, or `signet agent stop` of its own version); the next command starts the right one"));
    }
    // The home of an agent that answers through a forwarded socket is on another machine.
    let own_home = tolerance == Tolerance::OwnHome && !client.hello.forwarded;
    if own_home && !same_place(&places.home, Path::new(&client.hello.home)) {
        return Err(Failure::new(
            exit::NO_AGENT,
            "other_home",
            format!(
                "the agent at {} serves {}, but this command's home is {}",
                places.socket.display(),
                client.hello.home,
                places.home.display()
            ),
        )
        .fix(format!(
            "unset SIGNET_HOME or set it to {}; unset SIGNET_SOCKET to give the other home its own \
             agent; or `signet agent stop`",
            client.hello.home
        )));
    }
    Ok(Some(client))
}

/// Connects and says hello; `None` when nobody listens.
async fn greet(places: &Endpoint) -> Result<Option<AgentClient>, Failure> {
    let Some(stream) = dial(&places.socket).await? else {
        return Ok(None);
    };
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        // One connection, never another: a second dial would not have been checked.
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // The name is never resolved; HTTP wants one.
    let channel = Address::from_static("http://signet.invalid")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .connect_with_connector(connector)
        .await?;
    let mut client = AgentClient {
        channel,
        hello: v1::HelloReply::default(),
    };
    let request = v1::HelloRequest {
        version: env!("CARGO_PKG_VERSION").into(),
    };
    client.hello = client.daemon().hello(request).await?.into_inner();
    Ok(Some(client))
}

fn silent(socket: &Path) -> Failure {
    Failure::new(
        exit::NO_AGENT,
        "agent_silent",
        format!(
            "what listens at {} has not answered for {} seconds",
            socket.display(),
            PATIENCE.as_secs()
        ),
    )
    .fix("if it is signetd and stopped, `kill -CONT` it; else end it, and run the command again")
}

/// Opens the socket, checked; `None` when nobody listens.
async fn dial(socket: &Path) -> Result<Option<UnixStream>, Failure> {
    let unsafe_place =
        |what: String, fix: String| Failure::new(exit::NO_AGENT, "unsafe_socket", what).fix(fix);
    let uid = rustix::process::geteuid().as_raw();
    let dir = socket.parent().unwrap_or(Path::new("/"));
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreachable_at(socket, &error)),
        Ok(found) if found.is_symlink() => {
            return Err(unsafe_place(
                format!(
                    "{}, where the agent's socket lies, is a symbolic link",
                    dir.display()
                ),
                "set SIGNET_SOCKET or SIGNET_HOME to the real path".into(),
            ));
        }
        Ok(found) if found.uid() != uid => {
            return Err(unsafe_place(
                format!(
                    "{}, where the agent's socket lies, belongs to uid {}, not to uid {uid}",
                    dir.display(),
                    found.uid()
                ),
                "use a directory of your own: set SIGNET_SOCKET or SIGNET_HOME".into(),
            ));
        }
        Ok(found) if found.mode() & 0o077 != 0 => {
            return Err(unsafe_place(
                format!(
                    "{}, where the agent's socket lies, is open to others (mode {:04o})",
                    dir.display(),
                    found.mode() & 0o7777
                ),
                format!("chmod 700 {}", dir.display()),
            ));
        }
        Ok(_) => {}
    }
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreachable_at(socket, &error)),
    };
    let listener = stream
        .peer_cred()
        .map_err(|error| unreachable_at(socket, &error))?;
    if listener.uid() != uid {
        return Err(unsafe_place(
            format!(
                "what listens at {} runs as uid {}, not as uid {uid}",
                socket.display(),
                listener.uid()
            ),
            "this is not your agent; find out who put it there, or set SIGNET_SOCKET".into(),
        ));
    }
    Ok(Some(stream))
}

fn unreachable_at(socket: &Path, error: &io::Error) -> Failure {
    let words = crate::failure::io_words(error);
    let what = format!(
        "the agent at {} cannot be reached: {words}",
        socket.display()
    );
    Failure::new(exit::NO_AGENT, "agent_unreachable", what)
}

/// Whether two paths are one directory, through whatever links.
fn same_place(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt as _, net::UnixListener},
        path::PathBuf,
    };

    use super::*;

    fn places(dir: &Path) -> Endpoint {
        Endpoint {
            home: dir.to_owned(),
            config: dir.to_owned(),
            socket: dir.join("agent.sock"),
            docker: dir.to_owned(),
        }
    }

    fn connected(dir: &Path) -> Result<Option<AgentClient>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(connect(&places(dir), Tolerance::OwnHome))
    }

    fn private() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (dir, path)
    }

    #[test]
    fn where_nobody_listens_there_is_no_agent() {
        let (_dir, path) = private();
        assert!(connected(&path).unwrap().is_none());
        assert!(connected(&path.join("gone")).unwrap().is_none());
        // A socket that its listener left behind.
        drop(UnixListener::bind(path.join("agent.sock")).unwrap());
        assert!(connected(&path).unwrap().is_none());
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused_before_the_first_byte() {
        let (_dir, path) = private();
        let listener = UnixListener::bind(path.join("agent.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let failure = connected(&path).unwrap_err();
        assert_eq!(failure.exit, exit::NO_AGENT);
        assert_eq!(
            failure.fix.as_deref(),
            Some(&*format!("chmod 700 {}", path.display()))
        );
        assert!(listener.accept().is_err(), "it was connected to");
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let (dir, path) = private();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(
            connected(&link)
                .unwrap_err()
                .message
                .contains("symbolic link")
        );
    }
}
