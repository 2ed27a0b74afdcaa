//! Huge pages, and memory that may be locked.

use super::machine::Machine;
use super::report::Report;
use control::config::{Configuration, Driver};

/// Bytes of the tables for each of `director.connections`: an IPv4 and an IPv6 connection, the index included.
const BYTES_PER_CONNECTION: u64 = 100 + 164;
/// Tables below this many bytes do well in ordinary pages.
const SMALL: u64 = 64 << 20;

/// Are there enough for the connection tables?
pub(super) fn huge_pages(machine: &Machine, configuration: &Configuration, report: &mut Report) {
    const CHECK: &str = "huge pages";
    let pools = machine.names("sys/kernel/mm/hugepages");
    let pools = pools.iter().filter_map(|name| {
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = |file: &str| {
            let number = machine.number(&format!("sys/kernel/mm/hugepages/{name}/{file}"));
            u64::try_from(number.unwrap_or(0)).unwrap_or(0)
        };
        Some((kib, count("nr_hugepages"), count("free_hugepages")))
    });
    let pools: Vec<_> = pools.collect();
    let free: u64 = pools.iter().map(|(kib, _, free)| kib * 1024 * free).sum();
    let all: u64 = pools.iter().map(|(_, all, _)| all).sum();
    let wanted = u64::from(configuration.director.connections) * BYTES_PER_CONNECTION;
    let told = pools.iter().filter(|(_, all, _)| *all > 0);
    let told = told.map(|(kib, all, free)| format!("{all} of {} MiB, {free} free", kib / 1024));
    let told = told.collect::<Vec<_>>().join("; ");
    let need = format!("the tables take {} MiB", wanted >> 20);
    let mut drivers = configuration.ports.iter().map(|port| &port.driver);
    let has_dpdk = drivers.any(|driver| matches!(driver, Driver::Dpdk(_)));
    if all == 0 && has_dpdk && configuration.dpdk.huge_pages {
        let advice = "set some aside: sysctl vm.nr_hugepages=1024, at boot by /etc/sysctl.d; or dpdk.huge_pages = false";
        report.fail(
            CHECK,
            "none are set aside, and DPDK's memory is to be in them",
            advice,
        );
        return;
    }
    if free >= wanted {
        report.ok(CHECK, format!("{told}; {need}"));
    } else if wanted < SMALL {
        report.note(CHECK, format!("{need}: ordinary pages will do"));
    } else if all == 0 {
        let advice = format!(
            "sysctl vm.nr_hugepages={}, at boot by /etc/sysctl.d; tables in ordinary pages work, but forward more slowly",
            wanted.div_ceil(2 << 20)
        );
        report.warn(CHECK, format!("none are set aside; {need}"), &advice);
    } else {
        // A running uvsd has taken what it needs.
        let advice = "raise vm.nr_hugepages, unless a running uvsd has them; what finds no place lies in ordinary pages";
        report.warn(CHECK, format!("{told}; {need}"), advice);
    }
    if all > 0 {
        let mounts = machine.read("proc/mounts").unwrap_or_default();
        let mut kinds = mounts.lines().map(|line| line.split(' ').nth(2));
        if kinds.any(|kind| kind == Some("hugetlbfs")) {
            report.ok(CHECK, "hugetlbfs is mounted");
        } else {
            report.note(
                CHECK,
                "hugetlbfs is not mounted: DPDK wants it (mount -t hugetlbfs none /dev/hugepages)",
            );
        }
    }
}

/// How much memory may this process lock?
pub(super) fn locked(machine: &Machine, report: &mut Report) {
    const CHECK: &str = "memlock";
    let limits = machine.read("proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let Some(soft) = line.and_then(|line| line.split_whitespace().next()) else {
        return;
    };
    match soft.parse::<u64>() {
        Err(_) => report.ok(CHECK, soft),
        Ok(bytes) => report.note(
            CHECK,
            format!(
                "{} KiB for this process; AF_XDP and DPDK want more without CAP_IPC_LOCK (uvsd.service: LimitMEMLOCK=infinity)",
                bytes >> 10
            ),
        ),
    }
}
