//! SCTP as the director sees it: a follower's state machine, as the real server stands.
//!
//! ```text
//!   the client begins                                            the server begins
//!   NONE ─ C:INIT ─▶ INIT1 ─ C:INIT again ─▶ INIT                NONE … ─ S:INIT ─▶ C-WAIT
//!                      └───── S:INIT-ACK ─────┤                       C:INIT-ACK │
//!                                             ▼                                  ▼
//!                                          C-SENT                             COOKIE
//!                               C:COOKIE-ECHO │                    S:COOKIE-ECHO │
//!                                             ▼                                  ▼
//!                                        C-REPLIED ─ S:COOKIE-ACK ┐  ┌ C:COOKIE-ACK ─ C-ECHOED
//!                                                                 ▼  ▼
//!                   C:SHUTDOWN ┌──────────────────────────── ESTABLISHED ─────────┐ S:SHUTDOWN
//!                              ▼                                                  ▼
//!                         S-RECEIVED ─ S:SHUTDOWN-ACK ─▶ S-ACK-SENT             S-SENT
//!                                          C:SHUTDOWN-COMPLETE └──▶ CLOSED ◀──────┘ C:SHUTDOWN-ACK
//!   ABORT: CLOSED; of the end that refuses an association's first INIT: REJECTED.
//! ```
//! Where only the client's half is seen, its answers stand for the server's chunks before them.

use crate::state::State;
use crate::tcp::Path;
use crate::tuple::Direction;

/// What an SCTP packet amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SctpEvent {
    /// DATA, SACK, heartbeats, ECN, and whatever is not known.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl SctpEvent {
    const ALL: [SctpEvent; 10] = [
        SctpEvent::Data,
        SctpEvent::Init,
        SctpEvent::InitAck,
        SctpEvent::CookieEcho,
        SctpEvent::CookieAck,
        SctpEvent::Shutdown,
        SctpEvent::ShutdownAck,
        SctpEvent::ShutdownComplete,
        SctpEvent::Error,
        SctpEvent::Abort,
    ];

    /// What a chunk of this type means.
    ///
    /// Source: RFC 9260 §3.2.
    #[must_use]
    pub const fn of_chunk(kind: u8) -> SctpEvent {
        match kind {
            1 => SctpEvent::Init,
            2 => SctpEvent::InitAck,
            6 => SctpEvent::Abort,
            7 => SctpEvent::Shutdown,
            8 => SctpEvent::ShutdownAck,
            9 => SctpEvent::Error,
            10 => SctpEvent::CookieEcho,
            11 => SctpEvent::CookieAck,
            14 => SctpEvent::ShutdownComplete,
            _ => SctpEvent::Data,
        }
    }
}

/// The state after a packet with `event`. States of other protocols, and `Dead`, stay as they are.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_proto_sctp.c. (The kernel of the recordings has no SCTP.)
#[inline]
#[must_use]
pub fn sctp_next(state: State, path: Path, event: SctpEvent) -> State {
    let view = match path {
        Path::TwoWay(Direction::Request) => View::Client,
        Path::TwoWay(Direction::Reply) => View::Server,
        Path::OneWay => View::ClientAlone,
    };
    NEXT[view as usize][event as usize][state as usize]
}

#[derive(Clone, Copy)]
enum View {
    Client,
    Server,
    ClientAlone,
}

/// Whether the association is not there yet: from nothing seen to the cookie on its way.
const fn is_being_set_up(state: State) -> bool {
    matches!(state, State::None) || state.is_sctp_set_up()
}

/// The rules. The hot path sees only [`NEXT`], which the compiler fills from them.
const fn rule(state: State, view: View, event: SctpEvent) -> State {
    if !matches!(state, State::None) && !state.is_sctp() {
        return state;
    }
    // A reset alone says something of every state.
    if let SctpEvent::Abort = event {
        return match (view, state) {
            (View::Server, State::SctpInit1)
            | (View::Client | View::ClientAlone, State::SctpCookieWait) => State::SctpRejected,
            _ => State::SctpClosed,
        };
    }
    match view {
        View::Client => client_rule(state, event),
        View::Server => server_rule(state, event),
        View::ClientAlone => client_alone_rule(state, event),
    }
}

