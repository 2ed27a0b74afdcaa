//! From a configuration to open sockets with their rings, and all that can be wrong on the way.

use super::handle::{Handle, Shared};
use super::ring::{self, Geometry, ReceiveRing, Waiting};
use super::socket::{Interface, NAME_LEN_MAX, PacketSocket};
use super::transmit::TransmitQueue;
use super::vnet;
use crate::port::interface::InterfaceError;
use crate::port::{PortId, PortInfo};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// How the kernel spreads an interface's frames over the workers' sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanout {
    /// By a hash of the flow; its two directions meet.
    #[default]
    Hash,
    /// One after the other.
    RoundRobin,
    /// By the CPU that received the frame: what the NIC's RSS or the peer's CPU decided.
    Cpu,
}

impl Fanout {
    /// PACKET_FANOUT_*.
    fn mode(self) -> u32 {
        match self {
            Fanout::Hash => libc::PACKET_FANOUT_HASH,
            Fanout::RoundRobin => libc::PACKET_FANOUT_LB,
            Fanout::Cpu => libc::PACKET_FANOUT_CPU,
        }
    }
}

/// How to open an interface. [`Config::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which port it will be.
    pub id: PortId,
    /// What the configuration calls it.
    pub name: String,
    /// The kernel's name of the interface.
    pub interface: String,
    /// How many workers will use it, each with a socket of its own: 1 to 256.
    pub workers: u16,
    /// Frames that may wait for a worker or be held by it: 1 to 16,384, rounded up to whole blocks. Each costs as much kernel
    /// memory as the interface's MTU needs, rounded up to a power of two; GSO frames, which are longer, wait in the
    /// socket's queue (at most 32 MiB of them). Without CAP_NET_ADMIN that queue is too short: each
    /// costs 64 KiB then, and there are at most 510 of them.
    pub receive_slots: u32,
    /// Frames that may wait to be sent: 1 to 16,384, and at most 4 MiB of them.
    pub transmit_slots: u32,
    /// How frames are spread over several workers.
    pub fanout: Fanout,
}

impl Config {
    /// The interface for one worker, under its own name, with 1024 slots each way: 2 MiB where the MTU is 1500.
    #[must_use]
    pub fn new(id: PortId, interface: &str) -> Config {
        Config {
            id,
            name: interface.to_owned(),
            interface: interface.to_owned(),
            workers: 1,
            receive_slots: 1024,
            transmit_slots: 1024,
            fanout: Fanout::default(),
        }
    }
}

