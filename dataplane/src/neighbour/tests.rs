use super::*;

const PORT: PortId = PortId(1);
const MAC: Mac = Mac([2, 4, 10, 2, 0, 11]);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn seconds(seconds: u32) -> Ticks {
    Ticks::from_seconds(seconds)
}

fn age(table: &NeighbourTable, now: Ticks) -> Vec<Probe> {
    let mut asked = Vec::new();
    table.age(0, 1, now, &mut |probe| asked.push(probe));
    asked
}

#[test]
fn an_unknown_neighbour_is_pending_until_it_answers() {
    let table = NeighbourTable::new(64);
    let server = address("10.2.0.11");
    let id = table.intern(PORT, server, seconds(1)).unwrap();
    assert_eq!(table.intern(PORT, server, seconds(1)), Ok(id));
    assert_eq!(table.resolve(id, seconds(1)), Resolution::Pending(PORT));
    let probe = Probe {
        address: server,
        port: PORT,
        mac: None,
    };
    assert_eq!(table.claim_probe(id, seconds(1)), Some(probe));
    assert_eq!(
        table.claim_probe(id, seconds(1)),
        None,
        "asked twice in one second"
    );
    assert!(
        !table.learn(PortId(0), server, MAC, seconds(1)),
        "learnt from another port"
    );
    assert!(table.learn(PORT, server, MAC, seconds(1)));
    assert_eq!(table.resolve(id, seconds(1)), Resolution::Mac(MAC, PORT));
}

#[test]
fn a_neighbour_in_use_is_asked_again_and_fails_after_three_requests() {
    let table = NeighbourTable::new(64);
    let id = table
        .intern(PORT, address("fd00:2::11"), seconds(0))
        .unwrap();
    table.learn(PORT, address("fd00:2::11"), MAC, seconds(0));
    let mut unicast = 0;
    for now in 1..=40 {
        let _ = table.resolve(id, seconds(now));
        unicast += age(&table, seconds(now))
            .iter()
            .filter(|probe| probe.mac == Some(MAC))
            .count();
    }
    assert_eq!(unicast, 3);
    assert_eq!(table.resolve(id, seconds(41)), Resolution::Failed);
    assert!(table.claim_probe(id, seconds(41)).is_some());
    assert_eq!(table.resolve(id, seconds(41)), Resolution::Pending(PORT));
    assert!(table.learn(PORT, address("fd00:2::11"), Mac([9; 6]), seconds(41)));
    assert_eq!(
        table.resolve(id, seconds(41)),
        Resolution::Mac(Mac([9; 6]), PORT)
    );
}

#[test]
fn an_unused_neighbour_is_forgotten_and_its_old_id_finds_nothing() {
    let table = NeighbourTable::new(64);
    let id = table
        .intern(PORT, address("10.2.0.11"), seconds(0))
        .unwrap();
    table.learn(PORT, address("10.2.0.11"), MAC, seconds(0));
    assert_eq!(age(&table, seconds(601)), []);
    assert_eq!(table.resolve(id, seconds(601)), Resolution::Gone);
    assert_eq!(table.list(), []);
    assert_eq!(
        table.resolve(NeighbourId::NONE, seconds(601)),
        Resolution::Gone
    );
}

#[test]
fn a_full_window_refuses_and_everybody_else_stays() {
    let table = NeighbourTable::new(1);
    let ids: Vec<_> = (0u8..16)
        .map(|host| table.intern(PORT, IpAddr::from([10, 0, 0, host]), seconds(0)))
        .collect();
    assert!(ids.iter().all(Result::is_ok));
    assert_eq!(
        table.intern(PORT, address("10.0.0.99"), seconds(0)),
        Err(NeighbourTableFull)
    );
    for id in ids {
        assert_eq!(
            table.resolve(id.unwrap(), seconds(0)),
            Resolution::Pending(PORT)
        );
    }
}

#[test]
fn neighbours_behind_a_link_that_is_back_are_asked_again_and_used_meanwhile() {
    let table = NeighbourTable::new(64);
    let (server, silent) = (address("10.2.0.11"), address("10.2.0.12"));
    let other = address("10.1.0.2");
    let known = table.intern(PORT, server, seconds(0)).unwrap();
    let failed = table.intern(PORT, silent, seconds(0)).unwrap();
    let elsewhere = table.intern(PortId(0), other, seconds(0)).unwrap();
    for now in 1..=5 {
        table.learn(PORT, server, MAC, seconds(now));
        table.learn(PortId(0), other, MAC, seconds(now));
        age(&table, seconds(now));
    }
    assert_eq!(table.resolve(failed, seconds(5)), Resolution::Failed);
    assert_eq!(age(&table, seconds(6)), []);
    table.doubt(PORT, seconds(6));
    assert_eq!(table.resolve(known, seconds(6)), Resolution::Mac(MAC, PORT));
    assert_eq!(table.resolve(failed, seconds(6)), Resolution::Pending(PORT));
    let mut asked = age(&table, seconds(6));
    asked.sort_by_key(|probe| probe.address);
    let asked: Vec<_> = asked
        .iter()
        .map(|probe| (probe.address, probe.mac))
        .collect();
    assert_eq!(asked, [(server, Some(MAC)), (silent, None)]);
    table.learn(PORT, server, MAC, seconds(6));
    assert_eq!(age(&table, seconds(6)), [], "it has answered");
    assert_eq!(
        table.resolve(elsewhere, seconds(6)),
        Resolution::Mac(MAC, PortId(0))
    );
}

#[test]
fn a_known_neighbour_that_is_silent_after_its_link_was_down_fails() {
    let table = NeighbourTable::new(64);
    let server = address("10.2.0.11");
    let id = table.intern(PORT, server, seconds(0)).unwrap();
    table.learn(PORT, server, MAC, seconds(0));
    table.doubt(PORT, seconds(1));
    let asked: usize = (1..=5).map(|now| age(&table, seconds(now)).len()).sum();
    assert_eq!(asked, 3);
    assert_eq!(table.resolve(id, seconds(5)), Resolution::Failed);
}
