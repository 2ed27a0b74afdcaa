//! How it looks: text first, colours only where they add something.

use super::human::{bits, short, sparkline};
use super::model::{Mode, Model, Row};
use proto::v1;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

/// Columns beside the names: weight, active, inactive, connections, in, out.
const COLUMNS: usize = 7 + 8 + 8 + 8 + 8 + 8;
/// The smallest place that shows anything useful.
const SMALLEST: (u16, u16) = (60, 12);
/// Lines of workers and drops.
const BELOW: u16 = 7;
/// Frames of a full burst.
const BURST: u64 = 32;

/// Draws all of it. `colours`: whether there are any.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, colours: bool) {
    let area = frame.area();
    let paint = Paint { colours };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text = format!("too small: {width}x{height} at least");
        return frame.render_widget(Paragraph::new(text), area);
    }
    let below = if area.height >= 20 { BELOW } else { 0 };
    let [head, table, below, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(below),
        Constraint::Length(2),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(model, &paint, head.width)), head);
    draw_table(frame, model, &paint, table);
    if below.height > 0 {
        let [workers, drops] =
            Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)])
                .areas(below);
        frame.render_widget(
            Paragraph::new(worker_lines(model, &paint, below.height)),
            workers,
        );
        frame.render_widget(
            Paragraph::new(drop_lines(model, &paint, below.height)),
            drops,
        );
    }
    frame.render_widget(Paragraph::new(foot_lines(model, &paint)), foot);
    if model.mode == Mode::Help {
        draw_help(frame, area);
    }
}

/// Colours, if there are any.
struct Paint {
    colours: bool,
}

impl Paint {
    fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn alarm(&self) -> Style {
        let style = self.bold();
        if self.colours {
            style.fg(Color::Red)
        } else {
            style
        }
    }

    fn quiet(&self) -> Style {
        if self.colours {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new()
        }
    }

    fn good(&self) -> Style {
        if self.colours {
            Style::new().fg(Color::Green)
        } else {
            Style::new()
        }
    }
}

