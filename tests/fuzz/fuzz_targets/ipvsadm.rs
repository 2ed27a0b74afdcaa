//! Any words as a command line of ipvsadm: a command, or a mistake with its text. Names of hosts are looked up, where there is
//! nobody to ask: this runs in a network of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// What a byte above 127 stands for.
const WORDS: &[&str] = &[
    "-A",
    "-E",
    "-D",
    "-C",
    "-R",
    "-S",
    "-a",
    "-e",
    "-d",
    "-L",
    "-l",
    "-Z",
    "-h",
    "-v",
    "-t",
    "-u",
    "-f",
    "-s",
    "-r",
    "-w",
    "-p",
    "-M",
    "-b",
    "-o",
    "-g",
    "-i",
    "-m",
    "-x",
    "-y",
    "-n",
    "-c",
    "-X",
    "-6",
    "-Ln",
    "-Lnc",
    "--set",
    "--pe",
    "--stats",
    "--rate",
    "--timeout",
    "--daemon",
    "--thresholds",
    "--persistent-conn",
    "--tun-info",
    "--nosort",
    "--sort",
    "--tun-type",
    "--tun-port",
    "--tun-csum",
    "--tun-nocsum",
    "--tun-remcsum",
    "--sctp-service",
    "--start-daemon",
    "--stop-daemon",
    "--syncid",
    "--sync-maxlen",
    "--mcast-interface",
    "--mcast-group",
    "--mcast-port",
    "--mcast-ttl",
    "--fullnat",
    "--laddr",
    "--json",
    "--full",
    "--atomic",
    "master",
    "backup",
    "rr",
    "wlc",
    "sh",
    "sip",
    "gue",
    "gre",
    "ipip",
    "sh-port",
    "sh-port,sh-fallback",
    "flag-1",
    "10.0.0.100:80",
    "[fd00::100]:443",
    "10.2.0.1",
    "[fd00::1]",
    "255.255.255.0",
    "360",
    "0",
    "1",
    "65535",
    "65536",
    "-1",
    "4294967295",
];

fuzz_target!(init: cli::lab::isolate().expect("a network namespace"), |bytes: &[u8]| {
    let mut words = vec![String::new()];
    for &byte in bytes {
        let last = words.last_mut().expect("there is one");
        match byte {
            128.. => {
                words.push(WORDS[usize::from(byte - 128) % WORDS.len()].to_owned());
                words.push(String::new());
            }
            b' ' | 0 => words.push(String::new()),
            _ => last.push(char::from(byte)),
        }
    }
    words.retain(|word| !word.is_empty());
    if let Err(mistake) = cli::ipvsadm::parse(&words) {
        assert!(!mistake.to_string().is_empty(), "{words:?}");
    }
});
