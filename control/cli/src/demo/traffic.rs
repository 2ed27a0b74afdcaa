//! Requests from the client's namespace, and their answers.

use super::measure::verify;
use super::{Failure, Interrupt, Measurement, Protocol};
use crate::lab::topology::Host;
use crate::lab::{LabError, Topology, http_get, udp_ask};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How many requests are under way at once.
const CLIENTS: usize = 4;
/// How long a request may take: a lost SYN is sent again after one second.
const PATIENCE: Duration = Duration::from_secs(3);
/// After so many failures the rest is not tried: each may cost the whole patience.
const FAILURES_MAX: u32 = 8;
/// Outcomes that wait to be counted.
const QUEUE: usize = 256;
/// How long an interrupt may go unnoticed.
const NOTICE: Duration = Duration::from_millis(50);

type Outcome = Result<(usize, Duration), Failure>;

/// Sends `requests` requests to the virtual service and adds the outcomes to `measurement`. Ends early when
/// interrupted, or when so many failed that the rest would too.
///
/// # Errors
/// When no thread can be started.
pub fn drive(
    topology: &Topology,
    mut measurement: Measurement,
    requests: u32,
    interrupt: &Interrupt,
    step: impl Fn(),
) -> Result<Measurement, LabError> {
    let outcomes = start(topology, &measurement, requests)?;
    loop {
        match outcomes.recv_timeout(NOTICE) {
            Ok(outcome) => {
                measurement.add(outcome);
                step();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(measurement),
        }
        // Who still asks finds nobody to tell, and ends.
        if interrupt.signal().is_some() || measurement.failures >= FAILURES_MAX {
            return Ok(measurement);
        }
    }
}

/// Starts the clients; the channel ends after the last outcome.
fn start(
    topology: &Topology,
    plan: &Measurement,
    requests: u32,
) -> Result<Receiver<Outcome>, LabError> {
    let (sender, receiver) = sync_channel(QUEUE);
    let asked = Arc::new(AtomicU32::new(0));
    let (method, family, protocol) = (plan.method, plan.family, plan.protocol);
    let service = SocketAddr::new(Host::Vip.address(family), protocol.port());
    for client in 0..CLIENTS {
        let (sender, asked) = (sender.clone(), Arc::clone(&asked));
        topology.client.spawn(&format!("{client}"), move || {
            loop {
                let number = asked.fetch_add(1, Relaxed);
                if number >= requests {
                    return;
                }
                let question = format!("{method}-{number}");
                let begun = Instant::now();
                let response = match protocol {
                    Protocol::Tcp => http_get(service, &question, PATIENCE),
                    Protocol::Udp => udp_ask(service, &question, PATIENCE),
                };
                let latency = begun.elapsed();
                let outcome = response.map_err(Failure::from).and_then(|response| {
                    verify(method, family, protocol, &question, response)
                        .map(|server| (server, latency))
                });
                if sender.send(outcome).is_err() {
                    return;
                }
            }
        })?;
    }
    Ok(receiver)
}
