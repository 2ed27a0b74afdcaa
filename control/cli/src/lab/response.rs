//! What a server says of who asked it: the proof of the way a request took.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The server's name.
    pub server: String,
    /// Whom the server saw: the client, or with FULLNAT the director's local address.
    pub peer: SocketAddr,
    /// At which address the server was asked: its own, or with DR and TUN the virtual one.
    pub local: SocketAddr,
    /// What the client had asked for, without white space.
    pub question: String,
}

impl fmt::Display for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} {} {}",
            self.server, self.peer, self.local, self.question
        )
    }
}

impl FromStr for Response {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Response, RequestError> {
        let parse = || {
            let mut words = text.split_ascii_whitespace();
            let response = Response {
                server: words.next()?.to_owned(),
                peer: words.next()?.parse().ok()?,
                local: words.next()?.parse().ok()?,
                question: words.next()?.to_owned(),
            };
            words.next().is_none().then_some(response)
        };
        parse().ok_or_else(|| RequestError::Answer(text.to_owned()))
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// The request could not be sent.
    #[error("send: {0}")]
    Send(io::Error),
    /// No answer, or none in time.
    #[error("receive: {0}")]
    Receive(io::Error),
    /// An answer that no server of ours gives.
    #[error("not an answer of ours: {0:?}")]
    Answer(String),
}

impl RequestError {
    /// A socket's read timeout is told as if the socket were non-blocking, which nobody would understand.
    pub(super) fn receive(error: io::Error) -> RequestError {
        RequestError::Receive(match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_prints_is_parsed_again() {
        for text in [
            "server1 192.0.2.2:4000 10.0.0.11:8080 q1",
            "s [2001:db8::2]:4000 [fd00::11]:80 /x",
        ] {
            assert_eq!(text.parse::<Response>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "server1",
            "s 1 2 q",
            "s 192.0.2.2:1 192.0.2.2:2",
            "s 192.0.2.2:1 192.0.2.2:2 q more",
        ] {
            assert!(
                matches!(text.parse::<Response>(), Err(RequestError::Answer(_))),
                "{text}"
            );
        }
    }
}
