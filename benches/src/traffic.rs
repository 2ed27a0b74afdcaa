//! Which packets come, and in what order: chosen before the time is measured, each at random.

use crate::case::{BenchError, Case, Size};
use crate::frames::{ACK, Ends, Record, SYN};
use crate::place::{Host, Ip, client};
use conntrack::{Direction, State, Table};
use dataplane::port::memory::Source;
use std::sync::Arc;

/// Packets until the order begins anew, at least: their records do not fit into any cache.
const PACKETS_MIN: u64 = if cfg!(test) { 1 << 16 } else { 1 << 21 };

/// The packets of one worker's port, ready to be written.
pub(crate) type Records<F> = Arc<Vec<Record<F>>>;

/// What comes in by one worker's port.
pub(crate) struct Traffic<F: Ip> {
    records: Records<F>,
    next: usize,
    /// After the last record comes the first one again.
    is_endless: bool,
    newcomers: Records<F>,
    /// Newcomers that are to have come by now; never more than there are.
    due: usize,
    come: usize,
}

impl<F: Ip> Traffic<F> {
    /// Every packet once.
    pub(crate) fn once(records: Records<F>) -> Traffic<F> {
        Traffic {
            records,
            next: 0,
            is_endless: false,
            newcomers: Arc::default(),
            due: 0,
            come: 0,
        }
    }

    /// The packets over and over, and newcomers in between when they are called.
    pub(crate) fn endless(records: Records<F>, newcomers: Records<F>) -> Traffic<F> {
        Traffic {
            is_endless: true,
            newcomers,
            ..Traffic::once(records)
        }
    }

    /// Begins from the first packet.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Lets newcomers come, so that there have been `count` of them, or all.
    #[inline]
    pub(crate) fn call(&mut self, count: u64) {
        let all = self.newcomers.len();
        self.due = usize::try_from(count).map_or(all, |count| count.min(all));
    }

    /// How many newcomers have come.
    #[inline]
    pub(crate) fn come(&self) -> u64 {
        self.come as u64
    }
}

impl<F: Ip> Source for Traffic<F> {
    #[inline]
    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.come < self.due {
            self.come += 1;
            return Some(F::write(&self.newcomers[self.come - 1], buffer));
        }
        if self.next == self.records.len() && self.is_endless {
            self.next = 0;
        }
        let record = self.records.get(self.next)?;
        self.next += 1;
        Some(F::write(record, buffer))
    }
}

/// Random numbers, the same in every run.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `count`, which is not 0.
    #[inline]
    pub(crate) fn below(&mut self, count: usize) -> usize {
        below(self.next() >> 32, count)
    }

    fn bits(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("32 bits")
    }
}

/// A number below `count` from 32 random bits.
#[inline]
pub(crate) fn below(bits: u64, count: usize) -> usize {
    debug_assert!(bits >> 32 == 0 && count as u64 >> 32 == 0);
    #[allow(clippy::cast_possible_truncation, reason = "less than count, a usize")]
    {
        ((bits * count as u64) >> 32) as usize
    }
}

/// The ends of a connection as they stand in its packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<F: Ip> {
    pub(crate) request: Ends<F>,
    /// Of a packet from the server, where the director sees those.
    pub(crate) reply: Option<Ends<F>>,
}

impl<F: Ip> Flow<F> {
    pub(crate) fn ends(&self, direction: Direction) -> &Ends<F> {
        match direction {
            Direction::Request => &self.request,
            Direction::Reply => self.reply.as_ref().expect("only where replies are seen"),
        }
    }
}

/// The connections that a table holds, by the worker who made them.
pub(crate) fn flows_of<F: Ip>(table: &Table<F>, workers: u16) -> Vec<Vec<Flow<F>>> {
    let mut flows = vec![Vec::new(); usize::from(workers)];
    table.for_each(|_, view| {
        let reply = view.method.sees_replies().then(|| Ends {
            source: view.real_server,
            destination: view.local.unwrap_or(view.client),
        });
        let request = Ends {
            source: view.client,
            destination: view.virtual_server,
        };
        debug_assert!(view.state != State::Dead);
        flows[usize::from(view.owner)].push(Flow { request, reply });
    });
    flows
}

/// The worker whose requests the replies are of that a worker gets.
pub(crate) fn answered(worker: usize, case: &Case) -> usize {
    if case.cross {
        (worker + 1) % usize::from(case.workers)
    } else {
        worker
    }
}

/// SYNs of `count` new clients, the ones of a worker: every so many-th from client `first` on.
pub(crate) fn newcomers<F: Ip>(
    case: &Case,
    worker: u16,
    first: u64,
    count: u64,
) -> Result<Records<F>, BenchError> {
    let numbers = (first..first + count)
        .skip(usize::from(worker))
        .step_by(usize::from(case.workers));
    let len = Size::Bytes(64).frame_len(F::FAMILY, 0);
    let destination = (F::address(Host::Vip), 80);
    let mut records = room(count.div_ceil(u64::from(case.workers)))?;
    records.extend(numbers.map(|number| {
        let source = client::<F>(number);
        let ends = Ends {
            source,
            destination,
        };
        Record::new(&ends, SYN, len)
    }));
    Ok(Arc::new(records))
}

/// One packet of every flow, shortest frames, in the flows' order.
pub(crate) fn one_of_each<F: Ip>(
    flows: &[Flow<F>],
    direction: Direction,
    flags: u8,
) -> Result<Records<F>, BenchError> {
    let len = Size::Bytes(64).frame_len(F::FAMILY, 0);
    let mut records = room(flows.len() as u64)?;
    records.extend(
        flows
            .iter()
            .map(|flow| Record::new(flow.ends(direction), flags, len)),
    );
    Ok(Arc::new(records))
}

