//! The few calls of bpf(2), each as a safe method.
//!
//! Source: Linux include/uapi/linux/bpf.h (`union bpf_attr`), man 2 bpf.
#![allow(
    unsafe_code,
    reason = "neither std nor libc has bpf(2); its arguments are structures with addresses in them"
)]

use super::assembler::Instruction;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// `enum bpf_cmd`.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const PROG_LOAD: i32 = 5;
const PROG_TEST_RUN: i32 = 10;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;

// `enum bpf_map_type`, `enum bpf_prog_type`, `enum bpf_attach_type`.
const HASH: u32 = 1;
const XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// Memory of a hash map's elements is taken when they come.
const F_NO_PREALLOC: u32 = 1;
/// The frame goes on as the program says, instead of back to the caller. Linux 5.18.
const F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
// XDP_FLAGS_*.
const FLAGS_SKB: u32 = 1 << 1;
const FLAGS_NATIVE: u32 = 1 << 2;
/// What the verifier says about a program it refuses: only this much of it is of interest.
const LOG_LEN: usize = 64 * 1024;

/// A map: a file descriptor, and the bytes of keys and values.
pub(super) struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
}

/// A program that the verifier has accepted.
pub(super) struct Program(OwnedFd);

/// A program on an interface, until this is dropped or the process has ended.
pub(super) struct Link(OwnedFd);

/// Where on its way a program sees a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the interface's driver.
    Native,
    /// Behind it, for drivers without XDP.
    Skb,
}

#[derive(Default)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[derive(Default)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _padding: u32,
}

/// `struct xdp_md`.
#[derive(Default)]
#[repr(C)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

impl Map {
    /// A hash map with values of one byte, of at most `entries` keys.
    pub(super) fn hash(name: &str, key_len: usize, entries: u32) -> io::Result<Map> {
        Map::new(HASH, name, (key_len, 1), entries, F_NO_PREALLOC)
    }

    /// AF_XDP sockets by queue.
    pub(super) fn sockets(name: &str, queues: u32) -> io::Result<Map> {
        Map::new(XSKMAP, name, (4, 4), queues, 0)
    }

    fn new(
        map_type: u32,
        name: &str,
        (key_len, value_len): (usize, usize),
        max_entries: u32,
        map_flags: u32,
    ) -> io::Result<Map> {
        let mut attributes = MapCreate {
            map_type,
            key_size: short(key_len),
            value_size: short(value_len),
            max_entries,
            map_flags,
            map_name: name_of(name),
            ..MapCreate::default()
        };
        // SAFETY: the attributes are those of this command, which returns a new file descriptor.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attributes) }?;
        Ok(Map {
            fd,
            key_len,
            value_len,
        })
    }

