//! Fragments of datagrams that belong to connections. Nothing is reassembled: the first fragment, which has the ports,
//! goes the way of any packet and is remembered, and the others follow it.
//!
//! ```text
//!   first ─▶ connection.rs, new_flow.rs ─▶ remembered (firsts.rs) ─▶ those that wait for it follow
//!   later ─▶ the first is known? ─ yes ─▶ the connection of its flow ─▶ addresses, tunnel, out
//!                                  no ──▶ may it be ours? ─ yes ─▶ held (held.rs): until the first comes, or too long
//!                                                           no ──▶ the kernel's
//! ```
//! NICs, and the kernel's fanout by hash, spread fragments by addresses alone, so that a datagram's meet at one worker.
//! Where frames are dealt out in turn they do not, and those whose first went elsewhere are dropped.
//!
//! Differs from IPVS: the kernel reassembles a datagram and cuts it again, so that nothing comes out before the last
//! fragment has come. Here each fragment passes as it comes; together they count as the datagram does there.
//!
//! Source: RFC 791 §3.2, RFC 1858, RFC 5722, RFC 8200 §4.5.

mod firsts;
mod held;

use super::Flows;
use super::connection::Found;
use super::egress::{Egress, Hop};
use super::family::Ip;
use super::lookup::asked;
use super::onward::{may_fragment_outside, reply_translation, request_translation};
use super::services::{Picked, Services};
use crate::frame::{Frame, Gso};
use crate::packet::wire::{IPV6, SCTP, TCP, UDP};
use crate::packet::{Fragment, Packet};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::tunnel::{self, Tunnel};
use crate::rewrite::{self, Translation, fragment, fragment_ipv4};
use crate::snapshot::{Owned, Snapshot};
use crate::stats::{add, count_more_bytes, subtract};
use ahash::RandomState;
use conntrack::{Direction, Method, Table};
use firsts::{Datagram, First, Firsts};
use hashbrown::HashSet;
use held::{HeldQueue, Push};
use scheduler::RealServerId;

#[cfg(test)]
pub(super) use firsts::{MEMORY, REMEMBERED};
#[cfg(test)]
pub(super) use held::{HELD, HELD_OF_ONE, PATIENCE};

/// The IPv6 extension header that may stand before the transport header in the part that is fragmented.
const DESTINATION_OPTIONS: u8 = 60;

/// What a worker knows of datagrams in fragments, one family's.
pub(super) struct Fragments<F: Ip> {
    firsts: Firsts<F>,
    held: HeldQueue<F>,
    /// Real servers whose replies are sent to the clients' addresses, and pass here all the same.
    nat_servers: HashSet<F::Address, RandomState>,
    /// The server of the first fragment at hand, where that was scheduled alone.
    alone: Option<Picked>,
}

/// What became of a later fragment.
enum Fate {
    /// It was sent, or waits for a neighbour; it is counted.
    Sent,
    /// It is the kernel's.
    Kernel,
    Dropped(Reason),
}

impl<F: Ip> Fragments<F> {
    pub(super) fn new() -> Fragments<F> {
        Fragments {
            firsts: Firsts::new(firsts::REMEMBERED),
            held: HeldQueue::new(),
            nat_servers: HashSet::default(),
            alone: None,
        }
    }

    /// Learns to which server one-packet scheduling sends the first fragment at hand.
    pub(super) fn goes_alone(&mut self, server: Picked) {
        self.alone = Some(server);
    }

    /// Learns which hosts are servers by NAT. Off the packet path; may allocate.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        let servers = snapshot.servers.iter().flatten();
        let by_nat = servers.filter(|server| server.method == Method::Nat);
        self.nat_servers = by_nat
            .filter_map(|server| F::from_ip(server.address))
            .collect();
    }

    /// Whether a fragment may be of one of our connections: to an address of ours, or from a server by NAT.
    fn may_be_ours(&self, snapshot: &Snapshot, packet: &Packet<F>) -> bool {
        let owned = snapshot.owned.get(&packet.tuple.destination.into());
        owned.is_some_and(|&owned| owned != Owned::Kernel)
            || self.nat_servers.contains(&packet.tuple.source)
    }

    /// What is due with time.
    pub(super) fn tick<P: Port>(&mut self, egress: &Egress<P>) {
        self.firsts.expire(egress.now);
        for _ in 0..self.held.expire(egress.now) {
            subtract(&egress.stats.verdicts.waiting_now, 1);
            egress.stats.count_drop(Reason::FragmentWaitedTooLong);
        }
    }
}

