//! The laboratory itself, without a director. Needs root (CAP_SYS_ADMIN): fails without.

#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::topology::{HTTP_PORT, UDP_PORT};
use cli::lab::{
    Family, Host, HttpServer, Method, Namespace, Prefix, Response, Topology, http_get, link,
    udp_ask,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn two_namespaces_reach_each_other_over_a_link_and_nobody_else() {
    let a = Namespace::new("a").unwrap();
    let b = Namespace::new("b").unwrap();
    let stranger = Namespace::new("stranger").unwrap();
    link(&a, "eth0", &b, "eth0", 1400).unwrap();
    for (namespace, number) in [(&a, 1), (&b, 2)] {
        namespace
            .add_address("eth0", format!("10.9.0.{number}/24").parse().unwrap())
            .unwrap();
        namespace
            .add_address("eth0", format!("fd09::{number}/64").parse().unwrap())
            .unwrap();
    }
    assert_eq!(b.link("eth0").unwrap().mtu, 1400);
    for address in ["10.9.0.2:80", "[fd09::2]:80"] {
        let address: SocketAddr = address.parse().unwrap();
        let _server = HttpServer::start(&b, address).unwrap();
        let response = a.run(|| http_get(address, "hello", TIMEOUT)).unwrap();
        assert_eq!(
            (response.server.as_str(), response.question.as_str()),
            ("b", "hello")
        );
        assert_eq!(response.local, address);
        let elsewhere = stranger.run(|| http_get(address, "hello", TIMEOUT));
        assert!(
            elsewhere.is_err(),
            "a namespace without links reached {address}"
        );
    }
}

#[test]
fn a_command_runs_inside_the_namespace() {
    let namespace = Namespace::new("inside").unwrap();
    let inside = namespace
        .command("readlink")
        .arg("/proc/self/ns/net")
        .output()
        .unwrap();
    let seen = namespace
        .run(|| std::fs::read_link("/proc/thread-self/ns/net"))
        .unwrap();
    assert_eq!(
        String::from_utf8(inside.stdout).unwrap().trim(),
        seen.to_str().unwrap()
    );
    assert_ne!(seen, std::fs::read_link("/proc/self/ns/net").unwrap());
}

#[test]
fn a_command_ends_with_the_thread_that_started_it() {
    let namespace = Namespace::new("short").unwrap();
    let mut child = std::thread::scope(|scope| {
        scope
            .spawn(|| namespace.command("sleep").arg("60").spawn().unwrap())
            .join()
            .unwrap()
    });
    let status = child.wait().unwrap();
    assert!(!status.success(), "{status}");
}

#[test]
fn a_namespace_ends_with_its_last_user() {
    let namespace = Namespace::new("mortal").unwrap();
    let peer = Namespace::new("peer").unwrap();
    link(&namespace, "eth0", &peer, "eth0", 1500).unwrap();
    drop(peer);
    // The kernel takes namespaces down in the background, and a veth end with its peer.
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        namespace.link("eth0").is_err()
    });
    assert!(gone, "the link survived its peer's namespace");
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let namespace = Namespace::new("picky").unwrap();
    let error = namespace
        .add_address("eth7", "10.0.0.1/24".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "picky: address add 10.0.0.1/24 dev eth7: No such device (os error 19)"
    );
    let error = namespace
        .add_route("0.0.0.0/0".parse().unwrap(), "10.0.0.1".parse().unwrap())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("picky: route add 0.0.0.0/0 via 10.0.0.1: "),
        "{error}"
    );
    let error = namespace.sysctl("net.ipv4.no_such", "1").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("picky: sysctl net.ipv4.no_such=1: No such file"),
        "{error}"
    );
    let taken = namespace.run(|| TcpListener::bind("127.0.0.1:80")).unwrap();
    let error = HttpServer::start(&namespace, taken.local_addr().unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("http on 127.0.0.1:80: Address already in use"),
        "{error}"
    );
}

/// With DR and TUN a server is asked at the virtual address and answers past the director. Here the kernel's router
/// stands in for the director's way there.
#[test]
fn a_server_answers_for_the_virtual_address_by_way_of_the_router() {
    let topology = Topology::new(Method::Dr, &Family::ALL, 2).unwrap();
    for family in Family::ALL {
        let vip = Host::Vip.address(family);
        topology
            .client
            .add_route(Prefix::host(vip), Host::RouterWan.address(family))
            .unwrap();
        topology
            .router
            .add_route(Prefix::host(vip), Host::Server(1).address(family))
            .unwrap();
        let client = Host::Client.address(family);
        let response = topology
            .client
            .run(|| http_get(SocketAddr::new(vip, HTTP_PORT), "q1", TIMEOUT))
            .unwrap();
        assert_eq!(
            (
                response.server.as_str(),
                response.peer.ip(),
                response.local.ip()
            ),
            ("server2", client, vip)
        );
        let response = topology
            .client
            .run(|| udp_ask(SocketAddr::new(vip, UDP_PORT), "q2", TIMEOUT))
            .unwrap();
        assert_eq!(
            (
                response.server.as_str(),
                response.peer.ip(),
                response.local.ip()
            ),
            ("server2", client, vip)
        );
    }
}