const fn client_rule(state: State, event: SctpEvent) -> State {
    use State::{
        None, SctpClosed, SctpCookie, SctpCookieEchoed, SctpCookieReplied, SctpCookieSent,
        SctpCookieWait, SctpEstablished, SctpInit, SctpInit1, SctpRejected, SctpShutdownAckSent,
        SctpShutdownReceived, SctpShutdownSent,
    };
    match (event, state) {
        (SctpEvent::Data, None) => SctpEstablished,
        (SctpEvent::Init, None) => SctpInit1,
        (SctpEvent::Init, SctpInit1 | SctpInit | SctpRejected | SctpClosed) => SctpInit,
        (SctpEvent::InitAck, None | SctpInit1 | SctpInit) => SctpCookieWait,
        (SctpEvent::InitAck, SctpCookieWait) => SctpCookie,
        (SctpEvent::CookieEcho, None | SctpCookieSent) => SctpCookieReplied,
        (SctpEvent::CookieEcho | SctpEvent::ShutdownAck, SctpInit1) => SctpInit,
        (SctpEvent::CookieAck, None | SctpCookieEchoed) => SctpEstablished,
        (SctpEvent::Shutdown, None | SctpEstablished) => SctpShutdownReceived,
        (SctpEvent::ShutdownAck, None | SctpShutdownSent | SctpShutdownAckSent)
        | (SctpEvent::ShutdownComplete, None | SctpInit1 | SctpInit | SctpShutdownAckSent)
        | (SctpEvent::Error, None | SctpCookieEchoed) => SctpClosed,
        _ => state,
    }
}

const fn server_rule(state: State, event: SctpEvent) -> State {
    use State::{
        None, SctpClosed, SctpCookieEchoed, SctpCookieReplied, SctpCookieSent, SctpCookieWait,
        SctpEstablished, SctpInit, SctpInit1, SctpShutdownAckSent, SctpShutdownReceived,
        SctpShutdownSent,
    };
    let asked = matches!(
        state,
        None | SctpInit1 | SctpInit | SctpCookieSent | SctpCookieReplied
    );
    match (event, state) {
        (SctpEvent::Data, None) => SctpEstablished,
        (SctpEvent::Init, SctpEstablished) => state,
        (SctpEvent::Init, _) => SctpCookieWait,
        (SctpEvent::InitAck, None | SctpInit1 | SctpInit) => SctpCookieSent,
        (SctpEvent::CookieEcho, _) if is_being_set_up(state) => SctpCookieEchoed,
        (SctpEvent::CookieAck, _) if is_being_set_up(state) => SctpEstablished,
        (SctpEvent::Shutdown, SctpEstablished) => SctpShutdownSent,
        (SctpEvent::Shutdown, _) if is_being_set_up(state) => SctpShutdownSent,
        (SctpEvent::ShutdownAck, SctpShutdownSent | SctpShutdownReceived) => SctpShutdownAckSent,
        (SctpEvent::ShutdownAck, _) if asked => SctpShutdownAckSent,
        (SctpEvent::ShutdownComplete, None) => SctpClosed,
        (SctpEvent::Error, _) if asked => SctpClosed,
        _ => state,
    }
}

