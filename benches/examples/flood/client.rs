//! Clients that mean it: each connects while the flood goes on, as Linux does, and then speaks twice a second.

use crate::frames::{ACK, End, SYN, segment};
use crate::port::{FIRST_CLIENT, SidePort};
use std::net::Ipv4Addr;
use std::time::Duration;

/// When a SYN is sent that nobody answered: 1 s, then twice as long each time (RFC 6298; Linux `tcp_syn_retries` = 6).
const SYNS_AT_S: [u64; 7] = [0, 1, 3, 7, 15, 31, 63];
/// From a SYN that was forwarded to the client's answer to the server's answer.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// Between an established client's segments.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct Client {
    end: End,
    number: u32,
    begins: Duration,
    syns: usize,
    /// When the server's SYN-ACK is there.
    answered: Option<Duration>,
    /// When it was connected.
    connected: Option<Duration>,
    speaks_at: Duration,
    said: u32,
    /// SYNs that were forwarded.
    syns_through: u32,
}

impl Client {
    pub(crate) fn new(number: usize, begins: Duration) -> Client {
        let number = u32::try_from(number).expect("a few clients");
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 0).to_bits() + number % 256);
        let port = 20_000 + u16::try_from(number / 256).expect("a few clients");
        Client {
            end: (address, port),
            number,
            begins,
            syns: 0,
            answered: None,
            connected: None,
            speaks_at: Duration::ZERO,
            said: 0,
            syns_through: 0,
        }
    }

    fn sequence(&self) -> u32 {
        FIRST_CLIENT + self.number
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, port: &mut SidePort, now: Duration) {
        if now < self.begins {
            return;
        }
        let through = port.sent_of.get(&self.sequence()).copied().unwrap_or(0);
        if self.answered.is_none() && through > 0 {
            self.answered = Some(now + ROUND_TRIP);
            self.syns_through = through;
        }
        match (self.answered, self.connected) {
            (None, _) => {
                let due = SYNS_AT_S.get(self.syns);
                if due.is_some_and(|at| now >= self.begins + Duration::from_secs(*at)) {
                    self.syns += 1;
                    self.say(port, SYN);
                }
            }
            (Some(at), None) if now >= at => {
                self.connected = Some(now - self.begins);
                self.speaks_at = now;
            }
            (_, Some(_)) if now >= self.speaks_at => {
                self.speaks_at = now + PAUSE;
                self.said += 1;
                self.say(port, ACK);
            }
            _ => {}
        }
    }

    fn say(&self, port: &mut SidePort, flags: u8) {
        port.clients
            .push_back(segment(self.end, flags, self.sequence()));
    }

    /// How long it took to connect and with how many SYNs, if it could, and all that it said then was forwarded.
    pub(crate) fn success(&self, port: &SidePort) -> Option<(Duration, usize)> {
        let through = port.sent_of.get(&self.sequence()).copied().unwrap_or(0);
        let all = self.said > 0 && through == self.syns_through + self.said;
        self.connected
            .filter(|_| all)
            .map(|after| (after, self.syns))
    }

    /// Whether it had the time to connect and speak.
    pub(crate) fn had_time(&self, now: Duration) -> bool {
        now >= self.begins + Duration::from_secs(2)
    }
}
