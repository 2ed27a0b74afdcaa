//! A configuration as text again: what was read comes back, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::config::Configuration;
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

fn parse(text: &str) -> Configuration {
    let accepted = Configuration::parse("f.toml", text);
    let accepted = accepted.unwrap_or_else(|error| panic!("{error}\n{text}"));
    accepted.configuration
}

fn comes_back(text: &str) -> String {
    let configuration = parse(text);
    let written = configuration.to_toml();
    assert_eq!(parse(&written), configuration, "{written}");
    assert_eq!(parse(&written).to_toml(), written);
    written
}

/// Every key, none by its default.
const EVERYTHING: &str = r#"
[director]
workers = 2
connections = 70_000
servers = 100
half_open_percent = 50
idle = "sleep"
table = "/dev/shm/uvs/table"
state = "/var/lib/uvs/state.toml"
netlink = "unix:/tmp/other.sock"
proc = "/run/uvs/proc"
pin = [1, 0]
control = "unix:/tmp/uvs.sock"
[access]
group = "uvs"
viewers = ["group:netops", "user:alice", "uid:1000", "gid:7", "san:spiffe://example.org/look"]
operators = ["user:bob"]
admins = ["user:carol"]
captures = ["user:dave"]
audit = "/var/log/uvs/audit.jsonl"
rate = 10
[access.tls]
listen = "10.1.0.1:7443"
certificate = "/etc/uvs/tls/uvsd.crt"
key = "/etc/uvs/tls/uvsd.key"
client_ca = "/etc/uvs/tls/clients.crt"
[timeouts]
tcp = 1
tcp_fin = 2
udp = 3
[ipvs]
conn_reuse_mode = 2
expire_nodest_conn = true
expire_quiescent_template = true
sloppy_tcp = true
sloppy_sctp = true
schedule_icmp = true
nat_icmp_send = true
pmtu_disc = false
lblc_expiration = 10
lblcr_expiration = 20
secure_tcp = 1
drop_packet = 2
drop_entry = 3
am_droprate = 4
amemthresh = 5
[metrics]
listen = "[::1]:9108"
services = false
servers = false
neighbours = false
port_statistics = false
[port.wan]
driver = "af_packet"
interface = "eth0\"'\\"
addresses = ["10.1.0.1/24", "fd00:1::1/64"]
answered_by = "kernel"
[port.lan]
driver = "memory"
addresses = ["10.2.0.1/24"]
[port.xdp]
driver = "af_xdp"
interface = "eth2"
checksums = "trust"
[port.auto]
driver = "auto"
interface = "eth3"
checksums = "verify"
device = "net_null0"
[port.fast]
driver = "dpdk"
device = "0000:01:00.0"
mtu = 9000
rss = "source"
exception = "tap"
exception_interface = "tap0"
[port.replay]
driver = "pcap"
file = "in.pcap"
infinite = true
output = "out.pcap"
[dpdk]
huge_pages = false
memory_mib = 100
arguments = ["--log-level=pmd:8"]
receive_descriptors = 64
transmit_descriptors = 128
mbufs = 4096
[[route]]
to = "10.3.0.0/16"
via = "10.2.0.254"
port = "lan"
[[lip_pool]]
name = "pool"
addresses = ["10.2.0.200", "10.2.0.201"]
ports = "2000-3000"
[[mark]]
mark = 7
port = "wan"
source = "10.0.0.0/8"
destination = "10.1.0.99/32"
protocol = "udp"
source_ports = "1-1000"
destination_ports = "53"
[[service]]
listen = "mark 7"
scheduler = "mh"
flags = ["mh-port", "mh-fallback"]
method = "fullnat"
lip_pool = "pool"
addresses = ["10.1.0.99"]
[[service.server]]
address = "10.2.0.11:53"
[[service]]
listen = "tcp 10.1.0.100:80"
scheduler = "wlc"
slow_start = 30
method = "nat"
helper = "ftp"
persistence_timeout = 100
persistence_granularity = "255.255.255.0"
[[service.server]]
address = "10.2.0.11"
weight = 5
upper = 10
lower = 4
[[service.server]]
address = "10.2.0.12"
method = "tun"
tunnel = "gue"
tunnel_port = 6080
tunnel_checksum = "remote"
[[service]]
listen = "udp [fd00:1::100]:5060"
method = "tun"
one_packet = true
persistence_timeout = 60
persistence_granularity = "64"
persistence_engine = "sip"
[[service.server]]
address = "[fd00:1::11]:5060"
tunnel = "gre"
tunnel_checksum = "full"
"#;

#[test]
fn every_key_comes_back() {
    let written = comes_back(EVERYTHING);
    let lines = EVERYTHING.lines().filter(|line| line.contains(" = "));
    for line in lines {
        let (key, _) = line.split_once(" = ").unwrap();
        assert!(written.contains(&format!("{key} = ")), "{key}:\n{written}");
    }
}

#[test]
fn what_is_by_default_is_left_out() {
    let written = comes_back("[director]\nworkers = 1\n[port.p]\ndriver = \"memory\"\n");
    assert_eq!(written, "[port.p]\ndriver = \"memory\"\n");
}

#[test]
fn the_examples_come_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let examples: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(examples.len() >= 5);
    for example in examples {
        comes_back(&std::fs::read_to_string(example).unwrap());
    }
}

proptest! {
    #[test]
    fn services_and_servers_come_back(
        services in proptest::collection::vec(
            (1..60_000u16, 0..4usize, any::<bool>(), 0..100u32, proptest::collection::vec((any::<u16>(), 0..5u32, 0..4usize), 0..5)),
            0..6,
        ),
    ) {
        const METHODS: [&str; 4] = ["nat", "dr", "tun", "fullnat"];
        let mut text = "[port.p]\ndriver = \"memory\"\naddresses = [\"10.0.0.1/16\"]\n\
                        [[lip_pool]]\nname = \"l\"\naddresses = [\"10.0.9.1\"]\n".to_owned();
        for (place, (port, method, persistent, slow_start, servers)) in services.iter().enumerate() {
            write!(
                text,
                "[[service]]\nlisten = \"tcp 10.0.1.1{place}:{port}\"\nmethod = \"{}\"\nlip_pool = \"l\"\nslow_start = {slow_start}\n",
                METHODS[*method],
            ).unwrap();
            if *persistent {
                text.push_str("persistence_timeout = 360\n");
            }
            for (server, (weight, upper, method)) in servers.iter().enumerate() {
                write!(
                    text,
                    "[[service.server]]\naddress = \"10.0.2.1{server}:{port}\"\nweight = {weight}\nupper = {upper}\nmethod = \"{}\"\n",
                    METHODS[*method],
                ).unwrap();
            }
        }
        // Some of these are refused: what is accepted must come back.
        if let Ok(accepted) = Configuration::parse("f.toml", &text) {
            let written = accepted.configuration.to_toml();
            prop_assert_eq!(parse(&written), accepted.configuration);
        }
    }
}
