//! The connections that a server answers: of the control socket and of TLS, each with who is at its other end.

use super::{Caller, Tls};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Connections at once, at most.
pub const CONNECTIONS: usize = 256;
/// Those of one caller.
pub const CONNECTIONS_PER_CALLER: usize = 64;
/// Those of which it is not yet known whose they are, of each way; more wait in the kernel.
pub const UNKNOWN_CONNECTIONS: usize = 64;
/// Of all, those that are kept for root.
const OF_ROOT: usize = 16;
/// How long a client may take to prove who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines of the log about connections that were refused.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// See the module's text. Within a tokio runtime.
pub struct Incoming {
    seats: Arc<Seats>,
    sender: mpsc::Sender<io::Result<Io>>,
    receiver: mpsc::Receiver<io::Result<Io>>,
    tasks: Vec<AbortHandle>,
}

impl Default for Incoming {
    fn default() -> Incoming {
        let (sender, receiver) = mpsc::channel(1);
        Incoming {
            seats: Arc::default(),
            sender,
            receiver,
            tasks: Vec::new(),
        }
    }
}

impl Incoming {
    /// With those of a Unix socket.
    ///
    /// # Errors
    /// When it cannot be listened at.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn unix(mut self, listener: UnixListener) -> io::Result<Incoming> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        self.serve(Way::Unix(listener));
        Ok(self)
    }

    /// With those of TLS.
    ///
    /// # Errors
    /// When it cannot be listened at.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn tls(mut self, listener: std::net::TcpListener, tls: Arc<Tls>) -> io::Result<Incoming> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        self.serve(Way::Tls(listener, tls));
        Ok(self)
    }

    /// Connections that were refused because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.seats.taken.lock().refused
    }

    fn serve(&mut self, way: Way) {
        let (seats, sender) = (Arc::clone(&self.seats), self.sender.clone());
        let unknown = Arc::new(Semaphore::new(UNKNOWN_CONNECTIONS));
        let task = tokio::spawn(async move {
            while let Ok(permit) = Arc::clone(&unknown).acquire_owned().await {
                let arrived = match way.accept().await {
                    Ok(arrived) => arrived,
                    Err(error) => {
                        tracing::warn!("a connection to uvsd cannot be accepted: {error}");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let (seats, sender) = (Arc::clone(&seats), sender.clone());
                tokio::spawn(async move {
                    let identified = tokio::time::timeout(PATIENCE, arrived.identify()).await;
                    drop(permit);
                    seat(identified.ok(), &seats, &sender).await;
                });
            }
        });
        self.tasks.push(task.abort_handle());
    }
}

/// Hands a connection over to the server, if there is room.
async fn seat(
    identified: Option<Result<(Transport, Caller), String>>,
    seats: &Arc<Seats>,
    sender: &mpsc::Sender<io::Result<Io>>,
) {
    match identified {
        Some(Ok((transport, caller))) => {
            let Some(seat) = Seat::take(seats, &caller) else {
                return;
            };
            let io = Io {
                transport,
                caller,
                _seat: seat,
            };
            // An error means that the server has ended.
            let _ = sender.send(Ok(io)).await;
        }
        Some(Err(why)) => tracing::info!("refused: {why}"),
        None => tracing::info!(
            "refused: a client did not prove who it is within {} s",
            PATIENCE.as_secs()
        ),
    }
}

/// Where connections come from.
enum Way {
    Unix(tokio::net::UnixListener),
    Tls(TcpListener, Arc<Tls>),
}

/// A connection of which it is not yet known whose it is.
enum Arrived {
    Unix(UnixStream),
    Tls(TcpStream, SocketAddr, Arc<Tls>),
}

impl Way {
    async fn accept(&self) -> io::Result<Arrived> {
        Ok(match self {
            Way::Unix(listener) => Arrived::Unix(listener.accept().await?.0),
            Way::Tls(listener, tls) => {
                let (stream, from) = listener.accept().await?;
                Arrived::Tls(stream, from, Arc::clone(tls))
            }
        })
    }
}

impl Arrived {
    async fn identify(self) -> Result<(Transport, Caller), String> {
        match self {
            Arrived::Unix(stream) => known_by_kernel(stream).await,
            Arrived::Tls(stream, from, tls) => known_by_certificate(stream, from, tls).await,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Io>>> {
        self.receiver.poll_recv(context)
    }
}

async fn known_by_kernel(stream: UnixStream) -> Result<(Transport, Caller), String> {
    let credentials = stream.peer_cred();
    let credentials = credentials.map_err(|error| format!("it is not known who calls: {error}"))?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    // The databases of users may be elsewhere.
    let caller = tokio::task::spawn_blocking(move || Caller::unix(uid, gid)).await;
    let caller = caller.map_err(|error| format!("uid {uid}: {error}"))?;
    Ok((Transport::Unix(stream), caller))
}

async fn known_by_certificate(
    stream: TcpStream,
    from: SocketAddr,
    tls: Arc<Tls>,
) -> Result<(Transport, Caller), String> {
    // What is asked and answered is small.
    let _ = stream.set_nodelay(true);
    let refused = |why: &dyn std::fmt::Display| format!("{from}: {why}");
    let stream = tls.acceptor().accept(stream).await;
    let stream = stream.map_err(|error| refused(&error))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let own = certificates.first();
    let own = own.ok_or_else(|| refused(&"shows no certificate"))?;
    let caller = Caller::tls(own, from).map_err(|why| refused(&why))?;
    Ok((Transport::Tls(Box::new(stream)), caller))
}

/// How many connections there are, and whose.
#[derive(Default)]
struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of: HashMap<String, usize>,
    refused: u64,
    told: Option<Instant>,
}

/// One connection's place among them; given back when dropped.
struct Seat {
    seats: Arc<Seats>,
    name: String,
}

impl Seat {
    fn take(seats: &Arc<Seats>, caller: &Caller) -> Option<Seat> {
        let name = caller.name();
        let is_root = matches!(caller, Caller::Unix(unix) if unix.uid == 0);
        let room = if is_root {
            CONNECTIONS
        } else {
            CONNECTIONS - OF_ROOT
        };
        let mut taken = seats.taken.lock();
        let own = taken.of.get(&name).copied().unwrap_or_default();
        if taken.all >= room || own >= CONNECTIONS_PER_CALLER {
            taken.refuse(&name);
            return None;
        }
        taken.all += 1;
        taken.of.insert(name.clone(), own + 1);
        drop(taken);
        Some(Seat {
            seats: Arc::clone(seats),
            name,
        })
    }
}

impl Taken {
    fn refuse(&mut self, name: &str) {
        self.refused += 1;
        if self.told.is_none_or(|told| told.elapsed() >= BETWEEN_LINES) {
            self.told = Some(Instant::now());
            tracing::warn!(
                "refused: a connection of {name}: {} are there, {} of them his; at most {CONNECTIONS}, \
                 {CONNECTIONS_PER_CALLER} of one caller; {} were refused since the start",
                self.all,
                self.of.get(name).copied().unwrap_or_default(),
                self.refused
            );
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.of.get_mut(&self.name) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.name);
            }
        }
    }
}

/// A connection and who is at its other end.
pub struct Io {
    transport: Transport,
    caller: Caller,
    _seat: Seat,
}

enum Transport {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Io {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_connections_some_are_kept_for_root_and_one_more_is_refused() {
        let seats = Arc::new(Seats::default());
        let take = |uid: u32| Seat::take(&seats, &Caller::unix(uid, uid));
        let others = CONNECTIONS - OF_ROOT;
        let callers = (4_000_000..).flat_map(|uid| [uid; CONNECTIONS_PER_CALLER]);
        let mut held: Vec<_> = callers.take(others).map(|uid| take(uid).unwrap()).collect();
        assert!(take(4_100_000).is_none(), "whoever it is");
        held.extend((0..OF_ROOT).map(|_| take(0).unwrap()));
        assert!(take(0).is_none());
        assert_eq!(seats.taken.lock().refused, 2);
        // One goes: there is room for root, and for nobody else.
        held.remove(0);
        assert!(take(4_100_000).is_none());
        let last = take(0).unwrap();
        drop((held, last));
        assert!(seats.taken.lock().all == 0 && seats.taken.lock().of.is_empty());
    }
}
