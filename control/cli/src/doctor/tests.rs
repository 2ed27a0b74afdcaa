//! The doctor on machines that are made up.

use super::machine::cpu_list;
use super::{Machine, Report, Verdict, examine, judge_uvsd};
use control::config::Configuration;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

const TEXT: &str = r#"
[director]
workers = 2
pin = [2, 3]
idle = "poll"
connections = 1_000_000
[port.wan]
driver = "af_packet"
interface = "eth0"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "tcp 10.1.0.100:80"
method = "tun"
server = [{ address = "10.1.0.11" }]
"#;

/// A machine with nothing to find fault with.
fn fit() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n"),
        (
            "proc/self/status",
            "Name:\tuvs\nCapEff:\t0000000000002000\n",
        ),
        (
            "proc/self/limits",
            "Limit Soft Hard\nMax locked memory         unlimited            unlimited            bytes\n",
        ),
        ("proc/mounts", "none /dev/hugepages hugetlbfs rw 0 0\n"),
        ("proc/sys/net/ipv4/conf/eth0/forwarding", "0\n"),
        ("proc/sys/net/ipv6/conf/eth0/forwarding", "0\n"),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "512\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "512\n",
        ),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/isolated", "2-3\n"),
        (
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
            "performance\n",
        ),
        (
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
            "performance\n",
        ),
        ("sys/devices/system/node/node0/cpulist", "0-1\n"),
        ("sys/devices/system/node/node1/cpulist", "2-3\n"),
        ("sys/class/net/eth0/flags", "0x1003\n"),
        ("sys/class/net/eth0/carrier", "1\n"),
        ("sys/class/net/eth0/mtu", "1600\n"),
        ("sys/class/net/eth0/queues/rx-0/x", ""),
        ("sys/class/net/eth0/queues/rx-1/x", ""),
        ("sys/class/net/eth0/queues/tx-0/x", ""),
        ("sys/class/net/eth0/device/numa_node", "1\n"),
        ("sys/class/iommu/dmar0/x", ""),
        ("sys/bus/pci/devices/0000:01:00.0/class", "0x020000\n"),
        ("sys/bus/pci/devices/0000:01:00.0/x", ""),
        ("sys/bus/pci/devices/0000:02:00.0/class", "0x010802\n"),
    ] {
        put(&root, path, text);
    }
    link(
        &root,
        "sys/class/net/eth0/device/driver",
        "../drivers/ixgbe",
    );
    link(
        &root,
        "sys/bus/pci/devices/0000:01:00.0/driver",
        "../drivers/vfio-pci",
    );
    root
}

