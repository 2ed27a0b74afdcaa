//! What a worker knew when its process was killed the next one's knows, and nothing else.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, SERVERS, socket};
use super::helpers::{CLIENT, SERVER, Session, VIP, ftp};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Seen, Talk};
use crate::packet::wire::{IPIP, TCP};
use crate::snapshot::Persistence;
use crate::worker::{Tables, TakenOver, file_words};
use conntrack::{FileConfig, Found, Method, TableConfig, TableFile, Ticks};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const CAPACITY: u32 = 128;
const LONGEST: Ticks = Ticks::from_seconds(2000);

/// A path in memory that nothing is left at.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("/dev/shm/uvs-worker-{}-{number}", std::process::id());
        Place(name.into())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn limits(workers: u16) -> Limits {
    Limits {
        workers,
        connections: CAPACITY,
        buffers: 16,
        buffer_len: 2048,
        ..Limits::default()
    }
}

fn servers(config: &Config) -> Vec<Option<SocketAddr>> {
    let servers = config.services.iter().flat_map(|service| &service.servers);
    let mut listed = vec![None; 64];
    for server in servers {
        listed[server.id as usize] = Some(server.address);
    }
    listed
}

/// A bed whose tables lie in the file, with what was taken over.
fn bed(place: &Place, config: &Config, workers: u16) -> (Bed, TableFile, Found, TakenOver) {
    let wanted = FileConfig {
        capacity: CAPACITY,
        directory_len: 64,
        words: file_words(),
        nodes: Vec::new(),
    };
    let (file, found) = TableFile::open(&place.0, wanted).unwrap();
    let table = TableConfig {
        capacity: CAPACITY,
        half_open_percent: 100,
        workers,
        seeds: [0; 4],
    };
    let times = (Ticks(10_000), LONGEST);
    let (tables, taken) = Tables::in_file(&table, &file, times, &servers(config)).unwrap();
    let bed = Bed::with_tables(config, &limits(workers), tables);
    (bed, file, found, taken)
}

/// What is sent, and what came out of it before.
struct Known {
    side: usize,
    frame: Vec<u8>,
    seen: Vec<(usize, Vec<u8>)>,
    is_tcp: bool,
}

