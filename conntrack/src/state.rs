//! What a connection is doing, and how long it may do nothing.

use crate::time::Ticks;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $seconds:literal,)*) => {
        /// The state of a connection, of all protocols.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum State { $($(#[$doc])* $name,)* }

        impl State {
            /// All states, in the order of their numbers.
            pub const ALL: &'static [State] = &[$(State::$name,)*];

            /// The name in connection listings (`ipvsadm -L -c`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(State::$name => $text,)* }
            }

            const fn default_seconds(self) -> u32 {
                match self { $(State::$name => $seconds,)* }
            }
        }
    };
}

// Source: Linux net/netfilter/ipvs/ip_vs_proto_{tcp,udp,sctp}.c and ip_vs_conn.c; observed with `ipvsadm -Lnc`.
states! {
    /// Nothing seen yet; also a persistence template.
    None = "NONE", 2,
    /// TCP: both ends talk.
    Established = "ESTABLISHED", 900,
    /// TCP: the server sent the first SYN.
    SynSent = "SYN_SENT", 120,
    /// TCP: the client's SYN was seen.
    SynRecv = "SYN_RECV", 60,
    /// TCP: the server closed first, or the client did and only its half is seen.
    FinWait = "FIN_WAIT", 120,
    /// TCP: both ends closed.
    TimeWait = "TIME_WAIT", 120,
    /// TCP: reset.
    Close = "CLOSE", 10,
    /// TCP: the client closed first.
    CloseWait = "CLOSE_WAIT", 60,
    /// TCP: the last acknowledgement is awaited.
    LastAck = "LAST_ACK", 30,
    /// TCP: a connection that a helper expects (FTP data).
    Listen = "LISTEN", 120,
    /// TCP: a SYN-ACK awaits its acknowledgement (only with secure_tcp).
    SynAck = "SYNACK", 120,
    /// UDP.
    Udp = "UDP", 300,
    /// ICMP.
    Icmp = "ICMP", 60,
    /// SCTP: the client's first INIT was seen.
    SctpInit1 = "INIT1", 4,
    /// SCTP: the client's INIT was seen again.
    SctpInit = "INIT", 61,
    /// SCTP: the server sent its cookie.
    SctpCookieSent = "C-SENT", 61,
    /// SCTP: the client sent the cookie back.
    SctpCookieReplied = "C-REPLIED", 61,
    /// SCTP: the server sent an INIT.
    SctpCookieWait = "C-WAIT", 61,
    /// SCTP: the client sent its cookie.
    SctpCookie = "COOKIE", 61,
    /// SCTP: the server sent the cookie back.
    SctpCookieEchoed = "C-ECHOED", 61,
    /// SCTP: both ends talk.
    SctpEstablished = "ESTABLISHED", 900,
    /// SCTP: the server shuts down.
    SctpShutdownSent = "S-SENT", 61,
    /// SCTP: the client shuts down.
    SctpShutdownReceived = "S-RECEIVED", 61,
    /// SCTP: the server agreed to the client's shutdown.
    SctpShutdownAckSent = "S-ACK-SENT", 61,
    /// SCTP: the first INIT was answered with an ABORT.
    SctpRejected = "REJECTED", 4,
    /// SCTP: aborted or shut down.
    SctpClosed = "CLOSED", 61,
    /// A persistence template of whose connections one was established.
    Assured = "ASSURED", 2,
    /// Removed from the table. Nothing leaves this state.
    Dead = "DEAD", 0,
}

