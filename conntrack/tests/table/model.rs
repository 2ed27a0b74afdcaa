//! Whatever two workers do one after the other, the table is a map.

use crate::flows::{Numbered, flow, reply_tuple, table};
use conntrack::{
    ConnectionId, Direction, Expiry, InsertError, Method, NewConnection, Owner, State, Ticks,
    Tuple, V4, V6,
};
use proptest::prelude::*;
use std::collections::HashMap;

const CAPACITY: u32 = 24;
const HALF_OPEN_PERCENT: u8 = 50;
const CLIENTS: u32 = 40;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        client: u32,
        method: Method,
        local_port: u16,
        state: State,
        seconds: u32,
    },
    Remove {
        pick: usize,
    },
    End {
        pick: usize,
    },
    Advance {
        pick: usize,
        to: State,
    },
    Touch {
        pick: usize,
        seconds: u32,
    },
    Shorten {
        pick: usize,
        seconds: u32,
    },
    TakeReply {
        pick: usize,
    },
    Sweep {
        budget: u32,
        state: State,
    },
    Wait {
        ticks: u32,
    },
    Quiescent,
}

fn step() -> impl Strategy<Value = Step> {
    let method = || prop_oneof![Just(Method::Nat), Just(Method::Dr), Just(Method::FullNat)];
    let state = || {
        prop_oneof![
            Just(State::SynRecv),
            Just(State::Established),
            Just(State::Close)
        ]
    };
    prop_oneof![
        8 => (0..CLIENTS, method(), 0..6_u16, state(), 1..30_u32).prop_map(
            |(client, method, local_port, state, seconds)| {
                Step::Insert { client, method, local_port, state, seconds }
            }
        ),
        3 => any::<usize>().prop_map(|pick| Step::Remove { pick }),
        1 => any::<usize>().prop_map(|pick| Step::End { pick }),
        3 => (any::<usize>(), state()).prop_map(|(pick, to)| Step::Advance { pick, to }),
        2 => (any::<usize>(), 1..30_u32).prop_map(|(pick, seconds)| Step::Touch { pick, seconds }),
        1 => (any::<usize>(), 1..9_u32).prop_map(|(pick, seconds)| Step::Shorten { pick, seconds }),
        2 => any::<usize>().prop_map(|pick| Step::TakeReply { pick }),
        1 => (1..9_u32, state()).prop_map(|(budget, state)| Step::Sweep { budget, state }),
        2 => (0..500_u32).prop_map(|ticks| Step::Wait { ticks }),
        3 => Just(Step::Quiescent),
    ]
}

struct Known<F: Numbered> {
    new: NewConnection<F>,
    state: State,
    deadline: Ticks,
    has_reply: bool,
}

impl<F: Numbered> Known<F> {
    fn reply_tuple(&self) -> Option<Tuple<F>> {
        reply_tuple(&self.new).filter(|_| self.has_reply)
    }
}

struct World<F: Numbered> {
    owners: [Owner<F>; 2],
    now: Ticks,
    known: HashMap<ConnectionId, Known<F>>,
}

impl<F: Numbered> World<F> {
    fn new(now: Ticks) -> Self {
        let table = table::<F>(CAPACITY, HALF_OPEN_PERCENT, 2);
        World {
            owners: [Owner::new(table.clone(), 0), Owner::new(table, 1)],
            now,
            known: HashMap::new(),
        }
    }

    fn picked(&self, pick: usize) -> Option<ConnectionId> {
        let mut ids: Vec<_> = self.known.keys().copied().collect();
        ids.sort();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }

    fn holder(&self, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        let mut holders = self.known.iter().filter_map(|(&id, known)| {
            if known.new.request_tuple() == *tuple {
                Some((id, Direction::Request))
            } else {
                (known.reply_tuple() == Some(*tuple)).then_some((id, Direction::Reply))
            }
        });
        let holder = holders.next();
        assert_eq!(holders.next(), None, "the model itself has a key twice");
        holder
    }

    fn half_open(&self) -> usize {
        self.known
            .values()
            .filter(|known| known.state.is_half_open())
            .count()
    }

