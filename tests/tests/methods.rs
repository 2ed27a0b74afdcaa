//! Every way of forwarding, for both IP versions, with one worker and with two: the programs that people use find
//! their servers through uvsd as if it were not there. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method};
use e2e::client::{self, Connections, Download};
use e2e::{Configuration, ECHO_PORT, HTTP_PORT, Payload, Scene, udp};

const REQUESTS: u64 = 10_000;
/// Distinct client ports of the UDP echo, below those that the kernel gives out itself.
const PORTS: std::ops::Range<u16> = 10_000..15_000;
const LINK_MTU: usize = 1500;

#[test]
fn nat_ipv4_one_worker() {
    everything_is_served(Method::Nat, Family::V4, 1);
}

#[test]
fn nat_ipv4_two_workers() {
    everything_is_served(Method::Nat, Family::V4, 2);
}

#[test]
fn nat_ipv6_one_worker() {
    everything_is_served(Method::Nat, Family::V6, 1);
}

#[test]
fn nat_ipv6_two_workers() {
    everything_is_served(Method::Nat, Family::V6, 2);
}

#[test]
fn dr_ipv4_one_worker() {
    everything_is_served(Method::Dr, Family::V4, 1);
}

#[test]
fn dr_ipv4_two_workers() {
    everything_is_served(Method::Dr, Family::V4, 2);
}

#[test]
fn dr_ipv6_one_worker() {
    everything_is_served(Method::Dr, Family::V6, 1);
}

#[test]
fn dr_ipv6_two_workers() {
    everything_is_served(Method::Dr, Family::V6, 2);
}

#[test]
fn tun_ipv4_one_worker() {
    everything_is_served(Method::Tun, Family::V4, 1);
}

#[test]
fn tun_ipv4_two_workers() {
    everything_is_served(Method::Tun, Family::V4, 2);
}

#[test]
fn tun_ipv6_one_worker() {
    everything_is_served(Method::Tun, Family::V6, 1);
}

#[test]
fn tun_ipv6_two_workers() {
    everything_is_served(Method::Tun, Family::V6, 2);
}

#[test]
fn fullnat_ipv4_one_worker() {
    everything_is_served(Method::FullNat, Family::V4, 1);
}

#[test]
fn fullnat_ipv4_two_workers() {
    everything_is_served(Method::FullNat, Family::V4, 2);
}

#[test]
fn fullnat_ipv6_one_worker() {
    everything_is_served(Method::FullNat, Family::V6, 1);
}

#[test]
fn fullnat_ipv6_two_workers() {
    everything_is_served(Method::FullNat, Family::V6, 2);
}

fn everything_is_served(method: Method, family: Family, workers: u8) {
    let scene = Scene::new(Configuration::new(method, family, workers), 2);
    servers_see_what_the_method_promises(&scene);
    every_datagram_comes_back(&scene);
    let rates = [Connections::Close, Connections::KeepAlive].map(|connections| {
        let load = client::wrk(scene.client(), &scene.url("name"), connections, REQUESTS);
        load.assert_flawless(REQUESTS);
        assert_eq!(load.bodies.len(), 2, "both servers take part: {load:?}");
        load.rate()
    });
    let streams = [false, true].map(|reverse| {
        let stream = scene.iperf(reverse);
        assert!(stream.rate > 1.0, "{stream:?}");
        // A ring that is short of room for the segments of a tunnel is flushed on the way.
        assert_eq!(
            scene.uvsd.status().dropped("transmit-full"),
            0,
            "{stream:?}"
        );
        assert!(stream.retransmits <= stream.segments / 50, "{stream:?}");
        stream
    });
    let download = Download::start(scene.client(), &scene.url("large")).finish();
    let upload = upload(&scene);
    let status = scene.uvsd.status();
    println!(
        "{method} {family}, {workers} workers: {:.0} requests/s on new connections, {:.0} on kept ones; \
         {download:.0} MB/s down, {upload:.0} MB/s up; iperf3 {:.0} MB/s up ({} sent again), {:.0} MB/s down ({}); \
         dropped: {:?}",
        rates[0],
        rates[1],
        streams[0].rate,
        streams[0].retransmits,
        streams[1].rate,
        streams[1].retransmits,
        status.drops(),
    );
    assert!(
        status.forwarded().iter().all(|frames| *frames > 0),
        "a worker got nothing: {status:?}"
    );
    assert!(status.0.workers.iter().all(|worker| worker.running));
}

/// The servers are asked at the virtual address or their own, and by the client or the director, as the method says.
fn servers_see_what_the_method_promises(scene: &Scene) {
    let Configuration { method, family, .. } = scene.configuration;
    let vip = scene.virtual_address(HTTP_PORT);
    let lips = [0, 1].map(|index| Host::Lip(index).address(family).to_string());
    for answer in client::ask(scene.client(), vip, "name", 10) {
        let words: Vec<_> = answer.split(' ').collect();
        let [name, peer, local, port] = words[..] else {
            panic!("nginx answered {answer:?}");
        };
        let number: u8 = name.strip_prefix("server").unwrap().parse().unwrap();
        let expected = if method.keeps_destination() {
            vip
        } else {
            (Host::Server(number - 1).address(family), HTTP_PORT + 8000).into()
        };
        assert_eq!(
            (local, port),
            (
                expected.ip().to_string().as_str(),
                expected.port().to_string().as_str()
            ),
            "{answer}"
        );
        if method == Method::FullNat {
            assert!(lips.iter().any(|lip| lip == peer), "{answer}");
        } else {
            assert_eq!(peer, Host::Client.address(family).to_string(), "{answer}");
        }
    }
}

/// One datagram from each of 5,000 ports, sent once, and the largest that the way takes without fragments.
fn every_datagram_comes_back(scene: &Scene) {
    let Configuration { method, family, .. } = scene.configuration;
    let vip = scene.virtual_address(ECHO_PORT);
    let echoes = scene.client().run(|| udp::echo(vip, PORTS, 32));
    assert!(
        echoes.lost.is_empty(),
        "{} of {} lost, from ports {:?}",
        echoes.lost.len(),
        PORTS.len(),
        echoes.lost
    );
    assert_eq!(echoes.answered[..2], [2500, 2500], "in turn");
    let ip = if family == Family::V4 { 20 } else { 40 };
    let tunnel = if method == Method::Tun { ip } else { 0 };
    let largest = LINK_MTU - tunnel - ip - 8;
    let echoes = scene
        .client()
        .run(|| udp::echo(vip, 15_000..15_100, largest));
    assert!(echoes.lost.is_empty(), "of {largest} bytes: {echoes:?}");
}

/// Puts the payload to one of the servers and looks what it has; MB/s.
fn upload(scene: &Scene) -> f64 {
    let rate = client::upload(scene.client(), &scene.url("put/large"));
    let sums: Vec<_> = scene
        .nginx
        .iter()
        .filter_map(|nginx| nginx.take_upload("large"))
        .collect();
    assert_eq!(
        sums,
        [Payload::large().sha256.as_str()],
        "what was uploaded is something else"
    );
    rate
}