/// What of a frame tells where it goes. Outer headers are numbered from the start.
fn told(seen: &Seen) -> (usize, Vec<u8>) {
    let mut frame = seen.frame.clone();
    if frame[12..14] == [8, 0] && frame[23] == IPIP {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    (seen.side, frame)
}

/// Services of all methods, persistent ones and one of FTP among them.
fn config() -> Config {
    let mut config = Config::everything();
    let persistence = Persistence {
        timeout: Ticks::from_seconds(300),
        mask: u128::MAX,
        engine: None,
    };
    let servers = ["10.2.0.11:9100", "10.2.0.12:9100", "10.2.0.13:9100"];
    for (port, method) in [(8100, Method::Nat), (8101, Method::FullNat)] {
        let address = format!("10.0.0.100:{port}");
        config = config.with(TCP, &address, method, &servers);
        config.services.last_mut().unwrap().persistence = Some(persistence);
    }
    let servers = ["10.2.0.11:9200", "10.2.0.12:9200", "10.2.0.13:9200"];
    config.with(TCP, "10.0.0.100:8102", Method::Nat, &servers)
}

/// Three clients' connections to each service, and what passes on them.
fn talk(bed: &mut Bed, config: &Config) -> Vec<Known> {
    let mut known = Vec::new();
    for service in &config.services {
        for client in 1..=3 {
            let client = if service.address.is_ipv4() {
                socket(&format!("10.64.0.{client}:40001"))
            } else {
                socket(&format!("[fd00:64::{client}]:40001"))
            };
            let request = Talk {
                protocol: service.protocol,
                source: client,
                destination: service.address,
            };
            let workers = bed.workers.len();
            let worker = known.len() % workers;
            let first = bed.send(worker, CLIENTS, &request.packet(SYN, b"first"));
            let reply = first[0].packet().talk.back();
            let is_tcp = service.protocol == TCP;
            let sees_replies = service.servers[0].method.sees_replies();
            if sees_replies {
                bed.send(worker, SERVERS, &reply.packet(SYN_ACK, b""));
            }
            bed.send(worker, CLIENTS, &request.packet(ACK, b""));
            let mut keep = |side: usize, frame: Vec<u8>| {
                let seen = bed.send(worker, side, &frame).iter().map(told).collect();
                known.push(Known {
                    side,
                    frame,
                    seen,
                    is_tcp,
                });
            };
            keep(CLIENTS, request.packet(DATA, b"question"));
            if sees_replies {
                keep(SERVERS, reply.packet(DATA, b"answer"));
            }
        }
    }
    known
}

#[test]
fn every_connection_goes_on_to_its_server_and_back_at_any_worker() {
    for (before, workers) in [(1, 1), (2, 2), (3, 2), (1, 2)] {
        let place = Place::new();
        let config = config();
        let known = {
            let (mut bed, _file, found, _) = bed(&place, &config, before);
            assert_eq!(found, Found::Nothing);
            talk(&mut bed, &config)
        };
        let config = self::config();
        let (mut bed, _file, found, taken) = bed(&place, &config, workers);
        assert_eq!(found, Found::Table);
        let connections: u32 = taken
            .burdens
            .iter()
            .map(|one| one.active + one.inactive)
            .sum();
        let templates: u32 = taken.burdens.iter().map(|one| one.persistent).sum();
        assert_eq!(
            (connections as usize, templates),
            (config.services.len() * 3, 6)
        );
        assert_eq!(taken.adopted.map(|family| family.refused.all()), [0, 0]);
        for (number, one) in known.iter().enumerate() {
            let worker = number % usize::from(workers);
            let seen = bed.send(worker, one.side, &one.frame);
            let seen: Vec<_> = seen.iter().map(told).collect();
            assert_eq!(seen, one.seen, "{:02x?}", one.frame);
            assert_eq!(seen.len(), 1);
        }
        // A client that is remembered comes to its server; what is new takes no local port that is held.
        for service in &config.services[16..18] {
            let [a, b] = [40_001, 40_002].map(|port| {
                let source = SocketAddr::new(socket("10.64.0.1:1").ip(), port);
                let destination = service.address;
                let talk = Talk {
                    protocol: TCP,
                    source,
                    destination,
                };
                let flags = if port == 40_001 { DATA } else { SYN };
                bed.send_one(0, CLIENTS, &talk.packet(flags, b""))
                    .packet()
                    .talk
            });
            assert_eq!(a.destination, b.destination, "another server");
            assert_ne!(a.source, b.source);
        }
        bed.pass(1);
        let held: u64 = bed
            .stats
            .iter()
            .map(|stats| stats.lip_ports_in_use.load(Relaxed))
            .sum();
        // FULLNAT: two protocols, two families, and the persistent service; three clients each, and one more.
        assert_eq!(held, 5 * 3 + 1);
        bed.pass(2000);
        let statistics = [bed.tables.ipv4.statistics(), bed.tables.ipv6.statistics()];
        assert_eq!(
            statistics.map(|table| (table.entries, table.keys)),
            [(0, 0); 2]
        );
        let held = bed
            .stats
            .iter()
            .map(|stats| stats.lip_ports_in_use.load(Relaxed));
        assert_eq!(held.sum::<u64>(), 0);
    }
}

#[test]
fn an_ftp_session_goes_on_with_its_shift_and_without_its_record_it_ends() {
    for is_damaged in [false, true] {
        let place = Place::new();
        let config = ftp(VIP, SERVER);
        {
            let (bed, file, ..) = bed(&place, &config, 1);
            let mut session = Session::on(bed, (CLIENT, VIP, SERVER), [0, 0]);
            session.passive();
            if is_damaged {
                // The shift of the record that was taken first.
                let words = file.words(0, 8).unwrap();
                assert_ne!(words[1].load(Relaxed), 0);
                words[1].fetch_xor(4, Relaxed);
            }
        }
        let (mut bed, _file, _, taken) = bed(&place, &config, 1);
        let refused = taken.adopted[0].refused;
        // The connection and the one that it expects.
        let adopted = taken.adopted[0].adopted;
        assert_eq!(
            (refused.helper, adopted),
            if is_damaged { (1, 1) } else { (0, 2) }
        );
        assert_eq!(bed.tables.helpers.in_use(), usize::from(!is_damaged));
        assert!(bed.tables.helpers.expects());
        let reply = Talk::tcp(SERVER, CLIENT).packet(DATA, b"200 ok\r\n");
        let seen = bed.send(0, SERVERS, &reply);
        assert_eq!(seen.is_empty(), is_damaged);
        bed.pass(2000);
        assert_eq!(
            (bed.tables.helpers.in_use(), bed.tables.helpers.expects()),
            (0, false)
        );
    }
}

/// Numbers that are the same in each run. Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators
/// (SplitMix64).
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from(mixed >> 33).unwrap()
}

