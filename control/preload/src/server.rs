//! The way to uvsd.
#![allow(
    unsafe_code,
    reason = "functions of the C library are replaced, and called"
)]

use crate::next;
use libc::{c_int, c_void, sockaddr, sockaddr_un, socklen_t};
use std::env;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

/// Names uvsd's socket.
const VARIABLE: &str = "UVS_IPVS";
/// The type of messages that ask for a file; see `control/src/netlink/numbers.rs`.
const FILE: u16 = 0x5f01;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const HEADER: usize = 16;
#[allow(
    clippy::cast_possible_truncation,
    reason = "families are small; the C library has two types for them"
)]
const FAMILY: libc::sa_family_t = libc::AF_UNIX as libc::sa_family_t;

/// The path of uvsd's socket.
fn path() -> Option<&'static [u8]> {
    static PATH: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let path = PATH.get_or_init(|| env::var_os(VARIABLE).map(OsStringExt::into_vec));
    path.as_deref()
}

fn address(path: &[u8]) -> Option<(sockaddr_un, socklen_t)> {
    // SAFETY: all bytes of it may be 0.
    let mut address: sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = FAMILY;
    // The last byte stays 0.
    let room = address.sun_path.split_last_mut()?.1;
    if path.is_empty() || path.len() > room.len() {
        return None;
    }
    for (to, from) in room.iter_mut().zip(path) {
        *to = from.cast_signed();
    }
    let len = socklen_t::try_from(size_of::<sockaddr_un>()).ok()?;
    Some((address, len))
}

/// A new connection to uvsd; without one the reason is told on standard error, and `errno` is what the caller gives on.
pub(crate) fn connect() -> Option<OwnedFd> {
    let Some((address, len)) = path().and_then(address) else {
        eprintln!(
            "libuvs-ipvs: {VARIABLE} does not name uvsd's socket; accepted: what `uvs compat` sets"
        );
        fail_with(libc::ECONNREFUSED);
        return None;
    };
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: it takes numbers alone.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel gave it to us, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the address is as long as it is said to be.
    let connected = unsafe { libc::connect(fd, (&raw const address).cast::<sockaddr>(), len) };
    if connected < 0 {
        let error = std::io::Error::last_os_error();
        let name = String::from_utf8_lossy(path().unwrap_or_default()).into_owned();
        eprintln!("libuvs-ipvs: uvsd's socket {name}: {error}; accepted: a running uvsd");
        fail_with(libc::ECONNREFUSED);
        return None;
    }
    Some(socket)
}

/// Whether a socket is connected to uvsd. Asked of the socket itself, so that nobody's `dup`, `fork` or `close` matters.
pub(crate) fn is_of_uvsd(fd: c_int) -> bool {
    // SAFETY: all bytes of it may be 0.
    let mut peer: sockaddr_un = unsafe { std::mem::zeroed() };
    let Ok(mut len) = socklen_t::try_from(size_of::<sockaddr_un>()) else {
        return false;
    };
    // SAFETY: there is room for as many bytes as is said.
    let got = unsafe { libc::getpeername(fd, (&raw mut peer).cast::<sockaddr>(), &raw mut len) };
    let Some(path) = path() else { return false };
    // uvsd binds its socket beside its place and moves it there, so the name that the kernel knows is longer.
    got == 0
        && c_int::from(peer.sun_family) == libc::AF_UNIX
        && path.len() < peer.sun_path.len()
        && path
            .iter()
            .zip(&peer.sun_path)
            .all(|(of_path, of_peer)| *of_path == of_peer.cast_unsigned())
}

/// A number of `errno` for the caller.
pub(crate) fn fail_with(number: c_int) {
    // SAFETY: the calling thread has it as long as it lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it points to the thread's own number.
    unsafe { *errno = number };
}

/// Asks uvsd for a file of `/proc/net`; without it `errno` says why.
pub(crate) fn file(name: &str) -> Option<OwnedFd> {
    let socket = connect()?;
    let mut request = Vec::with_capacity(64);
    let attribute = u16::try_from(4 + name.len() + 1).ok()?;
    let padded = usize::from(attribute).next_multiple_of(4);
    let len = u32::try_from(HEADER + 4 + padded).ok()?;
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&FILE.to_ne_bytes());
    request.extend_from_slice(&(REQUEST | ACK).to_ne_bytes());
    // Sequence, port; command 1, version 1.
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[1, 1, 0, 0]);
    request.extend_from_slice(&attribute.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes());
    request.extend_from_slice(name.as_bytes());
    request.resize(HEADER + 4 + padded, 0);
    // SAFETY: the bytes are there, and as many as is said.
    let sent = unsafe {
        next::send(
            socket.as_raw_fd(),
            request.as_ptr().cast::<c_void>(),
            request.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    (sent >= 0).then(|| receive_file(&socket)).flatten()
}

/// Room for one file beside a message, laid out as the kernel wants it.
#[repr(C, align(8))]
struct Beside([u8; 64]);

fn receive_file(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut answer = [0u8; 256];
    let mut beside = Beside([0; 64]);
    let mut into = libc::iovec {
        iov_base: answer.as_mut_ptr().cast::<c_void>(),
        iov_len: answer.len(),
    };
    // SAFETY: all bytes of it may be 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut into;
    message.msg_iovlen = 1;
    message.msg_control = beside.0.as_mut_ptr().cast::<c_void>();
    message.msg_controllen = beside.0.len() as _;
    // SAFETY: the message says of each part where it is and how long.
    let got =
        unsafe { next::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let code = answer.get(HEADER..HEADER + 4)?;
    let code = c_int::from_ne_bytes([code[0], code[1], code[2], code[3]]);
    if usize::try_from(got).is_ok_and(|got| got >= HEADER + 4) && code != 0 {
        fail_with(-code);
        return None;
    }
    // SAFETY: the message was filled by the kernel.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it is null or points into `beside`, which is aligned for it.
    let header = unsafe { first.as_ref() };
    let is_file = header.is_some_and(|header| {
        header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS
    });
    if !is_file {
        fail_with(libc::EIO);
        return None;
    }
    // SAFETY: the kernel puts as many numbers there as files came, and one came.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: as above; the place need not be aligned.
    let fd: RawFd = unsafe { data.cast::<RawFd>().read_unaligned() };
    // SAFETY: the kernel gave it to us, and nobody else has it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
