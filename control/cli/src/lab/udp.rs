//! A UDP server that says who asked it, and its client.

use super::stop::{Serving, Stop};
use super::{LabError, Namespace, RequestError, Response};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// Longest question and answer, bytes.
const DATAGRAM_MAX: usize = 1024;

/// Answers each datagram with a [`Response`], until it is dropped.
#[derive(Debug)]
pub struct UdpServer {
    _serving: Serving,
}

impl UdpServer {
    /// Serves at one address, from which the answers come as well.
    ///
    /// # Errors
    /// When the address is taken or not the namespace's.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<UdpServer, LabError> {
        let socket = namespace.run(|| {
            UdpSocket::bind(address).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
        });
        let socket = socket.map_err(|source| LabError::Listen {
            service: "udp",
            address: address.to_string(),
            source,
        })?;
        let name = namespace.name().to_owned();
        let serve = move |stop: &Stop| {
            while stop.wait(&[socket.as_fd()]) {
                // A datagram that is no question, or whose asker cannot be reached, is the asker's loss: it will
                // report the time-out.
                let _ = answer(&socket, &name, address);
            }
        };
        Ok(UdpServer {
            _serving: Serving::start(namespace, "udp", serve)?,
        })
    }
}

fn answer(socket: &UdpSocket, name: &str, local: SocketAddr) -> io::Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    let (len, peer) = socket.recv_from(&mut buffer)?;
    let question = String::from_utf8_lossy(&buffer[..len]).into_owned();
    let response = Response {
        server: name.to_owned(),
        peer,
        local,
        question,
    };
    socket.send_to(response.to_string().as_bytes(), peer)?;
    Ok(())
}

/// Asks a UDP server from a new socket in the calling thread's namespace. Once: a lost datagram is a failure.
///
/// # Errors
/// When no answer comes in time, or a wrong one. The answer must come from the address that was asked.
pub fn udp_ask(
    server: SocketAddr,
    question: &str,
    timeout: Duration,
) -> Result<Response, RequestError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).map_err(RequestError::Connect)?;
    socket.connect(server).map_err(RequestError::Connect)?;
    socket
        .set_read_timeout(Some(timeout))
        .map_err(RequestError::Connect)?;
    socket
        .send(question.as_bytes())
        .map_err(RequestError::Send)?;
    let mut buffer = [0; DATAGRAM_MAX];
    let len = socket.recv(&mut buffer).map_err(RequestError::receive)?;
    String::from_utf8_lossy(&buffer[..len]).parse()
}