fn put(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn link(root: &TempDir, path: &str, to: &str) {
    symlink(to, root.path().join(path)).unwrap();
}

fn examined(root: &TempDir, text: &str) -> Report {
    let accepted =
        Configuration::parse("test", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut report = Report::default();
    examine(
        &Machine::new(root.path()),
        Some(&accepted.configuration),
        &mut report,
    );
    report
}

/// What is not as it should be.
fn faults(report: &Report) -> Vec<(Verdict, &str, &str)> {
    let faults = report
        .findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Ok);
    faults
        .map(|fault| (fault.verdict, fault.check.as_str(), fault.finding.as_str()))
        .collect()
}

#[test]
fn nothing_is_wrong_with_a_fit_machine() {
    let root = fit();
    let report = examined(&root, TEXT);
    assert_eq!(faults(&report), []);
    assert!(report.passed());
    let text = report.to_string();
    for told in [
        "ok       kernel        Linux 6.1.0-13-amd64\n",
        "512 of 2 MiB, 512 free; the tables take 251 MiB",
        "eth0: driver ixgbe, 2 receive and 1 transmit queues",
        "CPUs [2, 3] are isolated",
        "eth0 and the workers are on node 1",
        "0000:01:00.0 is given to user space (vfio-pci)",
        "0 failures, 0 warnings\n",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    assert!(!text.contains("0000:02:00.0"), "a disk is no NIC:\n{text}");
}

/// Each change of the fit machine is found, and nothing else.
#[test]
fn every_fault_is_found_and_has_advice() {
    let cases: &[(&str, &str, Verdict, &str, &str)] = &[
        (
            "proc/sys/kernel/osrelease",
            "5.4.0-1",
            Verdict::Warning,
            "kernel",
            "older than 5.9",
        ),
        (
            "proc/self/status",
            "CapEff:\t0000000000000000\n",
            Verdict::Warning,
            "capabilities",
            "lacks CAP_NET_RAW",
        ),
        (
            "proc/self/limits",
            "Max locked memory 8388608 8388608 bytes",
            Verdict::Note,
            "memlock",
            "8192 KiB",
        ),
        (
            "proc/mounts",
            "",
            Verdict::Note,
            "huge pages",
            "hugetlbfs is not mounted",
        ),
        (
            "proc/sys/net/ipv4/conf/eth0/forwarding",
            "1",
            Verdict::Warning,
            "forwarding",
            "net.ipv4.conf.eth0.forwarding is 1",
        ),
        (
            "proc/sys/net/ipv6/conf/eth0/forwarding",
            "1",
            Verdict::Warning,
            "forwarding",
            "net.ipv6.conf.eth0.forwarding is 1",
        ),
        (
            "proc/sys/net/ipv4/conf/all/rp_filter",
            "1",
            Verdict::Note,
            "port wan",
            "rp_filter",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "100",
            Verdict::Warning,
            "huge pages",
            "100 free",
        ),
        (
            "sys/devices/system/cpu/online",
            "0-2",
            Verdict::Failure,
            "pinning",
            "no CPU [3]",
        ),
        (
            "sys/devices/system/cpu/isolated",
            "",
            Verdict::Warning,
            "pinning",
            "CPUs [2, 3] are not isolated",
        ),
        (
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
            "powersave",
            Verdict::Warning,
            "governor",
            "\"powersave\" on CPUs [3]",
        ),
        (
            "sys/devices/system/node/node1/cpulist",
            "3",
            Verdict::Warning,
            "NUMA",
            "CPUs [2] are not",
        ),
        (
            "sys/class/net/eth0/flags",
            "0x1002",
            Verdict::Failure,
            "port wan",
            "eth0 is down",
        ),
        (
            "sys/class/net/eth0/carrier",
            "0",
            Verdict::Warning,
            "port wan",
            "eth0 has no link",
        ),
        (
            "sys/class/net/eth0/mtu",
            "1500",
            Verdict::Warning,
            "port wan",
            "MTU 1500: too small",
        ),
    ];
    for (path, text, verdict, check, finding) in cases {
        let root = fit();
        put(&root, path, text);
        let report = examined(&root, TEXT);
        let found = faults(&report);
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert_eq!((found[0].0, found[0].1), (*verdict, *check), "{path}");
        assert!(found[0].2.contains(finding), "{path}: {found:?}");
        assert_eq!(report.passed(), *verdict != Verdict::Failure, "{path}");
        let advised = report
            .findings
            .iter()
            .filter(|finding| finding.advice.is_some());
        assert_eq!(
            advised.count(),
            usize::from(*verdict != Verdict::Note),
            "{path}"
        );
    }
}

#[test]
fn a_missing_interface_is_a_failure_that_names_those_there_are() {
    let report = examined(&fit(), &TEXT.replace("\"eth0\"", "\"eth7\""));
    let failure = report
        .findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Failure);
    let failure = failure.unwrap();
    assert_eq!(failure.finding, "no interface \"eth7\"");
    assert_eq!(
        failure.advice.as_deref(),
        Some("port.wan.interface: one of eth0")
    );
}

#[test]
fn af_xdp_wants_more_capabilities() {
    let report = examined(&fit(), &TEXT.replace("af_packet", "af_xdp"));
    let found = faults(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].2, "this process lacks CAP_NET_ADMIN, CAP_BPF");
}