const fn client_alone_rule(state: State, event: SctpEvent) -> State {
    use State::{
        None, SctpClosed, SctpCookie, SctpCookieEchoed, SctpCookieReplied, SctpCookieSent,
        SctpCookieWait, SctpEstablished, SctpInit, SctpInit1, SctpRejected, SctpShutdownAckSent,
        SctpShutdownReceived, SctpShutdownSent,
    };
    let asked = matches!(
        state,
        None | SctpInit1 | SctpInit | SctpCookieSent | SctpCookieReplied
    );
    match (event, state) {
        (SctpEvent::Data, None | SctpCookieWait) => SctpEstablished,
        (SctpEvent::Init, None) => SctpInit1,
        (SctpEvent::Init, SctpCookieWait | SctpRejected | SctpClosed) => SctpInit,
        (SctpEvent::Init, _) if asked => SctpInit,
        (SctpEvent::InitAck, SctpCookieWait) => SctpCookieEchoed,
        (SctpEvent::InitAck, _) if asked => SctpCookieEchoed,
        (SctpEvent::CookieEcho, SctpCookieWait) => SctpEstablished,
        (SctpEvent::CookieEcho, _) if asked => SctpEstablished,
        (
            SctpEvent::CookieAck,
            None | SctpCookieSent | SctpCookieReplied | SctpCookie | SctpCookieEchoed,
        ) => SctpEstablished,
        (SctpEvent::Shutdown, None | SctpEstablished) => SctpShutdownReceived,
        (SctpEvent::ShutdownAck, SctpInit1) => SctpInit,
        (
            SctpEvent::ShutdownAck,
            None | SctpEstablished | SctpShutdownSent | SctpShutdownAckSent,
        )
        | (SctpEvent::ShutdownComplete, SctpShutdownReceived | SctpShutdownAckSent)
        | (SctpEvent::Error, None) => SctpClosed,
        (SctpEvent::ShutdownComplete, _) if asked => SctpClosed,
        _ => state,
    }
}

static NEXT: [[[State; State::COUNT]; SctpEvent::ALL.len()]; 3] = compile();

