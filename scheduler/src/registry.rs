//! Schedulers by name.

use crate::Scheduler;
use crate::destinations::EXPIRATION_SECONDS;
use crate::slow_start::with_slow_start;
use crate::{dh, fo, lblc, lblcr, lc, maglev, mh, nq, ovf, rr, sed, sh, twos, wlc, wrr};
use std::sync::{PoisonError, RwLock};

/// What the schedulers of a service may be told beyond its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switches, each independent of the others"
)]
pub struct Options {
    /// `sh`: the client's port counts as well (`sh-port`).
    pub sh_port: bool,
    /// `sh`: a server that is not usable is passed over (`sh-fallback`).
    pub sh_fallback: bool,
    /// `mh`: the client's port counts as well (`mh-port`).
    pub mh_port: bool,
    /// `mh`: a server that is not usable is passed over (`mh-fallback`).
    pub mh_fallback: bool,
    /// In how many seconds a server that joins comes to its full share, where [`has_slow_start`](crate::has_slow_start);
    /// 0: at once.
    pub slow_start: u32,
    /// `lblc`: for how many seconds a destination that is not used is remembered.
    pub lblc_expiration: u32,
    /// `lblcr`: likewise, and for how many seconds a set of servers stays as it is before it loses one.
    pub lblcr_expiration: u32,
    /// The number of the worker: where its rounds start, so that the workers' first flows do not all meet one server.
    /// Zero starts where the kernel does.
    pub stagger: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sh_port: false,
            sh_fallback: false,
            mh_port: false,
            mh_fallback: false,
            slow_start: 0,
            lblc_expiration: EXPIRATION_SECONDS,
            lblcr_expiration: EXPIRATION_SECONDS,
            stagger: 0,
        }
    }
}

/// Why there is no such scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    /// The name is not among [`names`].
    #[error("scheduler \"{name}\" is not known, did you mean \"{nearest}\"? Accepted: {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The accepted name that is most like it.
        nearest: &'static str,
    },
}

/// Why a scheduler is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// There is one of that name.
    #[error("there is a scheduler \"{0}\" already; accepted: another name")]
    Taken(&'static str),
    /// Nobody could write the name.
    #[error(
        "\"{0}\" is not a name for a scheduler; accepted: 1 to 15 of a-z, 0-9, '-' and '_', a letter first"
    )]
    BadName(&'static str),
    /// There are as many as may be.
    #[error("{ADDED_MAX} schedulers were added already, which is the limit")]
    TooMany,
}

/// Makes a scheduler for one service on one worker.
pub type Make = fn(&Options) -> Box<dyn Scheduler>;

/// Schedulers that programs may add.
pub const ADDED_MAX: usize = 64;
/// The longest name, bytes. Source: Linux include/uapi/linux/ip_vs.h (IP_VS_SCHEDNAME_MAXLEN).
const NAME_LEN_MAX: usize = 15;

/// What the program around this crate has added.
static ADDED: RwLock<Vec<(&'static str, Make)>> = RwLock::new(Vec::new());

/// A line for each scheduler.
const REGISTRY: &[(&str, Make)] = &[
    ("rr", |options| {
        Box::new(rr::RoundRobin::new(options.stagger))
    }),
    ("wrr", |options| {
        Box::new(wrr::WeightedRoundRobin::new(options.stagger))
    }),
    ("lc", |_| Box::new(lc::LeastConnection)),
    ("wlc", |_| Box::new(wlc::WeightedLeastConnection)),
    ("lblc", |options| {
        Box::new(lblc::LocalityLeastConnection::new(options.lblc_expiration))
    }),
    ("lblcr", |options| {
        Box::new(lblcr::ReplicatedLocalityLeastConnection::new(
            options.lblcr_expiration,
        ))
    }),
    ("dh", |_| Box::new(dh::DestinationHash::default())),
    ("sh", |options| Box::new(sh::SourceHash::new(options))),
    ("sed", |_| Box::new(sed::ShortestExpectedDelay)),
    ("nq", |_| Box::new(nq::NeverQueue)),
    ("fo", |_| Box::new(fo::Failover)),
    ("ovf", |_| Box::new(ovf::Overflow)),
    ("mh", |options| Box::new(mh::MaglevHash::new(options))),
    ("twos", |options| {
        Box::new(twos::TwoChoices::new(options.stagger))
    }),
    ("maglev", |_| Box::new(maglev::Maglev::default())),
];

/// The names of this crate's schedulers.
pub const NAMES: &[&str] = &own_names();

/// The names that [`create`] accepts: [`NAMES`], and those that were added.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    let added = added.iter().map(|(name, _)| *name);
    NAMES.iter().copied().chain(added).collect()
}

