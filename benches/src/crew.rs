//! The workers of a director, each in a thread of its own, kept in step.

use crate::case::{BenchError, Case, Share, Size};
use crate::director::{Director, PORT, port_info};
use crate::place::Ip;
use crate::roofline::{Floor, Memory, pass};
use crate::step::Step;
use crate::traffic::{Records, Traffic};
use conntrack::Ticks;
use dataplane::port::memory::SourcePort;
use dataplane::worker::Worker;
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the director is measured before the floor's turn comes, so that what disturbs the machine disturbs both.
pub(crate) const SLICE: Duration = Duration::from_millis(40);
/// How long the floor's turn is, and the port's.
const FLOOR_SLICE: Duration = Duration::from_millis(20);
const PORT_SLICE: Duration = Duration::from_millis(5);
/// Packets of a turn, at least: where others want the core, time may pass without a packet.
const TURN_PACKETS: u64 = 1 << 16;
/// The longest burst that is told apart, nanoseconds.
const BURST_TIME_MAX: u64 = 10_000_000_000;
/// The time at which a director begins.
const BEGIN: Ticks = Ticks(1000);

/// What all threads of a case share.
pub(crate) struct Shared<'a> {
    pub(crate) case: &'a Case,
    pub(crate) director: &'a Director,
    pub(crate) stop: &'a (dyn Fn() -> bool + Sync),
    pub(crate) step: Step,
    /// What the first worker decided while the others waited.
    pub(crate) goes_on: AtomicBool,
    epoch: Instant,
    /// Ticks by which the director's time is ahead.
    ahead: AtomicU32,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(
        case: &'a Case,
        director: &'a Director,
        stop: &'a (dyn Fn() -> bool + Sync),
    ) -> Shared<'a> {
        Shared {
            case,
            director,
            stop,
            step: Step::new(usize::from(case.workers)),
            goes_on: AtomicBool::new(true),
            epoch: Instant::now(),
            ahead: AtomicU32::new(0),
        }
    }

    /// The director's time, which passes as the clock's does.
    #[inline]
    pub(crate) fn ticks(&self, now: Instant) -> Ticks {
        let elapsed = now.duration_since(self.epoch);
        let ticks = elapsed.as_secs() * u64::from(Ticks::PER_SECOND);
        #[allow(clippy::cast_possible_truncation, reason = "ticks wrap")]
        let ticks = ticks as u32;
        BEGIN
            .after(Ticks(ticks.wrapping_add(elapsed.subsec_millis() / 10)))
            .after(Ticks(self.ahead.load(Relaxed)))
    }

    /// Lets time pass that nobody waits for.
    pub(crate) fn skip(&self, span: Ticks) {
        self.ahead.fetch_add(span.0, Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if (self.stop)() {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }

    /// Lets the first worker decide for all; everybody waits for it.
    pub(crate) fn agree<F: Ip>(&self, member: &Member<F>, decide: impl FnOnce() -> bool) -> bool {
        self.step.wait();
        if member.is_first() {
            self.goes_on.store(decide(), Relaxed);
        }
        self.step.wait();
        self.goes_on.load(Relaxed)
    }
}

/// The time at which a director begins, for whoever makes it.
pub(crate) fn begin() -> Ticks {
    BEGIN
}

/// One worker, and what it is measured with.
pub(crate) struct Member<F: Ip> {
    pub(crate) index: usize,
    worker: Worker<SourcePort<Traffic<F>>>,
    /// Another port with the same packets, for floor and port alone.
    spare: SourcePort<Traffic<F>>,
    floor: Option<Floor>,
    pub(crate) bursts: Histogram<u64>,
    /// What was measured since it was last asked for.
    pub(crate) share: Share,
    pub(crate) of_floor: Share,
    pub(crate) of_port: Share,
}

impl<F: Ip> Member<F> {
    pub(crate) fn new(
        shared: &Shared<'_>,
        index: u16,
        memory: Option<&Arc<Memory>>,
    ) -> Result<Member<F>, BenchError> {
        let port = || port_for(Traffic::once(Arc::default()), 60);
        let seed = u64::from(index) + 1;
        let mut member = Member {
            index: usize::from(index),
            worker: shared.director.worker(index, port(), BEGIN),
            spare: port(),
            floor: memory.map(|memory| Floor::new(Arc::clone(memory), seed)),
            bursts: histogram(),
            share: Share::default(),
            of_floor: Share::default(),
            of_port: Share::default(),
        };
        // It adopts the configuration before anything is measured.
        member.round(shared.ticks(Instant::now()));
        shared.check().map(|()| member)
    }

    /// Makes other packets come, in buffers for frames of at most `frame_len_max` bytes.
    pub(crate) fn listen_to(
        &mut self,
        traffic: Traffic<F>,
        of_floor: Traffic<F>,
        frame_len_max: u32,
    ) {
        self.worker.ports_mut()[0] = port_for(traffic, frame_len_max);
        self.spare = port_for(of_floor, frame_len_max);
    }

    pub(crate) fn is_first(&self) -> bool {
        self.index == 0
    }

    pub(crate) fn traffic(&mut self) -> &mut Traffic<F> {
        self.worker.ports_mut()[0].source_mut()
    }

    /// One round of the worker, not measured.
    pub(crate) fn round(&mut self, now: Ticks) -> usize {
        self.worker.run_once(now)
    }

    /// Forgets what was measured.
    pub(crate) fn reset(&mut self) {
        self.bursts.reset();
        self.share = Share::default();
        self.of_floor = Share::default();
        self.of_port = Share::default();
    }

    /// Measures the worker until its packets end, or the time does. `rate` newcomers come in a second, counted in
    /// measured time.
    pub(crate) fn measure(&mut self, shared: &Shared<'_>, until: Until, rate: f64) {
        if self.is_first() {
            shared.director.confirm(shared.ticks(Instant::now()));
        }
        shared.step.wait();
        let come_before = self.traffic().come();
        let busy_before = self.share.busy;
        let cpu_start = cpu_time();
        let start = Instant::now();
        let mut last = start;
        let mut packets = 0;
        let mut rounds = 0_u32;
        loop {
            if rate > 0.0 {
                let busy = busy_before + (last - start);
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a count from a time and a rate, which are positive; it saturates"
                )]
                self.traffic().call((busy.as_secs_f64() * rate) as u64);
            }
            let done = self.worker.run_once(shared.ticks(last));
            let now = Instant::now();
            if done == 0 {
                break;
            }
            let nanoseconds = u64::try_from((now - last).as_nanos()).unwrap_or(BURST_TIME_MAX);
            self.bursts.saturating_record(nanoseconds);
            packets += done as u64;
            last = now;
            rounds = rounds.wrapping_add(1);
            match until {
                Until::Passed(span) if last - start >= span => break,
                Until::End if rounds.is_multiple_of(1024) && (shared.stop)() => break,
                _ => {}
            }
        }
        let new_flows = self.traffic().come() - come_before;
        self.share.add(Share {
            packets,
            new_flows,
            busy: last - start,
            on_cpu: cpu_time().saturating_sub(cpu_start),
        });
    }

    /// Measures the floor, if it is wanted, and the port alone.
    pub(crate) fn measure_floor(&mut self, shared: &Shared<'_>) {
        shared.step.wait();
        let spare = &mut self.spare;
        if let Some(floor) = &mut self.floor {
            self.of_floor.add(timed(FLOOR_SLICE, || floor.round(spare)));
        }
        shared.step.wait();
        self.of_port.add(timed(PORT_SLICE, || pass(spare)));
    }
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// With the packets, or when the user wants it to.
    End,
    /// After so long.
    Passed(Duration),
}

