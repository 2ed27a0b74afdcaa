//! Sentences about what was found.

use crate::config::{Listen, Protocol, method_word};
use crate::connections::ConnectionView;
use dataplane::snapshot::{Ipvs, Owned, Service};
use dataplane::worker::FoundBy;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whether no packet may come from there.
pub(super) fn is_nobodys(source: IpAddr) -> bool {
    source.is_multicast()
        || source.is_loopback()
        || source.is_unspecified()
        || source == IpAddr::V4(Ipv4Addr::BROADCAST)
}

pub(super) fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

pub(super) fn owner(owned: Option<&Owned>) -> &'static str {
    match owned {
        Some(Owned::Virtual) => "a virtual address, for which the director answers",
        Some(Owned::Local) => "a local address of FULLNAT, for which the director answers",
        Some(Owned::Director) => "the director's own address",
        Some(Owned::Kernel) => "an address of this host, for which the kernel answers",
        None => "no address of the director's",
    }
}

pub(super) fn connection(view: &ConnectionView, is_reply: bool) -> String {
    let direction = if is_reply {
        "It comes from the server and goes to the client"
    } else {
        "It comes from the client and goes to the server"
    };
    let local = view.local.map_or(String::new(), |local| {
        format!(", which sees {local} as its client")
    });
    format!(
        "It belongs to a connection of {} to {}, with {} by {}{local}: {}, forgotten in {} s if nothing comes, made by worker {}. {direction}.",
        view.client,
        view.virtual_server,
        view.real_server,
        method_word(view.method),
        view.state_name(),
        view.left.as_secs(),
        view.owner,
    )
}

pub(super) fn remembered(view: &ConnectionView) -> String {
    format!(
        "A template remembers that {} belongs to {}, for another {} s.",
        view.client.ip(),
        view.real_server.ip(),
        view.left.as_secs()
    )
}

/// The service as the configuration names it.
pub(super) fn listen(service: &Service, by: FoundBy, protocol: Protocol) -> Listen {
    if let FoundBy::Mark(mark) = by {
        let ipv6 = service.key.address.is_ipv6();
        return Listen::Mark { mark, ipv6 };
    }
    Listen::Address {
        protocol,
        address: SocketAddr::new(service.key.address, service.key.port),
    }
}

pub(super) fn found_by(listen: &Listen, by: FoundBy) -> String {
    let how = match by {
        FoundBy::Mark(_) => "which is asked first",
        FoundBy::Port => "by its very port",
        FoundBy::Ftp => "since the port may be one of a transfer of FTP",
        FoundBy::AllPorts => "which has all ports that no other service has",
    };
    format!("It is for the service {listen}, {how}.")
}

/// What begins a connection.
pub(super) fn beginning(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "with SYN",
        Protocol::Sctp => "with INIT",
        Protocol::Udp => "any",
    }
}

pub(super) fn first_packets(protocol: Protocol, ipvs: &Ipvs) -> String {
    let which = match protocol {
        Protocol::Tcp if ipvs.sloppy_tcp => {
            "Any segment but a reset begins a connection (sloppy_tcp)"
        }
        Protocol::Tcp => "A segment with SYN and without RST begins a connection",
        Protocol::Sctp if ipvs.sloppy_sctp => {
            "Any packet but an ABORT begins a connection (sloppy_sctp)"
        }
        Protocol::Sctp => "A packet with INIT begins a connection",
        Protocol::Udp => return "Any datagram begins a connection.".to_owned(),
    };
    format!(
        "{which}; any other would be dropped (no-connection). What follows is about such a packet."
    )
}
