//! FTP by NAT: what the recordings (`tests/scenario/recorded/ftp-*.json`) do not show.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, SERVERS};
use super::fragments::cut;
use super::packets::{ACK, DATA, FIN, Got, RST, SYN, SYN_ACK, Seen, Talk, partial};
use crate::frame::{Gso, Offload};
use crate::helper::{Helper, write_checksum};
use crate::packet::wire::{IPV4_LEN, IPV6_LEN, TCP, read_u32, write_u32};
use crate::packet::{TcpFlags, Tuple, V4, V6};
use crate::reason::Reason;
use crate::snapshot::Persistence;
use conntrack::{Method, State, Ticks};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const CLIENT: &str = "10.64.0.7:40001";
pub(super) const VIP: &str = "10.0.0.100:21";
pub(super) const SERVER: &str = "10.2.0.11:21";
const PASV: &[u8] = b"PASV\r\n";
const ANSWER: &[u8] = b"227 Passive (10,2,0,11,200,10)\r\n";
/// A byte longer.
const REWRITTEN: &[u8] = b"227 Passive (10,0,0,100,200,10)\r\n";

/// The bed and both ends of a control connection, at 1001 in both directions.
pub(super) struct Session {
    bed: Bed,
    up: Talk,
    down: Talk,
    workers: [usize; 2],
}

fn l4(frame: &[u8]) -> usize {
    14 + if frame[12..14] == [8, 0] {
        IPV4_LEN
    } else {
        IPV6_LEN
    }
}

/// Makes the checksum of a segment anew.
fn seal(frame: &mut [u8]) {
    let at = l4(frame);
    if at == 14 + IPV4_LEN {
        write_checksum::<V4>(frame, 14, at);
    } else {
        write_checksum::<V6>(frame, 14, at);
    }
}

/// A segment with its numbers; the length of `options` is a multiple of four.
fn segment(
    talk: &Talk,
    flags: TcpFlags,
    (sequence, acknowledged): (u32, u32),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = talk.packet(flags, &[options, payload].concat());
    let at = l4(&frame);
    write_u32(&mut frame, at + 4, sequence);
    write_u32(&mut frame, at + 8, acknowledged);
    frame[at + 12] = u8::try_from((20 + options.len()) * 4).unwrap();
    seal(&mut frame);
    frame
}

/// Sequence number, acknowledgement and payload of a segment that came out, its checksums right.
fn told(seen: &Seen) -> (u32, u32, Vec<u8>) {
    let at = l4(&seen.frame);
    let got: Got = seen.packet();
    (
        read_u32(&seen.frame, at + 4),
        read_u32(&seen.frame, at + 8),
        got.payload,
    )
}

pub(super) fn ftp(vip: &str, server: &str) -> Config {
    let mut config = Config::of(TCP, vip, Method::Nat, server);
    config.services[0].helper = Some(Helper::Ftp);
    config
}

impl Session {
    fn new() -> Session {
        Session::on(Bed::new(&ftp(VIP, SERVER)), (CLIENT, VIP, SERVER), [0, 0])
    }

    pub(super) fn on(
        bed: Bed,
        (client, vip, server): (&str, &str, &str),
        workers: [usize; 2],
    ) -> Session {
        let (up, down) = (Talk::tcp(client, vip), Talk::tcp(server, client));
        let mut session = Session {
            bed,
            up,
            down,
            workers,
        };
        session.shake();
        session
    }

    fn shake(&mut self) {
        let syn = segment(&self.up, SYN, (1000, 0), b"", b"");
        self.bed.send_one(self.workers[0], CLIENTS, &syn);
        let syn_ack = segment(&self.down, SYN_ACK, (1000, 1001), b"", b"");
        self.bed.send_one(self.workers[1], SERVERS, &syn_ack);
        self.say(1001, 1001, b"");
    }

    fn say(&mut self, sequence: u32, acknowledged: u32, payload: &[u8]) -> (u32, u32, Vec<u8>) {
        let flags = if payload.is_empty() { ACK } else { DATA };
        let frame = segment(&self.up, flags, (sequence, acknowledged), b"", payload);
        told(&self.bed.send_one(self.workers[0], CLIENTS, &frame))
    }

