//! A UDP client with many sockets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How many datagrams are under way at most, so that no socket's buffer can overflow and every loss is the director's.
pub const WINDOW: usize = 64;
/// Of longer datagrams fewer are under way: so many bytes in all.
const WINDOW_BYTES: usize = 64 * 1024;
/// The longest datagram that is sent back whole, bytes.
pub(crate) const DATAGRAM_MAX: usize = 16 * 1024;
/// How long an answer may take. Nothing is sent twice.
const PATIENCE: Duration = Duration::from_secs(3);

/// What became of one datagram from each of many ports.
#[derive(Debug, Default)]
pub struct Echoes {
    /// How many each server answered, by its number.
    pub answered: [u32; 8],
    /// Client ports without an answer, or with a wrong one.
    pub lost: Vec<u16>,
}

/// A socket of the calling thread's namespace at `port` that talks to `server` alone.
///
/// # Panics
/// When the port is taken.
#[must_use]
pub fn socket(server: SocketAddr, port: u16) -> UdpSocket {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket
}

/// Sends one datagram of `len` bytes from each port, once, and collects the answers. At most [`WINDOW`] are under way.
///
/// # Panics
/// When a port is taken, or with more than 16 KiB.
#[must_use]
pub fn echo(server: SocketAddr, ports: impl IntoIterator<Item = u16>, len: usize) -> Echoes {
    assert!(len <= DATAGRAM_MAX, "{len} bytes");
    let window = (WINDOW_BYTES / len.max(1)).min(WINDOW);
    let mut echoes = Echoes::default();
    let ports: Vec<_> = ports.into_iter().collect();
    for ports in ports.chunks(window) {
        let sockets: Vec<_> = ports.iter().map(|port| socket(server, *port)).collect();
        for (socket, port) in sockets.iter().zip(ports) {
            // A send that fails is a loss too: an earlier datagram's ICMP error, say.
            let _ = socket.send(&question(*port, len));
        }
        let deadline = Instant::now() + PATIENCE;
        for (socket, port) in sockets.iter().zip(ports) {
            match answer(socket, &question(*port, len), deadline) {
                Some(number) => echoes.answered[usize::from(number)] += 1,
                None => echoes.lost.push(*port),
            }
        }
    }
    echoes
}

/// Asks `count` times from one socket, each time once the last answer is there. The server's number, when every
/// answer came and was right.
#[must_use]
pub fn ping(socket: &UdpSocket, count: u32, len: usize) -> Option<u8> {
    let mut last = None;
    for round in 0..count {
        let port = u16::try_from(round % 60_000).ok()?;
        let question = question(port, len);
        socket.send(&question).ok()?;
        last = Some(answer(socket, &question, Instant::now() + PATIENCE)?);
    }
    last
}

/// The first byte is left to the server.
fn question(port: u16, len: usize) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [u8::MAX, high, low]
        .into_iter()
        .chain(low..=u8::MAX)
        .cycle()
        .take(len)
        .collect()
}

fn answer(socket: &UdpSocket, question: &[u8], deadline: Instant) -> Option<u8> {
    let mut buffer = [0; DATAGRAM_MAX];
    let patience = deadline.saturating_duration_since(Instant::now());
    socket
        .set_read_timeout(Some(patience.max(Duration::from_millis(1))))
        .ok()?;
    let len = socket.recv(&mut buffer).ok()?;
    (buffer[1..len] == question[1..]).then_some(buffer[0])
}
