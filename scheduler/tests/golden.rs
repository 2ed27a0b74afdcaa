//! Replays what a kernel's IPVS chose, recorded in `tests/golden`.
//!
//! A file says what is done to one service, in order, a line each; `record.py` there has a kernel do it and writes down
//! what it chose.
//!
//! ```text
//! scheduler NAME OPTION...
//! add A ADDRESS:PORT weight W [at most CONNECTIONS]
//! edit A weight W [at most CONNECTIONS]
//! delete A
//! open PROTOCOL SOURCE DESTINATION first I vary port|addr|both STRIDE -> the servers chosen, - for none
//! close I...
//! ```
//!
//! Connection number i comes from the source's port or address or both plus i times the stride.

#![allow(
    clippy::unwrap_used,
    reason = "a malformed recording is to fail the test"
)]

use scheduler::{
    Activity, Flow, Load, NAMES, Options, RealServer, RealServerId, Scheduler, Weight, create,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// A service as far as scheduling goes.
struct Service {
    scheduler: Box<dyn Scheduler>,
    /// Newest first.
    servers: Vec<RealServer>,
    /// Survives the server's deletion, as the kernel's counts do.
    loads: HashMap<char, Arc<Load>>,
    limits: HashMap<char, u32>,
    /// Connection number to server and activity.
    connections: HashMap<u32, (RealServerId, Activity)>,
}

fn letter_of(id: RealServerId) -> char {
    char::from_u32(id.0).expect("ids are letters")
}

impl Service {
    fn new(scheduler: Box<dyn Scheduler>) -> Self {
        let mut service = Self {
            scheduler,
            servers: Vec::new(),
            loads: HashMap::new(),
            limits: HashMap::new(),
            connections: HashMap::new(),
        };
        service.changed();
        service
    }

    fn changed(&mut self) {
        self.scheduler.servers_changed(&self.servers);
    }

    fn add(&mut self, letter: char, address: SocketAddr, weight: u16) {
        let server = RealServer {
            id: RealServerId(u32::from(letter)),
            address: address.ip(),
            port: address.port(),
            weight: Weight(weight),
            load: Arc::clone(self.loads.entry(letter).or_default()),
        };
        self.servers.insert(0, server);
    }

    /// Sets the upper connection threshold. None or a higher one clears the mark; a lower one is looked at when the
    /// next connection comes.
    fn limit(&mut self, letter: char, connections: Option<u32>) {
        let limit = connections.unwrap_or(0);
        let before = self.limits.insert(letter, limit).unwrap_or(0);
        if limit == 0 || limit > before {
            self.loads[&letter].set_overloaded(false);
        }
    }

    /// None of the recordings sees a server come back below its threshold.
    fn mark_overloaded(&self, letter: char) {
        let load = &self.loads[&letter];
        let limit = self.limits[&letter];
        if limit > 0 && load.active() + load.inactive() >= limit {
            load.set_overloaded(true);
        }
    }

    fn open(&mut self, number: u32, flow: &Flow) -> char {
        let Some(index) = self.scheduler.pick(flow, &self.servers) else {
            return '-';
        };
        let id = self.servers[index].id;
        let activity = if flow.protocol == 6 {
            Activity::Active
        } else {
            Activity::Inactive
        };
        self.loads[&letter_of(id)].shift(None, Some(activity));
        self.connections.insert(number, (id, activity));
        self.mark_overloaded(letter_of(id));
        letter_of(id)
    }

    /// Does nothing to a refused connection. One of a deleted server closes too: its own FIN still passes.
    fn close(&mut self, number: u32) {
        if let Some((id, activity)) = self.connections.remove(&number) {
            self.loads[&letter_of(id)].shift(Some(activity), Some(Activity::Inactive));
        }
    }

    fn server(&mut self, letter: char) -> &mut RealServer {
        self.servers
            .iter_mut()
            .find(|server| letter_of(server.id) == letter)
            .expect("a server of that letter")
    }
}

fn options_of(words: &[&str]) -> Options {
    let mut options = Options::default();
    for word in words {
        match *word {
            "sh-port" => options.sh_port = true,
            "sh-fallback" => options.sh_fallback = true,
            "mh-port" => options.mh_port = true,
            "mh-fallback" => options.mh_fallback = true,
            other => panic!("no option {other}"),
        }
    }
    options
}

/// The flow of connection `number` of a line that opens some.
fn flow(number: u32, words: &[&str]) -> Flow {
    let (source, destination): (SocketAddr, SocketAddr) =
        (words[2].parse().unwrap(), words[3].parse().unwrap());
    let step = number * words[8].parse::<u32>().unwrap();
    let moves = |what: &str| u32::from(words[7] == what || words[7] == "both") * step;
    let client = match source.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() + moves("addr"))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(
            ip.to_bits() + u128::from(moves("addr")),
        )),
    };
    Flow {
        client,
        client_port: source.port() + u16::try_from(moves("port")).unwrap(),
        virtual_address: destination.ip(),
        virtual_port: destination.port(),
        protocol: if words[1] == "tcp" { 6 } else { 17 },
    }
}

fn replay(name: &str, text: &str) {
    let mut service = Service::new(create("rr", &Options::default()).unwrap());
    let mut fresh = true;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}: {line}", number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        let letter = |index: usize| words[index].chars().next().unwrap();
        let limit = |index: usize| words.get(index).map(|word| word.parse().unwrap());
        match words.first().copied() {
            None | Some("#") => continue,
            Some("scheduler") => {
                let scheduler = create(words[1], &options_of(&words[2..])).unwrap();
                if fresh {
                    service = Service::new(scheduler);
                    fresh = false;
                } else {
                    service.scheduler = scheduler;
                    service.changed();
                }
            }
            Some("add") => {
                service.add(
                    letter(1),
                    words[2].parse().unwrap(),
                    words[4].parse().unwrap(),
                );
                service.limit(letter(1), limit(7));
                service.changed();
            }
            Some("edit") => {
                service.server(letter(1)).weight = Weight(words[3].parse().unwrap());
                service.limit(letter(1), limit(6));
                service.changed();
            }
            Some("delete") => {
                service
                    .servers
                    .retain(|server| letter_of(server.id) != letter(1));
                service.changed();
            }
            Some("open") => {
                let first: u32 = words[5].parse().unwrap();
                let expected = words[10];
                let chosen: String = (first..)
                    .zip(expected.chars())
                    .map(|(number, _)| service.open(number, &flow(number, &words)))
                    .collect();
                assert_eq!(chosen, expected, "{place}");
            }
            Some("close") => {
                for number in &words[1..] {
                    service.close(number.parse().unwrap());
                }
            }
            Some(_) => panic!("{place}: not understood"),
        }
    }
}

#[test]
fn every_recorded_choice_is_made_again() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = std::fs::read_to_string(&path).unwrap();
            replay(&path.file_name().unwrap().to_string_lossy(), &text);
            seen.push_str(&text);
        }
    }
    // The kernel recorded from has no twos, and none has maglev.
    for name in NAMES
        .iter()
        .filter(|name| !["twos", "maglev"].contains(name))
    {
        assert!(
            seen.contains(&format!("scheduler {name}\n")),
            "no recording of {name}"
        );
    }
}
