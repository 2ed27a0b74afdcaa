//! The director of the demo: a configuration as an operator would write it, and the library that runs it.

use super::Protocol;
use crate::lab::topology::{Host, server_address};
use crate::lab::{Family, Method, Topology};
use control::StartError;
use control::config::{Configuration, Mistakes};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// How many servers each service has.
pub const SERVERS: u8 = 3;
/// The servers' weights.
pub const WEIGHTS: [u8; SERVERS as usize] = [3, 2, 1];
/// How many local addresses per family FULLNAT has: each serves some 64 k connections of a protocol, and of those that
/// ended none is forgotten before the demo ends.
pub const LIPS: u8 = 4;
/// Connections that the director can remember, per family: more than the demo makes.
const CONNECTIONS: u32 = 262_144;

/// Why the director did not start.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    /// Our own text is wrong.
    #[error("its configuration: {0}")]
    Configuration(#[from] Mistakes),
    /// A port, a table or a thread is missing.
    #[error("its start: {0}")]
    Start(#[from] StartError),
}

/// The configuration of the director in a [`Topology`], as TOML.
#[must_use]
pub fn configuration(method: Method, families: &[Family], workers: u8) -> String {
    let list = |hosts: &[Host]| {
        let quoted = families.iter().flat_map(|family| {
            hosts.iter().map(move |host| match host {
                Host::Lip(_) => format!("\"{}\"", host.address(*family)),
                _ => format!("\"{}\"", host.prefix(*family)),
            })
        });
        quoted.collect::<Vec<_>>().join(", ")
    };
    let wan = list(&[Host::DirectorWan]);
    let lan = list(&[Host::DirectorLan]);
    let lips: Vec<_> = (0..LIPS).map(Host::Lip).collect();
    let lips = list(&lips);
    let mut text = format!(
        "[director]\n\
         workers = {workers}\n\
         connections = {CONNECTIONS}\n\
         [port.wan]\n\
         driver = \"af_packet\"\n\
         interface = \"eth0\"\n\
         addresses = [{wan}]\n\
         [port.lan]\n\
         driver = \"af_packet\"\n\
         interface = \"eth1\"\n\
         addresses = [{lan}]\n\
         [[lip_pool]]\n\
         name = \"lips\"\n\
         addresses = [{lips}]\n"
    );
    for family in families {
        for protocol in Protocol::ALL {
            let listen = SocketAddr::new(Host::Vip.address(*family), protocol.port());
            let pool = if method == Method::FullNat {
                "lip_pool = \"lips\"\n"
            } else {
                ""
            };
            let service = format!(
                "[[service]]\nlisten = \"{protocol} {listen}\"\nscheduler = \"wrr\"\nmethod = \"{method}\"\n{pool}"
            );
            text.push_str(&service);
            for (index, weight) in (0..).zip(WEIGHTS) {
                let port = server_address(method, *family, index, protocol.port()).port();
                let address = SocketAddr::new(Host::Server(index).address(*family), port);
                writeln!(
                    text,
                    "[[service.server]]\naddress = \"{address}\"\nweight = {weight}"
                )
                .expect("a String takes any text");
            }
        }
    }
    text
}

/// A running director.
pub(super) struct Director(control::Director);

impl Director {
    /// Starts it inside the topology's namespace for it.
    pub(super) fn start(
        topology: &Topology,
        families: &[Family],
        workers: u8,
    ) -> Result<Director, DirectorError> {
        let text = configuration(topology.method(), families, workers);
        let accepted = Configuration::parse("demo.toml", &text)?;
        // Ports are opened in the calling thread's namespace, and the workers' threads inherit it.
        let started = topology
            .director
            .run(|| control::Director::start(accepted.configuration));
        Ok(Director(started?))
    }

    /// Ends its threads.
    pub(super) fn stop(self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_are_accepted_without_a_warning() {
        for method in Method::ALL {
            for families in [&Family::ALL[..], &[Family::V4], &[Family::V6]] {
                let text = configuration(method, families, 2);
                let accepted = Configuration::parse("demo.toml", &text).unwrap();
                assert!(
                    accepted.warnings.is_empty(),
                    "{method}: {:?}",
                    accepted.warnings
                );
            }
        }
    }
}
