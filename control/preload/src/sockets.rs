//! Sockets: the one that asks for family "IPVS" becomes one to uvsd.
#![allow(
    unsafe_code,
    reason = "functions of the C library are replaced, and called"
)]

use crate::next;
use crate::server::{connect, fail_with, is_of_uvsd};
use libc::{c_int, c_void, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};
use std::os::fd::AsRawFd;

/// `nlctrl`, its request for a family, and the attribute with a family's name.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
/// Bytes of a message that asks for a family, at most: more are not looked at.
const LOOKED_AT: usize = 128;

/// Socket options of IPVS, to set and to get. Source: Linux include/uapi/linux/ip_vs.h (`IP_VS_BASE_CTL`).
const OPTIONS: std::ops::Range<c_int> = 64 + 1024 + 64..64 + 1024 + 64 + 64;

/// Bytes of an address of netlink.
const NETLINK_ADDRESS: socklen_t = 12;
const _: () = assert!(size_of::<sockaddr_nl>() == 12);
#[allow(
    clippy::cast_possible_truncation,
    reason = "families are small; the C library has two types for them"
)]
const FAMILY: libc::sa_family_t = libc::AF_NETLINK as libc::sa_family_t;

/// Whether a message asks nlctrl for family "IPVS", or for all families: the kernel's answer would lead to the kernel's IPVS.
fn asks_for_ipvs(message: &[u8]) -> bool {
    let u16_at = |at: usize| match message.get(at..at + 2) {
        Some(&[a, b]) => u16::from_ne_bytes([a, b]),
        _ => 0,
    };
    if u16_at(4) != CONTROL || message.get(16) != Some(&GET_FAMILY) {
        return false;
    }
    let mut at = 20;
    let mut is_of_all = true;
    while let Some(rest) = message.get(at..).filter(|rest| rest.len() >= 4) {
        let len = usize::from(u16_at(at));
        let Some(value) = rest.get(4..len) else { break };
        if u16_at(at + 2) == FAMILY_NAME {
            let end = value.iter().position(|byte| *byte == 0);
            return &value[..end.unwrap_or(value.len())] == b"IPVS";
        }
        is_of_all = false;
        at += len.next_multiple_of(4);
    }
    is_of_all
}

fn number_of(fd: c_int, option: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut len = socklen_t::try_from(size_of::<c_int>()).ok()?;
    let into = (&raw mut value).cast::<c_void>();
    // SAFETY: there is room for a number, as is said.
    let got = unsafe { next::getsockopt(fd, libc::SOL_SOCKET, option, into, &raw mut len) };
    (got == 0).then_some(value)
}

/// Makes a socket of generic netlink one to uvsd, under the same number. False: it could not be, and `errno` says why.
fn turn_over(fd: c_int) -> bool {
    let is_generic = number_of(fd, libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
        && number_of(fd, libc::SO_PROTOCOL) == Some(libc::NETLINK_GENERIC);
    if !is_generic {
        return true;
    }
    let Some(socket) = connect() else {
        return false;
    };
    // SAFETY: it takes numbers alone.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    // SAFETY: likewise.
    let status = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let cloexec = if flags & libc::FD_CLOEXEC != 0 {
        libc::O_CLOEXEC
    } else {
        0
    };
    // SAFETY: both are open; what `fd` was is given up on purpose.
    let turned = unsafe { libc::dup3(socket.as_raw_fd(), fd, cloexec) };
    // SAFETY: it takes numbers alone.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFL, status & libc::O_NONBLOCK) };
    turned >= 0 && set >= 0
}

/// Looks at what is sent. False: it is not to be sent.
fn before_sending(fd: c_int, message: &[u8]) -> bool {
    !asks_for_ipvs(message) || turn_over(fd)
}

/// # Safety
/// As of send(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn send(fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller says that so many bytes are there.
    if !before_sending(fd, unsafe { looked_at(data, len) }) {
        return -1;
    }
    // SAFETY: the caller keeps the contract.
    unsafe { next::send(fd, data, len, flags) }
}

