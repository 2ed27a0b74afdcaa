//! What is seen, and what keys do.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

#[path = "../../tests/bed/terminal.rs"]
#[allow(dead_code, reason = "tests/top.rs uses the rest")]
mod terminal;

use super::model::{Action, Mode, Model, News};
use super::view;
use proto::v1;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

fn server(number: u32, weight: u32, in_packets: u64) -> v1::RealServer {
    v1::RealServer {
        address: format!("10.2.0.{number}"),
        port: 80,
        weight,
        active: number,
        rates: Some(v1::Rates {
            in_packets,
            ..v1::Rates::default()
        }),
        ..v1::RealServer::default()
    }
}

fn service(port: u32, servers: Vec<v1::RealServer>) -> v1::Service {
    let in_packets = servers
        .iter()
        .map(|one| one.rates.unwrap().in_packets)
        .sum();
    v1::Service {
        key: Some(v1::ServiceKey {
            protocol: v1::Protocol::Tcp.into(),
            address: "10.0.0.100".to_owned(),
            port,
            ..v1::ServiceKey::default()
        }),
        scheduler: "wlc".to_owned(),
        rates: Some(v1::Rates {
            connections: in_packets / 10,
            in_packets,
            in_bytes: in_packets * 125,
            ..v1::Rates::default()
        }),
        servers,
        ..v1::Service::default()
    }
}

/// What a director tells a second after the last time; counters grow by `count`.
fn message(count: u64) -> News {
    let status = v1::GetStatusResponse {
        version: "0.1.0".to_owned(),
        uptime_ms: 3_723_000,
        configuration_version: 5,
        workers: vec![v1::Worker {
            index: 0,
            running: true,
            received: 1600 * count,
            forwarded: 1500 * count,
            dropped: 100 * count,
            bursts: 100 * count,
            ..v1::Worker::default()
        }],
        tables: vec![v1::ConnectionTable {
            capacity: 1_000_000,
            connections: 12_345,
            ..v1::ConnectionTable::default()
        }],
        drops: vec![v1::Drop {
            reason: "no-server".to_owned(),
            packets: 100 * count,
        }],
        ..v1::GetStatusResponse::default()
    };
    News::Statistics(Box::new(v1::WatchStatisticsResponse {
        services: vec![
            service(80, vec![server(11, 1, 1_000), server(12, 0, 0)]),
            service(443, vec![server(21, 1, 1_234_567)]),
        ],
        status: Some(status),
        elapsed_ms: 1000,
    }))
}

fn model() -> Model {
    let mut model = Model::default();
    model.learn(message(1));
    model.learn(message(2));
    model
}

fn screen_with(model: &Model, width: u16, height: u16, colours: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| view::draw(frame, model, colours))
        .unwrap();
    terminal
}

/// The text on the screen.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let terminal = screen_with(model, width, height, false);
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(row).collect()
}

fn press(model: &mut Model, keys: &str) -> Vec<Action> {
    let keys = keys.chars().map(|letter| match letter {
        '\n' => KeyCode::Enter,
        '\x1b' => KeyCode::Esc,
        '\x08' => KeyCode::Backspace,
        '>' => KeyCode::Down,
        '<' => KeyCode::Up,
        letter => KeyCode::Char(letter),
    });
    let events = keys.map(|code| KeyEvent::new(code, KeyModifiers::NONE));
    events.filter_map(|event| model.key(event)).collect()
}

#[test]
fn everything_is_seen_at_80_by_24() {
    let lines = screen(&model(), 80, 24);
    assert_eq!(
        lines[0],
        "uvsd 0.1.0  up 1:02:03  configuration 5  connections 12.3k of 1.00M"
    );
    assert_eq!(
        lines[1],
        "conns/s 123k   in  1.23M pkt/s  1.23Gbit/s   out      0 pkt/s      0bit/s"
    );
    assert!(
        lines[2].starts_with("packets/s ") && lines[2].ends_with("██"),
        "{}",
        lines[2]
    );
    assert_eq!(
        lines[3],
        "Service / server                  Weight  Active   Inact Conns/s    In/s   Out/s"
    );
    assert_eq!(
        lines[4],
        "TCP 10.0.0.100:80 wlc                         23       0     100   1.00k       0"
    );
    assert_eq!(
        lines[5],
        "  10.2.0.11:80                         1      11       0       0   1.00k       0"
    );
    assert_eq!(
        lines[8],
        "  10.2.0.21:80                         1      21       0       0   1.23M       0"
    );
    let end = |text: &str, word: &str| text.find(word).map(|at| at + word.len());
    assert_eq!(
        end(&lines[3], "Active"),
        end(&lines[5], "11       0").map(|at| at - 8)
    );
    let below = lines
        .iter()
        .position(|line| line.starts_with("Worker"))
        .unwrap();
    assert_eq!(
        lines[below],
        "Worker   Recv/s   Fwd/s  Drop/s  Burst fill Drop reason          Drop/s     All"
    );
    // 1600 frames in 100 bursts: half of each.
    assert_eq!(
        lines[below + 1],
        "0         1.60k   1.50k     100  █████····· no-server               100     200"
    );
    assert_eq!(
        lines[23],
        "q quit  s sort (name)  r reverse  / filter  d drain  ? help"
    );
}

#[test]
fn other_sizes_show_more_less_or_say_so() {
    let wide = screen(&model(), 140, 24);
    assert!(wide[4].ends_with('█'), "its course: {}", wide[4]);
    let low = screen(&model(), 80, 12);
    assert!(low[11].starts_with("q quit") && !low.iter().any(|line| line.starts_with("Worker")));
    assert!(screen(&model(), 40, 10)[0].starts_with("too small: 60x12"));
    for (width, height) in [(1, 1), (60, 12), (61, 19), (99, 20), (100, 20), (300, 100)] {
        screen(&model(), width, height);
    }
}

