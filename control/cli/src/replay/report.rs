//! What became of the frames of a replay.

use control::Director;
use control::status::{ServiceStatus, Status};
use std::fmt;

/// The verdicts, the reasons, and what each server got.
#[derive(Debug)]
pub struct Report {
    frames: usize,
    is_truncated: bool,
    status: Status,
    services: Vec<ServiceStatus>,
}

impl Report {
    pub(super) fn new(director: &Director, frames: usize, is_truncated: bool) -> Report {
        Report {
            frames,
            is_truncated,
            status: director.status(),
            services: director.services(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_truncated {
            writeln!(f, "The capture ends within a frame, which is left out.\n")?;
        }
        writeln!(f, "{:<28}{:>12}", "Frames read", self.frames)?;
        for worker in &self.status.workers {
            writeln!(f, "{:<28}{:>12}", "Forwarded", worker.forwarded)?;
            writeln!(f, "{:<28}{:>12}", "Waited for a neighbour", worker.waiting)?;
            writeln!(
                f,
                "{:<28}{:>12}",
                "Sent by the director itself", worker.replied
            )?;
            writeln!(f, "{:<28}{:>12}", "Left to the kernel", worker.exceptions)?;
            writeln!(f, "{:<28}{:>12}", "Dropped", worker.dropped)?;
            writeln!(f, "{:<28}{:>12}", "Connections made", worker.connections)?;
        }
        let met: Vec<_> = self
            .status
            .drops
            .iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        if !met.is_empty() {
            writeln!(f, "\n{:<28}{:>12}", "Drop reason", "Frames")?;
            for (reason, count) in met {
                writeln!(f, "{:<28}{count:>12}", reason.name())?;
            }
        }
        writeln!(
            f,
            "\n{:<44}{:>12}{:>12}{:>12}",
            "Server", "Connections", "Packets in", "out"
        )?;
        for service in &self.services {
            writeln!(f, "{} {}", service.listen, service.scheduler)?;
            for server in &service.servers {
                let traffic = &server.traffic;
                let counts = [traffic.connections, traffic.in_packets, traffic.out_packets];
                let [connections, packets, replies] = counts;
                let name = format!("  -> {}", server.address);
                writeln!(f, "{name:<44}{connections:>12}{packets:>12}{replies:>12}")?;
            }
        }
        Ok(())
    }
}