    fn answer(&mut self, sequence: u32, payload: &[u8]) -> (u32, u32, Vec<u8>) {
        let frame = segment(&self.down, DATA, (sequence, 1001), b"", payload);
        told(&self.bed.send_one(self.workers[1], SERVERS, &frame))
    }

    /// Asks for a port to connect to, and is told one.
    pub(super) fn passive(&mut self) {
        self.say(1001, 1001, PASV);
        assert_eq!(self.answer(1001, ANSWER), (1001, 1001, REWRITTEN.to_vec()));
    }

    /// Active and inactive connections of the server.
    fn load(&self) -> (u32, u32) {
        let snapshot = self.bed.publisher.current();
        let load = &snapshot.servers[0].as_ref().unwrap().load;
        (load.active(), load.inactive())
    }

    fn states(&self) -> Vec<(u16, State)> {
        let mut states = Vec::new();
        self.bed
            .tables
            .ipv4
            .for_each(|_, view| states.push((view.client.1, view.state)));
        states.sort_by_key(|(port, _)| *port);
        states
    }
}

#[test]
fn an_answer_that_comes_again_is_rewritten_again_though_nobody_asked_again() {
    let mut session = Session::new();
    session.passive();
    assert_eq!(
        session.answer(1001, ANSWER),
        (1001, 1001, REWRITTEN.to_vec())
    );
    let next = 1001 + u32::try_from(ANSWER.len()).unwrap();
    assert_eq!(session.answer(next, b"226 done\r\n").0, next + 1);
    assert_eq!(
        session.answer(1001, ANSWER),
        (1001, 1001, REWRITTEN.to_vec())
    );
    assert_eq!(session.say(1007, next + 1, b"").1, next);
    // Elsewhere it is no answer.
    assert_eq!(session.answer(next + 10, ANSWER).2, ANSWER);
    assert_eq!(session.bed.connections(), 2);
}

#[test]
fn either_direction_may_be_at_any_worker() {
    let bed = Bed::with_workers(&ftp(VIP, SERVER), 2);
    let mut session = Session::on(bed, (CLIENT, VIP, SERVER), [0, 1]);
    session.passive();
    let syn = Talk::tcp("10.64.0.7:41000", "10.0.0.100:51210").packet(SYN, b"");
    let seen = session.bed.send_one(0, CLIENTS, &syn).packet();
    assert_eq!(seen.talk, Talk::tcp("10.64.0.7:41000", "10.2.0.11:51210"));
    let back = session
        .bed
        .send_one(1, SERVERS, &seen.talk.back().packet(SYN_ACK, b""));
    assert_eq!(
        back.packet().talk.source,
        "10.0.0.100:51210".parse().unwrap()
    );
    assert_eq!(
        session.states(),
        [(40001, State::Established), (41000, State::SynRecv)]
    );
    assert_eq!(session.load(), (2, 0));
}

#[test]
fn data_connections_are_expected_over_ipv6_too() {
    let (client, vip, server) = ("[fd00:64::7]:40001", "[fd00:a::100]:21", "[fd00:2::11]:21");
    let bed = Bed::new(&ftp(vip, server));
    let mut session = Session::on(bed, (client, vip, server), [0, 0]);
    session.say(1001, 1001, b"EPSV 2\r\n");
    let answer = session.answer(1001, b"229 Extended (|2|fd00:2::11|52001|)\r\n");
    assert_eq!(
        answer,
        (1001, 1001, b"229 Extended (|||52001|)\r\n".to_vec())
    );
    assert_eq!(session.answer(1038, b"226 done\r\n").0, 1027);
    assert_eq!(
        session.say(1009, 1037, b"EPRT |2|fd00:64::7|41003|\r\n").1,
        1048
    );
    let data = Talk::tcp("[fd00:64::7]:41001", "[fd00:a::100]:52001").packet(SYN, b"");
    let seen = session.bed.send_one(0, CLIENTS, &data).packet();
    assert_eq!(seen.talk.destination, "[fd00:2::11]:52001".parse().unwrap());
    let data = Talk::tcp("[fd00:2::11]:20", "[fd00:64::7]:41003").packet(SYN, b"");
    let seen = session.bed.send_one(0, SERVERS, &data).packet();
    assert_eq!(seen.talk.source, "[fd00:a::100]:20".parse().unwrap());
}