/// Whether a packet is a fragment of what connections carry. In IPv6 a later one does not always say.
pub(super) fn may_belong_to_a_flow<F: Ip>(packet: &Packet<F>) -> bool {
    let protocol = packet.tuple.protocol;
    packet.fragment != Fragment::None
        && (matches!(protocol, TCP | UDP | SCTP)
            || F::AS_PAYLOAD == IPV6 && protocol == DESTINATION_OPTIONS)
}

impl<F: Ip> Flows<F> {
    /// Decides a fragment.
    #[cold]
    pub(super) fn fragment<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        if frame.offload.gso != Gso::None {
            // What is to be cut into segments was never cut into fragments.
            return egress.drop(frame, Reason::Malformed);
        }
        if packet.fragment == Fragment::First {
            self.first_fragment(services, egress, frame, packet);
        } else {
            self.later_fragment(services, egress, frame, packet);
        }
    }

    /// A first fragment is a packet like others. Those that came before it follow.
    fn first_fragment<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        if !has_whole_header(frame.bytes(), packet) {
            return egress.drop(frame, Reason::Truncated);
        }
        let mut first = First {
            datagram: Datagram::of(packet),
            tuple: packet.tuple,
            end: packet.end() - F::fragmentable(frame.bytes(), packet),
            port: frame.port,
            alone: None,
        };
        self.fragments.alone = None;
        match self.connection_of(&packet.tuple) {
            Some((id, direction)) => {
                self.forward(services, egress, frame, packet, Found { id, direction });
            }
            None => self.new_flow(services, egress, frame, packet),
        }
        first.alone = self.fragments.alone.take();
        let Flows {
            table, fragments, ..
        } = self;
        if !fragments.may_be_ours(&egress.snapshot, packet) && table.lookup(&first.tuple).is_none()
        {
            return;
        }
        if fragments.firsts.remember(first, egress.now) {
            add(&egress.stats.fragments_forgotten, 1);
        }
        fragments.held.take(&first.datagram, &mut |held| {
            subtract(&egress.stats.verdicts.waiting_now, 1);
            match follow(
                table,
                services,
                egress,
                &mut held.bytes,
                &held.packet,
                &first,
            ) {
                Fate::Sent => {}
                Fate::Kernel => add(&egress.stats.verdicts.exceptions, 1),
                Fate::Dropped(reason) => egress.stats.count_drop(reason),
            }
        });
    }

    fn later_fragment<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        packet: &Packet<F>,
    ) {
        let known = self
            .fragments
            .firsts
            .find(&Datagram::of(packet), egress.now);
        let Some(first) = known else {
            return self.hold(egress, frame, packet);
        };
        match follow(
            &self.table,
            services,
            egress,
            frame.bytes_mut(),
            packet,
            first,
        ) {
            Fate::Sent => egress.release(frame),
            Fate::Kernel => egress.exception(frame),
            Fate::Dropped(reason) => egress.drop(frame, reason),
        }
    }

    /// Lets a fragment wait for the first of its datagram.
    fn hold<P: Port>(&mut self, egress: &mut Egress<P>, frame: Frame, packet: &Packet<F>) {
        if !self.fragments.may_be_ours(&egress.snapshot, packet) {
            return egress.exception(frame);
        }
        match self.fragments.held.push(frame.bytes(), packet, egress.now) {
            Push::Taken => egress.count_waiting(),
            // One more waits, and one less.
            Push::OldestGone => {
                add(&egress.stats.verdicts.waiting, 1);
                egress.stats.count_drop(Reason::FragmentQueueFull);
            }
            Push::Refused => return egress.drop(frame, Reason::FragmentQueueFull),
        }
        egress.release(frame);
    }
}