/// # Safety
/// As of sendto(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller says that so many bytes are there.
    if !before_sending(fd, unsafe { looked_at(data, len) }) {
        return -1;
    }
    // To a socket of uvsd's the kernel does not read the address.
    // SAFETY: the caller keeps the contract.
    unsafe { next::sendto(fd, data, len, flags, to, to_len) }
}

/// # Safety
/// As of sendmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller gives a message, or null.
    let parts = unsafe { message.as_ref() };
    let first = parts.filter(|parts| parts.msg_iovlen > 0);
    // SAFETY: so many parts are there.
    let first = first.and_then(|parts| unsafe { parts.msg_iov.as_ref() });
    if let Some(first) = first {
        // A netlink message that is cut into parts has its first one whole in all libraries that are known.
        // SAFETY: the part says where it is and how long.
        let bytes = unsafe { looked_at(first.iov_base, first.iov_len) };
        if !before_sending(fd, bytes) {
            return -1;
        }
    }
    // SAFETY: the caller keeps the contract.
    unsafe { next::sendmsg(fd, message, flags) }
}

/// The beginning of what is sent.
///
/// # Safety
/// `len` bytes are at `data`, as long as the result is used.
unsafe fn looked_at<'m>(data: *const c_void, len: size_t) -> &'m [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len.min(LOOKED_AT)) }
}

/// # Safety
/// As of recvmsg(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller gives a message, or null.
    let room = unsafe { message.as_ref() }.map_or(0, |message| message.msg_namelen);
    // SAFETY: the caller keeps the contract.
    let got = unsafe { next::recvmsg(fd, message, flags) };
    if got > 0 && room >= NETLINK_ADDRESS && is_of_uvsd(fd) {
        // SAFETY: the call before has taken it for a message.
        let message = unsafe { &mut *message };
        // SAFETY: the caller has room for `room` bytes there.
        if unsafe { put_kernel(message.msg_name) } {
            message.msg_namelen = NETLINK_ADDRESS;
        }
    }
    got
}

/// # Safety
/// As of recvfrom(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn recvfrom(
    fd: c_int,
    data: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller gives a length, or null.
    let room = unsafe { from_len.as_ref() }.map_or(0, |len| *len);
    // SAFETY: the caller keeps the contract.
    let got = unsafe { next::recvfrom(fd, data, len, flags, from, from_len) };
    if got > 0 && room >= NETLINK_ADDRESS && is_of_uvsd(fd) {
        // SAFETY: the caller has room for `room` bytes there.
        if unsafe { put_kernel(from.cast::<c_void>()) } {
            // SAFETY: it is not null, or there would be no room.
            unsafe { *from_len = NETLINK_ADDRESS };
        }
    }
    got
}

/// Writes the kernel's address of netlink, unless `to` is null.
///
/// # Safety
/// There is room for it at `to`.
unsafe fn put_kernel(to: *mut c_void) -> bool {
    if to.is_null() {
        return false;
    }
    // SAFETY: all bytes of it may be 0: the kernel's port is.
    let mut kernel: sockaddr_nl = unsafe { std::mem::zeroed() };
    kernel.nl_family = FAMILY;
    // SAFETY: the caller says that there is room; it need not be aligned.
    unsafe { to.cast::<sockaddr_nl>().write_unaligned(kernel) };
    true
}

fn is_of_ipvs(level: c_int, name: c_int) -> bool {
    level == libc::IPPROTO_IP && OPTIONS.contains(&name)
}

/// # Safety
/// As of getsockopt(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if is_of_ipvs(level, name) {
        fail_with(libc::ENOPROTOOPT);
        return -1;
    }
    // SAFETY: the caller keeps the contract.
    unsafe { next::getsockopt(fd, level, name, value, len) }
}

/// # Safety
/// As of setsockopt(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if is_of_ipvs(level, name) {
        fail_with(libc::ENOPROTOOPT);
        return -1;
    }
    // SAFETY: the caller keeps the contract.
    unsafe { next::setsockopt(fd, level, name, value, len) }
}
