//! Connections that an operator ends. Each is its owner's to end, as when its time is over: control asks, and waits.

use super::{ConnectionView, Filter, for_each};
use crate::director::Director;
use conntrack::{ConnectionId, Family, Table};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long a worker may do nothing of what it is asked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what a worker has done.
const LOOK: Duration = Duration::from_millis(1);

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is forgotten; nobody is told.
    Forget,
    /// Of TCP: its next packet resets both ends; all others are forgotten.
    Reset,
}

/// A worker does not do what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker {worker} has not answered for {} s, {asked} connections were ended or will be: look at `uvs status`",
    PATIENCE.as_secs()
)]
pub struct Stuck {
    /// From 0.
    pub worker: u16,
    /// Connections that were asked for so far.
    pub asked: u64,
}

/// Ends every connection that `filter` lets through, templates among them, and returns how many were asked for: those that
/// ended by themselves at the same moment count too. When it returns, all of them have ended, or will be reset.
///
/// # Errors
/// When a worker stands still.
pub fn end(director: &Director, filter: &Filter, ending: Ending) -> Result<u64, Stuck> {
    let mut asked = 0;
    let mut last: HashMap<(bool, u16), ConnectionId> = HashMap::new();
    let mut stuck = None;
    // Who breaks off says why.
    let _ = for_each(director, filter, |view| {
        if !ask(director, &view, ending) {
            stuck = Some(view.owner);
            return ControlFlow::Break(());
        }
        asked += 1;
        last.insert((view.is_ipv6(), view.owner), view.id);
        ControlFlow::Continue(())
    });
    let to_stuck = |worker| Stuck { worker, asked };
    if let Some(worker) = stuck {
        return Err(to_stuck(worker));
    }
    // Workers do what they are asked for in order.
    for ((is_ipv6, worker), id) in last {
        let is_done = || match is_ipv6 {
            true => is_done(&director.tables.ipv6, worker, id, ending),
            false => is_done(&director.tables.ipv4, worker, id, ending),
        };
        if !in_time(is_done) {
            return Err(to_stuck(worker));
        }
    }
    Ok(asked)
}

/// Asks a connection's owner, and waits while it is busy.
fn ask(director: &Director, view: &ConnectionView, ending: Ending) -> bool {
    let mark = ending == Ending::Reset;
    in_time(|| match view.is_ipv6() {
        true => director.tables.ipv6.ask(view.id, view.owner, mark).is_ok(),
        false => director.tables.ipv4.ask(view.id, view.owner, mark).is_ok(),
    })
}

fn is_done<F: Family>(table: &Table<F>, worker: u16, id: ConnectionId, ending: Ending) -> bool {
    match ending {
        Ending::Forget => table.get(id).is_none(),
        Ending::Reset => !table.is_asked(worker),
    }
}

/// Whether something comes true before patience ends.
fn in_time(mut question: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !question() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