/// Adds a scheduler of the program's own, for as long as that runs. From then on configurations may name it; it has no flags and
/// no slow start.
///
/// # Errors
/// [`RegisterError`], and nothing is added.
pub fn register(name: &'static str, make: Make) -> Result<(), RegisterError> {
    let is_word =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if !begins || name.len() > NAME_LEN_MAX || !name.bytes().all(is_word) {
        return Err(RegisterError::BadName(name));
    }
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    if NAMES.contains(&name) || added.iter().any(|(known, _)| *known == name) {
        return Err(RegisterError::Taken(name));
    }
    if added.len() == ADDED_MAX {
        return Err(RegisterError::TooMany);
    }
    added.push((name, make));
    Ok(())
}

/// The scheduler called `name`, for one service on one worker.
///
/// # Errors
///
/// [`SchedulerError::Unknown`] if `name` is not one of [`names`], exactly.
pub fn create(name: &str, options: &Options) -> Result<Box<dyn Scheduler>, SchedulerError> {
    if NAMES.contains(&name) {
        let make = |name: &str| make(name, options);
        return Ok(with_slow_start(name, options.slow_start, make));
    }
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, make)) = added.iter().find(|(known, _)| *known == name) {
        return Ok(make(options));
    }
    drop(added);
    Err(SchedulerError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name),
    })
}

fn make(name: &str, options: &Options) -> Box<dyn Scheduler> {
    let entry = REGISTRY.iter().find(|(known, _)| *known == name);
    let (_, make) = entry.expect("only names of the registry are made");
    make(options)
}

const fn own_names() -> [&'static str; REGISTRY.len()] {
    let mut names = [""; REGISTRY.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = REGISTRY[index].0;
        index += 1;
    }
    names
}

/// The known name that takes the fewest edits to become `name`, case apart; the first of several.
fn nearest(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    names()
        .into_iter()
        .min_by_key(|known| distance(known, &name))
        .expect("the registry is not empty")
}