const fn compile() -> [[[State; State::COUNT]; SctpEvent::ALL.len()]; 3] {
    let views = [View::Client, View::Server, View::ClientAlone];
    let mut next = [[[State::None; State::COUNT]; SctpEvent::ALL.len()]; 3];
    let mut view = 0;
    while view < views.len() {
        let mut event = 0;
        while event < SctpEvent::ALL.len() {
            let mut state = 0;
            while state < State::COUNT {
                next[view][event][state] =
                    rule(State::ALL[state], views[view], SctpEvent::ALL[event]);
                state += 1;
            }
            event += 1;
        }
        view += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::SctpEvent::{
        Abort, CookieAck, CookieEcho, Data, Error, Init, InitAck, Shutdown, ShutdownAck,
        ShutdownComplete,
    };
    use super::*;

    const CLIENT: Path = Path::TwoWay(Direction::Request);
    const SERVER: Path = Path::TwoWay(Direction::Reply);
    const ALONE: Path = Path::OneWay;

    /// Plays packets of a life, each with the state that listings show afterwards.
    fn live(life: &[(Path, SctpEvent, &str)]) {
        let mut state = State::None;
        for (place, &(path, event, expected)) in life.iter().enumerate() {
            state = sctp_next(state, path, event);
            assert_eq!(state.name(), expected, "{place}: {event:?} {path:?}");
        }
    }

    #[test]
    fn an_association_is_set_up_used_and_shut_down_by_the_client() {
        live(&[
            (CLIENT, Init, "INIT1"),
            (SERVER, InitAck, "C-SENT"),
            (CLIENT, CookieEcho, "C-REPLIED"),
            (SERVER, CookieAck, "ESTABLISHED"),
            (CLIENT, Data, "ESTABLISHED"),
            (SERVER, Data, "ESTABLISHED"),
            (CLIENT, Shutdown, "S-RECEIVED"),
            (SERVER, ShutdownAck, "S-ACK-SENT"),
            (CLIENT, ShutdownComplete, "CLOSED"),
            (CLIENT, Init, "INIT"),
        ]);
    }

    #[test]
    fn the_server_shuts_down() {
        live(&[
            (CLIENT, Init, "INIT1"),
            (CLIENT, Init, "INIT"),
            (SERVER, InitAck, "C-SENT"),
            (CLIENT, CookieEcho, "C-REPLIED"),
            (SERVER, CookieAck, "ESTABLISHED"),
            (SERVER, Shutdown, "S-SENT"),
            (CLIENT, ShutdownAck, "CLOSED"),
            (SERVER, ShutdownComplete, "CLOSED"),
        ]);
    }

    #[test]
    fn a_server_may_begin_an_association() {
        live(&[
            (SERVER, Init, "C-WAIT"),
            (CLIENT, InitAck, "COOKIE"),
            (SERVER, CookieEcho, "C-ECHOED"),
            (CLIENT, CookieAck, "ESTABLISHED"),
        ]);
    }

    #[test]
    fn cookies_that_cross_and_restarts_keep_an_association() {
        live(&[
            (CLIENT, Init, "INIT1"),
            (SERVER, Init, "C-WAIT"),
            (CLIENT, InitAck, "COOKIE"),
            (SERVER, InitAck, "COOKIE"),
            (CLIENT, CookieEcho, "COOKIE"),
            (SERVER, CookieAck, "ESTABLISHED"),
            (CLIENT, Init, "ESTABLISHED"),
            (SERVER, InitAck, "ESTABLISHED"),
            (CLIENT, CookieEcho, "ESTABLISHED"),
            (SERVER, CookieAck, "ESTABLISHED"),
        ]);
    }

    #[test]
    fn aborts_close_and_a_refused_init_is_rejected() {
        live(&[(CLIENT, Init, "INIT1"), (SERVER, Abort, "REJECTED")]);
        live(&[(SERVER, Init, "C-WAIT"), (CLIENT, Abort, "REJECTED")]);
        for path in [CLIENT, SERVER, ALONE] {
            assert_eq!(
                sctp_next(State::SctpEstablished, path, Abort),
                State::SctpClosed
            );
        }
        live(&[
            (CLIENT, Init, "INIT1"),
            (SERVER, InitAck, "C-SENT"),
            (CLIENT, CookieEcho, "C-REPLIED"),
            (SERVER, Error, "CLOSED"),
        ]);
    }

    #[test]
    fn the_clients_half_alone_tells_the_life_of_an_association() {
        live(&[
            (ALONE, Init, "INIT1"),
            (ALONE, Init, "INIT"),
            (ALONE, CookieEcho, "ESTABLISHED"),
            (ALONE, Data, "ESTABLISHED"),
            (ALONE, Shutdown, "S-RECEIVED"),
            (ALONE, ShutdownComplete, "CLOSED"),
        ]);
        live(&[
            (ALONE, Init, "INIT1"),
            (ALONE, CookieEcho, "ESTABLISHED"),
            (ALONE, ShutdownAck, "CLOSED"),
        ]);
        live(&[
            (ALONE, InitAck, "C-ECHOED"),
            (ALONE, CookieAck, "ESTABLISHED"),
        ]);
    }

    #[test]
    fn chunks_mean_what_the_rfc_numbers_them() {
        let named = [
            (1, Init),
            (2, InitAck),
            (6, Abort),
            (7, Shutdown),
            (8, ShutdownAck),
            (9, Error),
            (10, CookieEcho),
            (11, CookieAck),
            (14, ShutdownComplete),
        ];
        for kind in 0..=u8::MAX {
            let known = named.iter().find(|(known, _)| *known == kind);
            assert_eq!(
                SctpEvent::of_chunk(kind),
                known.map_or(Data, |(_, event)| *event)
            );
        }
    }

    #[test]
    fn states_of_other_protocols_and_the_dead_stay() {
        for &state in State::ALL {
            for event in SctpEvent::ALL {
                for path in [CLIENT, SERVER, ALONE] {
                    let next = sctp_next(state, path, event);
                    if state == State::None || state.is_sctp() {
                        assert!(next.is_sctp(), "{state:?} {event:?} {path:?}");
                    } else {
                        assert_eq!(next, state);
                    }
                }
            }
        }
    }
}
