//! SIP by NAT with sipp: each call stays with one server, whichever sockets its messages come from. Needs root: fails
//! without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method};
use e2e::sip::{self, Calls, Phone, Sockets};
use e2e::{Configuration, Scene, eventually};
use std::net::SocketAddr;
use std::time::Duration;

const SIP: u16 = 5060;
const CALLS: u32 = 500;
const SHORT: Duration = Duration::ZERO;
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn calls_of_a_socket_each_stay_with_their_servers() {
    let scene = SipScene::new(Family::V4, "");
    let calls = scene.call(Sockets::Each, CALLS, SHORT).finish();
    assert_flawless(calls, CALLS);
    assert!(scene.templates() > 0);
    let gone = eventually(PATIENCE, || (scene.templates() == 0).then_some(()));
    assert!(gone.is_some(), "{} templates stay", scene.templates());
    assert_eq!(scene.scene.uvsd.status().connections(), 0);
    scene.finish(CALLS);
}

/// There is a connection for the socket, and its server is asked for every call.
#[test]
fn calls_of_one_socket_have_one_server() {
    let scene = SipScene::new(Family::V4, "");
    assert_flawless(scene.call(Sockets::One, 100, SHORT).finish(), 100);
    let [first, second] = scene.counts();
    assert_eq!(
        (first.begun.max(second.begun), first.begun.min(second.begun)),
        (100, 0)
    );
}

/// There are no connections: every message finds its server by its call, and answers go out in the service's name.
#[test]
fn calls_of_one_socket_stay_with_their_servers_packet_by_packet() {
    let scene = SipScene::new(Family::V4, "one_packet = true");
    assert_flawless(scene.call(Sockets::One, CALLS, SHORT).finish(), CALLS);
    let templates = scene.templates();
    assert!(templates > 0);
    let entries = scene.scene.uvsd.status().connections();
    assert!(entries <= u64::from(templates), "{entries}, {templates}");
    let gone = eventually(PATIENCE, || (scene.templates() == 0).then_some(()));
    assert!(gone.is_some(), "{} templates stay", scene.templates());
    scene.finish(CALLS);
}

#[test]
fn calls_over_ipv6_stay_with_their_servers_packet_by_packet() {
    let scene = SipScene::new(Family::V6, "one_packet = true");
    assert_flawless(scene.call(Sockets::Each, CALLS, SHORT).finish(), CALLS);
    scene.finish(CALLS);
}

/// Server 2 gets weight 0 while it has half of the calls.
#[test]
fn calls_go_on_while_their_server_is_drained() {
    const HALF: u32 = 100;
    let mut scene = SipScene::new(Family::V4, "one_packet = true");
    let length = Duration::from_millis(1500);
    let calls = scene.call(Sockets::One, HALF, length);
    let begun = eventually(PATIENCE, || (scene.templates() == HALF).then_some(()));
    assert!(
        begun.is_some(),
        "{} of {HALF} calls began",
        scene.templates()
    );
    scene.weigh([1, 0]);
    assert_flawless(calls.finish(), HALF);
    assert_flawless(scene.call(Sockets::One, HALF, SHORT).finish(), HALF);
    let [first, second] = scene.finish(2 * HALF);
    let shares = [first, second].map(|calls| calls.good);
    assert_eq!(shares, [u64::from(HALF + HALF / 2), u64::from(HALF / 2)]);
}

/// All of them good, and next to nothing was said twice: only when the machine has no time for half a second.
fn assert_flawless(calls: Calls, count: u32) {
    let count = u64::from(count);
    assert_eq!((calls.good, calls.failed), (count, 0), "{calls:?}");
    assert_eq!(calls.strangers, 0, "{calls:?}");
    assert!(calls.retransmissions <= count / 20, "{calls:?}");
}

/// Two servers of one service.
struct SipScene {
    scene: Scene,
    keys: String,
    servers: [sip::Server; 2],
}

impl SipScene {
    /// `keys` are more keys of the service.
    fn new(family: Family, keys: &str) -> SipScene {
        let keys = format!("{keys}\npersistence_engine = \"sip\"\npersistence_timeout = 5");
        let mut configuration = Configuration {
            // A call's connection is to be gone before its template's time is over: that would last a minute longer.
            udp: 2,
            ..Configuration::new(Method::Nat, family, 2)
        };
        configuration.more = service(&configuration, [1, 1], &keys);
        let scene = Scene::new(configuration, 2);
        let servers = [0, 1].map(|index| {
            let server = &scene.topology.servers[usize::from(index)];
            let listen = real(&scene.configuration, index);
            sip::Server::start(&server.namespace, scene.folder(), listen)
        });
        SipScene {
            scene,
            keys,
            servers,
        }
    }

    fn call(&self, sockets: Sockets, calls: u32, length: Duration) -> Phone {
        let family = self.scene.configuration.family;
        let client = (self.scene.client(), Host::Client.address(family));
        let vip = self.scene.virtual_address(SIP);
        Phone::start(client, self.scene.folder(), vip, sockets, calls, length)
    }

    /// How many calls lead to a server.
    fn templates(&self) -> u32 {
        let servers = self.scene.uvsd.servers(SIP);
        servers.iter().map(|server| server.persistent).sum()
    }

    fn weigh(&mut self, weights: [u16; 2]) {
        let configuration = &mut self.scene.configuration;
        configuration.more = service(configuration, weights, &self.keys);
        self.scene.uvsd.reload(configuration);
    }

    /// What the servers counted.
    fn counts(self) -> [Calls; 2] {
        assert_eq!(self.scene.uvsd.status().drops(), []);
        self.servers.map(sip::Server::finish)
    }

    /// Both servers had calls, all calls together, and of none a part.
    fn finish(self, calls: u32) -> [Calls; 2] {
        let counts = self.counts();
        let good: u64 = counts.iter().map(|counted| counted.good).sum();
        assert_eq!(good, u64::from(calls), "{counts:?}");
        for counted in counts {
            assert!(counted.good > u64::from(calls / 5), "{counts:?}");
            assert_eq!(
                (counted.begun, counted.strangers),
                (counted.good, 0),
                "{counts:?}"
            );
        }
        counts
    }
}

/// The port is the virtual one: it stands in messages.
fn real(configuration: &Configuration, index: u8) -> SocketAddr {
    (Host::Server(index).address(configuration.family), SIP).into()
}

fn service(configuration: &Configuration, weights: [u16; 2], keys: &str) -> String {
    let listen = format!("udp {}", configuration.virtual_address(SIP));
    let [first, second] = weights;
    let servers = [
        (real(configuration, 0), first),
        (real(configuration, 1), second),
    ];
    configuration.service(&listen, &servers, keys)
}