#[test]
fn devices_for_dpdk_must_be_there_and_given_to_user_space() {
    let with = |device: &str| {
        let named = format!("device = \"{device}\"");
        let text = TEXT.replace("af_packet", "dpdk");
        text.replace("interface = \"eth0\"", &named)
    };
    let root = fit();
    assert_eq!(faults(&examined(&root, &with("0000:01:00.0"))), []);
    let report = examined(&root, &with("0000:09:00.0"));
    assert_eq!(faults(&report)[0].2, "no PCI device 0000:09:00.0");
    let advice = report
        .findings
        .iter()
        .find_map(|finding| finding.advice.as_deref());
    assert_eq!(advice, Some("port.wan.device: one of 0000:01:00.0"));
    assert!(!report.passed());
    fs::remove_file(root.path().join("sys/bus/pci/devices/0000:01:00.0/driver")).unwrap();
    link(
        &root,
        "sys/bus/pci/devices/0000:01:00.0/driver",
        "../drivers/ixgbe",
    );
    let report = examined(&root, &with("0000:01:00.0"));
    assert!(faults(&report)[0].2.contains("driver ixgbe"), "{report}");
    assert!(!report.passed());
    let report = examined(&root, &with("net_null0"));
    assert_eq!(faults(&report)[0].2, "net_null0 is a virtual device");
    assert!(report.passed());
    let pages = "sys/kernel/mm/hugepages/hugepages-2048kB";
    put(&root, &format!("{pages}/nr_hugepages"), "0");
    put(&root, &format!("{pages}/free_hugepages"), "0");
    let report = examined(&root, &with("net_null0"));
    assert!(faults(&report)[0].2.contains("DPDK's memory"), "{report}");
    assert!(!report.passed());
    let without = format!("{}[dpdk]\nhuge_pages = false\n", with("net_null0"));
    assert!(examined(&root, &without).passed());
}

#[test]
fn vfio_without_an_iommu_is_doubtful() {
    let root = fit();
    fs::remove_dir_all(root.path().join("sys/class/iommu")).unwrap();
    let report = examined(&root, TEXT);
    let found = faults(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].2.contains("without an IOMMU"), "{found:?}");
}

#[test]
fn no_huge_pages_are_a_warning_for_a_large_table_alone() {
    let root = fit();
    put(
        &root,
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "0",
    );
    put(
        &root,
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "0",
    );
    let report = examined(&root, TEXT);
    assert_eq!(faults(&report).len(), 1);
    let warning = report
        .findings
        .iter()
        .find(|finding| finding.verdict == Verdict::Warning);
    let advice = warning.unwrap().advice.as_deref().unwrap();
    assert!(
        advice.starts_with("sysctl vm.nr_hugepages=126,"),
        "{advice}"
    );
    let report = examined(&root, &TEXT.replace("1_000_000", "1000"));
    assert_eq!(faults(&report)[0].0, Verdict::Note);
}

#[test]
fn polling_workers_want_cpus_of_their_own() {
    let report = examined(
        &fit(),
        &TEXT
            .replace("pin = [2, 3]", "")
            .replace("workers = 2", "workers = 4"),
    );
    let found = faults(&report);
    assert!(
        found[0].2.contains("4 on 4 CPUs, each polling"),
        "{found:?}"
    );
    assert!(found[1].2.contains("any CPU"), "{found:?}");
    let report = examined(
        &fit(),
        &TEXT
            .replace("pin = [2, 3]", "")
            .replace("workers = 2", "workers = 5")
            .replace("poll", "sleep"),
    );
    assert!(faults(&report)[0].2.contains("some share one"));
}

#[test]
fn json_says_the_same() {
    let report = examined(&fit(), &TEXT.replace("\"eth0\"", "\"eth7\""));
    let json = report.json();
    assert_eq!(json["passed"], false);
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    assert!(
        findings
            .iter()
            .any(|finding| finding["verdict"] == "failure"
                && finding["check"] == "port wan"
                && finding["advice"].is_string())
    );
}

#[test]
fn without_a_uvsd_there_is_a_note_and_a_dead_socket_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("uvs.sock");
    let verdict = |socket: &Path| {
        let mut report = Report::default();
        let options = crate::connect::Options::socket(socket);
        judge_uvsd(socket, crate::show::fetch(&options), &mut report);
        report.findings[0].verdict
    };
    assert_eq!(verdict(&socket), Verdict::Note);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(verdict(&socket), Verdict::Failure);
}

#[test]
fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
    assert_eq!(cpu_list("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
    assert_eq!(cpu_list(""), [0_u16; 0]);
}
