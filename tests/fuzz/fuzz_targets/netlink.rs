//! Any datagram as messages of the kernel's IPVS: each that asks for it is answered, whatever it says, and the director goes on.
#![no_main]

use control::Director;
use control::config::Configuration;
use control::guard::{Role, Roles};
use control::manage::{Actor, Manager};
use control::netlink::Netlink;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

const CONFIGURATION: &str = r#"
[director]
connections = 1000
servers = 1000
[port.lan]
driver = "memory"
addresses = ["10.0.0.1/8"]
[[service]]
listen = "tcp 10.0.0.100:80"
method = "nat"
server = [{ address = "10.0.0.11" }]
"#;

static NETLINK: LazyLock<Netlink> = LazyLock::new(|| {
    let accepted = Configuration::parse("fuzz", CONFIGURATION).expect("it is a good one");
    let director = Director::start(accepted.configuration).expect("memory ports are always there");
    Netlink::new(Arc::new(Manager::new(Arc::new(director), 1)))
});

fuzz_target!(|bytes: &[u8]| {
    let actor = Actor {
        name: "fuzz".to_owned(),
        way: "netlink".to_owned(),
    };
    let answer = NETLINK.answer(bytes, &actor, Roles::default().with(Role::Admin));
    for datagram in &answer.datagrams {
        assert!(datagram.len() >= 16, "an answer has a header");
    }
});
