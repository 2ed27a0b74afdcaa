//! TCP as the director sees it: a follower's state machine, not an endpoint's.
//!
//! ```text
//!             client SYN                    ACK of either end
//!   NONE ────────────────▶ SYN_RECV ──────────────────────────▶ ESTABLISHED
//!                             │                       client FIN │        │ server FIN,
//!                             │ FIN of either end                │        │ or client's where OneWay
//!                             ▼            server FIN            ▼        ▼
//!                         TIME_WAIT ◀──────────────────── CLOSE_WAIT   FIN_WAIT
//!                             ▲                                           │ client FIN (TwoWay)
//!                             └───────────────────────────────────────────┘
//!   RST: CLOSE, except that a client's does not hurt SYN_RECV.   SYN of a client on a closed flow: SYN_RECV.
//! ```

use crate::state::State;
use crate::tuple::Direction;

/// The flag byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgement field counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer counts.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo.
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced.
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// Whether the segment acknowledges and neither opens nor closes: an established connection stays so, whoever sends
    /// it and whatever the rules.
    #[inline]
    #[must_use]
    pub const fn is_mere_ack(self) -> bool {
        self.0 & (Self::FIN.0 | Self::SYN.0 | Self::RST.0 | Self::ACK.0) == Self::ACK.0
    }

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

/// What the director sees of a connection's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Both halves pass (NAT, FULLNAT); this packet belongs to one of them.
    TwoWay(Direction),
    /// Only the client's half passes (DR, TUN).
    OneWay,
}

/// Which of the kernel's two tables holds. A connection keeps its state when the table changes; its next packet is
/// looked up in the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpRules {
    /// Without secure_tcp.
    #[default]
    Normal,
    /// With it: the server's SYN-ACK leads to SYNACK, which only the server's acknowledgement leaves for ESTABLISHED, and
    /// the client's no more; where the client's half alone is seen, its SYN leads there.
    Secure,
}

/// The state after a packet with `flags`. States of other protocols, and `Dead`, stay as they are.
///
/// Source: observed, all flags in all states that packets can reach; Linux net/netfilter/ipvs/ip_vs_proto_tcp.c.
#[inline]
#[must_use]
pub fn tcp_next(rules: TcpRules, state: State, path: Path, flags: TcpFlags) -> State {
    let view = match path {
        Path::TwoWay(Direction::Request) => View::Client,
        Path::TwoWay(Direction::Reply) => View::Server,
        Path::OneWay => View::ClientAlone,
    };
    NEXT[rules as usize][view as usize][usize::from(flags.0 & MEANT)][state as usize]
}

/// FIN, SYN, RST, PSH and ACK; the rest never matters (PSH neither, but it lies between).
const MEANT: u8 = 0x1f;

#[derive(Clone, Copy)]
enum View {
    Client,
    Server,
    ClientAlone,
}

#[derive(Clone, Copy)]
enum Event {
    Reset,
    Syn,
    Fin,
    Ack,
    Nothing,
}

/// What a packet's flags amount to: the first of RST, SYN, FIN, ACK that is set.
const fn event(flags: TcpFlags) -> Event {
    if flags.has(TcpFlags::RST) {
        Event::Reset
    } else if flags.has(TcpFlags::SYN) {
        Event::Syn
    } else if flags.has(TcpFlags::FIN) {
        Event::Fin
    } else if flags.has(TcpFlags::ACK) {
        Event::Ack
    } else {
        Event::Nothing
    }
}

