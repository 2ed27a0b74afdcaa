//! What `uvs top` knows and what its keys do: no terminal, no network, no clock.

use crate::drain::left;
use crate::endpoint::{joined, named};
use proto::v1;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{HashMap, VecDeque};

/// Values of a course that are kept.
const COURSE: usize = 120;
/// Lines about drains that are kept.
const NOTES: usize = 3;
/// Letters of a filter.
const FILTER: usize = 64;

/// What services are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// As the director tells them.
    Name,
    Connections,
    InPackets,
    OutPackets,
    Active,
}

impl Sort {
    const ALL: [Sort; 5] = [
        Sort::Name,
        Sort::Connections,
        Sort::InPackets,
        Sort::OutPackets,
        Sort::Active,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Connections => "conns/s",
            Sort::InPackets => "in/s",
            Sort::OutPackets => "out/s",
            Sort::Active => "active",
        }
    }

    fn next(self) -> Sort {
        let place = Sort::ALL.iter().position(|sort| *sort == self);
        Sort::ALL[place.map_or(0, |place| (place + 1) % Sort::ALL.len())]
    }
}

/// What keys mean now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What the last line says.
    Normal,
    /// They are letters of the filter.
    Filter,
    /// They answer whether this server is to be drained.
    Ask(Drain),
    /// Any key goes back.
    Help,
}

/// A server to be drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) service: v1::ServiceKey,
    pub(super) address: String,
    pub(super) port: u32,
}

impl Drain {
    /// In words.
    pub(super) fn name(&self) -> String {
        format!(
            "{} of {}",
            joined(&self.address, self.port),
            named(&self.service)
        )
    }
}

/// What a key asks of the rest of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Drain(Drain),
}

/// What comes from the director.
#[derive(Debug)]
pub(super) enum News {
    Statistics(Box<v1::WatchStatisticsResponse>),
    /// There is no connection, and why.
    Lost(String),
    /// How a drain goes on, or why it does not.
    Drain(Drain, Result<v1::DrainResponse, String>),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) course: String,
    pub(super) weight: Option<u32>,
    pub(super) active: u64,
    pub(super) inactive: u64,
    pub(super) rates: v1::Rates,
    /// Of a server.
    pub(super) drain: Option<Drain>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) services: Vec<v1::Service>,
    pub(super) status: Option<v1::GetStatusResponse>,
    /// Of the message before.
    pub(super) before: Option<v1::GetStatusResponse>,
    pub(super) elapsed_ms: u64,
    /// Why there is no connection.
    pub(super) lost: Option<String>,
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) shows_servers: bool,
    pub(super) selected: usize,
    /// How drains go on, the newest last.
    pub(super) notes: VecDeque<(String, String)>,
    /// By a row's name: packets a second so far.
    courses: HashMap<String, VecDeque<u64>>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            services: Vec::new(),
            status: None,
            before: None,
            elapsed_ms: 0,
            lost: Some("connecting".to_owned()),
            mode: Mode::Normal,
            sort: Sort::Name,
            is_reversed: false,
            filter: String::new(),
            shows_servers: true,
            selected: 0,
            notes: VecDeque::new(),
            courses: HashMap::new(),
        }
    }
}

