//! Why an interface cannot be opened, and what to do about it.

use super::open::MTU_MAX;
use crate::port::interface::InterfaceError;
use std::io;

/// Why an interface cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No interface can have such a name.
    #[error("interface {interface:?}: accepted are names of 1 to 15 bytes")]
    BadName {
        /// The name.
        interface: String,
    },
    /// The process may not do what was tried.
    #[error(
        "interface {interface:?}: cannot {action}: AF_XDP needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF: run as root, or give \
         them (systemd AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF, docker --cap-add NET_RAW --cap-add NET_ADMIN \
         --cap-add BPF)"
    )]
    NotPermitted {
        /// The name.
        interface: String,
        /// What was tried.
        action: &'static str,
    },
    /// The interface is none that can be a port.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Its packets are larger than a chunk of memory.
    #[error(
        "interface {interface:?} has MTU {mtu}; with driver \"af_xdp\" at most {MTU_MAX} are accepted: `ip link set \
         {interface} mtu {MTU_MAX}`, or use driver \"af_packet\""
    )]
    MtuTooLarge {
        /// The name.
        interface: String,
        /// Its MTU, bytes.
        mtu: u32,
    },
    /// Not one queue for each worker.
    #[error(
        "interface {interface:?} receives by {queues} queues, and there are {workers} workers, each of which has one: {remedy}"
    )]
    Queues {
        /// The name.
        interface: String,
        /// How many it has.
        queues: u32,
        /// How many workers there are.
        workers: u16,
        /// What to do.
        remedy: String,
    },
    /// Somebody else has a program there.
    #[error(
        "interface {interface:?} has an XDP program already ({program}); there can be one: `bpftool net` shows whose it is, \
         `ip link set {interface} xdp off` or its owner's end removes it"
    )]
    OtherProgram {
        /// The name.
        interface: String,
        /// Its number, in words.
        program: String,
    },
    /// Frames would come by the kernel's own buffers.
    #[error("interface {interface:?} has no native XDP")]
    NotNative {
        /// The name.
        interface: String,
        /// What the kernel says.
        source: Option<io::Error>,
    },
    /// Somebody else has an AF_XDP socket there.
    #[error(
        "interface {interface:?}: queue {queue} belongs to another AF_XDP socket; end the program that has it"
    )]
    QueueTaken {
        /// The name.
        interface: String,
        /// Which queue.
        queue: u16,
    },
    /// The memory for frames cannot be pinned.
    #[error(
        "interface {interface:?}: {mib} MiB for the frames of a queue are more than this process may pin (RLIMIT_MEMLOCK): give \
         it CAP_IPC_LOCK or a higher limit (systemd LimitMEMLOCK=infinity, docker --ulimit memlock=-1, ulimit -l unlimited)"
    )]
    MemoryLocked {
        /// The name.
        interface: String,
        /// What is needed.
        mib: usize,
    },
    /// The kernel refused something that it should not.
    #[error("interface {interface:?}: cannot {action}")]
    System {
        /// The name.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An action that the kernel refused.
pub(super) fn refused(interface: &str, action: &'static str, source: io::Error) -> OpenError {
    let interface = interface.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { interface, action },
        _ => OpenError::System {
            interface,
            action,
            source,
        },
    }
}