/// Why an interface cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A value of the configuration is out of its range.
    #[error("{field} = {value}: accepted are {accepted}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
        /// What it may say.
        accepted: &'static str,
    },
    /// No interface can have such a name.
    #[error("interface {interface:?}: accepted are names of 1 to 15 bytes")]
    BadName {
        /// The name.
        interface: String,
    },
    /// The process may not open packet sockets.
    #[error(
        "interface {interface:?}: packet sockets need CAP_NET_RAW: run as root, or give it (systemd \
         AmbientCapabilities=CAP_NET_RAW, docker --cap-add NET_RAW, setcap cap_net_raw+ep)"
    )]
    NotPermitted {
        /// Which interface was to be opened.
        interface: String,
    },
    /// The interface is none that can be a port.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The kernel has no memory for the ring.
    #[error(
        "interface {interface:?}: no kernel memory for a ring of {mib} MiB for each worker; lower the number of workers or receive_slots"
    )]
    NoMemory {
        /// The name.
        interface: String,
        /// What the ring of one worker takes.
        mib: usize,
    },
    /// The kernel refused something that it should not.
    #[error("interface {interface:?}: cannot {action}")]
    System {
        /// The name.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Bytes of a socket's frames that may be in flight, or wait in its queue; the kernel doubles it.
const IN_FLIGHT: i32 = 32 << 20;

/// Slots where each is long enough for a GSO frame: 34 MiB.
const LARGE_SLOTS_MAX: u32 = 510;

/// The fanout group that the sockets of a port are in, so that one may join or come back later.
#[derive(Default)]
pub(super) struct Group {
    /// Index of the interface and number of the group.
    current: Mutex<Option<(i32, u16)>>,
}

/// A socket, its ring, and what waits to be sent.
pub(super) struct Queue {
    pub(super) socket: PacketSocket,
    pub(super) interface: Interface,
    pub(super) receive: ReceiveRing,
    pub(super) transmit: TransmitQueue,
}

/// Checks what can be checked without the kernel.
pub(super) fn check(config: &Config) -> Result<(), OpenError> {
    let slots = 1..=16_384;
    let accepted = "1 to 16384";
    if !(1..=256).contains(&config.workers) {
        let value = config.workers.into();
        return Err(OpenError::OutOfRange {
            field: "workers",
            value,
            accepted: "1 to 256",
        });
    }
    for (field, value) in [
        ("receive_slots", config.receive_slots),
        ("transmit_slots", config.transmit_slots),
    ] {
        if !slots.contains(&value) {
            return Err(OpenError::OutOfRange {
                field,
                value: value.into(),
                accepted,
            });
        }
    }
    if config.interface.is_empty()
        || config.interface.len() > NAME_LEN_MAX
        || config.interface.contains('\0')
    {
        return Err(OpenError::BadName {
            interface: config.interface.clone(),
        });
    }
    Ok(())
}

/// What control keeps of an open interface.
pub(super) fn handle(
    config: &Config,
    info: &PortInfo,
    queue: &Queue,
    shared: &Arc<Shared>,
) -> Result<Handle, OpenError> {
    Handle::new(info, &config.interface, queue.mode(), Arc::clone(shared)).map_err(|source| {
        OpenError::System {
            interface: config.interface.clone(),
            action: "ask about it",
            source,
        }
    })
}

impl Queue {
    /// Opens one worker's socket. Frames arrive from now on, with several workers some of them at all sockets until the
    /// last one is open.
    pub(super) fn open(config: &Config, group: &Group) -> Result<Queue, OpenError> {
        let name = || config.interface.clone();
        let failed = |action| {
            move |source| OpenError::System {
                interface: name(),
                action,
                source,
            }
        };
        let socket = PacketSocket::new().map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => OpenError::NotPermitted { interface: name() },
            _ => failed("open a packet socket")(error),
        })?;
        let interface = usable_interface(&socket, &config.interface)?;
        set_options(&socket).map_err(|(action, source)| failed(action)(source))?;

        // Not PACKET_QDISC_BYPASS: past the queueing discipline a GSO frame is lost, without a word, where the interface
        // cannot cut it itself; what it gains on a veth pair is less than the noise.
        let geometry = geometry(&socket, config, interface.mtu)
            .map_err(|(action, source)| failed(action)(source))?;
        let no_memory = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOMEM) => OpenError::NoMemory {
                interface: name(),
                mib: geometry.len().div_ceil(1 << 20),
            },
            _ => failed("make its ring")(error),
        };
        socket
            .set(libc::PACKET_RX_RING, &geometry.request())
            .map_err(no_memory)?;
        let receive = ring::map(&socket, geometry, config.id).map_err(failed("map its ring"))?;
        socket
            .set_send_buffer(IN_FLIGHT)
            .map_err(failed("set its send buffer"))?;

        // Neighbour discovery asks a multicast group of ours, which nobody has joined in the kernel.
        socket
            .set(libc::PACKET_ADD_MEMBERSHIP, &all_multicast(interface.index))
            .map_err(failed("receive all multicast"))?;
        socket.bind(interface.index).map_err(failed("bind to it"))?;
        if config.workers > 1 {
            group
                .join(&socket, interface.index, config.fanout)
                .map_err(failed("join the fanout group"))?;
        }
        Ok(Queue {
            socket,
            interface,
            receive,
            transmit: TransmitQueue::new(config.transmit_slots),
        })
    }

    /// Gives the frame at the head back to the kernel unseen.
    #[inline]
    pub(super) fn skip(&mut self, waiting: &Waiting) {
        if waiting.is_beside() {
            // An error: it is not there. It is to be got rid of, so that is as well.
            let _ = self.socket.receive(&mut [0; vnet::LEN]);
        }
        self.receive.skip();
    }

    /// Gives back whatever waits.
    pub(super) fn discard(&mut self) {
        for _ in 0..self.receive.count() {
            let Some(waiting) = self.receive.peek() else {
                return;
            };
            self.skip(&waiting);
        }
    }

    /// How the ring is laid out, in words.
    fn mode(&self) -> String {
        let geometry = self.receive.geometry();
        format!(
            "TPACKET_V2, {} slots of {} bytes per worker",
            geometry.slots(),
            geometry.slot_len()
        )
    }
}

