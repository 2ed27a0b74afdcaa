//! What the workers know of the configuration: compiled by control, immutable, published whole.
//!
//! ```text
//!   control ── publish ──▶ Publisher { version, current }          worker, once per burst:
//!                              ▲           │                          version moved? ── no ──▶ go on
//!                              │           └── Arc<Snapshot> ◀──────── yes: take a reference, adjust own state
//!                              └── seen by every worker: control may drop the old ones
//! ```
//! A worker never waits: where control holds the lock at that moment, it looks again at the next burst.

use crate::Map;
use crate::capture::Captures;
use crate::helper::Helper;
use crate::mark::MarkRule;
use crate::neighbour::NeighbourId;
use crate::path_mtu::PathMtu;
use crate::port::{Mac, PortId};
use crate::rewrite::tunnel::Tunnel;
use crate::route::Routes;
use conntrack::{Method, Ticks, Timeouts};
use parking_lot::Mutex;
use scheduler::{Load, Options, RealServer, RealServerId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// FTP's port for commands. Source: RFC 959.
pub const FTP_PORT: u16 = 21;

/// Names a service for as long as it is configured. Dense, so that it can index arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// The whole of what a worker needs to decide.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each publication; 0 is the empty snapshot before the first.
    pub version: u64,
    /// By [`PortId`].
    pub ports: Vec<PortView>,
    /// By [`PortId`], how often the link came back or its hardware address changed: what is announced there is announced
    /// again. Where there are none: never.
    pub links: Vec<u32>,
    /// Addresses that the director answers for.
    pub owned: Map<IpAddr, Owned>,
    /// Where packets leave.
    pub routes: Routes,
    /// Changes with `routes` and `ports`, so that next hops cached in connections are looked up again.
    pub route_generation: u16,
    /// Services by what clients address.
    pub services: Map<ServiceKey, Arc<Service>>,
    /// Marks packets for services of marks; the first one that matches holds.
    pub marks: Vec<MarkRule>,
    /// By [`RealServerId`]; removed servers stay while connections refer to them.
    pub servers: Vec<Option<Arc<Server>>>,
    /// How long connections live without a packet.
    pub timeouts: Timeouts,
    /// What the kernel's IPVS is told by sysctl.
    pub ipvs: Ipvs,
}

/// Behaviour that the kernel's IPVS takes from `net.ipv4.vs.*`, under the same names and with the same defaults.
///
/// Source: Linux Documentation/networking/ipvs-sysctl.rst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switches, each independent of the others"
)]
pub struct Ipvs {
    /// What a client's SYN does to a connection that is there: with 0 it always stays; otherwise one that has ended is
    /// scheduled anew, and with 2 also one in FIN_WAIT whose replies do not pass the director.
    pub conn_reuse_mode: u8,
    /// The removal of a server ends its connections, and a SYN for one of weight 0 is scheduled anew.
    pub expire_nodest_conn: bool,
    /// A client whose persistence leads to a server of weight 0 gets another one.
    pub expire_quiescent_template: bool,
    /// Any TCP packet but a reset may begin a connection.
    pub sloppy_tcp: bool,
    /// Any SCTP packet but an ABORT may begin a connection, not an INIT alone.
    pub sloppy_sctp: bool,
    /// An ICMP error about a packet of a service that no connection is known for begins one.
    pub schedule_icmp: bool,
    /// A NAT server's packet of no connection is answered with port unreachable.
    pub nat_icmp_send: bool,
    /// Tunnels take over the inner packet's don't-fragment, and tell senders what fits.
    pub pmtu_disc: bool,
    /// For how many seconds `lblc` remembers a destination that is not used.
    pub lblc_expiration: u32,
    /// Likewise `lblcr`, which also takes a server out of a set that has not changed for so long.
    pub lblcr_expiration: u32,
    /// When TCP follows the second table of states: 0: never; 1 and 2: while the table is short of room; 3: always.
    pub secure_tcp: u8,
    /// When packets are dropped that would begin connections; the same modes.
    pub drop_packet: u8,
    /// When half-open and idle connections are ended before their time; the same modes.
    pub drop_entry: u8,
    /// With `drop_packet = 3`, of so many packets that would begin connections one is dropped; 0: none.
    pub am_droprate: u32,
    /// The table is short of room when fewer connections than this would fit; 0: a 64th of its capacity.
    ///
    /// Differs from IPVS: there it is about the machine's free memory, in pages; here all memory is taken at the start.
    pub amemthresh: u32,
}

