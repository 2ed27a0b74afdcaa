//! On which NUMA nodes the connection tables are to lie: those of the CPUs that the workers run on.

use crate::config::{DirectorSettings, Pin};
use std::collections::BTreeSet;
use std::path::Path;

/// The nodes to name to the table; none where the machine has but one, or does not tell.
///
/// Workers that may run anywhere may meet all nodes, so that each node gets its share of the table.
pub(super) fn nodes(settings: &DirectorSettings) -> Vec<u16> {
    let cpus: Option<Vec<usize>> = match &settings.pin {
        Pin::Nowhere => None,
        Pin::InOrder => Some((0..usize::from(settings.workers)).collect()),
        Pin::To(cpus) => Some(cpus.iter().map(|cpu| usize::from(*cpu)).collect()),
    };
    nodes_of(Path::new("/sys/devices/system"), cpus.as_deref())
}

fn nodes_of(system: &Path, cpus: Option<&[usize]>) -> Vec<u16> {
    let online = std::fs::read_to_string(system.join("node/online")).unwrap_or_default();
    let online = ranges(online.trim());
    if online.len() < 2 {
        return Vec::new();
    }
    let Some(cpus) = cpus else {
        return online.into_iter().collect();
    };
    let is_at = |cpu: usize, node: u16| system.join(format!("cpu/cpu{cpu}/node{node}")).exists();
    let met = online
        .into_iter()
        .filter(|&node| cpus.iter().any(|&cpu| is_at(cpu, node)));
    met.collect()
}

/// A list of the kernel's, such as "0-1,4". What is none of it is left out.
fn ranges(text: &str) -> BTreeSet<u16> {
    let range = |text: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_of_the_kernel_are_read() {
        let read = |text: &str| ranges(text).into_iter().collect::<Vec<_>>();
        assert_eq!(read("0"), [0]);
        assert_eq!(read("0-1,4,6-7"), [0, 1, 4, 6, 7]);
        assert_eq!(read(""), [0; 0]);
        assert_eq!(read("x,3"), [3]);
    }

    #[test]
    fn the_table_lies_on_the_nodes_of_the_workers_cpus() {
        let system = std::env::temp_dir().join(format!("uvs-nodes-{}", std::process::id()));
        for (cpu, node) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
            fs::create_dir_all(system.join(format!("cpu/cpu{cpu}/node{node}"))).unwrap();
        }
        fs::create_dir_all(system.join("node")).unwrap();
        let online = |text: &str| fs::write(system.join("node/online"), text).unwrap();
        online("0-2\n");
        assert_eq!(nodes_of(&system, None), [0, 1, 2]);
        assert_eq!(nodes_of(&system, Some(&[0, 1])), [0]);
        assert_eq!(nodes_of(&system, Some(&[3, 1])), [0, 2]);
        assert_eq!(nodes_of(&system, Some(&[9])), [0; 0]);
        online("0\n");
        assert_eq!(
            nodes_of(&system, Some(&[0, 1])),
            [0; 0],
            "nothing to choose"
        );
        fs::remove_dir_all(&system).unwrap();
        assert_eq!(nodes_of(&system, None), [0; 0]);
    }
}
