//! How much a second, and since when is counted: both are control's alone, the workers' counters only grow.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_est.c (every two seconds a quarter of the difference is taken over),
//! ip_vs_ctl.c (`ip_vs_zero_stats`: counters and rates become 0, what counts connections that are there does not).

use crate::compile::{Compiler, ServerKey};
use crate::config::{Configuration, Listen, Service};
use crate::director::Director;
use crate::traffic::Traffic;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often rates are estimated.
pub const TICK: Duration = Duration::from_secs(2);
/// Of one, in the fixed point that rates are kept in.
const ONE: i128 = 1 << 10;
/// Removed servers whose zero is remembered in case they return, at most.
const PARTED: usize = 65_536;

/// How much a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients that passed through the director.
    pub out_packets: u64,
    /// Bytes of IP packets from clients.
    pub in_bytes: u64,
    /// Bytes of IP packets to clients that passed through the director.
    pub out_bytes: u64,
}

/// What is known of a service or a server beside its counters.
#[derive(Clone, Debug, Default)]
struct Account {
    /// What had been counted when it was zeroed.
    zero: Traffic,
    /// What had been counted at the last tick.
    last: Traffic,
    /// In fixed point.
    rates: [i128; 5],
}

impl Account {
    /// What was counted since it was zeroed.
    fn since_zero(&self, counted: Traffic) -> Traffic {
        if fell(self.zero, counted) {
            counted
        } else {
            counted.since(self.zero)
        }
    }

    fn tick(&mut self, counted: Traffic, elapsed: Duration) {
        if fell(self.last, counted) {
            // A service of this name ended and began anew.
            *self = Account::default();
        }
        let millis = i128::try_from(elapsed.as_millis().max(1)).expect("not that long");
        let counts = numbers(counted.since(self.last));
        for (rate, count) in self.rates.iter_mut().zip(counts) {
            let now = i128::from(count) * ONE * 1000 / millis;
            // Rounded down, as in the kernel, so that it comes to rest.
            *rate += (now - *rate) >> 2;
        }
        self.last = counted;
    }

    fn zero(&mut self, counted: Traffic) {
        self.zero = counted;
        self.rates = [0; 5];
    }

    fn rates(&self) -> Rates {
        let round = |rate: i128| u64::try_from((rate + ONE / 2 - 1) / ONE).unwrap_or(0);
        let [connections, in_packets, out_packets, in_bytes, out_bytes] = self.rates.map(round);
        Rates {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        }
    }
}

fn numbers(traffic: Traffic) -> [u64; 5] {
    [
        traffic.connections,
        traffic.in_packets,
        traffic.out_packets,
        traffic.in_bytes,
        traffic.out_bytes,
    ]
}

/// Whether a counter went back.
fn fell(before: Traffic, now: Traffic) -> bool {
    let mut pairs = numbers(before).into_iter().zip(numbers(now));
    pairs.any(|(before, now)| now < before)
}

/// The accounts of all services and servers.
#[derive(Default)]
pub(crate) struct Accounts {
    services: HashMap<Listen, Account>,
    servers: HashMap<ServerKey, Account>,
    /// Of everything, also of services and servers that are gone.
    total: Account,
    ticked: Option<Instant>,
}

impl Accounts {
    /// What a service shows.
    pub(crate) fn service(&self, listen: &Listen, counted: Traffic) -> (Traffic, Rates) {
        shown(&self.services, listen, counted)
    }

    /// What a server shows.
    pub(crate) fn server(&self, key: &ServerKey, counted: Traffic) -> (Traffic, Rates) {
        shown(&self.servers, key, counted)
    }

    /// How long it is since the last estimate, if it is time for another.
    fn is_due(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = match self.ticked {
            Some(ticked) => now.saturating_duration_since(ticked),
            // Whoever counts from 0 has counted for a tick.
            None => TICK,
        };
        (elapsed >= TICK).then(|| {
            self.ticked = Some(now);
            elapsed
        })
    }

    /// Estimates over the time that has passed.
    fn tick(&mut self, elapsed: Duration, configuration: &Configuration, compiler: &Compiler) {
        let services = compiler.services_traffic();
        self.services
            .retain(|listen, _| services.contains_key(listen));
        for (listen, counted) in &services {
            let account = self.services.entry(*listen).or_default();
            account.tick(*counted, elapsed);
        }
        let mut parted = 0;
        self.servers.retain(|key, account| {
            let is_there = compiler.server_facts(key).is_some();
            let is_zeroed = account.zero != Traffic::default() && services.contains_key(&key.0);
            parted += usize::from(!is_there && is_zeroed);
            is_there || (is_zeroed && parted <= PARTED)
        });
        for key in server_keys(configuration) {
            if let Some((_, _, counted)) = compiler.server_facts(&key) {
                self.servers.entry(key).or_default().tick(counted, elapsed);
            }
        }
    }