impl Default for Ipvs {
    fn default() -> Ipvs {
        Ipvs {
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            schedule_icmp: false,
            nat_icmp_send: false,
            pmtu_disc: true,
            lblc_expiration: 86_400,
            lblcr_expiration: 86_400,
            secure_tcp: 0,
            drop_packet: 0,
            drop_entry: 0,
            am_droprate: 10,
            amemthresh: 0,
        }
    }
}

/// A port as the snapshot sees it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// The name in the configuration.
    pub name: String,
    /// Source of the frames sent there.
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// The director's own addresses there (DIP), with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl PortView {
    /// The address to speak from to `target`: of its family, on its subnet if there is one.
    #[must_use]
    pub fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let same_family = self
            .addresses
            .iter()
            .filter(|(address, _)| address.is_ipv4() == target.is_ipv4());
        same_family
            .clone()
            .find(|(address, prefix)| crate::route::same_subnet(*address, target, *prefix))
            .or_else(|| same_family.clone().next())
            .map(|(address, _)| *address)
    }
}

/// Why the director answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// A service's address (VIP): ARP, ND and echo are answered here.
    Virtual,
    /// A FULLNAT source (LIP): likewise.
    Local,
    /// The director's own (DIP): likewise.
    Director,
    /// The director's own, but the kernel holds it too and answers for it.
    Kernel,
}

/// What clients address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// IP protocol number.
    pub protocol: u8,
    /// Virtual address (VIP).
    pub address: IpAddr,
    /// Virtual port, host byte order; 0 for all ports that no other service has.
    pub port: u16,
}

impl ServiceKey {
    /// The key of a mark's service: protocol 0, the mark in the place of the first four bytes of the address, port 0.
    /// Persistence templates stand under it, as in the kernel.
    #[must_use]
    pub fn of_mark(mark: u32, ipv6: bool) -> ServiceKey {
        let address = if ipv6 {
            Ipv6Addr::from_bits(u128::from(mark) << 96).into()
        } else {
            Ipv4Addr::from_bits(mark).into()
        };
        ServiceKey {
            protocol: 0,
            address,
            port: 0,
        }
    }

    /// Whether it is a mark's.
    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.protocol == 0
    }

    /// Whether a persistent service under this key is one of all ports: so is FTP's, for its transfers.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_sched_persist`).
    #[must_use]
    pub fn is_of_all_ports(&self) -> bool {
        matches!(self.port, 0 | FTP_PORT)
    }
}

/// How long, and how much of them, clients are remembered, so that their next connection goes to the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// After a client's last new connection.
    pub timeout: Ticks,
    /// The bits of a client's address that count; an IPv4 address has the low 32.
    pub mask: u128,
    /// What else tells a client's dealings apart.
    pub engine: Option<Engine>,
}

/// Looks into packets for what belongs to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SIP over UDP: calls, by their Call-ID (RFC 3261 §20.8).
    Sip,
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    /// Its name in the workers' arrays.
    pub id: ServiceId,
    /// What clients address.
    pub key: ServiceKey,
    /// The scheduling algorithm's name, known to the scheduler crate's registry.
    pub scheduler: String,
    /// Its flags.
    pub scheduler_options: Options,
    /// Real servers as the scheduler sees them: newest first, as in the kernel.
    pub servers: Vec<RealServer>,
    /// Counts the changes of servers: in the list, in weights, and in what schedulers do not see.
    pub edits: u64,
    /// FULLNAT sources (LIP), each with the first and last port to use.
    pub local_addresses: Vec<LocalAddress>,
    /// Each UDP packet is scheduled alone and leaves no connection behind; not with FULLNAT.
    pub one_packet: bool,
    /// What looks into its NAT connections.
    pub helper: Option<Helper>,
    /// Clients stay with their server.
    pub persistence: Option<Persistence>,
}

