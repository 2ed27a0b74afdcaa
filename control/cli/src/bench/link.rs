//! Packets over a veth pair: another thread sends those of the capture from the far end, over and over, by a packet socket.

use crate::lab::{LabError, Namespace, link};
use benches::captured::{self, Capture, Source};
use benches::{BenchError, Case};
use dataplane::port::any::AnyPort;
use dataplane::port::handle::{Opened, PortHandle, PortState};
use dataplane::port::{Burst, Port, PortId, Sent, af_packet, af_xdp, pcap};
use dataplane::snapshot::Snapshot;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// The interface's name at both ends.
const INTERFACE: &str = "eth0";
/// Largest IP packet on the pair: AF_XDP takes no frame larger than a page.
const MTU: u32 = 3600;
/// Largest frame that is sent, checksum sequence included: a tunnel's headers are added to it.
pub(super) const FRAME_LEN_MAX: u32 = 3500;

/// What the director receives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    AfPacket,
    AfXdp,
}

/// A veth pair between two namespaces of this process.
#[derive(Debug)]
pub(super) struct Link {
    driver: Driver,
    director: Namespace,
    far: Namespace,
}

impl Link {
    /// Makes the pair.
    pub(super) fn new(driver: Driver) -> Result<Link, LabError> {
        let [director, far] = [Namespace::new("director")?, Namespace::new("far")?];
        for namespace in [&director, &far] {
            // Nobody but the bench is to say anything there.
            namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        link(&director, INTERFACE, &far, INTERFACE, MTU)?;
        director.set_mac(INTERFACE, captured::hardware_address().0)?;
        Ok(Link {
            driver,
            director,
            far,
        })
    }

    fn open_port(&self) -> Result<Opened<AnyPort>, BenchError> {
        let of_port = |error: Box<dyn std::error::Error + Send + Sync>| BenchError::Port(error);
        self.director.run(|| match self.driver {
            Driver::AfPacket => {
                let config = af_packet::Config::new(captured::ID, INTERFACE);
                let opened = af_packet::open(config).map_err(|error| of_port(error.into()))?;
                Ok(Opened {
                    queues: opened.queues.into_iter().map(AnyPort::AfPacket).collect(),
                    handle: opened.handle,
                })
            }
            Driver::AfXdp => {
                let config = af_xdp::Config::new(captured::ID, INTERFACE);
                let opened = af_xdp::open(&config).map_err(|error| of_port(error.into()))?;
                Ok(Opened {
                    queues: opened.queues.into_iter().map(AnyPort::AfXdp).collect(),
                    handle: opened.handle,
                })
            }
        })
    }
}

impl Source for Link {
    type Port = AnyPort;

    fn open(&mut self, _: &Case, capture: &Capture) -> Result<Opened<AnyPort>, BenchError> {
        let opened = self.open_port()?;
        let port = |error: Box<dyn std::error::Error + Send + Sync>| BenchError::Port(error);
        let mut sender = self.far.run(|| Sender::open(capture))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = self.far.spawn("sender", move || {
            while !told.load(Relaxed) {
                sender.round();
            }
        });
        Ok(Opened {
            queues: opened.queues,
            handle: Arc::new(Flood {
                handle: opened.handle,
                stop,
                thread: Some(thread.map_err(|error| port(error.into()))?),
            }),
        })
    }
}

/// The far end.
struct Sender {
    capture: pcap::PcapPort,
    socket: af_packet::AfPacketPort,
}

impl Sender {
    fn open(capture: &Capture) -> Result<Sender, BenchError> {
        let port = |error: Box<dyn std::error::Error + Send + Sync>| BenchError::Port(error);
        let id = PortId(captured::ID.0 + 1);
        let socket = af_packet::open(af_packet::Config::new(id, INTERFACE));
        let mut socket = socket.map_err(|error| port(error.into()))?;
        let socket = socket.queues.pop().expect("one for the one worker");
        let config = pcap::Config {
            id: captured::ID,
            info: socket.info().clone(),
            workers: 1,
            file: capture.path(),
            infinite: true,
            output: None,
        };
        let mut frames = pcap::open(config).map_err(|error| port(error.into()))?;
        let capture = frames.queues.pop().expect("one for the one worker");
        Ok(Sender { capture, socket })
    }

    /// Sends a burst, and forgets what came back.
    fn round(&mut self) {
        let mut burst = Burst::new();
        self.capture.receive(&mut burst);
        for frame in burst.drain(..) {
            match self.socket.transmit(frame) {
                Sent::Taken => {}
                Sent::Copied(frame) | Sent::Refused(frame) => self.capture.release(frame),
            }
        }
        self.socket.flush();
        while self.socket.receive(&mut burst) > 0 {
            for frame in burst.drain(..) {
                self.socket.release(frame);
            }
        }
    }
}

/// The port's handle, with which the sending ends.
struct Flood {
    handle: Arc<dyn PortHandle>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PortHandle for Flood {
    fn state(&self) -> PortState {
        self.handle.state()
    }

    fn adopt(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.handle.adopt(snapshot)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sender that panicked has said so already.
            let _ = thread.join();
        }
    }
}
