//! A case from its first SYN to its last measurement.

use crate::case::{BenchError, Case, Family, Measurement, Phase, Share, Size};
use crate::crew::{Member, SLICE, Shared, Until, begin, histogram, play, together};
use crate::director::Director;
use crate::frames::{ACK, SYN};
use crate::place::Ip;
use crate::roofline::Memory;
use crate::traffic::{
    Records, Traffic, answered, flows_of, newcomers, one_of_each, random_packets,
};
use conntrack::{Direction, Entry, Ticks, V4, V6};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than a half-open connection lives.
const UNTIL_FORGOTTEN: Ticks = Ticks::from_seconds(70);
/// The steps in which it passes: a slot of the timer wheel.
const STEP: usize = 16;
/// Fills of a table between two turns of the floor.
const FILLS_PER_FLOOR: u64 = 32;
/// Connections made for a turn of the floor, and its turns after a fill at most.
const FLOWS_PER_FLOOR: u64 = 100_000;
const FLOORS_PER_FILL: u64 = 20;
/// Rounds in which ended connections' entries become free.
const ROUNDS_UNTIL_FREE: u32 = 64;
/// The part of a measurement's time that passes beforehand, to warm up.
const WARM_UP: u32 = 4;

/// What the caller is told while a case runs.
#[derive(Debug)]
pub enum Event {
    /// What is done now.
    Step(String),
    /// What came of it.
    Measured(Box<Measurement>),
}

/// Measures a case: making its connections, and then for each size the packets of established ones. `stop` is asked
/// whether the user wants it to end.
///
/// # Errors
/// No memory; a director that does not do what is measured; or an interrupted run. What was measured before was told.
///
/// # Panics
/// When there are no workers, or fewer flows than workers.
pub fn run(
    case: &Case,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut dyn FnMut(Event),
) -> Result<(), BenchError> {
    assert!(
        case.workers > 0 && case.flows >= u32::from(case.workers),
        "{} flows for {} workers",
        case.flows,
        case.workers
    );
    match case.family {
        Family::V4 => run_family::<V4>(case, stop, tell),
        Family::V6 => run_family::<V6>(case, stop, tell),
    }
}

fn run_family<F: Ip>(
    case: &Case,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut dyn FnMut(Event),
) -> Result<(), BenchError> {
    tell(Event::Step(format!("room for {} connections", case.flows)));
    let capacity = capacity(case);
    let director = Director::new::<F>(case.method, capacity, case.workers, begin())?;
    let memory = if case.roofline {
        let index = director.statistics::<F>().index_bytes;
        let entries = u64::from(case.flows) * size_of::<Entry<F>>() as u64;
        let memory = Memory::new(index, entries).map_err(BenchError::Floor)?;
        Some(Arc::new(memory))
    } else {
        None
    };
    let shared = Shared::new(case, &director, stop);
    let crew: Result<Vec<_>, _> = (0..case.workers)
        .map(|index| Member::<F>::new(&shared, index, memory.as_ref()))
        .collect();
    let mut crew = crew?;

    tell(Event::Step(format!("{} new connections", case.flows)));
    make_connections(&shared, &mut crew)?;
    tell(measured(&shared, &mut crew, Size::Bytes(64), Phase::New));

    tell(Event::Step(format!("{} handshakes", case.flows)));
    let flows = flows_of(F::table(&director.tables), case.workers);
    if case.method.sees_replies() {
        play(&shared, &mut crew, |worker| {
            let flows = &flows[answered(worker, case)];
            one_of_each(flows, Direction::Reply, SYN | ACK)
        })?;
    }
    play(&shared, &mut crew, |worker| {
        one_of_each(&flows[worker], Direction::Request, ACK)
    })?;
    let statistics = director.statistics::<F>();
    let established = statistics.entries - u64::from(statistics.half_open);
    let expected = u64::from(case.flows);
    check(&director, "connections established", established, expected)?;

    for &size in &case.sizes {
        tell(Event::Step(format!(
            "{} flows, {size} bytes: choosing packets",
            case.flows
        )));
        for member in &mut crew {
            shared.check()?;
            let replies = &flows[answered(member.index, case)];
            let seed = 1000 + member.index as u64;
            let packets = random_packets(&flows[member.index], replies, size, seed)?;
            let newcomers = newcomers_of(case, member.index)?;
            let len = size.longest_in_memory(F::FAMILY);
            let of_floor = Traffic::endless(Arc::clone(&packets), Arc::default());
            member.listen_to(Traffic::endless(packets, newcomers), of_floor, len);
        }
        tell(Event::Step(format!(
            "{} flows, {size} bytes: established",
            case.flows
        )));
        forward(&shared, &mut crew)?;
        tell(measured(&shared, &mut crew, size, Phase::Established));
    }
    Ok(())
}

/// Room in the table: for the flows, an eighth more, and for all newcomers.
fn capacity(case: &Case) -> u32 {
    let flows = u64::from(case.flows);
    let newcomers = newcomer_count(case) * case.sizes.len() as u64;
    let capacity = flows + flows / 8 + newcomers + newcomers / 8 + 2048;
    u32::try_from(capacity).unwrap_or(u32::MAX)
}