/// Packets of established connections: each of a flow chosen at random, and where there are replies, each a request or
/// a reply by chance. So many that a flow has two of each kind on average.
pub(crate) fn random_packets<F: Ip>(
    requests: &[Flow<F>],
    replies: &[Flow<F>],
    size: Size,
    seed: u64,
) -> Result<Records<F>, BenchError> {
    let has_replies = replies.first().is_some_and(|flow| flow.reply.is_some());
    let kinds = if has_replies { 2 } else { 1 };
    let count = (requests.len() as u64 * 2 * kinds).max(PACKETS_MIN);
    let mut random = Random(seed);
    let mut records = room(count)?;
    for _ in 0..count {
        let choice = random.bits();
        let (flows, direction) = if has_replies && choice & 1 == 1 {
            (replies, Direction::Reply)
        } else {
            (requests, Direction::Request)
        };
        let flow = &flows[random.below(flows.len())];
        let len = size.frame_len(F::FAMILY, choice >> 1);
        records.push(Record::new(flow.ends(direction), ACK, len));
    }
    Ok(Arc::new(records))
}

fn room<T>(count: u64) -> Result<Vec<T>, BenchError> {
    let mut records = Vec::new();
    let is_there = usize::try_from(count).is_ok_and(|len| records.try_reserve_exact(len).is_ok());
    if is_there {
        Ok(records)
    } else {
        Err(BenchError::Packets(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::V4;
    use std::collections::HashMap;

    fn flows(count: u64) -> Vec<Flow<V4>> {
        let vip = (V4::address(Host::Vip), 80);
        let flow = |number| Flow {
            request: Ends {
                source: client::<V4>(number),
                destination: vip,
            },
            reply: Some(Ends {
                source: (V4::address(Host::Server(0)), 80),
                destination: client::<V4>(number),
            }),
        };
        (0..count).map(flow).collect()
    }

    #[test]
    fn every_flow_is_as_likely_as_another_and_half_of_the_packets_are_replies() {
        let flows = flows(1000);
        let records = random_packets(&flows, &flows, Size::Bytes(64), 7).unwrap();
        let count = u64::try_from(records.len()).unwrap();
        assert_eq!(count, PACKETS_MIN);
        let mut seen: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut buffer = [0; 64];
        for record in records.iter() {
            V4::write(record, &mut buffer);
            *seen.entry(buffer[26..38].to_vec()).or_default() += 1;
        }
        assert_eq!(seen.len(), 2000, "both directions of every flow");
        // Chi-square of 1999 degrees of freedom: 2250 is five standard deviations off.
        #[allow(clippy::cast_precision_loss, reason = "small counts")]
        let deviation: f64 = {
            let expected = count as f64 / 2000.0;
            let square = |seen: &u64| (*seen as f64 - expected).powi(2) / expected;
            seen.values().map(square).sum()
        };
        assert!((1680.0..2320.0).contains(&deviation), "{deviation}");
        let vip = V4::address(Host::Vip).octets();
        let requests: u64 = seen
            .iter()
            .filter(|(key, _)| key[4..8] == vip)
            .map(|(_, count)| count)
            .sum();
        assert!(requests.abs_diff(count / 2) < 1000, "{requests}");
    }

    #[test]
    fn one_packet_seldom_follows_another_of_a_neighbouring_flow() {
        let flows = flows(1000);
        let records = random_packets(&flows, &[], Size::Bytes(64), 7).unwrap();
        let number: HashMap<_, _> = (0_u64..1000)
            .map(|number| (client::<V4>(number), number))
            .collect();
        let mut buffer = [0; 64];
        let order: Vec<u64> = records[..10_000]
            .iter()
            .map(|record| {
                V4::write(record, &mut buffer);
                let address = [buffer[26], buffer[27], buffer[28], buffer[29]];
                let port = u16::from_be_bytes([buffer[34], buffer[35]]);
                number[&(address.into(), port)]
            })
            .collect();
        let near = order
            .windows(2)
            .filter(|pair| pair[0].abs_diff(pair[1]) <= 1);
        assert!(near.count() < 100);
    }

    #[test]
    fn newcomers_come_when_they_are_called_and_each_once() {
        let packets = random_packets(&flows(10), &[], Size::Bytes(64), 1).unwrap();
        let syns = one_of_each(&flows(3), Direction::Request, SYN).unwrap();
        let mut traffic = Traffic::endless(packets, syns);
        let mut buffer = [0; 64];
        let mut flags = |traffic: &mut Traffic<V4>| {
            assert_eq!(traffic.next_frame(&mut buffer), Some(60));
            buffer[47]
        };
        assert_eq!(flags(&mut traffic), ACK);
        traffic.call(2);
        assert_eq!([0; 3].map(|_| flags(&mut traffic)), [SYN, SYN, ACK]);
        traffic.call(100);
        assert_eq!([0; 2].map(|_| flags(&mut traffic)), [SYN, ACK]);
        assert_eq!(traffic.come(), 3);
    }

    #[test]
    fn the_mix_has_its_mean() {
        let records = random_packets(&flows(10), &[], Size::Imix, 3).unwrap();
        let mut buffer = [0; 1536];
        let sum: usize = records
            .iter()
            .map(|record| V4::write(record, &mut buffer) + 4)
            .sum();
        let mean = sum / records.len();
        assert!((360..=364).contains(&mean), "{mean}");
    }
}
