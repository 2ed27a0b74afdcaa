//! The system calls of a packet socket, each as a safe method.
#![allow(
    unsafe_code,
    reason = "neither std nor a kept crate has the options and addresses of packet sockets"
)]

use crate::port::Mac;
use arrayvec::ArrayVec;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A packet socket that receives nothing until it is bound.
pub(super) struct PacketSocket {
    fd: OwnedFd,
}

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: i32,
    pub(super) up: bool,
    /// With a carrier, as far as the kernel can tell.
    pub(super) running: bool,
    pub(super) mtu: u32,
    /// ARPHRD_*; 1 is Ethernet.
    pub(super) hardware_type: u16,
    pub(super) mac: Mac,
}

/// Frames that are handed to the kernel in one call.
pub(super) const SEND_MAX: usize = 64;
/// Errors of the interface that may come between two tries to receive.
const ERRORS_IN_BETWEEN: u32 = 4;
/// The longest name of an interface, bytes.
pub(super) const NAME_LEN_MAX: usize = libc::IFNAMSIZ - 1;

impl PacketSocket {
    pub(super) fn new() -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers.
        let fd = result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the call succeeded, so that this is an open descriptor which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(PacketSocket { fd })
    }

    /// Receives the frames of the interface from now on, of every EtherType.
    pub(super) fn bind(&self, interface_index: i32) -> io::Result<()> {
        // SAFETY: all bytes zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("AF_PACKET is 17");
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
            .expect("ETH_P_ALL is 3")
            .to_be();
        address.sll_ifindex = interface_index;
        let len = socklen(size_of_val(&address));
        // SAFETY: `address` is readable for `len` bytes during the call.
        result(unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) })
            .map(drop)
    }

    /// The index of the interface that it is bound to; none of any interface's once that is gone.
    pub(super) fn bound_to(&self) -> io::Result<i32> {
        // SAFETY: all bytes zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = socklen(size_of_val(&address));
        let fd = self.fd.as_raw_fd();
        // SAFETY: `address` is writable for `len` bytes and `len` itself is, during the call.
        result(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) })?;
        Ok(address.sll_ifindex)
    }

    /// Sets an option of the level SOL_PACKET.
    pub(super) fn set(&self, option: i32, value: &[u8]) -> io::Result<()> {
        self.set_at(libc::SOL_PACKET, option, value)
    }

    /// Lets the kernel hold `bytes` of this socket's frames in flight: beyond the system's limit where it is allowed.
    pub(super) fn set_send_buffer(&self, bytes: i32) -> io::Result<()> {
        let value = bytes.to_ne_bytes();
        self.set_at(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &value)
            .or_else(|_| self.set_at(libc::SOL_SOCKET, libc::SO_SNDBUF, &value))
    }

    fn set_at(&self, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
        let (fd, len) = (self.fd.as_raw_fd(), socklen(value.len()));
        // SAFETY: `value` is readable for `len` bytes during the call.
        result(unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) }).map(drop)
    }

    /// Reads an option of the level SOL_PACKET.
    pub(super) fn get<const N: usize>(&self, option: i32) -> io::Result<[u8; N]> {
        self.get_at(libc::SOL_PACKET, option)
    }

    /// The error that waits on the socket, and clears it: poll(2) returns at once as long as there is one.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        match self
            .get_at(libc::SOL_SOCKET, libc::SO_ERROR)
            .map(i32::from_ne_bytes)
        {
            Ok(0) => None,
            Ok(code) => Some(io::Error::from_raw_os_error(code)),
            Err(error) => Some(error),
        }
    }

    fn get_at<const N: usize>(&self, level: i32, option: i32) -> io::Result<[u8; N]> {
        let mut value = [0; N];
        let mut len = socklen(N);
        let fd = self.fd.as_raw_fd();
        // SAFETY: `value` is writable for `len` bytes and `len` itself is, during the call.
        result(unsafe {
            libc::getsockopt(fd, level, option, value.as_mut_ptr().cast(), &raw mut len)
        })?;
        Ok(value)
    }

    /// Hands frames to the kernel, which copies them; how many it took. At most [`SEND_MAX`], each with its virtio-net
    /// header in front.
    ///
    /// # Errors
    /// When it refuses the first.
    #[inline]
    pub(super) fn send_many<'f>(
        &self,
        frames: impl Iterator<Item = &'f [u8]>,
    ) -> io::Result<usize> {
        let mut parts: ArrayVec<libc::iovec, SEND_MAX> = ArrayVec::new();
        parts.extend(frames.take(SEND_MAX).map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        }));
        let mut messages: ArrayVec<libc::mmsghdr, SEND_MAX> = ArrayVec::new();
        messages.extend(parts.iter_mut().map(|part| {
            // SAFETY: all bytes zero is a valid mmsghdr: no address, no parts, no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        }));
        let count = u32::try_from(messages.len()).expect("at most SEND_MAX");
        let fd = self.fd.as_raw_fd();
        // SAFETY: `count` messages are readable and writable during the call, each names one part in `parts`, and the
        // kernel only reads the frames that those name, which are borrowed for 'f.
        let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        let sent = result(sent)?;
        Ok(usize::try_from(sent).expect("a call that succeeds says how many"))
    }

    /// Takes the first frame from the socket's queue, its virtio-net header in front; how long it is, even if that is more
    /// than fits.
    ///
    /// That the interface has gone down is told to whoever calls next, once, instead of what he asks for: the frame is still there
    /// then, and is asked for again. Otherwise each later frame would be taken for the one behind it.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = self.receive_once(buffer);
        for _ in 0..ERRORS_IN_BETWEEN {
            match &received {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    received = self.receive_once(buffer);
                }
                _ => break,
            }
        }
        received
    }

    fn receive_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_TRUNC);
        // SAFETY: `buffer` is writable for its length during the call.
        let len = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// Lets `bytes` of frames wait in the socket's queue, beyond the system's limit.
    ///
    /// # Errors
    /// When the process may not.
    pub(super) fn force_receive_buffer(&self, bytes: i32) -> io::Result<()> {
        self.set_at(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes.to_ne_bytes())
    }

    /// Asks about the interface of that name in the socket's network namespace.
    pub(super) fn interface(&self, name: &str) -> io::Result<Interface> {
        interface(self.fd.as_fd(), name)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks about the interface of that name in the network namespace of a socket, of whatever kind.
pub(super) fn interface(socket: BorrowedFd<'_>, name: &str) -> io::Result<Interface> {
    let name = CString::new(name)
        .ok()
        .filter(|name| name.count_bytes() <= NAME_LEN_MAX);
    let name = name.ok_or(io::ErrorKind::InvalidInput)?;
    let index = request(socket, &name, libc::SIOCGIFINDEX)?;
    let flags = request(socket, &name, libc::SIOCGIFFLAGS)?;
    let mtu = request(socket, &name, libc::SIOCGIFMTU)?;
    let hardware = request(socket, &name, libc::SIOCGIFHWADDR)?;
    // SAFETY: the request that succeeded fills in this member, as the others below.
    let address = unsafe { hardware.ifr_ifru.ifru_hwaddr };
    let mut mac = Mac([0; 6]);
    for (byte, from) in mac.0.iter_mut().zip(address.sa_data) {
        *byte = from.cast_unsigned();
    }
    // SAFETY: see above.
    let flags = unsafe { flags.ifr_ifru.ifru_flags };
    // SAFETY: see above.
    let mtu = unsafe { mtu.ifr_ifru.ifru_mtu };
    Ok(Interface {
        // SAFETY: see above.
        index: unsafe { index.ifr_ifru.ifru_ifindex },
        up: i32::from(flags) & libc::IFF_UP != 0,
        running: i32::from(flags) & libc::IFF_RUNNING != 0,
        mtu: u32::try_from(mtu).unwrap_or(0),
        hardware_type: address.sa_family,
        mac,
    })
}

fn request(socket: BorrowedFd<'_>, name: &CStr, request: libc::Ioctl) -> io::Result<libc::ifreq> {
    // SAFETY: all bytes zero is a valid ifreq.
    let mut argument: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in argument.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = byte.cast_signed();
    }
    // SAFETY: these requests read and write one ifreq, which `argument` is for the time of the call.
    result(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut argument) })?;
    Ok(argument)
}

fn result(returned: i32) -> io::Result<i32> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

fn socklen(len: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(len).expect("options and addresses are short")
}