/// Rounds for some time, and some packets. The clock is read after each, as it is where the director is measured.
fn timed(span: Duration, mut round: impl FnMut() -> usize) -> Share {
    let cpu_start = cpu_time();
    let start = Instant::now();
    let mut last = start;
    let mut packets = 0;
    while last - start < span || packets < TURN_PACKETS {
        packets += round() as u64;
        last = Instant::now();
    }
    Share {
        packets,
        new_flows: 0,
        busy: last - start,
        on_cpu: cpu_time().saturating_sub(cpu_start),
    }
}

/// For how long the calling thread has had a core.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux has this clock")
        .into()
}

/// Lets every worker do something in a thread of its own, all at the same time.
pub(crate) fn together<F: Ip, T: Send>(
    shared: &Shared<'_>,
    crew: &mut [Member<F>],
    work: impl Fn(&mut Member<F>) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = crew
            .iter_mut()
            .map(|member| {
                scope.spawn(move || {
                    let _watched = shared.step.watched();
                    work(member)
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            let result = thread.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.collect()
    })
}

/// Every worker handles some packets once; nothing of it is measured.
pub(crate) fn play<F: Ip>(
    shared: &Shared<'_>,
    crew: &mut [Member<F>],
    packets: impl Fn(usize) -> Result<Records<F>, BenchError>,
) -> Result<(), BenchError> {
    for member in &mut *crew {
        let traffic = Traffic::once(packets(member.index)?);
        let len = Size::Bytes(64).longest_in_memory(F::FAMILY);
        member.listen_to(traffic, Traffic::once(Arc::default()), len);
    }
    together(shared, crew, |member| {
        member.measure(shared, Until::End, 0.0);
        member.reset();
    });
    shared.check()
}

fn port_for<F: Ip>(traffic: Traffic<F>, frame_len_max: u32) -> SourcePort<Traffic<F>> {
    SourcePort::new(PORT, port_info(), traffic, frame_len_max)
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(BURST_TIME_MAX, 3).expect("3 digits up to ten seconds are in range")
}