    fn apply(&mut self, worker: usize, step: &Step) {
        match *step {
            Step::Insert {
                client,
                method,
                local_port,
                state,
                seconds,
            } => {
                let mut new = flow::<F>(client, method, local_port);
                new.state = state;
                new.timeout = Ticks::from_seconds(seconds);
                self.insert(worker, new);
            }
            Step::Remove { pick } => {
                if let Some(id) = self.picked(pick) {
                    let state = self.known.remove(&id).unwrap().state;
                    assert_eq!(self.owners[worker].remove(id), Some(state));
                    assert_eq!(self.owners[worker].remove(id), None, "removed once");
                }
            }
            Step::End { pick } => {
                if let Some(id) = self.picked(pick) {
                    let state = self.known.remove(&id).unwrap().state;
                    let table = self.owners[worker].table();
                    assert_eq!(table.end(table.entry(id)), Some(state));
                }
            }
            Step::Advance { pick, to } => {
                if let Some(id) = self.picked(pick) {
                    let known = self.known.get_mut(&id).unwrap();
                    let table = self.owners[worker].table();
                    let entry = table.entry(id);
                    assert!(
                        !table.advance(entry, State::TimeWait, to),
                        "it is in another state"
                    );
                    assert!(table.advance(entry, known.state, to));
                    known.state = to;
                }
            }
            Step::Touch { pick, seconds } => {
                if let Some(id) = self.picked(pick) {
                    let known = self.known.get_mut(&id).unwrap();
                    let deadline = self.now.after(Ticks::from_seconds(seconds));
                    // Later only: an earlier deadline is for `shorten`.
                    if !deadline.has_passed(known.deadline) {
                        let entry = self.owners[worker].table().entry(id);
                        entry.touch(deadline);
                        assert!(entry.expires_at().distance(deadline).0 < 50);
                        known.deadline = entry.expires_at();
                    }
                }
            }
            Step::Shorten { pick, seconds } => {
                if let Some(id) = self.picked(pick) {
                    let deadline = self.now.after(Ticks::from_seconds(seconds));
                    self.owners[worker].shorten(id, deadline);
                    self.known.get_mut(&id).unwrap().deadline = deadline;
                }
            }
            Step::TakeReply { pick } => {
                if let Some(id) = self.picked(pick) {
                    self.take_reply(worker, id);
                }
            }
            Step::Sweep { budget, state } => self.sweep(worker, budget, state),
            Step::Wait { ticks } => {
                self.now = self.now.after(Ticks(ticks));
                self.expire();
            }
            Step::Quiescent => self.owners[worker].quiescent(),
        }
    }

    /// Any worker takes the key, and once only.
    fn take_reply(&mut self, worker: usize, id: ConnectionId) {
        let known = self.known.get_mut(&id).unwrap();
        let has_one = known.reply_tuple().is_some();
        assert_eq!(self.owners[worker].take_reply(id), has_one);
        known.has_reply = false;
        assert!(!self.owners[worker].take_reply(id), "taken once");
    }

    /// Ends what this worker made and is in `state`, in steps.
    fn sweep(&mut self, worker: usize, budget: u32, state: State) {
        let mut next = Some(0);
        while let Some(from) = next {
            let known = &mut self.known;
            next = self.owners[worker].walk(from, budget, &mut |id, entry| {
                assert!(known.contains_key(&id), "shows the living alone");
                assert_eq!(usize::from(entry.owner()), worker);
                let ends = entry.state() == state;
                if ends {
                    known.remove(&id);
                }
                ends
            });
            assert_ne!(next, Some(from), "it gets on");
        }
        let table = self.owners[worker].table();
        let left = self.known.iter().filter(|(id, known)| {
            known.state == state && usize::from(table.entry(**id).owner()) == worker
        });
        assert_eq!(left.count(), 0);
    }

    fn insert(&mut self, worker: usize, new: NewConnection<F>) {
        let request = self.holder(&new.request_tuple());
        let reply = reply_tuple(&new).and_then(|tuple| self.holder(&tuple));
        let limit = (CAPACITY * u32::from(HALF_OPEN_PERCENT) / 100) as usize;
        let half_open_full = new.state.is_half_open() && self.half_open() >= limit;
        let mut result = self.owners[worker].insert(&new, self.now);
        if result == Err(InsertError::Full) {
            // Entries may be in limbo, with another worker, or ended and not collected; some rounds bring them back,
            // but for those that the other worker keeps at hand.
            for _ in 0..CAPACITY * 3 {
                for worker in [0, 1] {
                    self.owners[worker].quiescent();
                }
                self.expire();
            }
            let entries = self.owners[worker].table().statistics().entries;
            if entries + 4 <= u64::from(CAPACITY) {
                result = self.owners[worker].insert(&new, self.now);
                assert_ne!(
                    result,
                    Err(InsertError::Full),
                    "{} of {CAPACITY}",
                    self.known.len()
                );
            }
        }
        self.check_insert(result, new, request, reply, half_open_full);
        if let (Err(InsertError::ReplyExists(id)), Some((_, Direction::Reply))) = (result, reply)
            && new.client.1.is_multiple_of(2)
        {
            // The newcomer may have the key.
            self.take_reply(worker, id);
            let result = self.owners[worker].insert(&new, self.now);
            self.check_insert(result, new, None, None, half_open_full);
        }
    }

