//! Driver "dpdk" in a configuration, whether this build has DPDK or not.

use control::config::{Configuration, Driver, Idle, Spread};

/// A configuration of one port with these lines, and more behind it.
fn text(port: &str, more: &str) -> String {
    format!("[port.wan]\n{port}\naddresses = [\"10.0.0.1/24\"]\n{more}\n")
}

fn mistakes(port: &str, more: &str) -> String {
    match Configuration::parse("x.toml", &text(port, more)) {
        Ok(_) => panic!("accepted: {port} {more}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn a_port_of_dpdk_polls_and_has_what_is_said_of_it() {
    let port = "driver = \"dpdk\"\ndevice = \"0000:01:00.0\"\nmtu = 9000\nrss = \"source\"\nexception = \"tap\"";
    let more = "[dpdk]\nhuge_pages = false\nmemory_mib = 256\nmbufs = 4096\narguments = [\"--log-level=pmd:8\"]";
    let accepted = Configuration::parse("x.toml", &text(port, more));
    let configuration = accepted
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration;
    let Driver::Dpdk(device) = &configuration.ports[0].driver else {
        panic!("{:?}", configuration.ports);
    };
    assert_eq!(
        (
            device.device.as_str(),
            device.mtu,
            device.spread,
            device.exception.as_deref()
        ),
        ("0000:01:00.0", Some(9000), Spread::Source, Some("uvs-wan"))
    );
    assert_eq!(configuration.director.idle, Idle::Poll);
    let dpdk = &configuration.dpdk;
    assert_eq!(
        (dpdk.huge_pages, dpdk.memory_mib, dpdk.mbufs),
        (false, Some(256), 4096)
    );
    let sleeps = "[director]\nidle = \"sleep\"";
    let accepted = Configuration::parse(
        "x.toml",
        &text("driver = \"dpdk\"\ndevice = \"net_null0\"", sleeps),
    );
    let configuration = accepted
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration;
    assert_eq!(configuration.director.idle, Idle::Sleep);
}

#[test]
fn what_cannot_be_is_told_with_its_place() {
    let dpdk = "driver = \"dpdk\"\ndevice = \"net_null0\"";
    let cases = [
        ("driver = \"dpdk\"", "", "port.wan.device: missing"),
        (
            "driver = \"dpdk\"\ndevice = \"a b\"",
            "",
            "port.wan.device: \"a b\" is not",
        ),
        (
            "driver = \"dpdk\"\ndevice = \"net_null0\"\ninterface = \"eth0\"",
            "",
            "port.wan.interface",
        ),
        (
            "driver = \"memory\"\ndevice = \"net_null0\"",
            "",
            "only drivers \"auto\" and \"dpdk\" have it",
        ),
        (
            dpdk,
            "[dpdk]\narguments = [\"--lcores=1\"]",
            "`workers` and `pin` in [director] say it",
        ),
        (
            dpdk,
            "[dpdk]\narguments = [\"--vdev=net_null1\"]",
            "ports name their devices",
        ),
        (dpdk, "[dpdk]\nmbufs = 5", "1024 to 16777216"),
        (dpdk, "[dpdk]\nhuge_pages = 1", "true or false"),
        (
            dpdk,
            "[port.lan]\ndriver = \"dpdk\"\ndevice = \"net_null0,copy=1\"",
            "already",
        ),
    ];
    for (port, more, expected) in cases {
        let told = mistakes(port, more);
        assert!(told.contains(expected), "{expected:?} is not in: {told}");
    }
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn a_build_without_dpdk_says_so() {
    let more = "[director]\nconnections = 1000";
    let accepted = Configuration::parse(
        "x.toml",
        &text("driver = \"dpdk\"\ndevice = \"net_null0\"", more),
    );
    let configuration = accepted
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration;
    let Err(error) = control::director::Director::start(configuration) else {
        panic!("it started");
    };
    let told = error.to_string();
    assert!(
        told.contains("built without it") && told.contains("--features dpdk"),
        "{told}"
    );
}

#[cfg(feature = "dpdk")]
#[test]
fn a_director_forwards_nothing_of_net_null_and_ends_cleanly() {
    let more = "[director]\nconnections = 1000\nworkers = 2\n[dpdk]\nhuge_pages = false";
    let accepted = Configuration::parse(
        "x.toml",
        &text("driver = \"dpdk\"\ndevice = \"net_null0\"", more),
    );
    let configuration = accepted
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
        .configuration;
    for _ in 0..2 {
        let director = control::director::Director::start(configuration.clone());
        let director = director.unwrap_or_else(|error| panic!("{error}"));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(director.ended_workers().is_empty());
        director.stop();
    }
    let folder = format!("/var/run/dpdk/uvs-{}", std::process::id());
    assert!(!std::path::Path::new(&folder).exists());
}