/// How many characters must be added, removed or replaced to make `from` into `to` (Levenshtein's distance).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.chars().count()).collect();
    for (line, wanted) in to.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, present) in from.chars().enumerate() {
            let replaced = diagonal + usize::from(present != wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activity, Flow, RealServer, RealServerId, Weight};
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    #[test]
    fn every_name_makes_a_scheduler() {
        for name in NAMES {
            assert!(create(name, &Options::default()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_scheduler_of_the_programs_own_is_made_by_its_name() {
        let make: Make = |_| Box::new(fo::Failover);
        assert!(create("registry-own", &Options::default()).is_err());
        assert_eq!(register("registry-own", make), Ok(()));
        assert!(create("registry-own", &Options::default()).is_ok());
        assert!(names().contains(&"registry-own") && !NAMES.contains(&"registry-own"));
        for name in ["registry-own", "rr"] {
            assert_eq!(register(name, make), Err(RegisterError::Taken(name)));
        }
        for name in ["", "Rr", "1st", "a b", "sixteen-letters-"] {
            assert_eq!(register(name, make), Err(RegisterError::BadName(name)));
        }
    }

    #[test]
    fn an_unknown_name_is_named_with_what_is_accepted_and_the_nearest() {
        let Err(error) = create("Wrrr", &Options::default()) else {
            panic!("there is no such scheduler");
        };
        let text = error.to_string();
        assert!(text.starts_with(
            "scheduler \"Wrrr\" is not known, did you mean \"wrr\"? Accepted: rr, wrr, lc, wlc"
        ));
    }

    fn servers(weights: &[u16]) -> Vec<RealServer> {
        let server = |(id, &weight)| RealServer {
            id: RealServerId(id),
            address: IpAddr::V4(Ipv4Addr::from_bits(id)),
            port: 80,
            weight: Weight(weight),
            load: Arc::default(),
        };
        (0..).zip(weights).map(server).collect()
    }

    /// How many of 50 clients' connections, or of as many ports of one client, have a server, and how many servers they
    /// have.
    fn picked(
        scheduler: &mut dyn Scheduler,
        servers: &[RealServer],
        by_port: bool,
    ) -> (usize, usize) {
        let flow = |number: u16| Flow {
            client: Ipv4Addr::from_bits(if by_port { 7 } else { u32::from(number) * 77 }).into(),
            client_port: number,
            virtual_address: Ipv4Addr::LOCALHOST.into(),
            virtual_port: 80,
            protocol: 6,
        };
        let picked = (0..50).filter_map(|number| scheduler.pick(&flow(number), servers));
        let picked: Vec<_> = picked.collect();
        let different: BTreeSet<_> = picked.iter().collect();
        (picked.len(), different.len())
    }

    #[test]
    fn switches_of_hashes_are_turned_without_a_new_table() {
        let options = Options {
            sh_port: true,
            mh_port: true,
            sh_fallback: true,
            mh_fallback: true,
            ..Options::default()
        };
        for name in ["sh", "mh"] {
            let mut scheduler = create(name, &Options::default()).unwrap();
            scheduler.servers_changed(&servers(&[1, 1, 1]));
            let drained = servers(&[1, 0, 1]);
            scheduler.servers_changed(&drained);
            assert!(picked(&mut *scheduler, &drained, false).0 < 50, "{name}");
            assert!(picked(&mut *scheduler, &drained, true).1 <= 1, "{name}");
            scheduler.set_options(&options);
            assert_eq!(picked(&mut *scheduler, &drained, false), (50, 2), "{name}");
            assert_eq!(picked(&mut *scheduler, &drained, true), (50, 2), "{name}");
            scheduler.set_options(&Options::default());
            assert!(picked(&mut *scheduler, &drained, false).0 < 50, "{name}");
        }
    }

    #[test]
    fn a_shorter_expiration_holds_for_what_is_remembered() {
        let options = Options {
            lblc_expiration: 60,
            lblcr_expiration: 60,
            ..Options::default()
        };
        for (name, told, remembered) in [
            ("lblc", false, true),
            ("lblc", true, false),
            ("lblcr", false, true),
            ("lblcr", true, false),
        ] {
            let servers = servers(&[1, 1]);
            let mut scheduler = create(name, &Options::default()).unwrap();
            scheduler.servers_changed(&servers);
            assert_eq!(picked(&mut *scheduler, &servers, false), (50, 1));
            if told {
                scheduler.set_options(&options);
            }
            servers[0].load.shift(None, Some(Activity::Inactive));
            for _ in 0..40 * 60 {
                scheduler.tick(1);
            }
            let flow = Flow {
                client: Ipv4Addr::LOCALHOST.into(),
                client_port: 1,
                virtual_address: Ipv4Addr::LOCALHOST.into(),
                virtual_port: 80,
                protocol: 6,
            };
            let stays = scheduler.pick(&flow, &servers) == Some(0);
            assert_eq!(stays, remembered, "{name} {told}");
        }
    }

    #[test]
    fn mh_goes_by_the_last_weight_that_a_drained_server_had_with_another_scheduler() {
        let servers = servers(&[0, 1]);
        for (last, refuses) in [(0, false), (2, true)] {
            servers[0].load.set_last_weight(Weight(last));
            let mut scheduler = create("mh", &Options::default()).unwrap();
            scheduler.servers_changed(&servers);
            let refused = picked(&mut *scheduler, &servers, false).0 < 50;
            assert_eq!(refused, refuses);
        }
    }

    #[test]
    fn names_are_exact() {
        assert!(create("RR", &Options::default()).is_err());
        assert!(create("", &Options::default()).is_err());
    }

    #[test]
    fn distances_are_levenshtein_s() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("wlc", "wcl"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
