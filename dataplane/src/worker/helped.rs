//! A packet of a connection with a helper: FTP's control connection by NAT.
//!
//! ```text
//!   client ── PASV, EPSV ──▶ noted ──────────────────────────▶ server
//!          ── PORT, EPRT ──▶ expected: the server's SYN ─────▶
//!          ◀── 227, 229 ──── expected: the client's SYN ◀─────        the address in the text becomes the virtual one
//!              sequence numbers shifted ◀─┴─▶ acknowledgements shifted back
//! ```
//! Fragments are not looked into, and the text of a GSO frame stays as it is: control messages are neither.
//!
//! Differs from IPVS:
//! - The server's answer is rewritten again when it comes again, though the client did not ask again; there it then
//!   passes with the server's address in it.
//! - Segments outside the TCP window are forwarded; there conntrack drops the client's.
//! - A text in a fragment or in a GSO frame is not rewritten, nor one that shrinks by more than 128 bytes (zeros in
//!   front of numbers).
//! - A text that outgrows the link where it must not be fragmented is told to the server with an MTU that leaves room;
//!   there with the link's, quoting a broken packet.
//! - SACK options at odd places keep the checksum right.
//! - IPv6 works; there, where it was recorded, the client's segments are all dropped.
//! - A SYN of a client whose control connection has ended, while data connections go on, takes its place; there both
//!   stand in the table, with the same addresses and ports.
//!
//! Source: observed, `tests/scenario/recorded/ftp-*.json`; Linux net/netfilter/ipvs/ip_vs_ftp.c, ip_vs_app.c.

use super::Flows;
use super::connection::Found;
use super::defence;
use super::egress::{Egress, LARGEST_FRAME, Way};
use super::expected::Expectation;
use super::family::Ip;
use super::onward::{Ready, counted_len, ready, reply_translation, to_client, to_server};
use super::services::Services;
use crate::frame::{Frame, Gso, Offload};
use crate::helper::ftp::{self, Command, TEXT};
use crate::helper::{self, Record, Records};
use crate::packet::wire::ETHERNET_LEN;
use crate::packet::{Fragment, Packet};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::{self, fragment_ipv4};
use crate::stats::{add, count_bytes};
use arrayvec::ArrayVec;
use conntrack::{ConnectionId, Direction, Entry, State, TEMPLATE, Table, Ticks};
use scheduler::RealServerId;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

/// In an entry's flags: its extension names a helper's record.
pub(super) const HELPED: u16 = 1 << 8;
/// In an entry's flags: its client's port is not known yet and stands as 0.
pub(super) const EXPECTED: u16 = 1 << 9;

const _: () = assert!((HELPED | EXPECTED) & TEMPLATE == 0);

/// For how long a control connection is renewed that has data connections.
///
/// Source: observed; Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_conn_expire`).
pub(super) const HELD: Ticks = Ticks::from_seconds(60);

/// A text that takes another's place in a payload.
struct Rewriting {
    at: Range<usize>,
    text: ArrayVec<u8, TEXT>,
}

impl Rewriting {
    fn growth(&self) -> isize {
        self.text.len().cast_signed() - self.at.len().cast_signed()
    }
}

/// Who a record belongs to.
pub(super) fn owner<F: Ip>(id: ConnectionId) -> u64 {
    let family = u64::from(F::HEADER_LEN == crate::packet::wire::IPV6_LEN);
    id.to_u64() | family << 62
}

/// The helper's record of a connection, if it has one.
pub(super) fn record<'r, F: Ip>(
    helpers: &'r Records,
    id: ConnectionId,
    entry: &Entry<F>,
) -> Option<Record<'r>> {
    (entry.flags() & HELPED != 0)
        .then(|| helpers.get(entry.extension(), owner::<F>(id)))
        .flatten()
}

/// Whether a connection must not end yet: it has data connections.
pub(super) fn is_held<F: Ip>(helpers: &Records, id: ConnectionId, entry: &Entry<F>) -> bool {
    record(helpers, id, entry).is_some_and(|record| record.holds())
}

/// A connection has ended: what its helper kept, and what it was to others, ends too.
pub(super) fn let_go<F: Ip>(
    helpers: &Records,
    table: &Table<F>,
    id: ConnectionId,
    entry: &Entry<F>,
) {
    // SeqCst, with the fence of `help`, which another worker may just be about.
    fence(Ordering::SeqCst);
    let flags = entry.flags();
    if flags & HELPED != 0 {
        helpers.give_back(entry.extension(), owner::<F>(id));
    }
    if flags & EXPECTED != 0 {
        helpers.met();
    }
    if let Some(control) = entry.control()
        && let Some(entry) = table.get(control)
        && let Some(record) = record(helpers, control, entry)
    {
        record.release();
    }
}