    /// The file descriptor, for programs.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Puts a value at a key, which may be there already.
    ///
    /// # Errors
    /// `E2BIG`: the map is full.
    ///
    /// # Panics
    /// When either has another length than the map's.
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert!(key.len() == self.key_len && value.len() == self.value_len);
        self.element(MAP_UPDATE_ELEM, key, value.as_ptr() as u64)
    }

    /// Takes a key out, if it is there.
    ///
    /// # Panics
    /// When it has another length than the map's.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert!(key.len() == self.key_len);
        match self.element(MAP_DELETE_ELEM, key, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Whether a key is there.
    #[cfg(test)]
    pub(super) fn contains(&self, key: &[u8]) -> io::Result<bool> {
        const MAP_LOOKUP_ELEM: i32 = 1;
        let mut value = [0u8; 1];
        assert!(key.len() == self.key_len && value.len() == self.value_len);
        match self.element(MAP_LOOKUP_ELEM, key, value.as_mut_ptr() as u64) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn element(&self, command: i32, key: &[u8], value: u64) -> io::Result<()> {
        let mut attributes = MapElement {
            map_fd: descriptor(self.fd.as_raw_fd()),
            _padding: 0,
            key: key.as_ptr() as u64,
            value,
            flags: 0,
        };
        // SAFETY: the attributes are those of the commands for elements; every caller has compared the lengths of key and
        // value, which outlive the call, with what the kernel reads of them.
        unsafe { bpf(command, &mut attributes) }.map(drop)
    }
}

impl Program {
    /// Has the kernel accept a program.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN; and when the verifier refuses it, whose last words are in the error then.
    pub(super) fn load(name: &str, code: &[Instruction]) -> io::Result<Program> {
        let mut log = vec![0u8; LOG_LEN];
        Program::try_load(name, code, &mut []).or_else(|error| {
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) {
                return Err(error);
            }
            Program::try_load(name, code, &mut log).map_err(|error| {
                let said = String::from_utf8_lossy(&log);
                let said = said.trim_end_matches('\0').trim_end();
                let last = said.lines().rev().take(8).collect::<Vec<_>>();
                let last: Vec<_> = last.into_iter().rev().collect();
                io::Error::new(error.kind(), format!("{error}: {}", last.join("; ")))
            })
        })
    }

    fn try_load(name: &str, code: &[Instruction], log: &mut [u8]) -> io::Result<Program> {
        let mut attributes = ProgLoad {
            prog_type: PROG_TYPE_XDP,
            insn_cnt: short(code.len()),
            insns: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: short(log.len()),
            log_buf: if log.is_empty() {
                0
            } else {
                log.as_mut_ptr() as u64
            },
            kern_version: 0,
            prog_flags: 0,
            prog_name: name_of(name),
            prog_ifindex: 0,
            expected_attach_type: ATTACH_XDP,
        };
        // SAFETY: the attributes are those of this command; code, licence and log outlive it, and are as long as it says.
        // It returns a new file descriptor.
        unsafe { bpf_fd(PROG_LOAD, &mut attributes) }.map(Program)
    }

    /// Puts the program on an interface.
    ///
    /// # Errors
    /// `EBUSY` and `EEXIST`: there is one already. `EOPNOTSUPP`, `EINVAL`, `ENOSPC` and others: the driver cannot.
    pub(super) fn attach(&self, interface: u32, mode: Mode) -> io::Result<Link> {
        let mut attributes = LinkCreate {
            prog_fd: descriptor(self.0.as_raw_fd()),
            target_ifindex: interface,
            attach_type: ATTACH_XDP,
            flags: match mode {
                Mode::Native => FLAGS_NATIVE,
                Mode::Skb => FLAGS_SKB,
            },
        };
        // SAFETY: the attributes are those of this command, which returns a new file descriptor.
        let fd = unsafe { bpf_fd(LINK_CREATE, &mut attributes) }?;
        Ok(Link(fd))
    }

    /// What the program says of a frame: `enum xdp_action`.
    #[cfg(test)]
    pub(super) fn verdict(&self, frame: &[u8]) -> io::Result<u32> {
        let mut attributes = TestRun {
            prog_fd: descriptor(self.0.as_raw_fd()),
            data_size_in: short(frame.len()),
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ..TestRun::default()
        };
        // SAFETY: the attributes are those of this command; the frame outlives it, and is as long as it says.
        unsafe { bpf(PROG_TEST_RUN, &mut attributes) }?;
        Ok(attributes.retval)
    }

    /// Runs the program on a copy of a frame as if it came in by a queue of an interface, and lets happen what it says.
    ///
    /// # Errors
    /// Before Linux 5.18, for a frame longer than a page has room for, and when there is no such queue.
    pub(super) fn run_live(&self, frame: &[u8], interface: u32, queue: u32) -> io::Result<()> {
        let context = XdpMd {
            data_end: short(frame.len()),
            ingress_ifindex: interface,
            rx_queue_index: queue,
            ..XdpMd::default()
        };
        let mut attributes = TestRun {
            prog_fd: descriptor(self.0.as_raw_fd()),
            data_size_in: short(frame.len()),
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ctx_size_in: short(size_of::<XdpMd>()),
            ctx_in: (&raw const context) as u64,
            flags: F_TEST_XDP_LIVE_FRAMES,
            batch_size: 1,
            ..TestRun::default()
        };
        // SAFETY: the attributes are those of this command; frame and context outlive it, and are as long as it says.
        unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.map(drop)
    }
}

impl Link {
    /// Puts another program in the place of the one that is there.
    pub(super) fn replace(&self, program: &Program) -> io::Result<()> {
        let mut attributes = LinkUpdate {
            link_fd: descriptor(self.0.as_raw_fd()),
            new_prog_fd: descriptor(program.0.as_raw_fd()),
            flags: 0,
            old_prog_fd: 0,
        };
        // SAFETY: the attributes are those of this command, and have no addresses.
        unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(drop)
    }
}

/// # Safety
/// `attributes` are those that the command reads and writes, and the addresses in them are good for what it does with them.
unsafe fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    let to = std::ptr::from_mut(attributes);
    // SAFETY: the caller's promise; the attributes are readable and writable for their length.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, to, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).expect("bpf(2) returns an int"))
    }
}

/// # Safety
/// As [`bpf`]; and the command returns a new file descriptor.
unsafe fn bpf_fd<T>(command: i32, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the caller's promise: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `bpftool` shows: up to 15 bytes.
fn name_of(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("programs, keys and frames are short")
}

fn descriptor(fd: RawFd) -> u32 {
    u32::try_from(fd).expect("an open file descriptor is not negative")
}
