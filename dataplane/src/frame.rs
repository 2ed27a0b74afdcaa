//! A frame in a driver's buffer: the one place that turns a driver's memory into slices.
#![allow(
    unsafe_code,
    reason = "a frame is a window into memory that a port owns"
)]

use crate::port::PortId;
use std::ptr::NonNull;

/// What a driver knows of a frame that its bytes do not say (`struct virtio_net_hdr`, as PACKET_VNET_HDR gives it).
///
/// Source: Linux include/uapi/linux/virtio_net.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The L4 checksum field holds only the un-complemented sum of the pseudo-header; the rest is to be added over
    /// the bytes from `checksum_start` on.
    pub partial_checksum: bool,
    /// Where the sum begins, bytes from the start of the frame.
    pub checksum_start: u16,
    /// Where the checksum field is, bytes from `checksum_start`.
    pub checksum_offset: u16,
    /// How the frame is to be cut on the way out.
    pub gso: Gso,
    /// Payload bytes of each segment; 0 without GSO.
    pub segment_len: u16,
    /// Bytes of headers in front of the first segment's payload, from the start of the frame; a hint only.
    pub header_len: u16,
}

impl Offload {
    /// A complete frame: checksums final, nothing to cut.
    pub const NONE: Offload = Offload {
        partial_checksum: false,
        checksum_start: 0,
        checksum_offset: 0,
        gso: Gso::None,
        segment_len: 0,
        header_len: 0,
    };

    /// Whether nothing is left to do: the checksum is final, and there is nothing to cut.
    #[inline]
    #[must_use]
    pub const fn is_done(&self) -> bool {
        !self.partial_checksum && matches!(self.gso, Gso::None)
    }

    /// Whether the unfinished checksum is a CRC32c: SCTP's is 8 bytes into its header, and no other protocol's is.
    #[inline]
    #[must_use]
    pub const fn is_partial_crc(&self) -> bool {
        self.partial_checksum && self.checksum_offset == 8
    }
}

/// The kind of a frame larger than the link's MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// An ordinary frame.
    #[default]
    None,
    /// TCP over IPv4 (TSO); `ecn` as VIRTIO_NET_HDR_GSO_ECN.
    Tcp4 {
        /// The first segment carries CWR.
        ecn: bool,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// The first segment carries CWR.
        ecn: bool,
    },
    /// UDP datagrams of one flow (VIRTIO_NET_HDR_GSO_UDP_L4).
    Udp,
}

/// A received frame. Whoever holds it gives it back: to a port's `transmit`, or to `release` of the port it came from.
#[derive(Debug)]
pub struct Frame {
    /// Its first byte, `start` bytes behind the buffer's begin.
    data: NonNull<u8>,
    len: u32,
    token: u32,
    start: u16,
    /// The port it came in on, which owns the buffer.
    pub port: PortId,
    /// What the driver knows of it.
    pub offload: Offload,
}

const _: () = assert!(size_of::<Frame>() == 32);

/// In place of the driver's handle: the buffer lies right behind an mbuf of DPDK, which any port of DPDK may send and free.
const IN_MBUF: u32 = u32::MAX;

// SAFETY: by the contract of `from_raw` nobody else touches the buffer: a frame is what a `&mut [u8]` is, which is Send.
// (Frames stay with their worker, which is sent to its thread before its first burst.)
unsafe impl Send for Frame {}

impl Frame {
    /// A window of `len` bytes at `start` into the buffer of `capacity` bytes at `base`. `token` is the driver's own handle
    /// of the buffer.
    ///
    /// # Safety
    /// The buffer is valid for reads and writes of `capacity` bytes, and nobody else touches it until the frame was
    /// given back to its port. `start + len <= capacity`, and `token` is not `u32::MAX`.
    #[inline]
    #[must_use]
    pub unsafe fn from_raw(
        base: NonNull<u8>,
        capacity: u32,
        start: u16,
        len: u32,
        token: u32,
        port: PortId,
        offload: Offload,
    ) -> Frame {
        debug_assert!(u32::from(start) + len <= capacity && token != IN_MBUF);
        Frame {
            // SAFETY: within the buffer, by the contract.
            data: unsafe { base.add(usize::from(start)) },
            len,
            token,
            start,
            port,
            offload,
        }
    }

    /// A complete frame in an mbuf of DPDK.
    ///
    /// # Safety
    /// As for [`from_raw`](Self::from_raw); and right in front of `base` there is the `struct rte_mbuf` of this buffer,
    /// whose only owner the frame is.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) unsafe fn in_mbuf(base: NonNull<u8>, start: u16, len: u32, port: PortId) -> Frame {
        Frame {
            // SAFETY: within the buffer, by the contract.
            data: unsafe { base.add(usize::from(start)) },
            len,
            token: IN_MBUF,
            start,
            port,
            offload: Offload::NONE,
        }
    }

    /// Its buffer, and where in it the frame begins, if it lies in an mbuf.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn mbuf_buffer(&self) -> Option<(NonNull<u8>, u16)> {
        (self.token == IN_MBUF).then_some((self.base(), self.start))
    }

    /// The driver's own handle of the buffer, which no other driver's frame can have by more than chance: whoever takes it
    /// for an own one asks [`is_window_of`](Self::is_window_of), too.
    #[inline]
    pub(crate) fn token(&self) -> u32 {
        self.token
    }

    /// Whether it is a window into the buffer at `base`: what a port asks of a frame that claims to be its own.
    #[inline]
    pub(crate) fn is_window_of(&self, base: NonNull<u8>) -> bool {
        self.base() == base && self.token != IN_MBUF
    }

    /// Where the buffer begins.
    #[inline]
    fn base(&self) -> NonNull<u8> {
        // SAFETY: `data` is `start` bytes behind it, and both move together.
        unsafe { self.data.sub(usize::from(self.start)) }
    }

    /// The frame from its Ethernet header on.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the contract of `from_raw` holds for as long as the frame lives, and that it lies within the buffer is kept by
        // `prepend`, `trim_front` and `truncate`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }

    /// The frame from its Ethernet header on.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it the only window.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }

    /// Bytes free in front of the frame.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Grows the frame by `count` bytes at its front (whatever they hold). False, and unchanged, without headroom.
    #[inline]
    #[must_use]
    pub fn prepend(&mut self, count: usize) -> bool {
        let Some(start) = u16::try_from(count)
            .ok()
            .and_then(|count| self.start.checked_sub(count))
        else {
            return false;
        };
        // SAFETY: `count` is `start` at most, so this is within the buffer.
        self.data = unsafe { self.data.sub(count) };
        self.len += u32::from(self.start - start);
        self.start = start;
        true
    }

    /// Cuts `count` bytes off the front.
    ///
    /// # Panics
    /// When the frame is shorter, or would begin more than 65,535 bytes into its buffer.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        assert!(
            count <= self.len as usize,
            "trim_front({count}) of a frame of {} bytes",
            self.len
        );
        let start = usize::from(self.start) + count;
        self.start = u16::try_from(start).expect("only headers are cut off");
        // SAFETY: `count` is `len` at most, so this is within the buffer or right behind it.
        self.data = unsafe { self.data.add(count) };
        #[allow(clippy::cast_possible_truncation, reason = "at most `len`")]
        let count = count as u32;
        self.len -= count;
    }

    /// Cuts the frame to its first `len` bytes; longer than it is, it stays.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }
}