/// Newcomers of one measurement of established traffic.
fn newcomer_count(case: &Case) -> u64 {
    let time = case.time + SLICE;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    u64::from(case.new_flows_per_second).saturating_mul(millis) / 1000
}

fn newcomers_of<F: Ip>(case: &Case, worker: usize) -> Result<Records<F>, BenchError> {
    if case.new_flows_per_second == 0 {
        return Ok(Arc::default());
    }
    let worker = u16::try_from(worker).expect("workers are counted by a u16");
    newcomers(case, worker, u64::from(case.flows), newcomer_count(case))
}

/// Fills the empty table again and again, and leaves it full. The first time does not count: memory that was never used
/// before is slow.
fn make_connections<F: Ip>(shared: &Shared<'_>, crew: &mut [Member<F>]) -> Result<(), BenchError> {
    let (case, director) = (shared.case, shared.director);
    let flows = u64::from(case.flows);
    for member in &mut *crew {
        let worker = u16::try_from(member.index).expect("workers are counted by a u16");
        let syns = newcomers(case, worker, 0, flows)?;
        let of_floor = Traffic::endless(Arc::clone(&syns), Arc::default());
        let len = Size::Bytes(64).longest_in_memory(F::FAMILY);
        member.listen_to(Traffic::once(syns), of_floor, len);
    }
    let start = Instant::now();
    let fills = together(shared, crew, |member| {
        let mut fills = 0_u64;
        loop {
            member.traffic().rewind();
            member.measure(shared, Until::End, 0.0);
            fills += 1;
            // A small table is full in much less time than a turn of the floor takes, a large one in much more.
            if fills <= 2 || fills.is_multiple_of(FILLS_PER_FLOOR) {
                for _ in 0..(flows / FLOWS_PER_FLOOR).clamp(1, FLOORS_PER_FILL) {
                    member.measure_floor(shared);
                }
            }
            let busy = member.share.busy;
            let goes_on = shared.agree(member, || {
                let is_enough = busy >= case.time || start.elapsed() >= 3 * case.time;
                (fills == 1 || !is_enough) && !(shared.stop)()
            });
            if !goes_on {
                return fills;
            }
            if fills == 1 {
                member.reset();
            }
            forget_connections(shared, member);
        }
    });
    shared.check()?;
    for member in crew {
        member.share.new_flows = member.share.packets;
    }
    let done = director.connections();
    check(director, "connections made", done, flows * fills[0])
}

/// Lets all connections time out, on all workers.
fn forget_connections<F: Ip>(shared: &Shared<'_>, member: &mut Member<F>) {
    let start = shared.ticks(Instant::now());
    shared.step.wait();
    if member.is_first() {
        shared.skip(UNTIL_FORGOTTEN);
    }
    shared.step.wait();
    for step in (0..UNTIL_FORGOTTEN.0).step_by(STEP) {
        member.round(start.after(Ticks(step)));
    }
    let table = F::table(&shared.director.tables);
    while table.statistics().entries > 0 && !(shared.stop)() {
        shared.step.check();
        member.round(shared.ticks(Instant::now()));
    }
    shared.step.wait();
    for _ in 0..ROUNDS_UNTIL_FREE {
        member.round(shared.ticks(Instant::now()));
    }
    shared.step.wait();
}

/// Measures established traffic in slices, the floor's and the port's between the director's.
fn forward<F: Ip>(shared: &Shared<'_>, crew: &mut [Member<F>]) -> Result<(), BenchError> {
    let (case, director) = (shared.case, shared.director);
    let before = director.received_and_forwarded();
    let rate = f64::from(case.new_flows_per_second) / f64::from(case.workers);
    let slice = SLICE.min(case.time);
    together(shared, crew, |member| {
        member.measure(shared, Until::Passed(case.time / WARM_UP), 0.0);
        member.measure_floor(shared);
        member.reset();
        let mut measured = Duration::ZERO;
        loop {
            member.measure(shared, Until::Passed(slice), rate);
            member.measure_floor(shared);
            measured += slice;
            if !shared.agree(member, || measured < case.time && !(shared.stop)()) {
                break;
            }
        }
    });
    shared.check()?;
    let after = director.received_and_forwarded();
    let (received, forwarded) = (after.0 - before.0, after.1 - before.1);
    check(director, "packets forwarded", forwarded, received)
}

