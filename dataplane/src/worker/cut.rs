//! Forwarding in pieces: a frame larger than the next link takes, or a GSO frame that goes into a tunnel.

use super::egress::{Egress, Hop};
use super::family::Ip;
use crate::capture::Fate;
use crate::frame::{Frame, Gso, Offload};
use crate::packet::wire::ETHERNET_LEN;
use crate::packet::{Packet, checksum};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::tunnel::{self, Tunnel};
use crate::rewrite::{fragment, set_macs, tcp_segments, udp_segments};
use crate::stats::add;

/// Finishes what the sender left to the NIC.
pub(super) fn complete(frame: &mut Frame) {
    if frame.offload.partial_checksum {
        let offload = frame.offload;
        checksum::complete(frame.bytes_mut(), &offload);
        frame.offload = Offload {
            partial_checksum: false,
            ..frame.offload
        };
    }
}

impl<P: Port> Egress<P> {
    /// Sends an IPv4 packet, or an IPv6 packet of a tunnel, complete but for its MAC addresses, in fragments of at most
    /// `mtu` bytes.
    pub(super) fn forward_fragments(&mut self, mut frame: Frame, hop: Hop, mtu: u32) {
        complete(&mut frame);
        let mut scratch = std::mem::take(&mut self.scratch);
        let id = self.next_identification().into();
        let mut sent = 0;
        let count = fragment(
            frame.bytes(),
            mtu as usize,
            id,
            &mut scratch,
            &mut |piece| {
                sent += usize::from(self.forward_piece(piece, hop));
            },
        );
        self.scratch = scratch;
        self.finish_pieces(frame, hop, count, sent);
    }

    /// Sends a GSO frame through a tunnel, each of its segments by itself.
    pub(super) fn tunnel_segments<F: Ip>(
        &mut self,
        frame: Frame,
        packet: &Packet<F>,
        tunnel: &Tunnel,
        hop: Hop,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (segment_scratch, outer) = scratch.split_at_mut(scratch.len() / 2);
        let mut sent = 0;
        let mut emit = |segment: &mut [u8]| {
            let identification = self.next_identification();
            let inner = Packet {
                end: u32::try_from(segment.len()).unwrap_or(u32::MAX),
                ..*packet
            };
            if let Ok(len) =
                tunnel::encapsulate_copy(segment, &inner, tunnel, identification, outer)
            {
                sent += usize::from(self.forward_piece(&mut outer[..len], hop));
            }
        };
        let cut = if frame.offload.gso == Gso::Udp {
            udp_segments
        } else {
            tcp_segments
        };
        let count = cut(
            frame.bytes(),
            packet,
            &frame.offload,
            segment_scratch,
            &mut emit,
        );
        self.scratch = scratch;
        self.finish_pieces(frame, hop, count, sent);
    }

    /// A frame sent in pieces counts once, and as forwarded only if all of it left.
    pub(super) fn finish_pieces(&mut self, frame: Frame, hop: Hop, count: usize, sent: usize) {
        match self.count_pieces(hop, count, sent) {
            Ok(()) => self.release(frame),
            Err(reason) => self.drop(frame, reason),
        }
    }

    /// The same without the frame: counts it unless it is to be dropped.
    pub(super) fn count_pieces(
        &mut self,
        hop: Hop,
        count: usize,
        sent: usize,
    ) -> Result<(), Reason> {
        match hop {
            _ if count == 0 => Err(Reason::TooBig),
            Hop::Ready(..) if sent == count => {
                add(&self.stats.verdicts.forwarded, 1);
                Ok(())
            }
            Hop::Wait(..) if sent == count => {
                self.waiting.count_newest();
                self.count_waiting();
                Ok(())
            }
            Hop::Ready(..) => Err(Reason::TransmitFull),
            Hop::Wait(..) => {
                self.waiting.forget_newest(sent);
                Err(Reason::NeighbourQueueFull)
            }
        }
    }

    /// Sends one piece of a forwarded frame, complete but for its MAC addresses.
    pub(super) fn forward_piece(&mut self, bytes: &mut [u8], hop: Hop) -> bool {
        match hop {
            Hop::Ready(mac, port) => {
                let index = usize::from(port.0);
                set_macs(bytes, mac, self.snapshot.ports[index].mac);
                self.show(bytes, &Offload::NONE, port, Fate::Forwarded(None));
                self.ports[index].send(bytes, &Offload::NONE)
                    || (self.makes_room(port) && self.ports[index].send(bytes, &Offload::NONE))
            }
            Hop::Wait(neighbour, _) => self.wait_with(bytes, Offload::NONE, neighbour, false),
        }
    }
}

/// The frame that a fragmented packet needs at least: its link header and eight bytes of payload.
const _: () = assert!(super::egress::LARGEST_FRAME / 2 > ETHERNET_LEN + 9216 + 60);
