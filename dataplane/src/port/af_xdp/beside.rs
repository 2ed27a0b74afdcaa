//! What the worker sees although the XDP program leaves it to the kernel: ARP, neighbour discovery and ICMP errors are for
//! both, since both have addresses on the interface. A packet socket gives copies of them.

use super::socket::PacketSocket;
use super::umem::Umem;
use crate::packet::wire::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ICMP, ICMPV6};
use crate::port::Burst;
use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET,
    BPF_W, SKF_AD_OFF, SKF_AD_PKTTYPE, SKF_AD_VLAN_TAG_PRESENT, sock_filter,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Frames that are taken at a time.
const AT_A_TIME: usize = 16;

/// See the module's text.
pub(super) struct Beside {
    socket: PacketSocket,
}

impl Beside {
    /// On an interface.
    pub(super) fn open(interface: u32) -> io::Result<Beside> {
        let socket = PacketSocket::new(interface, &filter())?;
        Ok(Beside { socket })
    }

    /// Copies of waiting frames, as many as there is room for, at most [`AT_A_TIME`].
    pub(super) fn receive(&self, umem: &mut Umem, burst: &mut Burst) {
        for _ in 0..AT_A_TIME {
            if burst.is_full() {
                return;
            }
            let copied = umem.compose(|room| match self.socket.receive(room) {
                // A frame that is longer is none of those that the filter means.
                Ok(len) if len <= room.len() => len,
                _ => 0,
            });
            let Some(copied) = copied else { return };
            burst.push(umem.lend_copy(&copied));
        }
    }

    /// Frames that found the socket's buffer full since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.socket.take_dropped()
    }
}

impl AsFd for Beside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets through untagged frames for us and for all: ARP, and ICMP and ICMPv6 other than echo.
///
/// Source: Linux Documentation/networking/filter.rst.
fn filter() -> Vec<sock_filter> {
    const DROP: usize = 99;
    const ACCEPT: usize = 98;
    const V4: usize = 10;
    const V6: usize = 15;
    let ancillary = |which: i32| (SKF_AD_OFF + which).cast_unsigned();
    let echo = |request: u32, reply: u32| [(request, DROP), (reply, DROP)];
    let [v4_request, v4_reply] = echo(8, 0);
    let [v6_request, v6_reply] = echo(128, 129);
    // Instruction, operand, and where to go if it is equal and if not; 0: the next one.
    let code = [
        (
            BPF_LD | BPF_W | BPF_ABS,
            ancillary(SKF_AD_VLAN_TAG_PRESENT),
            0,
            0,
        ),
        (BPF_JMP | BPF_JEQ | BPF_K, 0, 0, DROP),
        (BPF_LD | BPF_W | BPF_ABS, ancillary(SKF_AD_PKTTYPE), 0, 0),
        (
            BPF_JMP | BPF_JEQ | BPF_K,
            u32::from(libc::PACKET_OTHERHOST),
            DROP,
            0,
        ),
        (
            BPF_JMP | BPF_JEQ | BPF_K,
            u32::from(libc::PACKET_OUTGOING),
            DROP,
            0,
        ),
        (BPF_LD | BPF_H | BPF_ABS, 12, 0, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, ETHER_TYPE_ARP.into(), ACCEPT, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, ETHER_TYPE_IPV4.into(), V4, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, ETHER_TYPE_IPV6.into(), V6, DROP),
        (BPF_RET | BPF_K, 0, 0, 0),
        // V4: the type is behind the options.
        (BPF_LD | BPF_B | BPF_ABS, 23, 0, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, ICMP.into(), 0, DROP),
        (BPF_LDX | BPF_B | BPF_MSH, 14, 0, 0),
        (BPF_LD | BPF_B | BPF_IND, 14, 0, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, v4_request.0, v4_request.1, 19),
        // V6
        (BPF_LD | BPF_B | BPF_ABS, 20, 0, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, ICMPV6.into(), 0, DROP),
        (BPF_LD | BPF_B | BPF_ABS, 54, 0, 0),
        (BPF_JMP | BPF_JEQ | BPF_K, v6_request.0, v6_request.1, 20),
        // The replies.
        (BPF_JMP | BPF_JEQ | BPF_K, v4_reply.0, v4_reply.1, ACCEPT),
        (BPF_JMP | BPF_JEQ | BPF_K, v6_reply.0, v6_reply.1, ACCEPT),
    ];
    let (accept, drop) = (code.len(), code.len() + 1);
    let place = |target: usize, at: usize| {
        let target = match target {
            0 => at + 1,
            ACCEPT => accept,
            DROP => drop,
            target => target,
        };
        u8::try_from(target - at - 1).expect("jumps lead forward, and not far")
    };
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt,
        jf,
        k,
    };
    let mut filter: Vec<_> = code
        .iter()
        .enumerate()
        .map(|(at, &(code, operand, equal, other))| {
            let is_jump = code & 7 == BPF_JMP;
            let [jt, jf] = [equal, other].map(|to| if is_jump { place(to, at) } else { 0 });
            instruction(code, operand, jt, jf)
        })
        .collect();
    filter.push(instruction(BPF_RET | BPF_K, u32::MAX, 0, 0));
    filter.push(instruction(BPF_RET | BPF_K, 0, 0, 0));
    filter
}