#[test]
fn edges_of_sack_are_shifted_wherever_they_stand_and_broken_options_are_left() {
    let mut session = Session::new();
    session.passive();
    let block = |start: u32, end: u32| [start.to_be_bytes(), end.to_be_bytes()].concat();
    let (there, here) = (block(1034, 1044), block(1033, 1043));
    for (before, after) in [(0, 2), (1, 1), (2, 0), (3, 3)] {
        let option =
            |block: &[u8]| [vec![1; before], vec![5, 10], block.to_vec(), vec![0; after]].concat();
        let frame = segment(&session.up, ACK, (1007, 1034), &option(&there), b"");
        let seen = session.bed.send_one(0, CLIENTS, &frame);
        assert_eq!(told(&seen).1, 1033);
        assert_eq!(
            seen.frame[54..54 + option(&here).len()],
            option(&here),
            "{before}"
        );
    }
    for broken in [
        &[5, 18, 0, 0, 4, 10, 0, 0][..],
        &[5, 0, 0, 0],
        &[1, 1, 1, 5],
        &[5, 9, 0, 0, 4, 10, 0, 0, 4, 20, 0, 0],
    ] {
        let frame = segment(&session.up, ACK, (1007, 1034), broken, b"");
        let seen = session.bed.send_one(0, CLIENTS, &frame);
        assert_eq!(told(&seen).1, 1033);
        assert_eq!(&seen.frame[54..54 + broken.len()], broken);
    }
}

#[test]
fn checksums_left_to_the_nic_are_right_in_the_end() {
    let mut session = Session::new();
    session.say(1001, 1001, PASV);
    let mut frame = segment(&session.down, DATA, (1001, 1007), b"", ANSWER);
    let offload = partial(&mut frame);
    let seen = session.bed.send_with(0, SERVERS, &frame, offload).remove(0);
    assert_eq!(told(&seen).2, REWRITTEN);
    let mut frame = segment(&session.up, DATA, (1007, 1034), b"", b"NOOP\r\n");
    let offload = partial(&mut frame);
    let seen = session.bed.send_with(0, CLIENTS, &frame, offload).remove(0);
    assert_eq!(told(&seen), (1007, 1033, b"NOOP\r\n".to_vec()));
}

#[test]
fn fragments_and_gso_frames_are_shifted_and_not_looked_into() {
    let mut session = Session::new();
    session.passive();
    session.say(1007, 1034, PASV);
    let frame = segment(&session.down, DATA, (1033, 1013), b"", ANSWER);
    let seen: Vec<_> = cut(&frame, &[32], 9)
        .iter()
        .map(|piece| session.bed.send_one(0, SERVERS, piece).frame)
        .collect();
    assert_eq!(read_u32(&seen[0], 38), 1034);
    assert_eq!([&seen[0][54..], &seen[1][34..]].concat(), ANSWER);

    let mut frame = segment(&session.down, DATA, (1033, 1013), b"", &ANSWER.repeat(50));
    let offload = Offload {
        gso: Gso::Tcp4 { ecn: false },
        segment_len: 800,
        header_len: 54,
        ..partial(&mut frame)
    };
    let seen = session.bed.send_with(0, SERVERS, &frame, offload).remove(0);
    assert_eq!(told(&seen), (1034, 1013, ANSWER.repeat(50)));
}

#[test]
fn a_text_that_outgrows_the_link_is_told_to_the_server_and_rewritten_when_it_comes_in_two() {
    let mut session = Session::new();
    session.say(1001, 1001, PASV);
    let mut answer = ANSWER.to_vec();
    answer.resize(1460, b' ');
    let mut frame = segment(&session.down, DATA, (1001, 1007), b"", &answer);
    frame[20] |= 0x40;
    crate::packet::sample::fix_header(&mut frame);
    let seen = session.bed.send_one(0, SERVERS, &frame).packet();
    assert_eq!(seen.error().0, (3, 4, 1499));
    assert_eq!(
        session.answer(1001, ANSWER),
        (1001, 1001, REWRITTEN.to_vec())
    );
}

