//! Whatever clients and servers of FTP do, in whatever order: all that helpers keep comes to an end, and the servers'
//! counts with it.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, SERVERS};
use super::helpers::ftp;
use super::packets::{ACK, DATA, FIN, RST, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use conntrack::Ticks;
use proptest::collection::vec;
use proptest::prelude::*;

const VIP: &str = "10.0.0.100:21";
const SERVER: &str = "10.2.0.11:21";

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A client's segment on its control connection.
    Command(u8, TcpFlags, &'static str),
    /// The server's.
    Answer(u8, TcpFlags, &'static str),
    /// A client connects to a port, or goes on with it.
    Passive(u8, u16, TcpFlags),
    /// The server calls a client, or goes on with it.
    Active(u8, u16, TcpFlags),
    /// So many seconds pass.
    Wait(u32),
    /// The server is taken away, or comes back.
    Present(bool),
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    prop::sample::select(vec![SYN, SYN_ACK, ACK, FIN, RST])
}

fn event() -> impl Strategy<Value = Event> {
    let commands = [
        "PASV\r\n",
        "EPSV\r\n",
        "PORT 10,64,0,7,160,1\r\n",
        "PORT 10,64,0,8,160,2\r\n",
    ];
    let answers = [
        "227 (10,2,0,11,200,1)\r\n",
        "227 (10,2,0,11,200,2)\r\n",
        "229 (|||51201|)\r\n",
    ];
    let ports = || prop::sample::select(vec![51201_u16, 51202]);
    let called = prop::sample::select(vec![40961_u16, 40962]);
    prop_oneof![
        6 => (0..2_u8, prop::sample::select(commands.to_vec()))
            .prop_map(|(client, text)| Event::Command(client, DATA, text)),
        6 => (0..2_u8, prop::sample::select(answers.to_vec()))
            .prop_map(|(client, text)| Event::Answer(client, DATA, text)),
        4 => (0..2_u8, flags()).prop_map(|(client, flags)| Event::Command(client, flags, "")),
        2 => (0..2_u8, flags()).prop_map(|(client, flags)| Event::Answer(client, flags, "")),
        4 => (0..2_u8, ports(), flags()).prop_map(|(client, port, flags)| Event::Passive(client, port, flags)),
        2 => (0..2_u8, called, flags()).prop_map(|(client, port, flags)| Event::Active(client, port, flags)),
        1 => (1..130_u32).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Present),
    ]
}

fn frame(event: &Event) -> (usize, Vec<u8>) {
    let client = |number: u8, port: u16| format!("10.64.0.{}:{port}", 7 + number);
    match event {
        Event::Command(number, flags, text) => {
            let talk = Talk::tcp(&client(*number, 40001), VIP);
            (CLIENTS, talk.packet(*flags, text.as_bytes()))
        }
        Event::Answer(number, flags, text) => {
            let talk = Talk::tcp(SERVER, &client(*number, 40001));
            (SERVERS, talk.packet(*flags, text.as_bytes()))
        }
        Event::Passive(number, port, flags) => {
            let to = format!("10.0.0.100:{port}");
            (
                CLIENTS,
                Talk::tcp(&client(*number, 41000), &to).packet(*flags, b""),
            )
        }
        Event::Active(number, port, flags) => {
            let talk = Talk::tcp("10.2.0.11:20", &client(*number, *port));
            (SERVERS, talk.packet(*flags, b""))
        }
        Event::Wait(_) | Event::Present(_) => unreachable!("no frame"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn everything_that_a_helper_keeps_comes_to_an_end(
        events in vec((0..2_usize, event()), 1..60),
        reuse in 0..2_u8,
        expire in any::<bool>(),
        tight in any::<bool>(),
    ) {
        let mut config = ftp(VIP, SERVER);
        config.ipvs.conn_reuse_mode = reuse;
        config.ipvs.expire_nodest_conn = expire;
        let limits = Limits {
            workers: 2,
            connections: if tight { 4 } else { 64 },
            half_open_percent: if tight { 50 } else { 100 },
            helpers: if tight { 1 } else { 4 },
            ..Limits::default()
        };
        let mut bed = Bed::with(&config, &limits);
        // Both control connections stand, unless there is no room.
        for number in 0..2 {
            let talk = Talk::tcp(&format!("10.64.0.{}:40001", 7 + number), VIP);
            bed.send(0, CLIENTS, &talk.packet(SYN, b""));
            bed.send(1, CLIENTS, &talk.packet(ACK, b""));
        }
        for (worker, event) in &events {
            match event {
                Event::Wait(seconds) => {
                    bed.pass(*seconds);
                }
                Event::Present(present) => {
                    config.server(0).present = *present;
                    bed.publish(&config);
                    bed.settle();
                }
                _ => {
                    let (side, frame) = frame(event);
                    bed.send(*worker, side, &frame);
                }
            }
        }
        for _ in 0..30 {
            bed.now = bed.now.after(Ticks::from_seconds(100));
            for _ in 0..15 {
                bed.now = bed.now.after(Ticks(1));
                bed.settle();
            }
        }
        prop_assert_eq!(bed.connections(), 0);
        prop_assert_eq!(bed.tables.helpers.in_use(), 0);
        prop_assert!(!bed.tables.helpers.expects());
        prop_assert_eq!(config.load(0), (0, 0));
    }
}