/// Slots as long as the MTU needs, where longer frames may wait in the socket's queue (PACKET_COPY_THRESH); otherwise so long
/// that each frame fits. What was tried stands beside the error.
fn geometry(
    socket: &PacketSocket,
    config: &Config,
    mtu: u32,
) -> Result<Geometry, (&'static str, io::Error)> {
    if socket.force_receive_buffer(IN_FLIGHT).is_err() {
        let slots = config.receive_slots.min(LARGE_SLOTS_MAX);
        return Ok(Geometry::for_any_frame(slots));
    }
    let geometry = Geometry::for_mtu(config.receive_slots, mtu);
    let threshold = 1i32.to_ne_bytes();
    socket
        .set(libc::PACKET_COPY_THRESH, &threshold)
        .map_err(|source| {
            (
                "have long frames put into the queue (PACKET_COPY_THRESH)",
                source,
            )
        })?;
    Ok(geometry)
}

/// The options that every socket of ours has. What was tried stands beside the error.
fn set_options(socket: &PacketSocket) -> Result<(), (&'static str, io::Error)> {
    let options = [
        (
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as i32,
            "select TPACKET_V2",
        ),
        (
            libc::PACKET_VNET_HDR,
            1,
            "ask for virtio-net headers (PACKET_VNET_HDR)",
        ),
        (
            libc::PACKET_RESERVE,
            ring::RESERVE.cast_signed(),
            "reserve headroom (PACKET_RESERVE)",
        ),
        (
            libc::PACKET_IGNORE_OUTGOING,
            1,
            "ignore what others send (PACKET_IGNORE_OUTGOING, Linux 4.20)",
        ),
    ];
    for (option, value, action) in options {
        socket
            .set(option, &value.to_ne_bytes())
            .map_err(|source| (action, source))?;
    }
    Ok(())
}

fn usable_interface(socket: &PacketSocket, name: &str) -> Result<Interface, OpenError> {
    let interface =
        socket
            .interface(name)
            .map_err(|error| match InterfaceError::no_such(name, error) {
                Ok(error) => error.into(),
                Err(source) => OpenError::System {
                    interface: name.to_owned(),
                    action: "ask about it",
                    source,
                },
            })?;
    InterfaceError::check(name, interface.hardware_type, interface.up)?;
    Ok(interface)
}

/// `struct packet_mreq`.
fn all_multicast(interface_index: i32) -> [u8; 16] {
    let kind = u16::try_from(libc::PACKET_MR_ALLMULTI).expect("PACKET_MR_ALLMULTI is 2");
    let mut bytes = [0; 16];
    bytes[0..4].copy_from_slice(&interface_index.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes
}

impl Group {
    /// The first to come asks the kernel for a number that nobody else uses.
    fn join(&self, socket: &PacketSocket, interface_index: i32, fanout: Fanout) -> io::Result<()> {
        let mut current = self.current.lock();
        let type_flags = fanout.mode() | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
        match *current {
            Some((index, number)) if index == interface_index => socket.set(
                libc::PACKET_FANOUT,
                &(u32::from(number) | type_flags << 16).to_ne_bytes(),
            ),
            _ => {
                let type_flags = type_flags | libc::PACKET_FANOUT_FLAG_UNIQUEID;
                socket.set(libc::PACKET_FANOUT, &(type_flags << 16).to_ne_bytes())?;
                let [low, high, ..] =
                    u32::from_ne_bytes(socket.get::<4>(libc::PACKET_FANOUT)?).to_le_bytes();
                *current = Some((interface_index, u16::from_le_bytes([low, high])));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named_with_what_is_accepted() {
        let good = Config::new(PortId(0), "eth0");
        assert!(check(&good).is_ok());
        let cases = [
            (
                Config {
                    workers: 0,
                    ..good.clone()
                },
                "workers = 0: accepted are 1 to 256",
            ),
            (
                Config {
                    workers: 257,
                    ..good.clone()
                },
                "workers = 257: accepted are 1 to 256",
            ),
            (
                Config {
                    receive_slots: 0,
                    ..good.clone()
                },
                "receive_slots = 0: accepted are 1 to 16384",
            ),
            (
                Config {
                    transmit_slots: 16_385,
                    ..good.clone()
                },
                "transmit_slots = 16385: accepted are 1 to 16384",
            ),
            (
                Config::new(PortId(0), ""),
                "interface \"\": accepted are names of 1 to 15 bytes",
            ),
            (
                Config::new(PortId(0), "a-name-too-long0"),
                "interface \"a-name-too-long0\": accepted are names",
            ),
        ];
        for (config, expected) in cases {
            let error = check(&config).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
