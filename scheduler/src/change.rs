//! What a new list of servers changes about the one before.

use crate::{RealServer, RealServerId, Weight};

/// The list of servers as it last was.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    servers: Vec<(RealServerId, Weight)>,
}

/// A new list compared to the one before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// So many servers at the head of the new list were added.
    pub(crate) added: usize,
    /// Where in the new list each server of the old one is, if it is.
    pub(crate) moved: Vec<Option<usize>>,
    /// Whether a server that stayed has another weight.
    pub(crate) edited: bool,
}

impl Roll {
    /// Takes `servers` as the list, and says what that changes.
    ///
    /// Servers are added at the head only and never change places, so the longest tail of the new list that is in the
    /// old one in this order is what stayed. A server that was deleted and added again is a new one at the head.
    pub(crate) fn update(&mut self, servers: &[RealServer]) -> Change {
        let mut moved = vec![None; self.servers.len()];
        let mut edited = false;
        let mut added = servers.len();
        let mut unmatched = self.servers.len();
        while let Some(server) = added.checked_sub(1).map(|index| &servers[index]) {
            let Some(old) = self.servers[..unmatched]
                .iter()
                .rposition(|&(id, _)| id == server.id)
            else {
                break;
            };
            added -= 1;
            unmatched = old;
            moved[old] = Some(added);
            edited |= self.servers[old].1 != server.weight;
        }
        self.servers.clear();
        self.servers
            .extend(servers.iter().map(|server| (server.id, server.weight)));
        Change {
            added,
            moved,
            edited,
        }
    }
}

impl Change {
    /// Whether a server of the old list is gone.
    pub(crate) fn removed_any(&self) -> bool {
        self.moved.contains(&None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Load;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn list(servers: &[(u32, u16)]) -> Vec<RealServer> {
        servers
            .iter()
            .map(|&(id, weight)| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 80,
                weight: Weight(weight),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    #[test]
    fn additions_removals_and_edits_are_told_apart() {
        let mut roll = Roll::default();
        assert_eq!(roll.update(&list(&[(2, 1), (1, 1)])).added, 2);
        let change = roll.update(&list(&[(4, 1), (3, 1), (2, 5)]));
        let expected = Change {
            added: 2,
            moved: vec![Some(2), None],
            edited: true,
        };
        assert_eq!(change, expected);
        assert!(change.removed_any());
    }

    #[test]
    fn a_server_deleted_and_added_again_is_a_new_one_at_the_head() {
        let mut roll = Roll::default();
        roll.update(&list(&[(3, 1), (2, 1), (1, 1)]));
        let change = roll.update(&list(&[(1, 1), (3, 1), (2, 1)]));
        assert_eq!(change.added, 1);
        assert_eq!(change.moved, [Some(1), Some(2), None]);
    }

    #[test]
    fn the_same_list_again_changes_nothing() {
        let mut roll = Roll::default();
        roll.update(&list(&[(2, 1), (1, 1)]));
        let change = roll.update(&list(&[(2, 1), (1, 1)]));
        assert_eq!(change.added, 0);
        assert!(!change.edited && !change.removed_any());
    }
}
