//! What uvsd may still do once its ports are open: what those need to be opened again, and nothing else.
//!
//! Capabilities are a thread's own, and threads have those of the one that makes them: to be called before the workers start.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};
use std::io;

/// What ports of these drivers need while they run.
#[must_use]
pub fn needed<'a>(drivers: impl IntoIterator<Item = &'a str>) -> CapabilitySet {
    let all = drivers.into_iter().map(|driver| match driver {
        "memory" | "pcap" => CapabilitySet::empty(),
        // A socket for an interface that came back, with buffers as large as before.
        "af_packet" => CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN,
        // The program, its maps and their locked memory, too; and what DPDK's drivers do to their devices.
        _ => {
            CapabilitySet::NET_RAW
                | CapabilitySet::NET_ADMIN
                | CapabilitySet::BPF
                | CapabilitySet::PERFMON
                | CapabilitySet::IPC_LOCK
        }
    });
    all.fold(CapabilitySet::empty(), |all, one| all | one)
}

/// Gives up all capabilities of the calling thread but these, of which it keeps what it has, and new ones by running other
/// programs. Returns what it keeps.
///
/// # Errors
/// When the system refuses.
pub fn keep(needed: CapabilitySet) -> io::Result<CapabilitySet> {
    nix::sys::prctl::set_no_new_privs()?;
    let had = capabilities(None)?;
    let kept = had.permitted & needed;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all() - needed {
            // The kernel may be older than some of them.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_device_needs_nothing() {
        assert!(needed(["memory", "pcap"]).is_empty());
        assert_eq!(
            needed(["memory", "af_packet"]),
            CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN
        );
        assert!(needed(["af_xdp"]).contains(CapabilitySet::BPF));
    }

    #[test]
    fn what_is_not_kept_is_gone_for_the_thread_and_those_it_makes() {
        let of_others = capabilities(None).unwrap();
        let thread = std::thread::spawn(|| {
            let kept = keep(CapabilitySet::NET_RAW).unwrap();
            let child = std::thread::spawn(|| capabilities(None).unwrap());
            (kept, child.join().unwrap())
        });
        let (kept, sets) = thread.join().unwrap();
        assert_eq!((sets.effective, sets.permitted), (kept, kept));
        assert!((kept - CapabilitySet::NET_RAW).is_empty());
        assert_eq!(capabilities(None).unwrap(), of_others);
    }
}