/// A host on the servers' network asks who has the virtual address: no server may answer, or the director would be
/// bypassed.
#[test]
fn no_server_answers_neighbours_for_the_virtual_address() {
    let topology = Topology::new(Method::Dr, &Family::ALL, 2).unwrap();
    let stranger = Namespace::new("stranger").unwrap();
    link(&topology.switch, "stranger", &stranger, "eth0", 1500).unwrap();
    topology.switch.set_bridge("stranger", "lan").unwrap();
    for prefix in [
        "192.0.2.3/24",
        "10.0.0.3/24",
        "2001:db8::3/64",
        "fd00::3/64",
    ] {
        stranger
            .add_address("eth0", prefix.parse().unwrap())
            .unwrap();
    }
    for family in Family::ALL {
        let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
        stranger
            .sysctl(&format!("net.{version}.neigh.eth0.retrans_time_ms"), "100")
            .unwrap();
        // To know that the stranger is heard at all.
        let server = SocketAddr::new(Host::Server(0).address(family), 81);
        let _server = HttpServer::start(&topology.servers[0].namespace, server).unwrap();
        stranger.run(|| http_get(server, "q", TIMEOUT)).unwrap();
        let vip = SocketAddr::new(Host::Vip.address(family), HTTP_PORT);
        let error = stranger.run(|| http_get(vip, "q", TIMEOUT)).unwrap_err();
        assert!(
            error.to_string().contains("No route to host"),
            "{vip}: {error}"
        );
    }
}

/// With TUN a server is asked inside another packet, of its own family or the other, and answers as with DR.
#[test]
fn a_server_unwraps_either_family_from_either_family() {
    let topology = Topology::new(Method::Tun, &Family::ALL, 1).unwrap();
    let server = &topology.servers[0];
    for inner in Family::ALL {
        let asker = SocketAddr::new(Host::Client.address(inner), 5000);
        let listening = topology
            .client
            .run(|| std::net::UdpSocket::bind(asker))
            .unwrap();
        listening.set_read_timeout(Some(TIMEOUT)).unwrap();
        for outer in Family::ALL {
            let packet = question(asker, SocketAddr::new(Host::Vip.address(inner), UDP_PORT));
            topology
                .router
                .run(|| tunnel(&packet, Host::Server(0).address(outer)));
            let mut answer = [0; 256];
            let len = listening.recv(&mut answer).unwrap();
            let answer: Response = std::str::from_utf8(&answer[..len])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!((answer.server.as_str(), answer.peer), ("server1", asker));
            assert_eq!(answer.local.ip(), Host::Vip.address(inner));
        }
    }
    // An answer may be here before what was delivered is counted.
    let decapsulator = server.decapsulator.as_ref().unwrap();
    let since = Instant::now();
    while decapsulator.delivered() < 4 && since.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((decapsulator.delivered(), decapsulator.refused()), (4, 0));
}

/// Inside the outer packet a checksum that the sender left undone stays undone, and the kernel drops the datagram.
#[test]
fn a_wrong_checksum_inside_a_tunnel_is_not_forgiven() {
    let topology = Topology::new(Method::Tun, &[Family::V4], 1).unwrap();
    let asker = SocketAddr::new(Host::Client.address(Family::V4), 5000);
    let listening = topology
        .client
        .run(|| std::net::UdpSocket::bind(asker))
        .unwrap();
    listening
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut packet = question(
        asker,
        SocketAddr::new(Host::Vip.address(Family::V4), UDP_PORT),
    );
    packet[26] ^= 0x55;
    topology
        .router
        .run(|| tunnel(&packet, Host::Server(0).address(Family::V4)));
    assert!(listening.recv(&mut [0; 256]).is_err());
}

/// Sends a packet inside another, whose header the kernel makes.
fn tunnel(packet: &[u8], to: IpAddr) {
    let protocol = if packet[0] >> 4 == 4 { 4 } else { 41 };
    let domain = if to.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap();
    socket
        .send_to(packet, &SockAddr::from(SocketAddr::new(to, 0)))
        .unwrap();
}

/// A UDP datagram that asks "q!", with its IP header.
fn question(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut datagram = [
        from.port().to_be_bytes(),
        to.port().to_be_bytes(),
        [0, 10],
        [0, 0],
    ]
    .concat();
    datagram.extend_from_slice(b"q!");
    let (mut packet, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0];
            header.extend_from_slice(&addresses);
            let checksum = checksum(&header);
            header[10..12].copy_from_slice(&checksum);
            (header, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
            header.extend_from_slice(&addresses);
            (header, addresses)
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    let pseudo_header = [&addresses[..], &[0, 17, 0, 10]].concat();
    let checksum = checksum(&[&pseudo_header[..], &datagram[..]].concat());
    datagram[6..8].copy_from_slice(&checksum);
    packet.extend_from_slice(&datagram);
    packet
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}