impl State {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the connection counts as active for schedulers and listings; all others are inactive.
    ///
    /// Source: observed; Linux net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_sctp.c.
    #[inline]
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            State::Established
                | State::SynSent
                | State::SynRecv
                | State::SynAck
                | State::SctpEstablished
        )
    }

    /// Whether the handshake is still unfinished, or only announced by a peer: such connections share a bounded part of
    /// the table.
    #[inline]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            State::SynSent | State::SynRecv | State::SynAck | State::Listen
        ) || self.is_sctp_set_up()
    }

    /// Whether it is a state of SCTP.
    #[must_use]
    pub const fn is_sctp(self) -> bool {
        let (first, last) = (State::SctpInit1 as u8, State::SctpClosed as u8);
        first <= self as u8 && self as u8 <= last
    }

    /// Whether an SCTP association is being set up.
    #[must_use]
    pub(crate) const fn is_sctp_set_up(self) -> bool {
        let (first, last) = (State::SctpInit1 as u8, State::SctpCookieEchoed as u8);
        first <= self as u8 && self as u8 <= last
    }

    /// Whether connections of a protocol can be in it; of a template of one.
    #[cfg(not(loom))]
    pub(crate) fn fits(self, protocol: u8, is_template: bool) -> bool {
        match (self, protocol) {
            (State::Dead, _) => false,
            (State::None, _) => true,
            _ if is_template => self == State::Assured,
            // Source: IANA protocol numbers.
            (_, 6) => self as u8 <= State::SynAck as u8,
            (_, 17) => self == State::Udp,
            (_, 132) => self.is_sctp(),
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn from_byte(byte: u8) -> State {
        STATE_OF[usize::from(byte)]
    }
}

/// The states by their numbers; all bytes beyond are `Dead`.
static STATE_OF: [State; 256] = {
    let mut states = [State::Dead; 256];
    let mut number = 0;
    while number < State::COUNT {
        states[number] = State::ALL[number];
        number += 1;
    }
    states
};

/// How long a connection may stay silent in each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    by_state: [Ticks; State::COUNT],
}

impl Default for Timeouts {
    /// The kernel's defaults.
    fn default() -> Self {
        let mut by_state = [Ticks(0); State::COUNT];
        for &state in State::ALL {
            by_state[state as usize] = Ticks::from_seconds(state.default_seconds());
        }
        Timeouts { by_state }
    }
}

impl Timeouts {
    /// The timeout of `state`.
    #[inline]
    #[must_use]
    pub fn of(&self, state: State) -> Ticks {
        self.by_state[state as usize]
    }

    /// Sets the timeouts of ESTABLISHED, FIN_WAIT and UDP, seconds; 0 leaves one as it is (`ipvsadm --set`).
    pub fn set(&mut self, tcp: u32, tcp_fin: u32, udp: u32) {
        for (state, seconds) in [
            (State::Established, tcp),
            (State::FinWait, tcp_fin),
            (State::Udp, udp),
        ] {
            if seconds != 0 {
                self.set_one(state, Ticks::from_seconds(seconds));
            }
        }
    }

    /// Sets the timeout of one state.
    pub fn set_one(&mut self, state: State, timeout: Ticks) {
        self.by_state[state as usize] = timeout;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_byte() {
        for &state in State::ALL {
            assert_eq!(State::from_byte(state as u8), state);
        }
    }

    #[test]
    fn default_timeouts_are_the_kernels() {
        let timeouts = Timeouts::default();
        for (state, seconds) in [
            (State::SynRecv, 60),
            (State::Established, 900),
            (State::FinWait, 120),
            (State::CloseWait, 60),
            (State::TimeWait, 120),
            (State::Close, 10),
            (State::SynSent, 120),
            (State::Listen, 120),
            (State::Udp, 300),
            (State::SynAck, 120),
            (State::SctpInit1, 4),
            (State::SctpInit, 61),
            (State::SctpEstablished, 900),
            (State::SctpRejected, 4),
            (State::SctpClosed, 61),
        ] {
            assert_eq!(
                timeouts.of(state),
                Ticks::from_seconds(seconds),
                "{state:?}"
            );
        }
    }

    #[test]
    fn setting_timeouts_touches_three_states_and_zero_keeps() {
        let mut timeouts = Timeouts::default();
        timeouts.set(10, 0, 30);
        let mut expected = Timeouts::default();
        expected.set_one(State::Established, Ticks::from_seconds(10));
        expected.set_one(State::Udp, Ticks::from_seconds(30));
        assert_eq!(timeouts, expected);
    }

    #[test]
    fn every_half_open_state_of_tcp_but_listen_is_active_and_of_sctp_none() {
        for &state in State::ALL {
            if state.is_half_open() {
                let is_active = !state.is_sctp() && state != State::Listen;
                assert_eq!(state.is_active(), is_active, "{state:?}");
            }
        }
    }

    #[test]
    fn sctp_is_half_open_until_the_cookies_were_seen() {
        let names: Vec<_> = State::ALL
            .iter()
            .filter(|state| state.is_sctp() && state.is_half_open())
            .map(|state| state.name())
            .collect();
        let expected = "INIT1 INIT C-SENT C-REPLIED C-WAIT COOKIE C-ECHOED";
        assert_eq!(names.join(" "), expected);
    }
}