/// Damages a part of the file: bits flipped, a range zeroed, two ranges swapped.
fn damage(file: &File, (start, len): (u64, usize), state: &mut u64) {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start).unwrap();
    let count = [1, 2, 4, 8, 16, 64, 128, 1024][next(state) % 8];
    let [a, b] = [0; 2].map(|_| next(state) % (len - count) / count.min(8) * count.min(8));
    match next(state) % 4 {
        0 | 1 => {
            for _ in 0..=next(state) % 6 {
                bytes[next(state) % len] ^= 1 << (next(state) % 8);
            }
        }
        2 => bytes[a..a + count].fill(0),
        _ => (0..count).for_each(|place| bytes.swap(a + place, b + place)),
    }
    file.write_all_at(&bytes, start).unwrap();
}

#[test]
fn whatever_is_damaged_no_packet_goes_where_it_did_not_go_before() {
    // All of them in the optimised build, a step of its own in `./test`.
    const ROUNDS: u64 = if cfg!(debug_assertions) { 250 } else { 10_000 };
    let place = Place::new();
    let config = config();
    let known = {
        let (mut bed, ..) = bed(&place, &config, 2);
        talk(&mut bed, &config)
    };
    let raw = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&place.0)
        .unwrap();
    let len = raw.metadata().unwrap().len();
    // Calls, of which there are none, lie between the records and the entries.
    let words = 4096 * 3;
    let parts = [(0, 4096), (words, 4096), (words + file_words() * 8, 0)];
    let parts = parts.map(|(start, size)| match size {
        0 => (start, usize::try_from(len - start).unwrap()),
        size => (start, size),
    });
    let whole: HashMap<u64, Vec<u8>> = parts
        .iter()
        .map(|(start, size)| {
            let mut bytes = vec![0; *size];
            raw.read_exact_at(&mut bytes, *start).unwrap();
            (*start, bytes)
        })
        .collect();
    let (mut same, mut none) = (0, 0);
    for round in 0..ROUNDS {
        for (start, bytes) in &whole {
            raw.write_all_at(bytes, *start).unwrap();
        }
        let mut state = round;
        // Mostly the tables.
        let part = match next(&mut state) % 20 {
            0 => parts[0],
            1 => parts[1],
            _ => parts[2],
        };
        damage(&raw, part, &mut state);
        let config = self::config();
        let (mut bed, ..) = bed(&place, &config, 1 + u16::try_from(round % 2).unwrap());
        // A datagram of no connection begins one, with any server.
        for one in known.iter().filter(|one| one.is_tcp) {
            let seen = bed.send(0, one.side, &one.frame);
            let seen: Vec<_> = seen.iter().map(told).collect();
            if seen.is_empty() {
                none += 1;
            } else {
                assert_eq!(seen, one.seen, "{round}: {:02x?}", one.frame);
                same += 1;
            }
        }
    }
    println!("{same} packets as before, {none} of connections that were refused");
    assert!(same > 10 * none && none > 100);
}
