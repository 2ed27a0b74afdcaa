//! Whole exchanges in every mode, family and protocol.

use super::bed::Bed;
use super::config::{
    CLIENT_GATEWAYS, CLIENTS, Config, ENCAPSULATIONS, METHODS, SERVERS, director_mac, ip, mac_of,
    socket,
};
use super::packets::{ACK, DATA, FIN, Got, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{GRE, TCP, UDP};
use conntrack::Method;
use scheduler::RealServerId;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

/// One connection through one service, with everything that is to be seen of it.
struct Exchange {
    bed: Bed,
    config: Config,
    server: u32,
    method: Method,
    request: Talk,
    /// As the server sees the client; from its first packet on.
    inside: Option<Talk>,
    /// Packets and bytes in, packets and bytes out.
    counted: [u64; 4],
    step: usize,
}

impl Exchange {
    /// With service number `service` of everything.
    fn new(service: usize) -> Exchange {
        let config = Config::everything();
        let service = &config.services[service];
        let client = if service.address.is_ipv4() {
            "10.64.0.7:40001"
        } else {
            "[fd00:64::7]:40001"
        };
        Exchange {
            bed: Bed::new(&config),
            server: service.servers[0].id,
            method: service.servers[0].method,
            request: Talk {
                protocol: service.protocol,
                source: socket(client),
                destination: service.address,
            },
            inside: None,
            counted: [0; 4],
            step: 0,
            config,
        }
    }

    fn real(&self) -> SocketAddr {
        let mut config = self.config.clone();
        config.server(self.server).address
    }

    fn about(&self) -> String {
        format!(
            "step {} of {:?} by {:?}",
            self.step, self.request, self.method
        )
    }

    fn request(&mut self, flags: TcpFlags, payload: &[u8]) {
        self.step += 1;
        let frame = self.request.packet(flags, payload);
        let sent = Got::of(&frame);
        let seen = self.bed.send_one(0, CLIENTS, &frame);
        self.counted[0] += 1;
        self.counted[1] += sent.len as u64;
        assert_eq!(seen.side, SERVERS, "{}", self.about());
        assert_eq!(seen.from(), director_mac(SERVERS), "{}", self.about());
        assert_eq!(seen.to(), mac_of(self.real().ip()), "{}", self.about());
        let mut got = seen.packet();
        if self.method == Method::Tun {
            assert_eq!(got.talk.destination.ip(), self.real().ip());
            assert_eq!((got.ttl, got.tos), (63, 0));
            got = got.inner();
        }
        let inside = match self.method {
            Method::Nat => Talk {
                destination: self.real(),
                ..self.request
            },
            Method::FullNat => Talk {
                destination: self.real(),
                source: SocketAddr::new(
                    ip(if self.real().is_ipv4() {
                        "10.2.0.200"
                    } else {
                        "fd00:2::200"
                    }),
                    self.inside
                        .map_or(got.talk.source.port(), |inside| inside.source.port()),
                ),
                ..self.request
            },
            _ => self.request,
        };
        self.inside = Some(inside);
        let expected = Got {
            talk: inside,
            ttl: 63,
            ..sent
        };
        assert_eq!(got, expected, "{}", self.about());
    }

    fn reply(&mut self, flags: TcpFlags, payload: &[u8]) {
        if !self.method.sees_replies() {
            return;
        }
        self.step += 1;
        let inside = self.inside.expect("the client begins");
        let talk = Talk {
            source: inside.destination,
            destination: inside.source,
            ..inside
        };
        let frame = talk.packet(flags, payload);
        let sent = Got::of(&frame);
        let seen = self.bed.send_one(0, SERVERS, &frame);
        self.counted[2] += 1;
        self.counted[3] += sent.len as u64;
        assert_eq!(seen.side, CLIENTS, "{}", self.about());
        assert_eq!(seen.from(), director_mac(CLIENTS), "{}", self.about());
        let gateway = CLIENT_GATEWAYS[usize::from(!self.request.source.is_ipv4())];
        assert_eq!(seen.to(), mac_of(ip(gateway)), "{}", self.about());
        let talk = Talk {
            source: self.request.destination,
            destination: self.request.source,
            ..self.request
        };
        assert_eq!(
            seen.packet(),
            Got {
                talk,
                ttl: 63,
                ..sent
            },
            "{}",
            self.about()
        );
    }

    /// Connections that count as active and inactive.
    fn load(&self, expected: (u32, u32)) {
        assert_eq!(self.config.load(self.server), expected, "{}", self.about());
    }

    fn check_counters(&self) {
        let stats = self.bed.stats[0].server(RealServerId(self.server)).unwrap();
        let counted = [
            &stats.in_packets,
            &stats.in_bytes,
            &stats.out_packets,
            &stats.out_bytes,
        ];
        assert_eq!(
            counted.map(|counter| counter.load(Relaxed)),
            self.counted,
            "{}",
            self.about()
        );
        assert_eq!(stats.connections.load(Relaxed), 1);
    }
}

fn services(protocol: u8) -> Vec<usize> {
    let everything = Config::everything();
    let services = everything.services.iter().enumerate();
    let found: Vec<usize> = services
        .filter(|(_, service)| service.protocol == protocol)
        .map(|(index, _)| index)
        .collect();
    assert_eq!(found.len(), 2 * METHODS.len());
    found
}

#[test]
fn a_tcp_connection_passes_in_every_mode_and_family_and_is_counted() {
    for service in services(TCP) {
        let mut exchange = Exchange::new(service);
        exchange.request(SYN, b"");
        exchange.load((1, 0));
        exchange.reply(SYN_ACK, b"");
        exchange.request(ACK, b"");
        exchange.load((1, 0));
        exchange.request(DATA, b"GET / HTTP/1.0\r\n\r\n");
        exchange.reply(DATA, b"HTTP/1.0 200 OK\r\n\r\nodd");
        exchange.request(ACK, b"");
        exchange.load((1, 0));
        exchange.request(FIN, b"");
        exchange.load((0, 1));
        exchange.reply(FIN, b"");
        exchange.request(ACK, b"");
        exchange.load((0, 1));
        exchange.check_counters();
        let mut books = exchange.bed.books();
        assert_eq!(books.remove("forwarded"), Some(exchange.step as u64));
        exchange.bed.pass(125);
        exchange.load((0, 0));
        assert_eq!(exchange.bed.connections(), 0);
    }
}

#[test]
fn a_udp_flow_passes_in_every_mode_and_family_and_is_counted() {
    for service in services(UDP) {
        let mut exchange = Exchange::new(service);
        exchange.request(ACK, b"query");
        exchange.load((0, 1));
        exchange.reply(ACK, b"answer");
        exchange.request(ACK, b"");
        exchange.reply(ACK, b"");
        exchange.load((0, 1));
        exchange.check_counters();
        exchange.bed.pass(305);
        exchange.load((0, 0));
        assert_eq!(exchange.bed.connections(), 0);
    }
}

#[test]
fn a_tunnel_leads_to_either_family_from_either_family() {
    for (client, vip, server, protocol) in [
        ("10.64.0.7:40001", "10.0.0.100:80", "10.2.0.11:80", 4),
        ("10.64.0.7:40001", "10.0.0.100:80", "[fd00:2::11]:80", 4),
        ("[fd00:64::7]:40001", "[fd00:a::100]:80", "10.2.0.11:80", 41),
        (
            "[fd00:64::7]:40001",
            "[fd00:a::100]:80",
            "[fd00:2::11]:80",
            41,
        ),
    ] {
        for (encapsulation, protocol) in ENCAPSULATIONS.into_iter().zip([protocol, GRE, GRE, UDP]) {
            let mut config = Config::of(TCP, vip, Method::Tun, server);
            config.server(0).encapsulation = encapsulation;
            let mut bed = Bed::new(&config);
            let talk = Talk::tcp(client, vip);
            for flags in [SYN, ACK, DATA] {
                let frame = talk.packet(flags, b"through");
                let seen = bed.send_one(0, CLIENTS, &frame);
                assert_eq!(
                    (seen.to(), seen.side),
                    (mac_of(socket(server).ip()), SERVERS)
                );
                let outer = seen.packet();
                assert_eq!(outer.talk.protocol, protocol, "{server}");
                assert_eq!(outer.talk.destination.ip(), socket(server).ip());
                assert_eq!(
                    outer.inner(),
                    Got {
                        ttl: 63,
                        ..Got::of(&frame)
                    }
                );
            }
            assert_eq!(config.load(0), (1, 0));
        }
    }
}

#[test]
fn a_tunnel_without_room_tells_the_client_what_its_headers_leave() {
    for (client, vip, server, outer_len) in [
        ("10.64.0.7:40001", "10.0.0.100:80", "10.2.0.11:80", 20),
        ("10.64.0.7:40001", "10.0.0.100:80", "[fd00:2::11]:80", 40),
        ("[fd00:64::7]:40001", "[fd00:a::100]:80", "10.2.0.11:80", 20),
        (
            "[fd00:64::7]:40001",
            "[fd00:a::100]:80",
            "[fd00:2::11]:80",
            40,
        ),
    ] {
        for encapsulation in ENCAPSULATIONS {
            let mut config = Config::of(TCP, vip, Method::Tun, server);
            config.server(0).encapsulation = encapsulation;
            let mut bed = Bed::new(&config);
            let talk = Talk::tcp(client, vip);
            bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
            let room = 1500 - outer_len - encapsulation.header_len();
            let headers = if vip.starts_with('[') { 60 } else { 40 };
            let fits = talk.whole(DATA, &vec![7; room - headers]);
            let seen = bed.send_one(0, CLIENTS, &fits);
            assert_eq!(seen.packet().len, 1500);
            assert_eq!(seen.packet().inner().payload.len(), room - headers);
            let seen = bed.send(0, CLIENTS, &talk.whole(DATA, &vec![7; room - headers + 1]));
            let ((.., told), about) = seen[0].packet().error();
            assert_eq!((told as usize, about), (room, talk), "{encapsulation:?}");
        }
    }
}

#[test]
fn a_burst_keeps_its_order_and_its_first_packet_serves_the_others() {
    for method in METHODS {
        let config = Config::of(TCP, "10.0.0.100:80", method, "10.2.0.11:80");
        let mut bed = Bed::new(&config);
        let talks = [1, 2, 3].map(|port| Talk::tcp("10.64.0.7:1", "10.0.0.100:80").at_port(port));
        bed.send_one(0, CLIENTS, &talks[0].at_port(9).packet(SYN, b""));
        for (index, flags) in [SYN, ACK, DATA, DATA, DATA, FIN].into_iter().enumerate() {
            for talk in &talks {
                let payload = [u8::try_from(index).unwrap()];
                let mut frame = talk.packet(flags, &payload);
                super::bed::address(&mut frame, CLIENTS);
                assert!(bed.wires[0][CLIENTS].inject(&frame));
            }
        }
        let seen = bed.settle();
        let order: Vec<u8> = seen
            .iter()
            .map(|seen| {
                let got = seen.packet();
                let got = if method == Method::Tun {
                    got.inner()
                } else {
                    got
                };
                got.payload[0]
            })
            .collect();
        let expected: Vec<u8> = (0..6).flat_map(|index| [index; 3]).collect();
        assert_eq!(order, expected, "{method:?}");
        assert_eq!(bed.books()["connections"], 4);
        assert_eq!(config.load(0), (1, 3));
    }
}
