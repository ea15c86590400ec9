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
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::{caller::Caller, harden};

/// Connections served at once; one more waits in the kernel's queue.
const CONNECTIONS: usize = 128;
/// Pause after the system could not give us a connection (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// How long nobody may be connected before the agent rests.
const QUIET: Duration = Duration::from_secs(2);

type Accepting = Pin<Box<dyn Future<Output = (Arc<UnixListener>, Connection)> + Send>>;

/// The accepted connections of a listener.
pub struct Incoming {
    listener: Arc<UnixListener>,
    places: Arc<Semaphore>,
    next: Option<Accepting>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// Of this listener.
    #[must_use]
    pub fn new(listener: UnixListener) -> Self {
        Self {
            listener: Arc::new(listener),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            next: None,
        }
    }
}

async fn accept(listener: &UnixListener, places: Arc<Semaphore>) -> Connection {
    let place = Arc::clone(&places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let mut rested = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = quiet(&places), if !rested => {
                rested = true;
                tokio::task::spawn_blocking(harden::rest);
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => match Caller::of(&stream) {
                Ok(caller) => {
                    return Connection {
                        stream,
                        caller: Arc::new(caller),
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
        let next = this.next.get_or_insert_with(|| {
            let (listener, places) = (Arc::clone(&this.listener), Arc::clone(&this.places));
            Box::pin(async move {
                let connection = accept(&listener, places).await;
                (listener, connection)
            })
        });
        next.as_mut().poll(context).map(|(_, connection)| {
            this.next = None;
            Some(Ok(connection))
        })
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    caller: Arc<Caller>,
    _place: OwnedSemaphorePermit,
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