fn head_lines<'l>(model: &Model, paint: &Paint, width: u16) -> Vec<Line<'l>> {
    let sum = |count: fn(&v1::Rates) -> u64| -> u64 {
        let rates = model
            .services
            .iter()
            .filter_map(|service| service.rates.as_ref());
        rates.map(count).sum()
    };
    let mut first = match &model.status {
        None => "uvs top".to_owned(),
        Some(status) => {
            let up = status.uptime_ms / 1000;
            format!(
                "uvsd {}  up {}:{:02}:{:02}  configuration {}",
                status.version,
                up / 3600,
                up / 60 % 60,
                up % 60,
                status.configuration_version
            )
        }
    };
    let tables = model.status.iter().flat_map(|status| &status.tables);
    let (held, room) = tables.fold((0, 0), |(held, room), table| {
        (held + table.connections, room + table.capacity)
    });
    if room > 0 {
        first += &format!("  connections {} of {}", short(held), short(room));
    }
    let second = format!(
        "conns/s {:<6} in {:>6} pkt/s {:>9}/s   out {:>6} pkt/s {:>9}/s",
        short(sum(|rates| rates.connections)),
        short(sum(|rates| rates.in_packets)),
        bits(sum(|rates| rates.in_bytes)),
        short(sum(|rates| rates.out_packets)),
        bits(sum(|rates| rates.out_bytes)),
    );
    let third = match &model.lost {
        Some(why) => Line::styled(format!("NO CONNECTION: {why}; trying again"), paint.alarm()),
        None => {
            let course = sparkline(model.course(""), usize::from(width).saturating_sub(10));
            Line::from(vec![
                Span::raw("packets/s "),
                Span::styled(course, paint.good()),
            ])
        }
    };
    vec![Line::styled(first, paint.bold()), Line::raw(second), third]
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, paint: &Paint, area: Rect) {
    let width = usize::from(area.width);
    // A wide terminal shows each row's course.
    let course = if width >= 100 {
        (width - 92).min(40)
    } else {
        0
    };
    let name = width - COLUMNS - if course > 0 { course + 2 } else { 0 };
    let head = format!(
        "{:<name$}{:>7}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "Service / server", "Weight", "Active", "Inact", "Conns/s", "In/s", "Out/s"
    );
    let mut lines = vec![Line::styled(
        format!("{head:<width$}"),
        paint.bold().reversed(),
    )];
    let rows = model.rows();
    let room = usize::from(area.height).saturating_sub(1);
    let first = (model.selected + 1).saturating_sub(room);
    for (index, row) in rows.iter().enumerate().skip(first).take(room) {
        let mut text = row_text(row, name);
        if course > 0 {
            text += "  ";
            text += &sparkline(model.course(&row.course), course);
        }
        let mut style = Style::new();
        if row.drain.is_none() {
            style = paint.bold();
        } else if row.weight == Some(0) {
            style = paint.quiet();
        }
        if index == model.selected {
            style = style.reversed();
        }
        lines.push(Line::styled(text, style));
    }
    if rows.is_empty() {
        let text = match model.filter.is_empty() {
            true => "no services",
            false => "nothing matches the filter",
        };
        lines.push(Line::raw(text));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_text(row: &Row, width: usize) -> String {
    let mut name = row.name.clone();
    if name.chars().count() >= width {
        name = name
            .chars()
            .take(width.saturating_sub(2))
            .collect::<String>()
            + "…";
    }
    let weight = row
        .weight
        .map_or(String::new(), |weight| weight.to_string());
    format!(
        "{name:<width$}{weight:>7}{:>8}{:>8}{:>8}{:>8}{:>8}",
        short(row.active),
        short(row.inactive),
        short(row.rates.connections),
        short(row.rates.in_packets),
        short(row.rates.out_packets),
    )
}

/// How much a second a counter grew.
fn rate(model: &Model, now: u64, before: Option<u64>) -> u64 {
    let grown = before.map_or(0, |before| now.saturating_sub(before));
    (grown * 1000).checked_div(model.elapsed_ms).unwrap_or(0)
}

fn worker_lines<'l>(model: &Model, paint: &Paint, height: u16) -> Vec<Line<'l>> {
    let head = format!(
        "{:<7}{:>8}{:>8}{:>8}  {}",
        "Worker", "Recv/s", "Fwd/s", "Drop/s", "Burst fill"
    );
    let mut lines = vec![Line::raw(""), Line::styled(head, paint.bold())];
    let workers = model.status.iter().flat_map(|status| &status.workers);
    for worker in workers.take(usize::from(height).saturating_sub(2)) {
        let before = model.before.as_ref().and_then(|status| {
            let mut workers = status.workers.iter();
            workers.find(|one| one.index == worker.index)
        });
        let grown = |count: fn(&v1::Worker) -> u64| rate(model, count(worker), before.map(count));
        // A worker that keeps up finds few frames at a time; one that does not, finds as many as it takes.
        let received = grown(|worker| worker.received);
        let fill = (received * 10).checked_div(grown(|worker| worker.bursts) * BURST);
        let fill = usize::try_from(fill.unwrap_or(0).min(10)).unwrap_or(10);
        let text = format!(
            "{:<7}{:>8}{:>8}{:>8}  {:<10}",
            worker.index,
            short(received),
            short(grown(|worker| worker.forwarded)),
            short(grown(|worker| worker.dropped)),
            "█".repeat(fill) + &"·".repeat(10 - fill),
        );
        lines.push(match worker.running {
            true => Line::raw(text),
            false => Line::styled(format!("{:<7}NOT RUNNING", worker.index), paint.alarm()),
        });
    }
    lines
}

fn drop_lines<'l>(model: &Model, paint: &Paint, height: u16) -> Vec<Line<'l>> {
    let head = format!("{:<20}{:>7}{:>8}", "Drop reason", "Drop/s", "All");
    let mut lines = vec![Line::raw(""), Line::styled(head, paint.bold())];
    let drops = model.status.iter().flat_map(|status| &status.drops);
    let mut met: Vec<_> = drops
        .filter(|drop| drop.packets > 0)
        .map(|drop| {
            let before = model.before.as_ref().and_then(|status| {
                let mut drops = status.drops.iter();
                drops.find(|one| one.reason == drop.reason)
            });
            (
                rate(model, drop.packets, before.map(|one| one.packets)),
                drop,
            )
        })
        .collect();
    met.sort_by_key(|(rate, drop)| std::cmp::Reverse((*rate, drop.packets)));
    for (rate, drop) in met.iter().take(usize::from(height).saturating_sub(2)) {
        let text = format!(
            "{:<20}{:>7}{:>8}",
            drop.reason,
            short(*rate),
            short(drop.packets)
        );
        lines.push(match rate {
            0 => Line::raw(text),
            _ => Line::styled(text, paint.alarm()),
        });
    }
    if met.is_empty() {
        lines.push(Line::raw("none"));
    }
    lines
}

fn foot_lines<'l>(model: &Model, paint: &Paint) -> Vec<Line<'l>> {
    let note = model
        .notes
        .back()
        .map_or(String::new(), |(about, text)| format!("{about}: {text}"));
    let keys = match &model.mode {
        Mode::Ask(drain) => {
            let question = format!("Drain {}? Its weight becomes 0. y/n", drain.name());
            return vec![Line::raw(note), Line::styled(question, paint.alarm())];
        }
        Mode::Filter => format!("filter: {}_   Enter: keep  Esc: none", model.filter),
        Mode::Normal | Mode::Help => {
            let filter = match model.filter.as_str() {
                "" => "/ filter".to_owned(),
                filter => format!("/ filter ({filter})"),
            };
            let way = if model.is_reversed { ", reversed" } else { "" };
            format!(
                "q quit  s sort ({}{way})  r reverse  {filter}  d drain  ? help",
                model.sort.name()
            )
        }
    };
    vec![Line::raw(note), Line::raw(keys)]
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = [
        "up, down, j, k, PgUp, PgDn, Home, End   select",
        "s   sort by the next column      r   reverse",
        "/   filter services and servers  v   servers on or off",
        "d   drain the selected server: weight 0, connections",
        "    end by themselves; asks first",
        "q, Esc, Ctrl-C   quit",
        "",
        "Rates are estimated over the last seconds (ip_vs_est).",
        "Burst fill: how full the bursts are that a worker takes.",
    ];
    let height = u16::try_from(lines.len()).expect("a few") + 2;
    let width = 60.min(area.width);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height.saturating_sub(height)) / 2,
        width,
        height: height.min(area.height),
    };
    frame.render_widget(Clear, place);
    let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title("Help")),
        place,
    );
}