/// Whether a first fragment has its transport header with all options. `parse` has seen to the ports.
///
/// Source: RFC 1858 §3, RFC 7112.
fn has_whole_header<F: Ip>(frame: &[u8], packet: &Packet<F>) -> bool {
    packet.tuple.protocol != TCP
        || packet.l4() + usize::from(frame[packet.l4() + 12] >> 4) * 4 <= packet.end()
}

/// Sends a later fragment after the first one of its datagram.
fn follow<F: Ip, P: Port>(
    table: &Table<F>,
    services: &mut Services,
    egress: &mut Egress<P>,
    bytes: &mut [u8],
    packet: &Packet<F>,
    first: &First<F>,
) -> Fate {
    if F::fragment_offset(bytes, packet) < first.end {
        return Fate::Dropped(Reason::FragmentOverlap);
    }
    match sent_after(table, services, egress, bytes, packet, first) {
        Ok(true) => Fate::Sent,
        Ok(false) => Fate::Kernel,
        Err(reason) => Fate::Dropped(reason),
    }
}

/// Sends a later fragment to the other end of its flow's connection. False where it is the kernel's.
fn sent_after<F: Ip, P: Port>(
    table: &Table<F>,
    services: &mut Services,
    egress: &mut Egress<P>,
    bytes: &mut [u8],
    packet: &Packet<F>,
    first: &First<F>,
) -> Result<bool, Reason> {
    let found = table.lookup(&first.tuple);
    let Some((id, direction)) = found.filter(|(id, _)| !table.entry(*id).is_template()) else {
        return match (
            first.alone,
            asked(&egress.snapshot, first.port, &first.tuple),
        ) {
            (Some(alone), _) => sent_alone(services, egress, bytes, packet, first, alone),
            (None, Some(_)) => Err(Reason::Fragment),
            (None, None) => Ok(false),
        };
    };
    let entry = table.entry(id);
    let id = RealServerId(entry.server());
    let counts = services.is_present(id);
    let state = services.server(id);
    let server = match direction {
        // Nothing that clients send keeps a connection to a removed server alive.
        Direction::Request => Some(
            state
                .filter(|state| state.present)
                .ok_or(Reason::ServerGone)?,
        ),
        Direction::Reply => None,
    };
    entry.touch(egress.now.after(egress.snapshot.timeouts.of(entry.state())));
    // The first one counted as the datagram's packet; the others add what they carry.
    let carried = u32::try_from(packet.end() - F::fragmentable(bytes, packet)).unwrap_or(0);
    if direction == Direction::Request {
        count_more_bytes(&egress.stats, id, direction, carried);
    }
    let (hop, change) = match server {
        Some(_) if entry.method() == Method::Local => return Ok(false),
        Some(state) => {
            let change = match entry.method() {
                Method::Nat | Method::FullNat => Change::Addresses(request_translation(entry)),
                Method::Tun => state.tunnel.map_or(Change::Nothing, |tunnel| {
                    let way = state.way(egress.now);
                    Change::Tunnel(tunnel, way.path_mtu)
                }),
                Method::Dr | Method::Local => Change::Nothing,
            };
            (egress.hop_to_server(id, state)?, change)
        }
        None => {
            let change = Change::Addresses(reply_translation(entry));
            (egress.hop_to_client(entry)?, change)
        }
    };
    rewrite::decrement_ttl(bytes, packet).map_err(|_| Reason::TtlExpired)?;
    if direction == Direction::Reply && counts {
        count_more_bytes(&egress.stats, id, direction, carried);
    }
    let bytes = &mut bytes[..packet.end()];
    egress.send_fragment(bytes, packet, hop, &change)?;
    Ok(true)
}