/// A connection begins another life under the same addresses.
pub(super) fn begin_again<F: Ip>(helpers: &Records, id: ConnectionId, entry: &Entry<F>) {
    if let Some(record) = record(helpers, id, entry) {
        record.reset();
    }
}

impl<F: Ip> Flows<F> {
    /// Gives a new connection its service's helper, if there is a record left.
    #[cold]
    pub(super) fn help<P: Port>(&self, egress: &Egress<P>, id: ConnectionId) {
        let entry = self.table.entry(id);
        let Some(word) = self.helpers.take(owner::<F>(id)) else {
            return add(&egress.stats.helpers_refused, 1);
        };
        entry.set_extension(word);
        entry.set_flags(HELPED);
        // SeqCst, with the fence of `let_go`: a worker that ended the connection meanwhile sees the flag, or its end is
        // seen here.
        fence(Ordering::SeqCst);
        if self.table.get(id).is_none() {
            self.helpers.give_back(word, owner::<F>(id));
        }
    }

    /// Forwards a packet of a connection with a helper.
    #[cold]
    pub(super) fn forward_helped<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        found: Found,
    ) {
        let is_whole = packet.fragment == Fragment::None;
        let is_one = is_whole && frame.offload.gso == Gso::None;
        let sums_up =
            !is_one || frame.offload.partial_checksum || helper::sums_up(frame.bytes(), packet);
        match found.direction {
            Direction::Request => {
                self.command_to_server(services, egress, frame, packet, found, (is_whole, sums_up));
            }
            Direction::Reply if !sums_up => egress.drop(frame, Reason::BadTcpChecksum),
            Direction::Reply => {
                self.reply_to_client(services, egress, frame, packet, found, is_one);
            }
        }
    }

    /// A client's segment. One with a wrong checksum moves the connection's state and is counted all the same, as in
    /// the kernel.
    fn command_to_server<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        packet: &Packet<F>,
        found: Found,
        (is_whole, sums_up): (bool, bool),
    ) {
        self.follow(services, egress, frame.bytes(), packet, found);
        let entry = self.table.entry(found.id);
        if egress.defence.counts_packets() {
            defence::count_packet(entry);
        }
        let server = RealServerId(entry.server());
        count_bytes(
            &egress.stats,
            server,
            Direction::Request,
            counted_len(packet),
        );
        if !sums_up {
            return egress.drop(frame, Reason::BadTcpChecksum);
        }
        if is_whole && let Err(reason) = self.listen_to(services, egress, &frame, packet, found) {
            return egress.drop(frame, reason);
        }
        let entry = self.table.entry(found.id);
        if let Some(record) = record(&self.helpers, found.id, entry) {
            let offload = frame.offload;
            helper::move_acknowledgement(frame.bytes_mut(), packet, record.shift(), &offload);
        }
        to_server(services, egress, frame, packet, entry);
    }

    /// What a client's segment asks for.
    fn listen_to<P: Port>(
        &mut self,
        services: &Services,
        egress: &mut Egress<P>,
        frame: &Frame,
        packet: &Packet<F>,
        found: Found,
    ) -> Result<(), Reason> {
        let entry = self.table.entry(found.id);
        let payload = &frame.bytes()[helper::payload(frame.bytes(), packet)];
        if payload.is_empty() || entry.state() != State::Established {
            return Ok(());
        }
        let Some(record) = record(&self.helpers, found.id, entry) else {
            return Ok(());
        };
        match ftp::command(payload, is_ipv6(packet)) {
            Some(Command::Passive) => record.ask(Some(ftp::Form::Plain)),
            Some(Command::Extended) => record.ask(Some(ftp::Form::Extended)),
            Some(Command::Active(named)) => {
                record.ask(None);
                let client = named.address.and_then(F::from_ip);
                let client = (client.unwrap_or(entry.client()), named.port);
                let expectation = Expectation::of_server(entry, client);
                self.expect(services, egress, found.id, &expectation)?;
            }
            None => {}
        }
        Ok(())
    }

    /// A server's segment.
    fn reply_to_client<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        packet: &Packet<F>,
        found: Found,
        is_one: bool,
    ) {
        let state = self.table.entry(found.id).state();
        let mut rewriting = None;
        if is_one && state == State::Established {
            match self.answer(services, egress, &frame, packet, found) {
                Ok(found) => rewriting = found,
                Err(reason) => return egress.drop(frame, reason),
            }
        }
        self.follow(services, egress, frame.bytes(), packet, found);
        let entry = self.table.entry(found.id);
        // What a removed server says still reaches the client, and counts no more.
        let server = RealServerId(entry.server());
        let counted = services.is_present(server).then_some(server);
        if let Some(record) = record(&self.helpers, found.id, entry) {
            let offload = frame.offload;
            helper::move_sequence(frame.bytes_mut(), packet, record.shift(), &offload);
        }
        match rewriting {
            None => to_client(egress, frame, packet, entry, counted),
            Some(rewriting) => send_rewritten(egress, frame, packet, (entry, counted), &rewriting),
        }
    }

    /// What is to be rewritten in a server's segment, the data connection that it announces expected.
    fn answer<P: Port>(
        &mut self,
        services: &Services,
        egress: &mut Egress<P>,
        frame: &Frame,
        packet: &Packet<F>,
        found: Found,
    ) -> Result<Option<Rewriting>, Reason> {
        let helpers = std::sync::Arc::clone(&self.helpers);
        let entry = self.table.entry(found.id);
        let payload = helper::payload(frame.bytes(), packet);
        let Some(record) = record(&helpers, found.id, entry) else {
            return Ok(None);
        };
        let sequence = helper::sequence(frame.bytes(), packet);
        let Some(form) = record.awaited(sequence) else {
            return Ok(None);
        };
        let named = ftp::reply(&frame.bytes()[payload.clone()], form, is_ipv6(packet));
        let Some(named) = named else {
            return Ok(None);
        };
        let server = named.address.and_then(F::from_ip);
        let server = (server.unwrap_or(entry.real_address()), named.port);
        let expectation = Expectation::of_client(entry, server);
        let (address, port) = self.expect(services, egress, found.id, &expectation)?;
        let rewriting = Rewriting {
            at: payload.start + named.at.start..payload.start + named.at.end,
            text: ftp::text(form, address.into(), port),
        };
        let Some(shift) = record.shift().then(sequence, rewriting.growth()) else {
            return Ok(None);
        };
        record.set_shift(shift);
        record.answer();
        Ok(Some(rewriting))
    }
}

