//! Workers without much to do: what they sleep through, which must be nothing. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::{Configuration, ECHO_PORT, Scene, eventually, udp};
use std::thread;
use std::time::{Duration, Instant};

/// How long single datagrams come.
const TIME: Duration = Duration::from_secs(6);
/// How long what is due may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn scene(idle: &str) -> Scene {
    let configuration = Configuration {
        idle: Some(idle.to_owned()),
        udp: 1,
        ..Configuration::new(Method::Nat, Family::V4, 2)
    };
    Scene::new(configuration, 2)
}

/// Pauses from nothing to a few naps of a worker, in no order that a worker could fall into step with.
fn pauses() -> impl Iterator<Item = Duration> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_micros(state % 35_000)
    })
}

/// Single datagrams of ever new clients with pauses between them; all are answered. The longest that one took.
fn single_datagrams(scene: &Scene) -> Duration {
    let service = scene.virtual_address(ECHO_PORT);
    let (count, slowest) = scene.client().run(|| {
        let (since, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0u16);
        for pause in pauses() {
            if since.elapsed() > TIME {
                break;
            }
            thread::sleep(pause);
            let asked = Instant::now();
            let echoes = udp::echo(service, [20_000 + count], 100);
            assert!(echoes.lost.is_empty(), "after {count} datagrams");
            slowest = slowest.max(asked.elapsed());
            count += 1;
        }
        (count, slowest)
    });
    println!("{count} single datagrams, the slowest took {slowest:?}");
    assert!(count > 50);
    let status = scene.uvsd.status();
    assert_eq!(status.drops(), []);
    assert_eq!(status.missed(), 0);
    let forwarded: u64 = status.forwarded().iter().sum();
    assert!(forwarded >= 2 * u64::from(count), "{forwarded}");
    slowest
}

fn sleeps(scene: &Scene) -> u64 {
    let workers = scene.uvsd.status().0.workers;
    workers.iter().map(|worker| worker.sleeps).sum()
}

#[test]
fn sleeping_workers_lose_no_single_frame() {
    let scene = scene("sleep");
    single_datagrams(&scene);
    assert!(sleeps(&scene) > 100);
}

#[test]
fn polling_workers_lose_no_single_frame_and_do_not_sleep() {
    let scene = scene("poll");
    single_datagrams(&scene);
    assert_eq!(sleeps(&scene), 0);
}

/// Nothing comes, so that only the nap's end wakes the workers.
#[test]
fn timers_fire_and_reloads_reach_workers_that_sleep() {
    let scene = scene("sleep");
    let service = scene.virtual_address(ECHO_PORT);
    let echoes = scene
        .client()
        .run(|| udp::echo(service, 20_000..20_010, 100));
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    assert_eq!(scene.uvsd.status().connections(), 10);
    let since = Instant::now();
    let ended = eventually(PATIENCE, || {
        (scene.uvsd.status().connections() == 0).then_some(())
    });
    assert!(ended.is_some(), "connections outlive their time");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(3), "one second became {took:?}");

    // Every worker must have seen the new configuration before the removed server's number is free again.
    let mut configuration = scene.configuration.clone();
    configuration.servers.remove(0);
    scene.uvsd.reload(&configuration);
    let before = sleeps(&scene);
    let echoes = scene
        .client()
        .run(|| udp::echo(service, 21_000..21_020, 100));
    assert_eq!((&echoes.lost[..], echoes.answered[0]), (&[][..], 0));
    assert!(sleeps(&scene) >= before);
}
