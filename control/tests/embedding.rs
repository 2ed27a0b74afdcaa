//! The examples for programs that embed a director do what they say.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

#[path = "../examples/own_port.rs"]
mod own_port;
#[path = "../examples/own_scheduler.rs"]
mod own_scheduler;

use control::config::Configuration;
use dataplane::port::Mac;

#[test]
fn a_scheduler_of_ones_own_is_selected_by_its_name() {
    let refused = Configuration::parse("t", "[[service]]\nscheduler = \"by-network\"").unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("\"by-network\" is not a scheduler")
    );
    let clients = [
        "10.9.1.1",
        "10.9.1.77",
        "10.9.2.1",
        "10.9.2.200",
        "10.9.3.1",
    ];
    let clients = clients.map(|text| text.parse().unwrap());
    let servers = own_scheduler::run(&clients).unwrap();
    assert_eq!(servers[0], servers[1]);
    assert_eq!(servers[2], servers[3]);
    assert!(servers[0] != servers[2] && servers[2] != servers[4] && servers[4] != servers[0]);
    let again = own_scheduler::main().unwrap_err();
    assert!(
        again
            .to_string()
            .contains("there is a scheduler \"by-network\" already")
    );
}

#[test]
fn a_port_of_ones_own_is_one_of_the_directors() {
    assert_eq!(own_port::ask().unwrap(), Mac([2, 0, 0, 0, 0, 1]));
    own_port::main().unwrap();
}
