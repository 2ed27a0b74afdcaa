//! The map that the XDP program looks packets up in, kept as the snapshots say.

use super::bpf::Map;
use super::keys::{KEY_LEN, Key, Keys};
use crate::port::PortId;
use crate::snapshot::Snapshot;
use std::collections::HashSet;
use std::io;

/// Ends that the program can know at once: three for each service, five for each local address, two for each server by NAT.
pub(super) const KEYS_MAX: u32 = 131_072;

/// See the module's text.
pub(super) struct Ours {
    map: Map,
    keys_max: usize,
    keys: Keys,
    /// In the map.
    known: HashSet<Key>,
    /// Of them, those of the snapshot that was adopted last; the others linger.
    current: HashSet<Key>,
}

impl Ours {
    /// An empty map for at most `keys_max` keys.
    pub(super) fn new(keys_max: u32) -> io::Result<Ours> {
        Ok(Ours {
            map: Map::hash("uvs_ours", KEY_LEN, keys_max)?,
            keys_max: usize::try_from(keys_max).expect("a usize holds 32 bits"),
            keys: Keys::default(),
            known: HashSet::new(),
            current: HashSet::new(),
        })
    }

    /// The map, for programs.
    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Tells the program what is ours from now on.
    ///
    /// New ends come first, so that no packet of what goes on misses the worker. Those that are no more go last, and linger
    /// while removed servers may have connections: whatever the worker does not want goes back to the kernel.
    ///
    /// # Errors
    /// When it is too much, or the kernel refuses; then all is as before.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot, port: PortId) -> io::Result<()> {
        let wanted = self.keys.of(snapshot, port);
        let draining = snapshot
            .servers
            .iter()
            .flatten()
            .any(|server| !server.present);
        self.change(wanted, draining)
    }

    fn change(&mut self, wanted: HashSet<Key>, draining: bool) -> io::Result<()> {
        let new: Vec<Key> = wanted.difference(&self.known).copied().collect();
        if self.known.len() + new.len() > self.keys_max {
            // Those that merely linger make room.
            let current = std::mem::take(&mut self.current);
            self.forget(|key| !current.contains(key) && !wanted.contains(key));
            self.current = current;
        }
        if self.known.len() + new.len() > self.keys_max {
            return Err(io::Error::other(format!(
                "the services, local addresses and servers by NAT make {} ends of packets, and those before made {}: the XDP \
                 program can know {} at once; configure fewer of them, change them in two steps, or use driver \"af_packet\"",
                wanted.len(),
                self.current.len(),
                self.keys_max
            )));
        }
        for (count, key) in new.iter().enumerate() {
            if let Err(error) = self.map.insert(&key.0, &[1]) {
                for key in &new[..count] {
                    // It is not known: should it stay, its packets come and go back.
                    let _: io::Result<()> = self.map.remove(&key.0);
                }
                let said = format!(
                    "cannot tell its XDP program of {} ends of packets: {error}",
                    new.len()
                );
                return Err(io::Error::new(error.kind(), said));
            }
        }
        self.known.extend(new);
        if !draining {
            self.forget(|key| !wanted.contains(key));
        }
        self.current = wanted;
        Ok(())
    }

    /// Takes keys out of the map. One that the kernel keeps stays known, and is tried again next time.
    fn forget(&mut self, is_over: impl Fn(&Key) -> bool) {
        let map = &self.map;
        self.known
            .retain(|key| !is_over(key) || map.remove(&key.0).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn keys(numbers: std::ops::Range<u8>) -> HashSet<Key> {
        let key = |number| Key::to(Ipv4Addr::new(192, 0, 2, number).into(), 6, 80);
        numbers.map(key).collect()
    }

    fn has(ours: &Ours, key: &Key) -> bool {
        ours.map.contains(&key.0).unwrap()
    }

    /// Needs root, as whatever has a BPF map.
    #[test]
    fn what_a_full_map_has_no_room_for_is_refused_and_all_is_as_before() {
        let mut ours = Ours::new(4).unwrap();
        ours.change(keys(0..3), false).unwrap();
        let error = ours.change(keys(2..5), false).unwrap_err().to_string();
        assert!(
            error.contains("make 3 ends") && error.contains("can know 4"),
            "{error}"
        );
        assert!(keys(0..3).iter().all(|key| has(&ours, key)));
        assert!(keys(3..5).iter().all(|key| !has(&ours, key)));
        ours.change(keys(0..4), false).unwrap();
        assert!(keys(0..4).iter().all(|key| has(&ours, key)));
    }

    #[test]
    fn ends_that_are_no_more_linger_while_servers_drain_unless_there_is_no_room() {
        let mut ours = Ours::new(4).unwrap();
        ours.change(keys(0..2), false).unwrap();
        ours.change(keys(1..3), true).unwrap();
        assert!(keys(0..3).iter().all(|key| has(&ours, key)));
        ours.change(keys(1..5), true).unwrap();
        assert!(!keys(0..1).iter().any(|key| has(&ours, key)));
        assert!(keys(1..5).iter().all(|key| has(&ours, key)));
        ours.change(keys(4..5), false).unwrap();
        assert!(!keys(0..4).iter().any(|key| has(&ours, key)));
        assert!(keys(4..5).iter().all(|key| has(&ours, key)));
    }
}
