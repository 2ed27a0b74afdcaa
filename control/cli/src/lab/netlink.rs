//! The few rtnetlink requests the laboratory needs, one at a time and blocking.
//!
//! A socket belongs for ever to the namespace of the thread that opened it, and may be used from any thread.

use super::Prefix;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index within its namespace.
    pub index: u32,
    /// Its hardware address; all zero on lo.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Whether the kernel takes it for usable: up, with carrier, and known to be so.
    pub is_operational: bool,
}

/// The next interface's index, unlike any other's in any namespace of the process. The kernel makes new indices per
/// namespace, but when the two ends of a pair happen to have the same one, it takes the link for a physical one and
/// lets up to a second pass before it believes in the carrier.
///
/// Source: Linux net/core/link_watch.c (linkwatch_urgent_event).
static NEXT_INDEX: AtomicU32 = AtomicU32::new(100);

/// One end of a veth pair to be made.
#[derive(Clone, Copy)]
pub(super) struct VethEnd<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: BorrowedFd<'a>,
    pub(super) mtu: u32,
    /// Queues each way.
    pub(super) queues: u32,
}

impl VethEnd<'_> {
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = NEXT_INDEX.fetch_add(1, Relaxed);
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::NumTxQueues(self.queues),
            LinkAttribute::NumRxQueues(self.queues),
            LinkAttribute::NetNsFd(self.namespace.as_raw_fd()),
        ];
        message
    }
}

/// A socket to the kernel of one namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Makes a veth pair, both ends down: an end goes up only once it has its peer.
    pub(super) fn add_veth(&mut self, a: VethEnd<'_>, b: VethEnd<'_>) -> io::Result<()> {
        let mut message = a.message();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(b.message()))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a bridge that forwards at once and floods multicast (no spanning tree, no snooping).
    pub(super) fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = up();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![
                    InfoBridge::ForwardDelay(0),
                    InfoBridge::MulticastSnooping(false),
                ])),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// What the kernel says of an interface.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let answer = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST)?;
        let Some(RouteNetlinkMessage::NewLink(found)) = answer else {
            return Err(io::Error::other(
                "the kernel answered with something else than a link",
            ));
        };
        let mut link = Link {
            index: found.header.index,
            mac: [0; 6],
            mtu: 0,
            is_operational: false,
        };
        for attribute in found.attributes {
            match attribute {
                LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.is_operational = state == State::Up,
                _ => {}
            }
        }
        Ok(link)
    }

    /// Brings an interface up or down.
    pub(super) fn set_up(&mut self, name: &str, is_up: bool) -> io::Result<()> {
        let mut message = up();
        message.header.index = self.link(name)?.index;
        if !is_up {
            message.header.flags = LinkFlags::empty();
        }
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the largest IP packet of an interface, bytes.
    pub(super) fn set_mtu(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the hardware address of an interface.
    pub(super) fn set_mac(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.attributes = vec![LinkAttribute::Address(mac.to_vec())];
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Takes an interface away, and with one end of a veth pair the other.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        self.acknowledged(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Makes an interface a port of a bridge.
    pub(super) fn set_bridge(&mut self, name: &str, bridge: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name)?.index;
        message.attributes = vec![LinkAttribute::Controller(self.link(bridge)?.index)];
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Adds an address.
    pub(super) fn add_address(&mut self, name: &str, prefix: Prefix) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(prefix.address);
        message.header.prefix_len = prefix.len;
        message.header.index = self.link(name)?.index;
        message.attributes = vec![
            AddressAttribute::Local(prefix.address),
            AddressAttribute::Address(prefix.address),
        ];
        self.create(RouteNetlinkMessage::NewAddress(message))
    }

    /// Adds a route by way of a gateway.
    pub(super) fn add_route(&mut self, to: Prefix, via: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.address);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = to.len;
        if to.len > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::from(to.address)));
        }
        message
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::from(via)));
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn acknowledged(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
    }

    /// Sends one request and waits for its one answer: a message, or `None` for an acknowledgement.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (bytes, _) = self.socket.recv_from_full()?;
        let answer =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }
}

fn up() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