    /// Sets the counters of a service, which has counted so much, and of its servers to 0.
    fn zero(&mut self, service: &Service, counted: Traffic, compiler: &Compiler) {
        self.services
            .entry(service.listen)
            .or_default()
            .zero(counted);
        for key in keys_of(service) {
            if let Some((_, _, counted)) = compiler.server_facts(&key) {
                self.servers.entry(key).or_default().zero(counted);
            }
        }
    }
}

fn shown<K: Hash + Eq>(
    accounts: &HashMap<K, Account>,
    key: &K,
    counted: Traffic,
) -> (Traffic, Rates) {
    let account = accounts.get(key);
    account.map_or((counted, Rates::default()), |account| {
        (account.since_zero(counted), account.rates())
    })
}

fn server_keys(configuration: &Configuration) -> impl Iterator<Item = ServerKey> {
    configuration.services.iter().flat_map(keys_of)
}

fn keys_of(service: &Service) -> impl Iterator<Item = ServerKey> {
    let servers = service.servers.iter();
    servers.map(|server| (service.listen, server.address))
}

impl Director {
    /// Estimates the rates, if it is time.
    pub(crate) fn estimate(&self, now: Instant) {
        let current = self.current.lock();
        let mut accounts = self.accounts.lock();
        let Some(elapsed) = accounts.is_due(now) else {
            return;
        };
        accounts.tick(elapsed, &current.configuration, &current.compiler);
        accounts.total.tick(self.traffic(), elapsed);
    }

    /// Everything that was exchanged since it was zeroed, and how much a second.
    #[must_use]
    pub fn total(&self) -> (Traffic, Rates) {
        let accounts = self.accounts.lock();
        (
            accounts.total.since_zero(self.traffic()),
            accounts.total.rates(),
        )
    }

    /// Sets the counters of a service and its servers to 0, or those of all. What counts connections that are there
    /// stays. False, and nothing is done, where there is no such service.
    pub fn zero_counters(&self, listen: Option<Listen>) -> bool {
        let current = self.current.lock();
        let mut accounts = self.accounts.lock();
        let counted = current.compiler.services_traffic();
        let services = current.configuration.services.iter();
        let meant = services.filter(|of| listen.is_none_or(|wanted| wanted == of.listen));
        let mut is_there = listen.is_none();
        for service in meant {
            let counted = counted.get(&service.listen).copied().unwrap_or_default();
            accounts.zero(service, counted, &current.compiler);
            is_there = true;
        }
        if listen.is_none() {
            accounts.total.zero(self.traffic());
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(in_packets: u64) -> Traffic {
        Traffic {
            in_packets,
            ..Traffic::default()
        }
    }

    #[test]
    fn a_quarter_of_the_difference_is_taken_over_every_two_seconds() {
        let mut account = Account::default();
        let mut seen = Vec::new();
        for tick in 1..=3 {
            account.tick(packets(tick * 2000), TICK);
            seen.push(account.rates().in_packets);
        }
        // 1000 a second: 250, then 250 + 187.5, then 437.5 + 140.625.
        assert_eq!(seen, [250, 437, 578]);
        for tick in 4..60 {
            account.tick(packets(tick * 2000), TICK);
        }
        assert_eq!(account.rates().in_packets, 1000);
        for _ in 0..60 {
            account.tick(packets(59 * 2000), TICK);
        }
        assert_eq!(account.rates(), Rates::default(), "it comes to rest");
    }

    #[test]
    fn a_late_tick_is_no_higher_rate() {
        let [mut late, mut timely] = [Account::default(), Account::default()];
        late.tick(packets(4000), TICK * 2);
        timely.tick(packets(2000), TICK);
        assert_eq!(late.rates(), timely.rates());
    }

    #[test]
    fn zero_is_where_counting_begins_and_a_service_that_begins_anew_has_none() {
        let mut account = Account::default();
        account.tick(packets(100), TICK);
        account.zero(packets(130));
        assert_eq!(account.rates(), Rates::default());
        assert_eq!(account.since_zero(packets(150)), packets(20));
        assert_eq!(account.since_zero(packets(7)), packets(7));
        account.tick(packets(7), TICK);
        assert_eq!(account.since_zero(packets(150)), packets(150));
    }
}