/// Sends a later fragment to the server of its first one, which one-packet scheduling chose.
fn sent_alone<F: Ip, P: Port>(
    services: &mut Services,
    egress: &mut Egress<P>,
    bytes: &mut [u8],
    packet: &Packet<F>,
    first: &First<F>,
    server: Picked,
) -> Result<bool, Reason> {
    let id = server.id;
    let state = services.server(id).filter(|state| state.present);
    let state = state.ok_or(Reason::ServerGone)?;
    let carried = u32::try_from(packet.end() - F::fragmentable(bytes, packet)).unwrap_or(0);
    count_more_bytes(&egress.stats, id, Direction::Request, carried);
    let change = match (server.method, F::from_ip(server.address)) {
        (Method::Nat, Some(ip)) => {
            let translation = Translation::new(&first.tuple, None, Some((ip, server.port)));
            Change::Addresses(translation)
        }
        (Method::Tun, _) => state.tunnel.map_or(Change::Nothing, |tunnel| {
            Change::Tunnel(tunnel, state.way(egress.now).path_mtu)
        }),
        _ => Change::Nothing,
    };
    let hop = egress.hop_to_server(id, state)?;
    rewrite::decrement_ttl(bytes, packet).map_err(|_| Reason::TtlExpired)?;
    let bytes = &mut bytes[..packet.end()];
    egress.send_fragment(bytes, packet, hop, &change)?;
    Ok(true)
}

/// What a forwarding method does to a later fragment.
enum Change<F: Ip> {
    Nothing,
    Addresses(Translation<F>),
    /// And what the way there takes, bytes.
    Tunnel(Tunnel, u32),
}

impl<P: Port> Egress<P> {
    /// Sends a later fragment whose TTL is decremented, in pieces where the next link takes no more. Its sender is
    /// told of nothing: errors are about first fragments.
    ///
    /// Source: RFC 1122 §3.2.2.
    fn send_fragment<F: Ip>(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<F>,
        hop: Hop,
        change: &Change<F>,
    ) -> Result<(), Reason> {
        let (overhead, outside, path_mtu) = match change {
            Change::Tunnel(tunnel, path_mtu) => {
                let outside = may_fragment_outside::<F>(tunnel);
                (tunnel.overhead(), outside, *path_mtu)
            }
            _ => (0, false, u32::MAX),
        };
        let len = packet.end() - packet.l3() + overhead;
        let mtu = self.exceeded_mtu(len, hop.port(), path_mtu);
        if mtu.is_some() && packet.dont_fragment && !outside {
            return Err(Reason::TooBig);
        }
        let (count, sent) = match change {
            Change::Tunnel(tunnel, _) => self.send_in_tunnel(bytes, packet, hop, tunnel, mtu)?,
            Change::Nothing => self.send_pieces(bytes, hop, mtu),
            Change::Addresses(translation) => {
                rewrite::translate(bytes, packet, translation, &crate::frame::Offload::NONE);
                self.send_pieces(bytes, hop, mtu)
            }
        };
        self.count_pieces(hop, count, sent)
    }

    /// Sends a packet whole, or in fragments of at most `mtu` bytes. Returns how many pieces there were, and how many
    /// left.
    fn send_pieces(&mut self, bytes: &mut [u8], hop: Hop, mtu: Option<u32>) -> (usize, usize) {
        let Some(mtu) = mtu else {
            return (1, usize::from(self.forward_piece(bytes, hop)));
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sent = 0;
        let count = fragment_ipv4(bytes, mtu as usize, &mut scratch, &mut |piece| {
            sent += usize::from(self.forward_piece(piece, hop));
        });
        self.scratch = scratch;
        (count, sent)
    }

    /// The same through a tunnel.
    fn send_in_tunnel<F: Ip>(
        &mut self,
        bytes: &[u8],
        packet: &Packet<F>,
        hop: Hop,
        tunnel: &Tunnel,
        mtu: Option<u32>,
    ) -> Result<(usize, usize), Reason> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (outer, pieces) = scratch.split_at_mut(scratch.len() / 2);
        let identification = self.next_identification();
        let mut sent = 0;
        let inner = Packet {
            dont_fragment: packet.dont_fragment && !may_fragment_outside::<F>(tunnel),
            ..*packet
        };
        let len = tunnel::encapsulate_copy(bytes, &inner, tunnel, identification, outer);
        let result = len.map(|len| match mtu {
            None => {
                sent = usize::from(self.forward_piece(&mut outer[..len], hop));
                1
            }
            Some(mtu) => {
                let id = identification.into();
                fragment(&outer[..len], mtu as usize, id, pieces, &mut |piece| {
                    sent += usize::from(self.forward_piece(piece, hop));
                })
            }
        });
        self.scratch = scratch;
        result.map(|count| (count, sent))
    }
}
