//! What was measured of one method, family and protocol.

use super::{LIPS, WEIGHTS};
use crate::lab::topology::{HTTP_PORT, Host, UDP_PORT, server_address};
use crate::lab::{Family, Method, RequestError, Response};
use hdrhistogram::Histogram;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest latency that is told apart, nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;
/// How many different failures are kept in words.
const SAMPLES_MAX: usize = 3;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One connection for each request.
    Tcp,
    /// One socket for each request.
    Udp,
}

impl Protocol {
    /// Both protocols.
    pub const ALL: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    /// The virtual service's port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Protocol::Tcp => HTTP_PORT,
            Protocol::Udp => UDP_PORT,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Why a request does not count as served.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There was no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The answer is to another question.
    #[error("asked {asked:?}, but {answered:?} was answered")]
    Question {
        /// What was asked.
        asked: String,
        /// What was answered.
        answered: String,
    },
    /// The answer is from a server that the service does not have.
    #[error("a server named {0:?} answered")]
    Server(String),
    /// The server saw another client than the method lets it see.
    #[error("{server} was asked by {peer}, which is not {expected}")]
    Peer {
        /// Who answered.
        server: String,
        /// Whom it saw.
        peer: IpAddr,
        /// Whom it should have seen.
        expected: &'static str,
    },
    /// The server was asked at another address than the method keeps or makes.
    #[error("{server} was asked at {local} instead of {expected}")]
    Local {
        /// Who answered.
        server: String,
        /// Where it was asked.
        local: SocketAddr,
        /// Where it should have been.
        expected: SocketAddr,
    },
}

/// The outcomes of many requests.
#[derive(Debug)]
pub struct Measurement {
    /// How the director forwards.
    pub method: Method,
    /// Over which IP version.
    pub family: Family,
    /// Over which protocol.
    pub protocol: Protocol,
    /// How many requests each server served.
    pub served: [u32; WEIGHTS.len()],
    /// Requests not served.
    pub failures: u32,
    /// Some of the failures, in words.
    pub samples: Vec<String>,
    /// How many packets reached the servers inside others.
    pub tunnelled: u64,
    latency: Histogram<u64>,
}

impl Measurement {
    /// Of no request yet.
    #[must_use]
    pub fn new(method: Method, family: Family, protocol: Protocol) -> Measurement {
        let latency =
            Histogram::new_with_max(LATENCY_MAX, 3).expect("3 digits up to a minute are in range");
        let served = [0; WEIGHTS.len()];
        Measurement {
            method,
            family,
            protocol,
            served,
            failures: 0,
            samples: Vec::new(),
            tunnelled: 0,
            latency,
        }
    }

    /// Adds a request's outcome: the answer and how long it took, or why there was none.
    pub fn add(&mut self, outcome: Result<(usize, Duration), Failure>) {
        match outcome {
            Ok((server, latency)) => {
                self.served[server] += 1;
                self.latency
                    .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_MAX));
            }
            Err(failure) => {
                self.failures += 1;
                let sample = failure.to_string();
                if self.samples.len() < SAMPLES_MAX && !self.samples.contains(&sample) {
                    self.samples.push(sample);
                }
            }
        }
    }

    /// Requests, served or not.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.served.iter().sum::<u32>() + self.failures
    }

    /// A server's share of the served requests, percent.
    #[must_use]
    pub fn share(&self, server: usize) -> f64 {
        percent(self.served[server], self.served.iter().sum())
    }

    /// How far a server's share is from its weight's, at most, in percentage points.
    #[must_use]
    pub fn unfairness(&self) -> f64 {
        let weights: u32 = WEIGHTS.iter().copied().map(u32::from).sum();
        let distances = WEIGHTS.iter().enumerate().map(|(server, weight)| {
            (self.share(server) - percent(u32::from(*weight), weights)).abs()
        });
        distances.fold(0.0, f64::max)
    }

    /// The latency that `percentile` percent of the served requests did not exceed.
    #[must_use]
    pub fn latency(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_percentile(percentile))
    }

    /// Which server gave the answer, when it is an answer to the question by the way the method promises.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(&self, asked: &str, response: Response) -> Result<usize, Failure> {
        verify(self.method, self.family, self.protocol, asked, response)
    }
}