#[test]
fn a_connection_beyond_the_limit_of_records_goes_without_and_is_counted() {
    let limits = Limits {
        helpers: 1,
        ..Limits::default()
    };
    let bed = Bed::with(&ftp(VIP, SERVER), &limits);
    let mut first = Session::on(bed, (CLIENT, VIP, SERVER), [0, 0]);
    first.passive();
    let mut second = Session::on(first.bed, ("10.64.0.8:40001", VIP, SERVER), [0, 0]);
    assert_eq!(second.bed.stats[0].helpers_refused.load(Relaxed), 1);
    second.say(1001, 1001, PASV);
    assert_eq!(second.answer(1001, ANSWER).2, ANSWER);
    // The first one ends, and with it what it expected: there is a record again.
    second.bed.pass(1100);
    let mut third = Session::on(second.bed, (CLIENT, VIP, SERVER), [0, 0]);
    third.passive();
    assert_eq!(third.bed.stats[0].helpers_refused.load(Relaxed), 1);
    assert!(third.bed.tables.helpers.expects());
}

#[test]
fn what_one_client_announces_takes_no_more_than_the_share_of_unfinished_connections() {
    let limits = Limits {
        connections: 100,
        half_open_percent: 10,
        ..Limits::default()
    };
    let bed = Bed::with(&ftp(VIP, SERVER), &limits);
    let mut session = Session::on(bed, (CLIENT, VIP, SERVER), [0, 0]);
    for port in 0..30 {
        let command = format!("PORT 10,64,0,7,160,{port}\r\n");
        let frame = segment(&session.up, DATA, (1001, 1001), b"", command.as_bytes());
        if port < 10 {
            session.bed.send_one(0, CLIENTS, &frame);
        } else {
            session
                .bed
                .send_for(0, CLIENTS, &frame, Reason::HalfOpenFull);
        }
    }
    assert_eq!(session.bed.connections(), 11);
    session.bed.pass(130);
    assert_eq!(session.bed.tables.ipv4.statistics().half_open, 0);
    session.bed.pass(1000);
    assert_eq!((session.load(), session.bed.connections()), ((0, 0), 0));
}

#[test]
fn drop_entry_keeps_a_control_connection_of_many_packets() {
    for packets in [1, 10] {
        let mut config = ftp(VIP, SERVER);
        config.ipvs.drop_entry = 3;
        let mut session = Session::on(Bed::new(&config), (CLIENT, VIP, SERVER), [0, 0]);
        for _ in 0..packets {
            session.say(1001, 1001, b"NOOP\r\n");
        }
        session.bed.pass(100);
        let stays = packets > 8;
        assert_eq!(session.states().len(), usize::from(stays));
        assert_eq!(session.bed.tables.helpers.in_use(), usize::from(stays));
    }
}

#[test]
fn a_helper_that_comes_after_its_connections_end_keeps_no_record() {
    let mut session = Session::new();
    let worker = &mut session.bed.workers[0];
    let found = worker.ipv4.table.lookup(&Tuple {
        source: [10, 64, 0, 7].into(),
        destination: [10, 0, 0, 100].into(),
        source_port: 40001,
        destination_port: 21,
        protocol: TCP,
    });
    let (id, _) = found.unwrap();
    let record = worker.ipv4.table.entry(id).extension();
    worker.ipv4.owner.remove(id);
    worker.ipv4.help(&worker.egress, id);
    // Its first record is still there, since nobody has settled.
    assert_ne!(worker.ipv4.table.entry(id).extension(), record);
    assert_eq!(session.bed.tables.helpers.in_use(), 1);
}

#[test]
fn no_announcement_is_taken_for_a_clients_template() {
    let mut config = ftp(VIP, SERVER).with(TCP, "10.0.0.100:20", Method::Nat, &["10.2.0.11:20"]);
    config.services[1].persistence = Some(Persistence {
        timeout: Ticks::from_seconds(100),
        mask: u128::MAX,
        engine: None,
    });
    let mut session = Session::on(Bed::new(&config), (CLIENT, VIP, SERVER), [0, 0]);
    let other = Talk::tcp("10.64.0.7:5", "10.0.0.100:20").packet(SYN, b"");
    session.bed.send_one(0, CLIENTS, &other);
    let frame = segment(
        &session.up,
        DATA,
        (1001, 1001),
        b"",
        b"PORT 10,64,0,7,0,0\r\n",
    );
    session
        .bed
        .send_for(0, CLIENTS, &frame, Reason::ReplyTupleTaken);
    let mut templates = 0;
    session.bed.tables.ipv4.for_each(|_, view| {
        if view.flags & conntrack::TEMPLATE != 0 {
            templates += 1;
            assert_eq!(view.state, State::None);
        }
    });
    assert_eq!(templates, 1);
}

