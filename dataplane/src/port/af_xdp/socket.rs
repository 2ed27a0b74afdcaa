//! The system calls of AF_XDP sockets, of the packet socket beside them, and those that ask about an interface, each as a
//! safe method.
#![allow(
    unsafe_code,
    reason = "neither std nor a kept crate has the options, addresses and requests of these sockets"
)]

use super::ring::{Consumer, Producer};
use super::umem::Umem;
use crate::port::Mac;
use std::ffi::{CStr, CString, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The longest name of an interface, bytes.
pub(super) const NAME_LEN_MAX: usize = libc::IFNAMSIZ - 1;
/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GCHANNELS`. Source: Linux include/uapi/linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// An AF_XDP socket.
pub(super) struct XdpSocket(OwnedFd);

/// The rings of a socket.
pub(super) struct Rings {
    pub(super) fill: Producer<u64>,
    pub(super) receive: Consumer<libc::xdp_desc>,
    pub(super) transmit: Producer<libc::xdp_desc>,
    pub(super) completion: Consumer<u64>,
}

impl XdpSocket {
    pub(super) fn new() -> io::Result<XdpSocket> {
        open_socket(libc::AF_XDP, libc::SOCK_RAW, 0).map(XdpSocket)
    }

    /// Registers the memory and maps rings of `len` entries each.
    pub(super) fn rings(&self, umem: &Umem, len: u32) -> io::Result<Rings> {
        self.set(libc::XDP_UMEM_REG, &umem.registration())?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            self.set(ring, &len)?;
        }
        let zero = || libc::xdp_ring_offset {
            producer: 0,
            consumer: 0,
            desc: 0,
            flags: 0,
        };
        let mut offsets = libc::xdp_mmap_offsets {
            rx: zero(),
            tx: zero(),
            fr: zero(),
            cr: zero(),
        };
        self.get(libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let at = |page_offset: u64| i64::try_from(page_offset).expect("these are below 2^40");
        let fd = self.0.as_fd();
        Ok(Rings {
            fill: Producer::map(fd, at(libc::XDP_UMEM_PGOFF_FILL_RING), &offsets.fr, len)?,
            receive: Consumer::map(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, len)?,
            transmit: Producer::map(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, len)?,
            completion: Consumer::map(
                fd,
                at(libc::XDP_UMEM_PGOFF_COMPLETION_RING),
                &offsets.cr,
                len,
            )?,
        })
    }

    /// Takes a queue of an interface; `flags` are XDP_COPY and such.
    pub(super) fn bind(&self, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP).expect("AF_XDP is 44"),
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        bind(&self.0, &address)
    }

    /// Whether the driver uses the memory itself.
    pub(super) fn is_zero_copy(&self) -> bool {
        let mut options = libc::xdp_options { flags: 0 };
        self.get(libc::XDP_OPTIONS, &mut options).is_ok()
            && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0
    }

    /// What the kernel counts of the socket.
    pub(super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        let mut statistics = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        self.get(libc::XDP_STATISTICS, &mut statistics)?;
        Ok(statistics)
    }

    /// Has the kernel look at the transmit ring.
    #[inline]
    pub(super) fn kick_transmit(&self) -> io::Result<()> {
        let (fd, flags) = (self.0.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: without a buffer and without an address there is nothing that must stay valid.
        result(unsafe { libc::sendto(fd, std::ptr::null(), 0, flags, std::ptr::null(), 0) })
            .map(drop)
    }

    /// Has the kernel look at the fill ring.
    #[cold]
    pub(super) fn kick_receive(&self) {
        let (fd, flags) = (self.0.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: without a buffer there is nothing that must stay valid. Nothing to receive is no mistake.
        unsafe { libc::recv(fd, std::ptr::null_mut(), 0, flags) };
    }

    /// For the map of sockets.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn set<T>(&self, option: i32, value: &T) -> io::Result<()> {
        set_option(&self.0, libc::SOL_XDP, option, value)
    }

    /// `T` is a structure of integers alone, for which any bytes are good.
    fn get<T: Copy>(&self, option: i32, value: &mut T) -> io::Result<()> {
        let mut len = socklen(size_of::<T>());
        let (fd, value) = (
            self.0.as_raw_fd(),
            std::ptr::from_mut(value).cast::<c_void>(),
        );
        // SAFETY: `value` is writable for `len` bytes and `len` itself is, during the call.
        result(unsafe { libc::getsockopt(fd, libc::SOL_XDP, option, value, &raw mut len) })
            .map(drop)
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A packet socket that receives copies of what its filter lets through, of what the kernel's stack gets.
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(super) fn new(interface: u32, filter: &[libc::sock_filter]) -> io::Result<PacketSocket> {
        let socket = open_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).expect("a filter is short"),
            filter: filter.as_ptr().cast_mut(),
        };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        let ignore: i32 = 1;
        set_option(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &ignore,
        )?;
        // Neighbour discovery asks a multicast group of ours, which nobody has joined in the kernel.
        let index = i32::try_from(interface).expect("an interface's index is positive");
        let all_multicast = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_ALLMULTI).expect("PACKET_MR_ALLMULTI is 2"),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &all_multicast,
        )?;
        // SAFETY: all bytes zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("AF_PACKET is 17");
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
            .expect("ETH_P_ALL is 3")
            .to_be();
        address.sll_ifindex = index;
        bind(&socket, &address)?;
        Ok(PacketSocket(socket))
    }

    /// The next frame, if one waits: how many bytes of `room` it takes, or would take.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let fd = self.0.as_raw_fd();
        // SAFETY: `room` is writable for its length during the call.
        let len = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), flags) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// Frames that found the socket's buffer full since this was last asked (`struct tpacket_stats`).
    pub(super) fn take_dropped(&self) -> u64 {
        let mut counts = [0u32; 2];
        let (option, fd) = (libc::PACKET_STATISTICS, self.0.as_raw_fd());
        let mut len = socklen(size_of_val(&counts));
        let to = counts.as_mut_ptr().cast();
        // SAFETY: `counts` is writable for `len` bytes and `len` itself is, during the call.
        let got = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, to, &raw mut len) };
        result(got).map_or(0, |_| u64::from(counts[1]))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One file descriptor to wait on for either of two.
pub(super) fn either(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call succeeded, so that this is an open descriptor which nobody else owns.
    let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
    for fd in [one, other] {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: 0,
        };
        let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: `event` is readable during the call.
        result(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
    }
    Ok(epoll)
}

/// What the kernel says of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) up: bool,
    /// There is a carrier.
    pub(super) running: bool,
    pub(super) mtu: u32,
    /// ARPHRD_*; 1 is Ethernet.
    pub(super) hardware_type: u16,
    pub(super) mac: Mac,
}

/// Queues of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Channels {
    /// That receive alone, that send alone, that do both; and how many of each it can have.
    pub(super) receive: u32,
    pub(super) transmit: u32,
    pub(super) combined: u32,
    pub(super) receive_max: u32,
    pub(super) combined_max: u32,
}

/// Asks the kernel about interfaces of the namespace that it was made in.
pub(super) struct Inquiry(OwnedFd);

impl Inquiry {
    pub(super) fn new() -> io::Result<Inquiry> {
        open_socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map(Inquiry)
    }

    /// The interface of that name.
    pub(super) fn interface(&self, name: &str) -> io::Result<Interface> {
        let name = checked(name)?;
        let mac = self.request(&name, libc::SIOCGIFHWADDR)?;
        let index = self.request(&name, libc::SIOCGIFINDEX)?;
        let flags = self.request(&name, libc::SIOCGIFFLAGS)?;
        let mtu = self.request(&name, libc::SIOCGIFMTU)?;
        // SAFETY: the request that succeeded fills in this member, as the others below.
        let address = unsafe { mac.ifr_ifru.ifru_hwaddr };
        let mut mac = Mac([0; 6]);
        for (byte, from) in mac.0.iter_mut().zip(address.sa_data) {
            *byte = from.cast_unsigned();
        }
        // SAFETY: see above.
        let flags = i32::from(unsafe { flags.ifr_ifru.ifru_flags });
        // SAFETY: see above.
        let mtu = unsafe { mtu.ifr_ifru.ifru_mtu };
        // SAFETY: see above.
        let index = unsafe { index.ifr_ifru.ifru_ifindex };
        Ok(Interface {
            index: u32::try_from(index).map_err(|_| io::ErrorKind::InvalidData)?,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            mtu: u32::try_from(mtu).unwrap_or(0),
            hardware_type: address.sa_family,
            mac,
        })
    }

    /// The name of an interface's driver.
    pub(super) fn driver(&self, name: &str) -> io::Result<String> {
        // struct ethtool_drvinfo: the command, 32 bytes of the driver's name, and more.
        let answer: [u8; 196] = self.ethtool(name, ETHTOOL_GDRVINFO)?;
        let driver = answer[4..36]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        Ok(String::from_utf8_lossy(driver).into_owned())
    }

    /// How many queues an interface has.
    pub(super) fn channels(&self, name: &str) -> io::Result<Channels> {
        // struct ethtool_channels: the command; at most of receive, transmit, other, combined; and as it is now.
        let answer: [u8; 36] = self.ethtool(name, ETHTOOL_GCHANNELS)?;
        let word = |at: usize| {
            let bytes = [answer[at], answer[at + 1], answer[at + 2], answer[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        Ok(Channels {
            receive_max: word(4),
            combined_max: word(16),
            receive: word(20),
            transmit: word(24),
            combined: word(32),
        })
    }

    fn ethtool<const N: usize>(&self, name: &str, command: u32) -> io::Result<[u8; N]> {
        let name = checked(name)?;
        let mut buffer = [0u8; N];
        buffer[..4].copy_from_slice(&command.to_ne_bytes());
        let mut argument = request_of(&name);
        argument.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        let fd = self.0.as_raw_fd();
        // SAFETY: the request reads the name and the address in `argument`, and writes the structure of the command, which
        // `buffer` is as long as.
        result(unsafe { libc::ioctl(fd, SIOCETHTOOL, &raw mut argument) })?;
        Ok(buffer)
    }

    fn request(&self, name: &CStr, request: libc::Ioctl) -> io::Result<libc::ifreq> {
        let mut argument = request_of(name);
        // SAFETY: these requests read and write one ifreq, which `argument` is for the time of the call.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut argument) })?;
        Ok(argument)
    }
}

/// Asks rtnetlink of the namespace that it was made in, one question at a time.
pub(super) struct Links(OwnedFd);

impl Links {
    pub(super) fn new() -> io::Result<Links> {
        const NETLINK_ROUTE: i32 = 0;
        open_socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_ROUTE).map(Links)
    }

    /// What it says of one interface: the attributes of its RTM_NEWLINK message.
    pub(super) fn attributes(&mut self, interface: u32) -> io::Result<Vec<u8>> {
        // struct nlmsghdr {len, type, flags, sequence, port} and struct ifinfomsg {family, type, index, flags, change}.
        let mut request = [0u8; 32];
        request[0..4].copy_from_slice(&32u32.to_ne_bytes());
        request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
        let flags = u16::try_from(libc::NLM_F_REQUEST).expect("NLM_F_REQUEST is 1");
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        request[20..24].copy_from_slice(&interface.to_ne_bytes());
        let fd = self.0.as_raw_fd();
        // SAFETY: `request` is readable for its length during the call.
        result(unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) })?;
        let mut answer = vec![0u8; 64 * 1024];
        // SAFETY: `answer` is writable for its length during the call.
        let len = result(unsafe { libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0) })?;
        answer.truncate(usize::try_from(len).unwrap_or(0));
        let kind = answer
            .get(4..6)
            .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        if kind != Some(libc::RTM_NEWLINK) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(answer.split_off(32.min(answer.len())))
    }
}

fn checked(name: &str) -> io::Result<CString> {
    let name = CString::new(name).ok();
    let name = name.filter(|name| name.count_bytes() <= NAME_LEN_MAX);
    name.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn request_of(name: &CStr) -> libc::ifreq {
    // SAFETY: all bytes zero is a valid ifreq.
    let mut argument: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in argument.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = byte.cast_signed();
    }
    argument
}

fn open_socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the call succeeded, so that this is an open descriptor which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `T` is the structure that the option is set by.
fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let (fd, len) = (socket.as_raw_fd(), socklen(size_of::<T>()));
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: `value` is readable for `len` bytes during the call, and whatever it points to is, too.
    result(unsafe { libc::setsockopt(fd, level, option, value, len) }).map(drop)
}

/// `T` is the address of the socket's family.
fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let len = socklen(size_of::<T>());
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: `address` is readable for `len` bytes during the call.
    result(unsafe { libc::bind(socket.as_raw_fd(), address, len) }).map(drop)
}

/// Of a call that returns -1 for an error.
fn result<T: Copy + Default + PartialOrd>(returned: T) -> io::Result<T> {
    if returned < T::default() {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

fn socklen(len: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(len).expect("options and addresses are short")
}
