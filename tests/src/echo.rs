//! TCP connections that stay open: an echo on servers, and a client that talks on many of them at once.

use cli::lab::Namespace;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Bytes said at once.
const WORD: usize = 64;
/// How often a connection is used.
const PACE: Duration = Duration::from_millis(500);
/// After so long without an answer a connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn told(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        sleep(LOOK).await;
    }
}

/// An echo at one address. It ends, and closes its connections, when this is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it in a namespace and waits until it listens.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Echo {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serve = move || {
            runtime().block_on(async {
                let listener = TcpListener::bind(address).await.unwrap();
                ready.send(()).unwrap();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(say_again(stream));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    () = told(&flag) => {}
                }
            });
        };
        let thread = namespace.spawn("echo", serve).unwrap();
        is_ready.recv().unwrap();
        Echo {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn say_again(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut bytes = [0; WORD];
    while let Ok(count) = stream.read(&mut bytes).await {
        if count == 0 || stream.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// What many connections saw.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Words that came back whole.
    pub exchanges: u64,
    /// The longest that one took to come back.
    pub longest: Duration,
    /// Those that took longer than 300 ms.
    pub slow: u64,
    /// What became of connections that ended or did not answer any more.
    pub lost: Vec<String>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} exchanges, longest gap {} ms, {} longer than 300 ms, {} connections lost",
            self.exchanges,
            self.longest.as_millis(),
            self.slow,
            self.lost.len()
        )
    }
}

/// Open connections on which something is said all the time.
#[derive(Debug)]
pub struct Talk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Said>,
}

impl Talk {
    /// Connects `count` times from a namespace and begins, once all connections are there.
    ///
    /// # Panics
    /// When one is refused.
    #[must_use]
    pub fn start(namespace: &Namespace, server: SocketAddr, count: u32) -> Talk {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let talk = move || {
            runtime().block_on(async {
                let mut streams = Vec::new();
                for _ in 0..count {
                    streams.push(connect(server).await.unwrap());
                }
                ready.send(()).unwrap();
                let talks = (0..count).zip(streams).map(|(number, stream)| {
                    let late = PACE * number / count;
                    tokio::spawn(talk_on(stream, number, late, Arc::clone(&flag)))
                });
                let talks: Vec<_> = talks.collect();
                let mut sum = Said::default();
                for talk in talks {
                    let said = talk.await.unwrap();
                    sum.exchanges += said.exchanges;
                    sum.longest = sum.longest.max(said.longest);
                    sum.slow += said.slow;
                    sum.lost.extend(said.lost);
                }
                sum
            })
        };
        let thread = namespace.spawn("talk", talk).unwrap();
        is_ready.recv().unwrap();
        Talk { stop, thread }
    }

    /// Ends all connections. What they saw.
    ///
    /// # Panics
    /// When the thread did.
    #[must_use]
    pub fn finish(self) -> Said {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn talk_on(
    mut stream: TcpStream,
    number: u32,
    late: Duration,
    stop: Arc<AtomicBool>,
) -> Said {
    let mut said = Said::default();
    sleep(late).await;
    while !stop.load(Relaxed) {
        let began = Instant::now();
        let word = [u8::try_from(said.exchanges % 251).unwrap(); WORD];
        let exchange = async {
            stream.write_all(&word).await?;
            let mut back = [0; WORD];
            stream.read_exact(&mut back).await?;
            (back == word)
                .then_some(())
                .ok_or(io::Error::other("another word came back"))
        };
        let ended = match timeout(PATIENCE, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer".to_owned()),
        };
        if let Some(why) = ended {
            said.lost.push(format!("{number}: {why}"));
            return said;
        }
        let took = began.elapsed();
        said.exchanges += 1;
        said.longest = said.longest.max(took);
        said.slow += u64::from(took > Duration::from_millis(300));
        sleep(PACE.saturating_sub(took)).await;
    }
    said
}