pub(super) fn verify(
    method: Method,
    family: Family,
    protocol: Protocol,
    asked: &str,
    response: Response,
) -> Result<usize, Failure> {
    let Response {
        server,
        peer,
        local,
        question,
    } = response;
    if question != asked {
        return Err(Failure::Question {
            asked: asked.to_owned(),
            answered: question,
        });
    }
    let servers = 0..WEIGHTS.len();
    let Some(index) = servers
        .clone()
        .find(|index| server == format!("server{}", index + 1))
    else {
        return Err(Failure::Server(server));
    };
    let (is_expected, expected) = match method {
        Method::FullNat => {
            let mut lips = (0..LIPS).map(|lip| Host::Lip(lip).address(family));
            (
                lips.any(|lip| lip == peer.ip()),
                "a local address of the director",
            )
        }
        Method::Nat | Method::Dr | Method::Tun => {
            (peer.ip() == Host::Client.address(family), "the client")
        }
    };
    if !is_expected {
        return Err(Failure::Peer {
            server,
            peer: peer.ip(),
            expected,
        });
    }
    let number = u8::try_from(index).expect("the demo has few servers");
    let expected = server_address(method, family, number, protocol.port());
    if local != expected {
        return Err(Failure::Local {
            server,
            local,
            expected,
        });
    }
    Ok(index)
}

fn percent(part: u32, whole: u32) -> f64 {
    if whole == 0 {
        0.0
    } else {
        f64::from(part) * 100.0 / f64::from(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(peer: &str, local: &str) -> Response {
        let [peer, local] = [peer, local].map(|address| address.parse().unwrap());
        Response {
            server: "server2".to_owned(),
            peer,
            local,
            question: "q".to_owned(),
        }
    }

    #[test]
    fn each_method_is_known_by_what_the_server_sees() {
        for (method, peer, local) in [
            (Method::Nat, "192.0.2.2:4000", "10.0.0.12:8080"),
            (Method::Dr, "192.0.2.2:4000", "192.0.2.100:80"),
            (Method::Tun, "192.0.2.2:4000", "192.0.2.100:80"),
            (Method::FullNat, "10.0.0.200:4000", "10.0.0.12:8080"),
        ] {
            let response = response(peer, local);
            let server = verify(method, Family::V4, Protocol::Tcp, "q", response);
            assert_eq!(server.unwrap(), 1, "{method}");
        }
    }

    #[test]
    fn an_answer_that_took_another_way_is_a_failure() {
        let verify = |method, response| verify(method, Family::V4, Protocol::Tcp, "q", response);
        let seen = response("192.0.2.2:4000", "10.0.0.12:8080");
        let failure = verify(Method::FullNat, seen.clone()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "server2 was asked by 192.0.2.2, which is not a local address of the director"
        );
        let failure = verify(Method::Dr, seen.clone()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "server2 was asked at 10.0.0.12:8080 instead of 192.0.2.100:80"
        );
        let stranger = Response {
            server: "server9".to_owned(),
            ..seen.clone()
        };
        assert!(matches!(
            verify(Method::Nat, stranger),
            Err(Failure::Server(_))
        ));
        let stale = Response {
            question: "p".to_owned(),
            ..seen
        };
        assert!(matches!(
            verify(Method::Nat, stale),
            Err(Failure::Question { .. })
        ));
    }

    #[test]
    fn shares_are_compared_with_the_weights() {
        let mut measurement = Measurement::new(Method::Nat, Family::V4, Protocol::Tcp);
        for (server, weight) in WEIGHTS.iter().enumerate() {
            for _ in 0..u32::from(*weight) * 10 {
                measurement.add(Ok((server, Duration::from_micros(100))));
            }
        }
        assert!(
            measurement.unfairness() < 0.001,
            "{}",
            measurement.unfairness()
        );
        assert_eq!(measurement.latency(50.0).as_micros(), 100);
        for _ in 0..60 {
            measurement.add(Ok((2, Duration::from_micros(100))));
        }
        assert!(
            measurement.unfairness() > 30.0,
            "{}",
            measurement.unfairness()
        );
    }

    #[test]
    fn equal_failures_are_told_once_and_counted_each_time() {
        let mut measurement = Measurement::new(Method::Nat, Family::V4, Protocol::Udp);
        for name in ["a", "a", "b", "c", "d"] {
            measurement.add(Err(Failure::Server(name.to_owned())));
        }
        assert_eq!(
            (measurement.failures, measurement.samples.len()),
            (5, SAMPLES_MAX)
        );
        assert_eq!(measurement.requests(), 5);
    }
}