/// The rules. The hot path sees only [`NEXT`], which the compiler fills from them.
const fn rule(state: State, view: View, event: Event) -> State {
    use State::{
        Close, CloseWait, Established, FinWait, LastAck, Listen, None, SynAck, SynRecv, SynSent,
        TimeWait,
    };
    if !matches!(
        state,
        None | Established
            | SynSent
            | SynRecv
            | FinWait
            | TimeWait
            | Close
            | CloseWait
            | LastAck
            | Listen
            | SynAck
    ) {
        return state;
    }
    match (event, view) {
        // A segment that says nothing at all is no part of any connection.
        (Event::Nothing, _) => Close,

        // A client's SYN opens the flow anew, except over a connection that lives.
        (Event::Syn, View::Client | View::ClientAlone) => match state {
            Established | SynSent => Established,
            _ => SynRecv,
        },
        // A server's SYN is a SYN-ACK while the client's is known, and otherwise a connection of its own making.
        (Event::Syn, View::Server) => match state {
            Established | SynRecv | Listen => state,
            SynAck => SynRecv,
            _ => SynSent,
        },

        (Event::Fin, View::Client) => match state {
            None => Close,
            Established => CloseWait,
            SynRecv | FinWait | SynAck => TimeWait,
            _ => state,
        },
        // Whether the server closed too will never be seen: the client's FIN may be the first or the last.
        (Event::Fin, View::ClientAlone) => match state {
            None => Close,
            Established => FinWait,
            SynRecv | SynAck => TimeWait,
            _ => state,
        },
        (Event::Fin, View::Server) => match state {
            Established => FinWait,
            None | SynRecv | CloseWait | SynAck => TimeWait,
            _ => state,
        },

        (Event::Ack, View::Client | View::ClientAlone) => match state {
            None | SynRecv | SynAck => Established,
            LastAck => Close,
            _ => state,
        },
        (Event::Ack, View::Server) => match state {
            None | SynRecv | SynAck | Listen => Established,
            _ => state,
        },

        // A client's reset may be forged without having seen the server's sequence number; while the connection is
        // half open it changes nothing.
        (Event::Reset, View::Client) => match state {
            SynAck => SynRecv,
            SynRecv | LastAck | Listen => state,
            _ => Close,
        },
        (Event::Reset, View::ClientAlone) => match state {
            SynRecv | LastAck | Listen => state,
            _ => Close,
        },
        (Event::Reset, View::Server) => match state {
            SynSent | TimeWait => state,
            _ => Close,
        },
    }
}

/// What is otherwise with secure_tcp.
const fn secure_rule(state: State, view: View, event: Event) -> State {
    use State::{SynAck, SynRecv};
    match (event, view, state) {
        (Event::Syn, View::Client, SynAck)
        | (Event::Syn, View::Server, SynRecv | SynAck)
        | (Event::Fin | Event::Ack, View::Client, SynAck) => SynAck,
        (Event::Ack, View::Client, SynRecv) => SynRecv,
        (Event::Reset, View::Client, SynAck) => State::Close,
        (Event::Syn, View::ClientAlone, _) => match rule(state, view, event) {
            // The answer will not be seen: whoever asks is taken for answered.
            SynRecv if !matches!(state, SynRecv) => SynAck,
            other => other,
        },
        _ => rule(state, view, event),
    }
}

type Table = [[[State; State::COUNT]; MEANT as usize + 1]; 3];

static NEXT: [Table; 2] = [compile(TcpRules::Normal), compile(TcpRules::Secure)];