#[test]
fn without_colours_none_are_used_and_with_them_text_stays_the_same() {
    let model = model();
    let [plain, coloured] = [false, true].map(|colours| screen_with(&model, 80, 24, colours));
    let cells = |terminal: &Terminal<TestBackend>| terminal.backend().buffer().content().to_vec();
    assert!(
        cells(&plain)
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    assert!(cells(&coloured).iter().any(|cell| cell.fg == Color::Red));
    let symbols = |terminal| {
        cells(terminal)
            .iter()
            .map(|cell| cell.symbol().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(symbols(&plain), symbols(&coloured));
}

#[test]
fn a_lost_connection_is_told_and_its_return_too() {
    let mut model = model();
    model.learn(News::Lost("Connection refused".to_owned()));
    let lines = screen(&model, 80, 24);
    assert_eq!(lines[2], "NO CONNECTION: Connection refused; trying again");
    model.learn(message(1));
    let lines = screen(&model, 80, 24);
    assert!(lines[2].starts_with("packets/s"));
    // Another process counts from 0: no rates of differences that mean nothing.
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("0             0       0       0")),
        "{lines:?}"
    );
}

#[test]
fn keys_sort_filter_and_hide() {
    let mut model = model();
    let names = |model: &Model| -> Vec<_> {
        model
            .rows()
            .iter()
            .map(|row| row.name.trim().to_owned())
            .collect()
    };
    let [web, tls] = ["TCP 10.0.0.100:80 wlc", "TCP 10.0.0.100:443 wlc"];
    assert_eq!(
        names(&model),
        [web, "10.2.0.11:80", "10.2.0.12:80", tls, "10.2.0.21:80"]
    );
    press(&mut model, "ss");
    assert_eq!(names(&model)[0], tls, "by packets, the busiest first");
    press(&mut model, "r");
    assert_eq!(names(&model)[0], web);
    assert!(screen(&model, 80, 24)[23].contains("s sort (in/s, reversed)"));
    press(&mut model, "/0.12x\x08");
    assert_eq!(
        screen(&model, 80, 24)[23],
        "filter: 0.12_   Enter: keep  Esc: none"
    );
    // Letters are letters there: q does not quit.
    assert!(press(&mut model, "q\x08\n").is_empty());
    assert_eq!(names(&model), [web, "10.2.0.12:80"]);
    press(&mut model, "\x1b");
    assert_eq!(names(&model).len(), 5);
    press(&mut model, "v");
    assert_eq!(names(&model), [web, tls]);
    press(&mut model, "/nothing\n");
    assert!(screen(&model, 80, 24)[4].starts_with("nothing matches the filter"));
}

#[test]
fn a_drain_is_asked_about_first() {
    let mut model = model();
    assert!(press(&mut model, "d").is_empty());
    assert_eq!(screen(&model, 80, 24)[22], "drain: select a server first");
    assert!(press(&mut model, ">d").is_empty());
    assert_eq!(
        screen(&model, 80, 24)[23],
        "Drain 10.2.0.11:80 of TCP 10.0.0.100:80? Its weight becomes 0. y/n"
    );
    // Neither by chance nor by no.
    assert!(press(&mut model, "x>n").is_empty());
    assert_eq!((&model.mode, model.selected), (&Mode::Normal, 1));
    let actions = press(&mut model, "dy");
    let [Action::Drain(drain)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(
        (drain.address.as_str(), drain.port, drain.service.port),
        ("10.2.0.11", 80, 80)
    );
    let told = v1::DrainResponse {
        active: 3,
        ..v1::DrainResponse::default()
    };
    model.learn(News::Drain(drain.clone(), Ok(told)));
    assert_eq!(
        screen(&model, 80, 24)[22],
        "10.2.0.11:80 of TCP 10.0.0.100:80: draining, 3 active, 0 inactive left"
    );
    model.learn(News::Drain(
        drain.clone(),
        Err("permission denied".to_owned()),
    ));
    assert!(screen(&model, 80, 24)[22].ends_with(": permission denied"));
}

#[test]
fn keys_quit_select_and_explain() {
    let mut model = model();
    press(&mut model, "?");
    assert!(
        screen(&model, 80, 24)
            .iter()
            .any(|line| line.contains("Ctrl-C   quit"))
    );
    assert!(press(&mut model, "q").is_empty(), "it closes the help");
    assert_eq!(press(&mut model, "q"), [Action::Quit]);
    assert_eq!(press(&mut model, "\x1b"), [Action::Quit]);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for mode in [Mode::Normal, Mode::Filter, Mode::Help] {
        model.mode = mode;
        assert_eq!(model.key(interrupt), Some(Action::Quit));
    }
    model.mode = Mode::Normal;
    press(&mut model, ">>>>>>>>");
    assert_eq!(model.selected, 4);
    // In a low window the selected line is seen.
    assert!(
        screen(&model, 80, 12)
            .iter()
            .any(|line| line.contains("10.2.0.21:80"))
    );
    press(&mut model, "<g");
    assert_eq!(model.selected, 0);
}

#[test]
#[ignore = "panics: the test below runs it in a terminal of its own"]
fn panics() {
    let _ = super::on_screen(|_| -> Result<(), _> { panic!("on purpose") });
}

#[test]
fn a_panic_leaves_the_terminal_as_before_and_can_be_read() {
    let mut terminal = terminal::Terminal::new(100, 24);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "top::tests::panics"]);
    let mut child = terminal.spawn(&mut command);
    assert!(!terminal.wait(&mut child).success());
    assert!(terminal.was_other);
    terminal.assert_as_before();
    assert!(terminal.screen().contains("on purpose"));
}