/// What the crew has measured, which is then forgotten.
fn measured<F: Ip>(shared: &Shared<'_>, crew: &mut [Member<F>], size: Size, phase: Phase) -> Event {
    let case = shared.case;
    let mut bursts = histogram();
    for member in &*crew {
        let added = bursts.add(&member.bursts);
        added.expect("both have the same range");
    }
    let of_floor = Share::sum(crew.iter().map(|member| member.of_floor));
    let of_port = Share::sum(crew.iter().map(|member| member.of_port));
    let statistics = shared.director.statistics::<F>();
    let measurement = Measurement {
        method: case.method,
        family: case.family,
        flows: case.flows,
        size,
        frame_len: size.mean(case.family),
        phase,
        cross: case.cross,
        shares: crew.iter().map(|member| member.share).collect(),
        of_port,
        of_floor: case.roofline.then_some(of_floor),
        bursts,
        bytes_per_connection: statistics.bytes_per_connection,
        pages: statistics.pages,
    };
    crew.iter_mut().for_each(Member::reset);
    Event::Measured(Box::new(measurement))
}

pub(crate) fn check(
    director: &Director,
    what: &'static str,
    done: u64,
    expected: u64,
) -> Result<(), BenchError> {
    if done == expected {
        return Ok(());
    }
    Err(BenchError::Lost {
        what,
        done,
        expected,
        drops: director.drops(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::Method;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn case(method: Method, family: Family) -> Case {
        Case {
            method,
            family,
            flows: 300,
            workers: 1,
            sizes: vec![Size::Bytes(64), Size::Imix],
            time: Duration::from_millis(20),
            new_flows_per_second: 0,
            cross: false,
            roofline: true,
        }
    }

    fn measurements(case: &Case) -> Vec<Measurement> {
        let mut found = Vec::new();
        run(case, &|| false, &mut |event| {
            if let Event::Measured(measurement) = event {
                found.push(*measurement);
            }
        })
        .unwrap();
        found
    }

    /// [`run`] itself fails where a connection is not made or not established, or a packet not forwarded.
    #[test]
    fn every_method_forwards_all_packets_over_both_families() {
        for method in [Method::Nat, Method::Dr, Method::Tun, Method::FullNat] {
            for family in [Family::V4, Family::V6] {
                let found = measurements(&case(method, family));
                let phases: Vec<_> = found.iter().map(|of| (of.phase, of.size)).collect();
                let established = Phase::Established;
                let expected = [
                    (Phase::New, Size::Bytes(64)),
                    (established, Size::Bytes(64)),
                    (established, Size::Imix),
                ];
                assert_eq!(phases, expected, "{method:?} {family:?}");
                for of in &found {
                    assert!(of.packets() >= 300 && of.ns_per_packet() > 0.0, "{of:?}");
                    assert!(of.of_port.ns_per_packet() > 0.0 && of.roofline_ns().unwrap() > 0.0);
                    assert!(of.total().cpu_share() > 0.0);
                    // A pass over the 300 packets ends with a burst of 12.
                    let passes = of.packets().div_ceil(300);
                    assert!((of.packets().div_ceil(32)..=passes * 10).contains(&of.bursts.len()));
                }
                assert_eq!(found[0].shares[0].new_flows, found[0].packets());
                assert!(found[1].shares[0].new_flows == 0 && found[2].frame_len > 300);
            }
        }
    }

    #[test]
    fn replies_meet_another_worker_where_they_are_to() {
        for (cross, method) in [
            (true, Method::FullNat),
            (true, Method::Nat),
            (false, Method::Nat),
        ] {
            let found = measurements(&Case {
                workers: 2,
                cross,
                roofline: false,
                ..case(method, Family::V4)
            });
            for of in &found {
                assert_eq!((of.shares.len(), of.cross), (2, cross));
                assert!(of.shares.iter().all(|share| share.packets > 0));
                assert_eq!(of.roofline_ns(), None);
            }
        }
    }

    #[test]
    fn newcomers_come_at_the_rate_that_was_asked_for() {
        let found = measurements(&Case {
            new_flows_per_second: 50_000,
            time: Duration::from_millis(200),
            sizes: vec![Size::Bytes(64)],
            ..case(Method::FullNat, Family::V4)
        });
        let of = &found[1];
        assert!(of.shares[0].new_flows > 0, "{of:?}");
        // A burst may take long where the machine is busy, and those due come with the next one.
        let rate = of.flows_per_s();
        assert!((30_000.0..=50_001.0).contains(&rate), "{rate}");
        assert!(of.packets() > of.shares[0].new_flows);
    }

    #[test]
    fn a_table_that_cannot_be_is_an_error() {
        let too_many = Case {
            flows: u32::MAX,
            ..case(Method::Dr, Family::V4)
        };
        let error = run(&too_many, &|| false, &mut |_| {}).unwrap_err();
        assert!(matches!(error, BenchError::Table(_)), "{error}");
    }

    #[test]
    fn an_interrupted_run_ends_soon_wherever_it_is() {
        for limit in [0, 1, 2, 4, 8] {
            let asked = AtomicUsize::new(0);
            let stop = || asked.fetch_add(1, Relaxed) >= limit;
            let endless = Case {
                time: Duration::from_secs(1000),
                workers: 2,
                ..case(Method::Nat, Family::V4)
            };
            let start = Instant::now();
            let error = run(&endless, &stop, &mut |_| {}).unwrap_err();
            assert!(matches!(error, BenchError::Interrupted), "{error}");
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }
}
