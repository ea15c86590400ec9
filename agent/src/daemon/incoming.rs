//! Connections, each with the facts of who is on the other end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Sleep,
};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::{caller::Caller, harden};

/// Connections served at once; one more waits in the kernel's queue. Most of them are idle.
pub(super) const CONNECTIONS: usize = 640;
/// Connections of other machines served at once.
const FORWARDED: usize = 16;
/// How long a connection may take to say its first byte: a place is for who wants something.
const FIRST_BYTE: Duration = Duration::from_secs(30);
/// Pause after the system could not give us a connection (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// How long nobody may be connected before the agent rests.
const QUIET: Duration = Duration::from_secs(2);

type Accepting = Pin<Box<dyn Future<Output = Connection> + Send>>;

/// The accepted connections of a listener.
pub struct Incoming {
    door: Arc<Door>,
    next: Option<Accepting>,
    /// How many are connected.
    connected: Arc<watch::Sender<usize>>,
    /// Of the forward socket.
    forwarded: Option<Box<Self>>,
}

/// One listener, and how many it lets in.
#[derive(Debug)]
struct Door {
    listener: UnixListener,
    places: Arc<Semaphore>,
    /// Whoever comes in here speaks for another machine.
    forwards: bool,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("door", &self.door)
            .field("forwarded", &self.forwarded)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// Of this listener.
    #[must_use]
    pub fn new(listener: UnixListener) -> Self {
        Self::of(listener, false, Arc::default())
    }

    /// And of the forward socket's.
    #[must_use]
    pub fn and_forwarded(mut self, listener: UnixListener) -> Self {
        let connected = Arc::clone(&self.connected);
        self.forwarded = Some(Box::new(Self::of(listener, true, connected)));
        self
    }

    /// Tells how many are connected.
    pub(super) fn connected(&self) -> watch::Receiver<usize> {
        self.connected.subscribe()
    }

    fn of(listener: UnixListener, forwards: bool, connected: Arc<watch::Sender<usize>>) -> Self {
        let places = if forwards { FORWARDED } else { CONNECTIONS };
        Self {
            door: Arc::new(Door {
                listener,
                places: Arc::new(Semaphore::new(places)),
                forwards,
            }),
            next: None,
            connected,
            forwarded: None,
        }
    }
}

async fn accept(door: Arc<Door>, connected: Arc<watch::Sender<usize>>) -> Connection {
    let place = Arc::clone(&door.places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let mut rested = false;
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = quiet(&door.places), if !rested && !door.forwards => {
                rested = true;
                tokio::task::spawn_blocking(harden::rest);
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => match Caller::of(&stream) {
                Ok(mut caller) => {
                    caller.forwarded = door.forwards;
                    connected.send_modify(|connected| *connected += 1);
                    return Connection {
                        stream,
                        caller: Arc::new(caller),
                        silent: Some(Box::pin(tokio::time::sleep(FIRST_BYTE))),
                        _leaving: Leaving(connected),
                        _place: place,
                    };
                }
                Err(error) => tracing::warn!(%error, "a caller without credentials was dropped"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Returns when nobody has been connected for a while; the place of the next one is taken already.
async fn quiet(places: &Semaphore) {
    let others = places.acquire_many(CONNECTIONS as u32 - 1).await;
    drop(others);
    tokio::time::sleep(QUIET).await;
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (door, connected) = (&this.door, &this.connected);
        let next = this
            .next
            .get_or_insert_with(|| Box::pin(accept(Arc::clone(door), Arc::clone(connected))));
        if let Poll::Ready(connection) = next.as_mut().poll(context) {
            this.next = None;
            return Poll::Ready(Some(Ok(connection)));
        }
        match &mut this.forwarded {
            Some(forwarded) => Pin::new(forwarded.as_mut()).poll_next(context),
            None => Poll::Pending,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    caller: Arc<Caller>,
    /// Until it has said something.
    silent: Option<Pin<Box<Sleep>>>,
    _leaving: Leaving,
    _place: OwnedSemaphorePermit,
}

/// Counts a connection out.
#[derive(Debug)]
struct Leaving(Arc<watch::Sender<usize>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.send_modify(|connected| *connected -= 1);
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.caller)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silent = None;
        } else if let Some(silent) = &mut self.silent
            && silent.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
