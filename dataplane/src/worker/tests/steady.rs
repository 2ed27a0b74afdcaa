//! The short way of plain packets leads where the long one does.

use super::bed::Bed;
use super::config::{CLIENTS, Config, SERVERS, socket};
use super::packets::{ACK, DATA, FIN, RST, SYN, SYN_ACK, Seen, Talk};
use crate::frame::Offload;
use crate::neighbour::NeighbourId;
use crate::packet::TcpFlags;
use conntrack::Ticks;

/// Two directors with the same traffic. In the second one a packet waits for a neighbour, so that all take the long way.
struct Both([Bed; 2]);

impl Both {
    fn new(config: &Config) -> Both {
        Both([Bed::new(config), Bed::new(config)])
    }

    /// What comes out of both, alike.
    fn send(&mut self, side: usize, frame: &[u8]) -> Vec<Seen> {
        let Both([short, long]) = self;
        let egress = &mut long.workers[0].egress;
        if egress.waiting.is_empty() {
            let none = NeighbourId::NONE;
            assert!(
                egress
                    .waiting
                    .push(&[0; 60], Offload::NONE, none, Ticks(0), false)
            );
        }
        let before = [short.books(), long.books()];
        let seen = [&mut *short, &mut *long].map(|bed| bed.send(0, side, frame));
        let told = |seen: &Seen| (seen.side, seen.frame.clone(), seen.offload);
        let [a, b] = [&seen[0], &seen[1]].map(|seen| seen.iter().map(told).collect::<Vec<_>>());
        assert_eq!(a, b, "{frame:02x?}");
        assert_eq!(
            short.moved(&before[0]),
            long.moved(&before[1]),
            "{frame:02x?}"
        );
        let [seen, _] = seen;
        seen
    }
}

#[test]
fn plain_packets_come_out_of_both_ways_alike() {
    let config = Config::everything();
    let mut forwarded = 0;
    for service in &config.services {
        let mut both = Both::new(&config);
        let client = if service.address.is_ipv4() {
            "10.64.0.7:40001"
        } else {
            "[fd00:64::7]:40001"
        };
        let request = Talk {
            protocol: service.protocol,
            source: socket(client),
            destination: service.address,
        };
        let first = both.send(CLIENTS, &request.packet(SYN, b"first"));
        let reply = first[0].packet().talk.back();
        let ece = TcpFlags::ECE | TcpFlags::ACK;
        for (number, flags) in [
            SYN_ACK,
            ACK,
            DATA,
            ece,
            ACK,
            TcpFlags(0),
            FIN,
            ACK,
            RST,
            DATA,
        ]
        .into_iter()
        .enumerate()
        {
            let payload = vec![0x5a; number * 37];
            for (side, talk) in [(SERVERS, reply), (CLIENTS, request)] {
                if side == SERVERS && !service.servers[0].method.sees_replies() {
                    continue;
                }
                let frame = talk.packet(flags, &payload);
                forwarded += both.send(side, &frame).len();
                // What lies behind the packet is padding.
                forwarded += both.send(side, &[&frame[..], &[7; 9]].concat()).len();
            }
        }
        let views = both.0.each_ref().map(|bed| {
            let mut views = Vec::new();
            bed.tables
                .ipv4
                .for_each(|_, view| views.push(format!("{view:?}")));
            bed.tables
                .ipv6
                .for_each(|_, view| views.push(format!("{view:?}")));
            views
        });
        assert_eq!(views[0], views[1]);
        assert_eq!(views[0].len(), 1);
    }
    assert!(forwarded > 400, "{forwarded}");
}
