//! The threads of a director, one for each worker.

use super::{Director, StartError};
use crate::config::{Idle, Pin};
use dataplane::port::Port;
use dataplane::worker::{self, Worker, WorkerParts};
use std::sync::Arc;
use std::sync::mpsc;

impl Director {
    pub(super) fn start_workers<P: Port + 'static>(
        &mut self,
        ports: Vec<Vec<P>>,
    ) -> Result<(), StartError> {
        let mut queues: Vec<_> = ports.into_iter().map(Vec::into_iter).collect();
        for index in 0..self.settings.workers {
            let ports = queues.iter_mut().filter_map(Iterator::next).collect();
            self.start_worker(self.worker_parts(index, ports))?;
        }
        Ok(())
    }

    fn start_worker<P: Port + 'static>(&mut self, parts: WorkerParts<P>) -> Result<(), StartError> {
        let worker = parts.index;
        let cpu = match &self.settings.pin {
            Pin::Nowhere => None,
            Pin::InOrder => Some(usize::from(worker)),
            Pin::To(cpus) => cpus.get(usize::from(worker)).map(|cpu| usize::from(*cpu)),
        };
        let idle = match self.settings.idle {
            Idle::Sleep => worker::Idle::Sleep,
            Idle::Poll => worker::Idle::Poll,
        };
        let (stop, epoch) = (Arc::clone(&self.stop), self.epoch);
        let (ready, is_ready) = mpsc::channel();
        let run = move || {
            let pinned = cpu.map_or(Ok(()), pin);
            let proceed = pinned.is_ok();
            // The director waits for this, so the receiver is there.
            let _ = ready.send(pinned);
            if proceed {
                Worker::new(parts, worker::ticks_since(epoch)).run(&stop, idle, epoch);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("uvs-worker-{worker}"))
            .spawn(run);
        self.threads
            .push(thread.map_err(|error| StartError::Thread { worker, error })?);
        match is_ready.recv() {
            Ok(Err(error)) => Err(StartError::Pin {
                worker,
                cpu: cpu.unwrap_or_default(),
                error,
            }),
            Ok(Ok(())) | Err(mpsc::RecvError) => Ok(()),
        }
    }
}

/// Binds the calling thread to a CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