impl Service {
    /// The port at which clients reach one of its servers, host byte order; 0 where that is whatever they ask for.
    #[must_use]
    pub fn server_port(&self, server: &RealServer) -> u16 {
        if self.persistence.is_some() && self.key.is_of_all_ports() {
            0
        } else {
            server.port
        }
    }
}

/// A source address of FULLNAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// LIP.
    pub address: IpAddr,
    /// First port of the pool.
    pub first_port: u16,
    /// Last port of the pool, included.
    pub last_port: u16,
}

/// A real server as the packet path sees it.
#[derive(Debug)]
pub struct Server {
    /// Its name in connections and counters.
    pub id: RealServerId,
    /// The service it belongs to.
    pub service: ServiceId,
    /// RIP.
    pub address: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
    /// How packets get there.
    pub method: Method,
    /// Its connection counts, shared with the scheduler's view.
    pub load: Arc<Load>,
    /// The next hop on the way there.
    pub next_hop: NextHop,
    /// For its connections by TUN, which stay such when `method` changes: the outer header.
    pub tunnel: Option<Tunnel>,
    /// For TUN: how large a packet gets there; shared by the snapshots as `load` is.
    pub path_mtu: Arc<PathMtu>,
    /// False once it was removed from its service: connections to it end, replies are still translated.
    pub present: bool,
}

/// Whom to hand a packet to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The port it leaves by.
    pub port: PortId,
    /// The neighbour's address: a gateway or the destination itself.
    pub address: IpAddr,
    /// The neighbour's place in the neighbour table when the snapshot was compiled; the table may have evicted it.
    pub neighbour: NeighbourId,
}

/// Hands the current snapshot to the workers.
#[derive(Debug)]
pub struct Publisher {
    version: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
    seen: Box<[AtomicU64]>,
    captures: Captures,
}

impl Publisher {
    /// For `workers` workers, with the empty snapshot.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Publisher> {
        Arc::new(Publisher {
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(Snapshot::default())),
            seen: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            captures: Captures::default(),
        })
    }

    /// The capture that is on, which reaches the workers on the same way.
    #[inline]
    #[must_use]
    pub fn captures(&self) -> &Captures {
        &self.captures
    }

    /// Gives `snapshot` the next version and makes it current. Returns the snapshot as published and the one before,
    /// which the caller keeps until [`Publisher::seen_by_all`] reaches the new version: so it is freed by control,
    /// not by a worker.
    pub fn publish(&self, mut snapshot: Snapshot) -> (Arc<Snapshot>, Arc<Snapshot>) {
        let mut current = self.current.lock();
        snapshot.version = current.version + 1;
        let new = Arc::new(snapshot);
        let old = std::mem::replace(&mut *current, Arc::clone(&new));
        // Release pairs with the Acquire in `newer_than`; the lock alone would do for the contents.
        self.version.store(new.version, Ordering::Release);
        (new, old)
    }

    /// The current snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.lock())
    }

    /// The current snapshot, if it is newer than `version` and control does not hold it at this moment.
    #[inline]
    #[must_use]
    pub fn newer_than(&self, version: u64) -> Option<Arc<Snapshot>> {
        // Acquire pairs with the Release in `publish`.
        if self.version.load(Ordering::Acquire) == version {
            return None;
        }
        self.current.try_lock().map(|current| Arc::clone(&current))
    }

    /// A worker says which version it works with from now on.
    pub fn mark_seen(&self, worker: usize, version: u64) {
        // Release pairs with the Acquire in `seen_by_all`: the worker has dropped what it had before.
        self.seen[worker].store(version, Ordering::Release);
    }

    /// The oldest version that any worker may still be using.
    #[must_use]
    pub fn seen_by_all(&self) -> u64 {
        self.seen
            .iter()
            .map(|seen| seen.load(Ordering::Acquire))
            .min()
            .unwrap_or(u64::MAX)
    }
}
