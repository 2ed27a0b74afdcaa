//! An interface of the kernel's whose cable is this process: it is gone when the process is.
//!
//! Source: Linux Documentation/networking/tuntap.rst.
#![allow(unsafe_code, reason = "ioctls")]

use crate::port::Mac;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

pub(super) struct Tap {
    file: File,
}

impl Tap {
    /// Makes the interface, up. What was tried stands beside the error.
    pub(super) fn open(name: &str, mac: Mac, mtu: u32) -> Result<Tap, (&'static str, io::Error)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|error| ("open /dev/net/tun", error))?;
        let mut request = request(name).map_err(|error| ("have that name", error))?;
        #[allow(clippy::cast_possible_truncation, reason = "small flags")]
        let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        request.ifr_ifru.ifru_flags = flags;
        ioctl(&file, libc::TUNSETIFF, &mut request).map_err(|error| ("make it", error))?;

        // Any socket will do to speak of interfaces in this namespace.
        let socket = UdpSocket::bind("127.0.0.1:0")
            .or_else(|_| UdpSocket::bind("[::]:0"))
            .map_err(|error| ("open a socket", error))?;
        let mut data = [0; 14];
        for (to, from) in data.iter_mut().zip(mac.0) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr {
            sa_family: libc::ARPHRD_ETHER,
            sa_data: data,
        };
        ioctl(&socket, libc::SIOCSIFHWADDR, &mut request)
            .map_err(|error| ("set its hardware address", error))?;
        request.ifr_ifru.ifru_mtu = mtu.cast_signed();
        ioctl(&socket, libc::SIOCSIFMTU, &mut request).map_err(|error| ("set its MTU", error))?;
        ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)
            .map_err(|error| ("ask how it is", error))?;
        // SAFETY: the kernel has just written the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        #[allow(clippy::cast_possible_truncation, reason = "small flags")]
        let up = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        request.ifr_ifru.ifru_flags = flags | up;
        ioctl(&socket, libc::SIOCSIFFLAGS, &mut request).map_err(|error| ("set it up", error))?;
        Ok(Tap { file })
    }

    /// The length of the next frame that the kernel sends, if there is one now.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        (&self.file).read(buffer).ok().filter(|len| *len > 0)
    }

    /// Whether the kernel took the frame: it does not while the interface is down.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        (&self.file)
            .write(bytes)
            .is_ok_and(|written| written == bytes.len())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `struct ifreq` for an interface.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a struct of characters and numbers, and a union of such and a pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn ioctl(fd: &impl AsRawFd, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all requests of this file take a `struct ifreq`, which outlives the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
