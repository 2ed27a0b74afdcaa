//! DNS by every way of forwarding, with dig and dnsmasq: over UDP, over TCP, and with answers that take more than a
//! packet. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::topology::server_address;
use cli::lab::{Family, Method, Namespace};
use e2e::dns::{self, LONG_NAME, NAME};
use e2e::{Configuration, Process, Scene};
use std::net::SocketAddr;

/// The virtual port.
const DNS: u16 = 53;
/// Over UDP, whatever is said; without an answer when it is cut short.
const UDP: [&str; 3] = ["+notcp", "+ignore", "+bufsize=4096"];

/// dig's ports are random: less often than this one comes again, whose flow is known and has its server.
const PORTS_AGAIN: u64 = 8;

#[test]
fn nat_ipv4() {
    names_are_found(Method::Nat, Family::V4);
}

#[test]
fn nat_ipv6() {
    names_are_found(Method::Nat, Family::V6);
}

#[test]
fn dr_ipv4() {
    names_are_found(Method::Dr, Family::V4);
}

#[test]
fn dr_ipv6() {
    names_are_found(Method::Dr, Family::V6);
}

#[test]
fn tun_ipv4() {
    names_are_found(Method::Tun, Family::V4);
}

#[test]
fn tun_ipv6() {
    names_are_found(Method::Tun, Family::V6);
}

#[test]
fn fullnat_ipv4() {
    names_are_found(Method::FullNat, Family::V4);
}

#[test]
fn fullnat_ipv6() {
    names_are_found(Method::FullNat, Family::V6);
}

/// Each packet is scheduled by itself, and the answers go past the director.
#[test]
fn dr_ipv4_one_packet() {
    let scene = DnsScene::new(Method::Dr, Family::V4, "one_packet = true");
    assert_eq!(scene.answers(&UDP, 100), [50, 50]);
    assert_eq!(scene.scene.uvsd.status().connections(), 0);
}

fn names_are_found(method: Method, family: Family) {
    let scene = DnsScene::new(method, family, "");
    scene.assert_both_answer(&UDP, 100);
    scene.assert_both_answer(&["+tcp"], 50);
    for (options, count) in [(&UDP[..], 20), (&["+tcp"], 10)] {
        let question = [LONG_NAME, "TXT"];
        let answers = dns::dig(scene.client(), scene.vip(), options, question, count);
        assert!(answers.iter().all(|answer| *answer == dns::text()));
    }
    let status = scene.scene.uvsd.status();
    assert_eq!(status.drops(), []);
    assert!(status.connections() > 180 - PORTS_AGAIN, "{status:?}");
}

/// Two servers with dnsmasq, one worker.
struct DnsScene {
    scene: Scene,
    _servers: Vec<Process>,
}

impl DnsScene {
    /// `keys` are more keys of the UDP service.
    fn new(method: Method, family: Family, keys: &str) -> DnsScene {
        let mut configuration = Configuration::new(method, family, 1);
        let real = [0, 1].map(|index| (configuration.real_address(index, DNS), 1));
        let vip = configuration.virtual_address(DNS);
        for (protocol, keys) in [("udp", keys), ("tcp", "")] {
            let service = configuration.service(&format!("{protocol} {vip}"), &real, keys);
            configuration.more.push_str(&service);
        }
        let scene = Scene::new(configuration, 2);
        let servers = (0..2).zip(&scene.topology.servers).map(|(index, server)| {
            let listen = server_address(method, family, index, DNS);
            dns::serve(&server.namespace, index, listen)
        });
        let servers = servers.collect();
        DnsScene {
            scene,
            _servers: servers,
        }
    }

    fn client(&self) -> &Namespace {
        self.scene.client()
    }

    fn vip(&self) -> SocketAddr {
        self.scene.virtual_address(DNS)
    }

    /// Each server answers half of the questions.
    fn assert_both_answer(&self, options: &[&str], count: u64) {
        let answers = self.answers(options, count);
        assert_eq!(answers.iter().sum::<u64>(), count, "{answers:?}");
        assert!(answers[0].abs_diff(answers[1]) < PORTS_AGAIN, "{answers:?}");
    }

    /// How often each server's address was the answer.
    fn answers(&self, options: &[&str], count: u64) -> [u64; 2] {
        let count = usize::try_from(count).unwrap();
        let answers = dns::dig(self.client(), self.vip(), options, [NAME, "A"], count);
        [0, 1].map(|number| {
            let own = dns::address(number);
            answers.iter().filter(|answer| **answer == own).count() as u64
        })
    }
}
