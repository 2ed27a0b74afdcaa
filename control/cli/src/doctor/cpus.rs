//! Processors: are there enough for the workers, are they left to them, do they run at full speed?

use super::interfaces::interface;
use super::machine::Machine;
use super::report::Report;
use control::config::{Configuration, Idle, Pin};

const CPUS: &str = "sys/devices/system/cpu";

/// The CPUs that the workers are bound to.
fn pinned(configuration: &Configuration) -> Vec<u16> {
    match &configuration.director.pin {
        Pin::Nowhere => Vec::new(),
        Pin::InOrder => (0..configuration.director.workers).collect(),
        Pin::To(cpus) => cpus.clone(),
    }
}

/// Is there a CPU for each worker?
pub(super) fn workers(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    const CHECK: &str = "workers";
    let online = machine.cpus(&format!("{CPUS}/online")).len();
    if online == 0 {
        return;
    }
    let workers = usize::from(configuration.director.workers);
    let finding = format!("{workers} on {online} CPUs");
    match configuration.director.idle {
        Idle::Poll if workers >= online => report.warn(
            CHECK,
            format!("{finding}, each polling: none is left for anything else"),
            "fewer director.workers, or director.idle = \"sleep\"",
        ),
        _ if workers > online => report.warn(
            CHECK,
            format!("{finding}: some share one"),
            "at most as many director.workers as CPUs",
        ),
        _ => report.ok(CHECK, finding),
    }
}

/// Are the workers' CPUs there, left to them, and on the node of the interfaces?
pub(super) fn pinning(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    const CHECK: &str = "pinning";
    let pinned = pinned(configuration);
    let polls = configuration.director.idle == Idle::Poll;
    if pinned.is_empty() {
        if polls {
            let advice = "director.pin, such as [2, 3], with isolcpus=2,3 nohz_full=2,3 on the kernel's command line";
            report.warn(CHECK, "polling workers run on any CPU", advice);
        }
        return;
    }
    let online = machine.cpus(&format!("{CPUS}/online"));
    let missing: Vec<_> = pinned.iter().filter(|cpu| !online.contains(cpu)).collect();
    if !missing.is_empty() {
        let advice = format!("director.pin: name CPUs that are online: {online:?}");
        report.fail(CHECK, format!("no CPU {missing:?}"), &advice);
        return;
    }
    let isolated = machine.cpus(&format!("{CPUS}/isolated"));
    let shared: Vec<_> = pinned
        .iter()
        .filter(|cpu| !isolated.contains(cpu))
        .collect();
    if shared.is_empty() {
        report.ok(CHECK, format!("CPUs {pinned:?} are isolated"));
    } else if polls {
        let advice =
            "isolcpus= and nohz_full= on the kernel's command line keep other tasks from them";
        report.warn(CHECK, format!("CPUs {shared:?} are not isolated"), advice);
    } else {
        report.note(CHECK, format!("CPUs {shared:?} are not isolated"));
    }
    nodes(machine, configuration, &pinned, report);
}

/// Memory is on the workers' nodes; a NIC on another one is reached over the link between them.
fn nodes(machine: &Machine, configuration: &Configuration, pinned: &[u16], report: &mut Report) {
    const CHECK: &str = "NUMA";
    let names = machine.names("sys/devices/system/node");
    let nodes: Vec<(i64, Vec<u16>)> = names
        .iter()
        .filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            let cpus = machine.cpus(&format!("sys/devices/system/node/{name}/cpulist"));
            Some((number, cpus))
        })
        .collect();
    if nodes.len() < 2 {
        report.ok(CHECK, "one node");
        return;
    }
    for interface in configuration.ports.iter().filter_map(interface) {
        let node = machine.number(&format!("sys/class/net/{interface}/device/numa_node"));
        let Some((node, cpus)) = nodes.iter().find(|(number, _)| Some(*number) == node) else {
            continue;
        };
        let far: Vec<_> = pinned.iter().filter(|cpu| !cpus.contains(cpu)).collect();
        if far.is_empty() {
            report.ok(
                CHECK,
                format!("{interface} and the workers are on node {node}"),
            );
        } else {
            let advice = format!("director.pin: CPUs of node {node}: {cpus:?}");
            let finding = format!("{interface} is on node {node}, CPUs {far:?} are not");
            report.warn(CHECK, finding, &advice);
        }
    }
}

/// Do they run at full speed?
pub(super) fn governor(
    machine: &Machine,
    configuration: Option<&Configuration>,
    report: &mut Report,
) {
    const CHECK: &str = "governor";
    let bound = configuration.map(pinned).unwrap_or_default();
    let online = machine.cpus(&format!("{CPUS}/online"));
    let looked_at = if bound.is_empty() { online } else { bound };
    let governors = looked_at.iter().filter_map(|cpu| {
        let governor = machine.read(&format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"))?;
        Some((cpu, governor))
    });
    let governors: Vec<_> = governors.collect();
    let slow: Vec<_> = governors
        .iter()
        .filter(|(_, governor)| governor != "performance")
        .collect();
    if governors.is_empty() {
        report.note(
            CHECK,
            "none: the machine's firmware or its host chooses the frequency",
        );
    } else if let Some((_, governor)) = slow.first() {
        let cpus: Vec<_> = slow.iter().map(|(cpu, _)| cpu).collect();
        let advice = "cpupower frequency-set -g performance";
        report.warn(CHECK, format!("\"{governor}\" on CPUs {cpus:?}"), advice);
    } else {
        report.ok(CHECK, "performance");
    }
}
