//! What is compiled, step by step.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use super::*;
use dataplane::snapshot::Publisher;
use std::collections::BTreeMap;

const TEXT: &str = r#"
[director]
servers = 20
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[lip_pool]]
name = "lips"
addresses = ["10.1.0.200"]
[[service]]
listen = "tcp 10.1.0.100:80"
method = "nat"
server = [{ address = "10.1.0.11" }, { address = "10.1.0.12", upper = 9 }]
[[service]]
listen = "udp 10.1.0.100:53"
method = "tun"
server = [{ address = "10.1.0.13" }]
[[service]]
listen = "tcp 10.1.0.101:80"
method = "fullnat"
lip_pool = "lips"
server = [{ address = "10.1.0.14", weight = 3 }]
"#;

/// A compiler, and what it compiled last.
struct Bed {
    compiler: Compiler,
    publisher: Arc<Publisher>,
    text: String,
}

impl Bed {
    fn new() -> Bed {
        let info = PortInfo {
            name: "lan".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "memory",
        };
        let neighbours = Arc::new(NeighbourTable::new(64));
        let compiler = Compiler::new(vec![info], neighbours, Vec::new(), 20);
        let mut bed = Bed {
            compiler,
            publisher: Publisher::new(0),
            text: TEXT.to_owned(),
        };
        let first = bed.compile(&configuration(TEXT), None);
        bed.publisher.publish(first);
        bed
    }

    fn compile(&mut self, new: &Configuration, old: Option<&Configuration>) -> Snapshot {
        let before = Before {
            configuration: old,
            snapshot: &self.publisher.current(),
            seen_by_all: 0,
        };
        self.compiler.compile(new, &before, Ticks(0)).unwrap()
    }

    /// The next configuration; returns the snapshots before and after.
    fn follow(&mut self, from: &str, to: &str) -> [Arc<Snapshot>; 2] {
        let old = configuration(&self.text);
        assert!(self.text.contains(from), "{from}");
        self.text = self.text.replace(from, to);
        let new = configuration(&self.text);
        let snapshot = self.compile(&new, Some(&old));
        // What was compiled on this version once is compiled whole the next time.
        let whole = self.compile(&new, Some(&old));
        assert_eq!(told(&snapshot), told(&whole), "{to}");
        let (new, old) = self.publisher.publish(snapshot);
        [old, new]
    }
}

fn configuration(text: &str) -> Configuration {
    let accepted = Configuration::parse("f", text);
    accepted
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration
}

/// All that is in a snapshot.
fn told(of: &Snapshot) -> String {
    let services: BTreeMap<_, _> = of.services.iter().collect();
    let rest = (&of.ports, of.route_generation, &of.ipvs);
    format!("{services:#?}\n{:#?}\n{rest:#?}", of.servers)
}

#[test]
fn what_is_kept_is_as_if_all_were_compiled_again() {
    let mut bed = Bed::new();
    for (from, to) in [
        (
            "\"10.1.0.11\" }",
            "\"10.1.0.11\", weight = 7, upper = 3 }, { address = \"10.1.0.15\" }",
        ),
        ("[[lip_pool]]", "[ipvs]\npmtu_disc = false\n[[lip_pool]]"),
        ("\"10.1.0.200\"", "\"10.1.0.200\", \"10.1.0.201\""),
        (
            "[ipvs]",
            "[[route]]\nto = \"10.1.0.12/32\"\nvia = \"10.1.0.254\"\n[ipvs]",
        ),
        ("\"10.1.0.1/24\"", "\"10.1.0.2/24\""),
        (", { address = \"10.1.0.12\", upper = 9 }", ""),
        ("udp 10.1.0.100:53", "udp 10.1.0.102:53"),
        ("udp 10.1.0.102:53", "udp 10.1.0.100:53"),
        ("[ipvs]\npmtu_disc = false\n", ""),
    ] {
        bed.follow(from, to);
    }
}

#[test]
fn services_that_do_not_change_are_not_compiled() {
    let mut bed = Bed::new();
    let [old, new] = bed.follow("\"10.1.0.11\"", "\"10.1.0.11\", weight = 7");
    let kept = |index: usize| {
        let [old, new] = [&old, &new].map(|of| of.servers[index].as_ref().unwrap());
        Arc::ptr_eq(old, new)
    };
    assert_eq!([0, 1, 2, 3].map(kept), [false, false, true, true]);
}

#[test]
fn what_was_not_published_leaves_nothing_behind() {
    let mut bed = Bed::new();
    let good = configuration(TEXT);
    let other = configuration(&TEXT.replace("\"10.1.0.14\", weight = 3", "\"10.1.0.15\""));
    let number = |bed: &Bed, last: u8| {
        let known = bed.compiler.numbered();
        let of = |key: &ServerKey| key.1 == ([10, 1, 0, last], 80).into();
        known.filter(|(_, key)| of(key)).count()
    };
    bed.compile(&other, Some(&good));
    let again = bed.compile(&good, Some(&good));
    bed.publisher.publish(again);
    let current = bed.publisher.current();
    let [removed, stays] = [4, 3].map(|index: usize| current.servers[index].as_ref());
    assert!(!removed.unwrap().present && stays.unwrap().present);
    assert_eq!(stays.unwrap().load.last_weight(), Weight(3));
    assert_eq!([14, 15].map(|last| number(&bed, last)), [1, 1]);
}