#[test]
fn what_is_expected_ends_with_its_time_and_the_control_connection_not_before() {
    let mut session = Session::new();
    session.passive();
    let reset = segment(&session.down, RST, (1033, 0), b"", b"");
    session.bed.send_one(0, SERVERS, &reset);
    session.bed.pass(60);
    assert_eq!(
        session.states(),
        [(0, State::Listen), (40001, State::Close)]
    );
    session.bed.pass(100);
    assert_eq!(session.states(), []);
    assert!(!session.bed.tables.helpers.expects());
    assert_eq!(session.load(), (0, 0));
}

#[test]
fn a_control_connection_that_begins_again_has_no_shift() {
    for reuse in [0, 1] {
        let mut config = ftp(VIP, SERVER);
        config.ipvs.conn_reuse_mode = reuse;
        let mut session = Session::on(Bed::new(&config), (CLIENT, VIP, SERVER), [0, 0]);
        session.passive();
        assert_eq!(session.answer(1033, b"226 done\r\n").0, 1034);
        for (side, talk) in [(CLIENTS, session.up), (SERVERS, session.down)] {
            session
                .bed
                .send_one(0, side, &segment(&talk, FIN, (1043, 1007), b"", b""));
        }
        session.shake();
        assert_eq!(session.answer(1033, b"220 hello\r\n").0, 1033, "{reuse}");
        session.passive();
        // What was expected before has its control connection still, or none.
        session.bed.pass(130);
        assert_eq!(session.states(), [(40001, State::Established)]);
    }
}

#[test]
fn a_full_table_drops_the_answer_and_keeps_the_connection() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let bed = Bed::with(&ftp(VIP, SERVER), &limits);
    let mut session = Session::on(bed, (CLIENT, VIP, SERVER), [0, 0]);
    session.say(1001, 1001, PASV);
    let answer = segment(&session.down, DATA, (1001, 1007), b"", ANSWER);
    session.bed.send_for(0, SERVERS, &answer, Reason::TableFull);
    let port = segment(
        &session.up,
        DATA,
        (1007, 1001),
        b"",
        b"PORT 10,64,0,7,160,1\r\n",
    );
    session.bed.send_for(0, CLIENTS, &port, Reason::TableFull);
    assert_eq!(session.states(), [(40001, State::Established)]);
}

#[test]
fn an_expected_connection_waits_for_its_place_among_the_half_open() {
    let limits = Limits {
        connections: 10,
        half_open_percent: 20,
        ..Limits::default()
    };
    let bed = Bed::with(&ftp(VIP, SERVER), &limits);
    let mut session = Session::on(bed, (CLIENT, VIP, SERVER), [0, 0]);
    session.passive();
    let other = Talk::tcp("10.64.0.9:1", VIP);
    session.bed.send_one(0, CLIENTS, &other.packet(SYN, b""));
    let data = Talk::tcp("10.64.0.7:41000", "10.0.0.100:51210").packet(SYN, b"");
    session
        .bed
        .send_for(0, CLIENTS, &data, Reason::HalfOpenFull);
    session.bed.send_one(0, CLIENTS, &other.packet(ACK, b""));
    session.bed.send_one(0, CLIENTS, &data);
    assert!(!session.bed.tables.helpers.expects());
}

#[test]
fn with_expire_nodest_conn_what_a_removed_server_was_expected_for_ends() {
    let mut config = ftp(VIP, SERVER);
    config.ipvs.expire_nodest_conn = true;
    let mut session = Session::on(Bed::new(&config), (CLIENT, VIP, SERVER), [0, 0]);
    session.passive();
    config.server(0).present = false;
    session.bed.publish(&config);
    let data = Talk::tcp("10.64.0.7:41000", "10.0.0.100:51210").packet(SYN, b"");
    let before = session.bed.books();
    assert_eq!(session.bed.send(0, CLIENTS, &data).len(), 0);
    assert_eq!(session.bed.moved(&before)["exceptions"], 1);
    assert_eq!(session.states(), []);
    assert_eq!(session.bed.tables.helpers.in_use(), 0);
    assert!(!session.bed.tables.helpers.expects());
}