    fn check_insert(
        &mut self,
        result: Result<ConnectionId, InsertError>,
        new: NewConnection<F>,
        request: Option<(ConnectionId, Direction)>,
        reply: Option<(ConnectionId, Direction)>,
        half_open_full: bool,
    ) {
        match result {
            Ok(id) => {
                assert_eq!((request, reply), (None, None));
                assert!(!half_open_full);
                let deadline = self.now.after(new.timeout);
                let state = new.state;
                let before = self.known.insert(
                    id,
                    Known {
                        new,
                        state,
                        deadline,
                        has_reply: true,
                    },
                );
                assert!(
                    before.is_none(),
                    "an id of a living connection was given out again"
                );
            }
            Err(InsertError::Exists(id)) => assert_eq!(request.map(|(id, _)| id), Some(id)),
            Err(InsertError::HalfOpenFull) => assert!(half_open_full && request.is_none()),
            Err(InsertError::ReplyExists(id)) => {
                assert_eq!(request, None);
                assert_eq!(reply.map(|(id, _)| id), Some(id));
            }
            Err(InsertError::Full) => {}
            Err(error) => panic!("{error} with one thread"),
        }
    }

    fn expire(&mut self) {
        let Self { owners, now, known } = self;
        for owner in owners {
            owner.advance_timers(*now, usize::MAX, &mut |id, _| {
                let known = known.remove(&id).expect("a known connection, expired once");
                assert!(known.deadline.has_passed(*now), "fired early");
                Expiry::Remove
            });
        }
        for known in self.known.values() {
            let latest = known.deadline.after(Ticks(16));
            assert!(!latest.has_passed(self.now), "did not fire in time");
        }
    }

    fn check(&self) {
        let table = self.owners[0].table();
        let mut shown = HashMap::new();
        table.for_each(|id, view| assert!(shown.insert(id, view).is_none(), "shown twice"));
        assert_eq!(shown.len(), self.known.len());
        for (id, known) in &self.known {
            let view = shown[id];
            assert_eq!(view.client, known.new.client);
            assert_eq!(view.virtual_server, known.new.virtual_server);
            assert_eq!(view.real_server, known.new.real_server);
            assert_eq!(view.local, known.new.local);
            assert_eq!(view.state, known.state);
            assert_eq!(view.expires_at, known.deadline);
            assert_eq!(view.method, known.new.method);
            let entry = table.get(*id).expect("it lives");
            assert_eq!(entry.reply_neighbour(), (7, 1));
            assert_eq!((entry.ip_delta(), entry.l4_delta()), (0x1234, 0x5678));
        }
        for client in 0..CLIENTS {
            for (method, ports) in [
                (Method::Nat, 0..1),
                (Method::Dr, 0..1),
                (Method::FullNat, 0..6),
            ] {
                for local_port in ports {
                    let new = flow::<F>(client, method, local_port);
                    for tuple in [Some(new.request_tuple()), reply_tuple(&new)]
                        .into_iter()
                        .flatten()
                    {
                        let hash = table.hash(&tuple);
                        table.prefetch(hash);
                        let found = table.find(hash, table.probe(hash), &tuple);
                        assert_eq!(found, self.holder(&tuple));
                        assert_eq!(table.lookup(&tuple), found);
                    }
                }
            }
        }
        assert_eq!(table.statistics().half_open as usize, self.half_open());
    }
}

fn run<F: Numbered>(start: u32, steps: &[(usize, Step)]) {
    let mut world = World::<F>::new(Ticks(start));
    for (worker, step) in steps {
        world.apply(*worker, step);
        world.check();
    }
    // All goes, and nothing is left behind.
    world.now = world.now.after(Ticks::from_seconds(700));
    world.expire();
    let statistics = world.owners[0].table().statistics();
    assert!(world.known.is_empty());
    assert_eq!(
        (
            statistics.entries,
            statistics.keys,
            statistics.overflowed,
            statistics.half_open
        ),
        (0, 0, 0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_table_is_a_map_v4(
        start in any::<u32>(),
        steps in prop::collection::vec((0..2_usize, step()), 1..120),
    ) {
        run::<V4>(start, &steps);
    }

    #[test]
    fn the_table_is_a_map_v6(
        start in any::<u32>(),
        steps in prop::collection::vec((0..2_usize, step()), 1..120),
    ) {
        run::<V6>(start, &steps);
    }
}