fn is_ipv6<F: Ip>(packet: &Packet<F>) -> bool {
    let source: IpAddr = packet.tuple.source.into();
    source.is_ipv6()
}

/// Sends a server's segment with another text in it. The frame is only as large as what came, so it goes out as a copy.
fn send_rewritten<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    (entry, counted): (&Entry<F>, Option<RealServerId>),
    rewriting: &Rewriting,
) {
    let hop = match egress.hop_to_client(entry) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    let growth = usize::try_from(rewriting.growth()).unwrap_or(0);
    if packet.end() - ETHERNET_LEN + growth > usize::from(u16::MAX) {
        return egress.drop(frame, Reason::TooBig);
    }
    let way = Way {
        overhead: growth,
        ..Way::PLAIN
    };
    let (frame, fragment_to) = match ready(egress, frame, packet, hop, way, None) {
        Ready::Whole(frame) => (frame, None),
        Ready::Fragments(frame, mtu) => (frame, Some(mtu)),
        Ready::Refused { .. } => return,
    };
    if let Some(server) = counted {
        let growth = i32::try_from(rewriting.growth()).unwrap_or(0);
        let len = counted_len(packet).saturating_add_signed(growth);
        count_bytes(&egress.stats, server, Direction::Reply, len);
    }
    let mut scratch = std::mem::take(&mut egress.scratch);
    let (whole, pieces) = scratch.split_at_mut(LARGEST_FRAME / 2);
    let (mut count, mut sent) = (0, 0);
    if let Some(len) = rewrite(frame.bytes(), packet, entry, rewriting, whole) {
        let mut send = |piece: &mut [u8]| sent += usize::from(egress.forward_piece(piece, hop));
        count = match fragment_to {
            None => {
                send(&mut whole[..len]);
                1
            }
            Some(mtu) => fragment_ipv4(&whole[..len], mtu as usize, pieces, &mut send),
        };
    }
    egress.scratch = scratch;
    egress.finish_pieces(frame, hop, count, sent);
}

/// Writes a frame with the text replaced and everything else translated; its length, or `None` where it has no room.
fn rewrite<F: Ip>(
    frame: &[u8],
    packet: &Packet<F>,
    entry: &Entry<F>,
    rewriting: &Rewriting,
    out: &mut [u8],
) -> Option<usize> {
    let Range { start, end } = rewriting.at;
    let parts = [
        &frame[..start],
        rewriting.text.as_slice(),
        &frame[end..packet.end()],
    ];
    let mut len = 0;
    for part in parts {
        out.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    let out = &mut out[..len];
    F::resize(out, packet.l3(), len - packet.l3(), 0);
    let packet = Packet {
        end: u32::try_from(len).ok()?,
        ..*packet
    };
    rewrite::translate(out, &packet, &reply_translation(entry), &Offload::NONE);
    helper::write_checksum::<F>(out, packet.l3(), packet.l4());
    Some(len)
}