/// A driver may hand them to the worker alone, and the kernel needs all of them.
#[test]
fn all_packets_of_a_connection_beside_ftp_are_the_kernels() {
    let mut bed = Bed::new(&ftp(VIP, SERVER));
    let beside = Talk::tcp("10.64.0.7:41000", "10.0.0.100:51210");
    for flags in [SYN, ACK, DATA] {
        let before = bed.books();
        assert_eq!(bed.send(0, CLIENTS, &beside.packet(flags, b"")).len(), 0);
        assert_eq!(bed.moved(&before)["exceptions"], 1);
    }
}

#[test]
fn only_nat_servers_of_services_with_a_helper_are_helped() {
    let plain = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut session = Session::on(Bed::new(&plain), (CLIENT, VIP, SERVER), [0, 0]);
    session.say(1001, 1001, PASV);
    assert_eq!(session.answer(1001, ANSWER).2, ANSWER);
    assert_eq!(session.bed.connections(), 1);

    let mut direct = Config::of(TCP, VIP, Method::Dr, SERVER);
    direct.services[0].helper = Some(Helper::Ftp);
    let mut bed = Bed::new(&direct);
    let up = Talk::tcp(CLIENT, VIP);
    bed.send_one(0, CLIENTS, &up.packet(SYN, b""));
    bed.send_one(0, CLIENTS, &up.packet(ACK, b""));
    bed.send_one(0, CLIENTS, &up.packet(DATA, b"PORT 10,64,0,7,160,1\r\n"));
    assert_eq!(bed.connections(), 1);
}

#[test]
fn data_connections_of_a_persistent_service_are_not_looked_into() {
    let mut config = ftp(VIP, SERVER);
    config.services[0].persistence = Some(Persistence {
        timeout: Ticks::from_seconds(100),
        mask: u128::MAX,
        engine: None,
    });
    let mut session = Session::on(Bed::new(&config), (CLIENT, VIP, SERVER), [0, 0]);
    // Nothing announced it: the service takes it, as one of its clients'.
    let data = Talk::tcp("10.64.0.7:41000", "10.0.0.100:51210").packet(SYN, b"");
    session.bed.send_one(0, CLIENTS, &data);
    assert_eq!(session.bed.tables.helpers.in_use(), 1);
    session.passive();
    session.bed.pass(2000);
    assert_eq!(session.bed.tables.helpers.in_use(), 0);
    assert_eq!(session.bed.connections(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_said_every_segment_comes_out_with_right_checksums(
        turns in proptest::collection::vec(
            (
                any::<bool>(),
                any::<u32>(),
                proptest::collection::vec(any::<u8>(), 0..10),
                prop_oneof![
                    Just("PASV\r\n".to_owned()),
                    Just("EPSV\r\n".to_owned()),
                    "227 \\([0-9]{1,3},[0-9]{1,3},2,1,[0-9]{1,9},3\\)[a-z]{0,9}",
                    "229 \\(\\|\\|\\|[0-9]{1,6}\\|\\)",
                    "(PORT|EPRT|227|229) [ (|,.:0-9]{0,40}\r\n",
                ],
            ),
            1..40,
        ),
    ) {
        let mut session = Session::new();
        for (from_client, sequence, mut options, text) in turns {
            options.resize(options.len().next_multiple_of(4), 0);
            let (side, talk) = if from_client {
                (CLIENTS, session.up)
            } else {
                (SERVERS, session.down)
            };
            let frame = segment(&talk, DATA, (sequence, sequence), &options, text.as_bytes());
            let seen = session.bed.send(0, side, &frame);
            prop_assert!(seen.len() <= 1);
            for seen in seen {
                let (_, _, payload) = told(&seen);
                prop_assert!(payload.len() < text.len() + 30);
            }
        }
    }
}