const fn compile(rules: TcpRules) -> Table {
    let views = [View::Client, View::Server, View::ClientAlone];
    let mut next = [[[State::None; State::COUNT]; MEANT as usize + 1]; 3];
    let mut view = 0;
    while view < views.len() {
        let mut flags = 0;
        while flags <= MEANT {
            let mut state = 0;
            while state < State::COUNT {
                let (from, event) = (State::ALL[state], event(TcpFlags(flags)));
                next[view][flags as usize][state] = match rules {
                    TcpRules::Normal => rule(from, views[view], event),
                    TcpRules::Secure => secure_rule(from, views[view], event),
                };
                state += 1;
            }
            flags += 1;
        }
        view += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str) -> State {
        *State::ALL
            .iter()
            .find(|state| state.name() == name)
            .unwrap()
    }

    fn flags(letters: &str) -> TcpFlags {
        letters.chars().fold(TcpFlags(0), |flags, letter| {
            flags
                | match letter {
                    'F' => TcpFlags::FIN,
                    'S' => TcpFlags::SYN,
                    'R' => TcpFlags::RST,
                    'P' => TcpFlags::PSH,
                    'A' => TcpFlags::ACK,
                    '-' => TcpFlags(0),
                    _ => unreachable!("no such flag in the recording"),
                }
        })
    }

    /// Compares with a recording; returns how many transitions it has.
    fn compare(rules: TcpRules, recording: &str) -> usize {
        let mut count = 0;
        for line in recording.lines() {
            if line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let path = match words[0] {
                "client" => Path::TwoWay(Direction::Request),
                "server" => Path::TwoWay(Direction::Reply),
                "alone" => Path::OneWay,
                _ => unreachable!("no such path in the recording"),
            };
            let next = tcp_next(rules, state(words[1]), path, flags(words[2]));
            assert_eq!(next.name(), words[3], "{rules:?} {line}");
            count += 1;
        }
        count
    }

    #[test]
    fn every_recorded_transition_is_the_kernels() {
        let count = compare(TcpRules::Normal, include_str!("../tests/tcp-states.txt"));
        assert_eq!(count, (8 + 8 + 6) * 32);
    }

    #[test]
    fn every_recorded_transition_with_secure_tcp_is_the_kernels() {
        let recording = include_str!("../tests/tcp-secure-states.txt");
        assert_eq!(compare(TcpRules::Secure, recording), (8 + 8 + 6) * 32);
    }

    #[test]
    fn first_packets_open_in_the_kernels_states() {
        let request = Path::TwoWay(Direction::Request);
        for path in [request, Path::OneWay] {
            let first = |flags| tcp_next(TcpRules::Normal, State::None, path, flags);
            assert_eq!(first(TcpFlags::SYN), State::SynRecv);
            assert_eq!(first(TcpFlags::ACK), State::Established);
            assert_eq!(first(TcpFlags::FIN), State::Close);
        }
        let first = |path| tcp_next(TcpRules::Secure, State::None, path, TcpFlags::SYN);
        assert_eq!(first(request), State::SynRecv);
        assert_eq!(first(Path::OneWay), State::SynAck);
    }

    #[test]
    fn a_mere_acknowledgement_leaves_an_established_connection_as_it_is() {
        let paths = [
            Path::TwoWay(Direction::Request),
            Path::TwoWay(Direction::Reply),
            Path::OneWay,
        ];
        let mut mere = 0;
        for flags in (0..=u8::MAX).map(TcpFlags) {
            if flags.is_mere_ack() {
                mere += 1;
                for (rules, path) in [TcpRules::Normal, TcpRules::Secure]
                    .into_iter()
                    .flat_map(|rules| paths.map(|path| (rules, path)))
                {
                    let next = tcp_next(rules, State::Established, path, flags);
                    assert_eq!(next, State::Established);
                }
            }
        }
        assert_eq!(mere, 16);
    }

    #[test]
    fn urgent_and_ecn_flags_change_nothing() {
        let others = TcpFlags::URG | TcpFlags::ECE | TcpFlags::CWR;
        for &state in State::ALL {
            for flags in 0..=MEANT {
                let flags = TcpFlags(flags);
                let path = Path::OneWay;
                for rules in [TcpRules::Normal, TcpRules::Secure] {
                    assert_eq!(
                        tcp_next(rules, state, path, flags),
                        tcp_next(rules, state, path, flags | others)
                    );
                }
            }
        }
    }

    #[test]
    fn states_of_other_protocols_and_the_dead_stay() {
        for state in [State::Udp, State::Icmp, State::SctpEstablished, State::Dead] {
            for flags in 0..=MEANT {
                for direction in [Direction::Request, Direction::Reply] {
                    let (path, flags) = (Path::TwoWay(direction), TcpFlags(flags));
                    for rules in [TcpRules::Normal, TcpRules::Secure] {
                        assert_eq!(tcp_next(rules, state, path, flags), state);
                    }
                }
            }
        }
    }
}