impl Model {
    /// Takes news in.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Statistics(message) => {
                self.lost = None;
                self.elapsed_ms = message.elapsed_ms;
                self.before = std::mem::replace(&mut self.status, message.status);
                self.services = message.services;
                self.follow();
            }
            News::Lost(why) => {
                self.lost = Some(why);
                // Counters of another process do not go on from these.
                self.before = None;
                self.status = None;
            }
            News::Drain(drain, told) => {
                let text = match told {
                    Ok(told) if told.done => format!("drained, {} left", left(&told)),
                    Ok(told) => format!("draining, {} left", left(&told)),
                    Err(why) => why,
                };
                self.note(drain.name(), text);
            }
        }
        self.selected = self.selected.min(self.rows().len().saturating_sub(1));
    }

    fn note(&mut self, about: String, text: String) {
        self.notes.retain(|(other, _)| *other != about);
        self.notes.push_back((about, text));
        while self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }

    /// Lets courses go on, and forgets those of what is gone.
    fn follow(&mut self) {
        let mut old = std::mem::take(&mut self.courses);
        let total = self.services.iter().map(packets).sum();
        let mut now = vec![(String::new(), total)];
        for service in &self.services {
            let name = service_name(service);
            now.push((name.clone(), packets(service)));
            for server in &service.servers {
                let rates = server.rates.unwrap_or_default();
                now.push((
                    server_course(&name, server),
                    rates.in_packets + rates.out_packets,
                ));
            }
        }
        for (name, value) in now {
            let mut course = old.remove(&name).unwrap_or_default();
            course.push_back(value);
            while course.len() > COURSE {
                course.pop_front();
            }
            self.courses.insert(name, course);
        }
    }

    /// Packets a second so far; of everything under no name.
    pub(super) fn course(&self, name: &str) -> impl DoubleEndedIterator<Item = u64> + Clone {
        self.courses.get(name).into_iter().flatten().copied()
    }

    /// The lines of the table, filtered and sorted: each service, and its servers below it.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut services: Vec<_> = self.services.iter().collect();
        let sort = self.sort;
        let key = |service: &v1::Service| {
            let rates = service.rates.unwrap_or_default();
            match sort {
                Sort::Name => 0,
                Sort::Connections => rates.connections,
                Sort::InPackets => rates.in_packets,
                Sort::OutPackets => rates.out_packets,
                Sort::Active => service
                    .servers
                    .iter()
                    .map(|one| u64::from(one.active))
                    .sum(),
            }
        };
        // The busiest first.
        services.sort_by_key(|service| std::cmp::Reverse(key(service)));
        if self.is_reversed {
            services.reverse();
        }
        services
            .into_iter()
            .flat_map(|service| self.rows_of(service))
            .collect()
    }

    fn rows_of(&self, service: &v1::Service) -> Vec<Row> {
        let name = service_name(service);
        let of_servers = |count: fn(&v1::RealServer) -> u32| {
            service
                .servers
                .iter()
                .map(|one| u64::from(count(one)))
                .sum()
        };
        let title = Row {
            name: format!("{name} {}", service.scheduler),
            course: name.clone(),
            weight: None,
            active: of_servers(|one| one.active),
            inactive: of_servers(|one| one.inactive),
            rates: service.rates.unwrap_or_default(),
            drain: None,
        };
        let servers = service.servers.iter().map(|server| Row {
            name: format!("  {}", joined(&server.address, server.port)),
            course: server_course(&name, server),
            weight: Some(server.weight),
            active: server.active.into(),
            inactive: server.inactive.into(),
            rates: server.rates.unwrap_or_default(),
            drain: Some(Drain {
                service: service.key.clone().unwrap_or_default(),
                address: server.address.clone(),
                port: server.port,
            }),
        });
        let wanted = |name: &str| name.to_lowercase().contains(&self.filter.to_lowercase());
        // A service that is wanted shows all its servers; another one those that are.
        let is_wanted = wanted(&title.name);
        let servers: Vec<_> = servers
            .filter(|row| is_wanted || wanted(&row.name))
            .collect();
        if !is_wanted && servers.is_empty() {
            return Vec::new();
        }
        let servers = servers.into_iter().filter(|_| self.shows_servers);
        std::iter::once(title).chain(servers).collect()
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        match std::mem::replace(&mut self.mode, Mode::Normal) {
            Mode::Normal => self.normal_key(key.code),
            Mode::Help => None,
            Mode::Filter => {
                self.filter_key(key.code);
                None
            }
            Mode::Ask(drain) => match key.code {
                KeyCode::Char('y' | 'Y') => {
                    self.note(drain.name(), "asked for".to_owned());
                    Some(Action::Drain(drain))
                }
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => None,
                // Whatever else was meant for something else.
                _ => {
                    self.mode = Mode::Ask(drain);
                    None
                }
            },
        }
    }

    fn normal_key(&mut self, code: KeyCode) -> Option<Action> {
        let last = self.rows().len().saturating_sub(1);
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Esc if self.filter.is_empty() => return Some(Action::Quit),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = last,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('v') => {
                self.shows_servers = !self.shows_servers;
                self.selected = self.selected.min(self.rows().len().saturating_sub(1));
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('d') => {
                let rows = self.rows();
                let drain = rows.get(self.selected).and_then(|row| row.drain.clone());
                match drain {
                    Some(drain) => self.mode = Mode::Ask(drain),
                    None => self.note("drain".to_owned(), "select a server first".to_owned()),
                }
            }
            _ => {}
        }
        None
    }

    fn filter_key(&mut self, code: KeyCode) {
        self.mode = Mode::Filter;
        match code {
            KeyCode::Enter => self.mode = Mode::Normal,
            KeyCode::Esc => {
                self.mode = Mode::Normal;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.len() < FILTER => self.filter.push(letter),
            _ => {}
        }
        self.selected = 0;
    }
}

fn service_name(service: &v1::Service) -> String {
    service.key.as_ref().map(named).unwrap_or_default()
}

fn server_course(service: &str, server: &v1::RealServer) -> String {
    format!("{service} {}", joined(&server.address, server.port))
}

fn packets(service: &v1::Service) -> u64 {
    let rates = service.rates.unwrap_or_default();
    rates.in_packets + rates.out_packets
}
