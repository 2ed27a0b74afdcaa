//! Packets per second over connections, drawn as SVG. A handful of lines on two axes: less than what a crate for it needs to
//! be told.

use super::report::mode;
use benches::{Measurement, Phase};
use std::fmt::Write as _;

/// The picture, in its own units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
/// Where the axes are.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 720.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 490.0;

/// Colours that everybody can tell apart. Source: Okabe, Ito, "Color universal design".
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000",
];

/// One line: the established packets of one mode, family and size, by connections.
struct Series<'a> {
    name: String,
    points: Vec<&'a Measurement>,
}

/// Where on the picture figures stand.
struct Scale {
    flows_min: f64,
    flows_max: f64,
    mpps_max: f64,
}

impl Scale {
    fn x(&self, flows: f64) -> f64 {
        let share = (flows / self.flows_min).log10() / (self.flows_max / self.flows_min).log10();
        LEFT + share * (RIGHT - LEFT)
    }

    fn y(&self, mpps: f64) -> f64 {
        BOTTOM - mpps / self.mpps_max * (BOTTOM - TOP)
    }
}

/// The picture of the established packets among `measurements`.
pub(super) fn svg(measurements: &[Measurement], cpu: &str) -> String {
    let series = series(measurements);
    let scale = scale(&series);
    let workers = measurements.first().map_or(1, |of| of.shares.len());
    let plural = if workers == 1 { "" } else { "s" };
    let title = format!(
        "uvs: established packets, memory port, {workers} worker{plural} on {}",
        escape(cpu)
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut svg, (LEFT, 40.0), "start\" font-size=\"17", &title);
    axes(&mut svg, &scale);
    for (index, one) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        line(&mut svg, &scale, one, colour, false);
        line(&mut svg, &scale, one, colour, true);
        #[allow(clippy::cast_precision_loss, reason = "a few lines")]
        let y = TOP + 22.0 * (index as f64 + 0.5);
        key(&mut svg, y, colour, "", &one.name);
    }
    if measurements.iter().any(|of| of.of_floor.is_some()) {
        #[allow(clippy::cast_precision_loss, reason = "a few lines")]
        let y = TOP + 22.0 * (series.len() as f64 + 0.5);
        key(&mut svg, y, "#555555", DASHES, "roofline of each");
    }
    svg.push_str("</svg>\n");
    svg
}

const DASHES: &str = " stroke-dasharray=\"6 4\"";

fn series(measurements: &[Measurement]) -> Vec<Series<'_>> {
    let established = measurements
        .iter()
        .filter(|of| of.phase == Phase::Established);
    let differs = |of: fn(&Measurement) -> String| {
        let mut values = measurements
            .iter()
            .filter(|of| of.phase == Phase::Established)
            .map(of);
        values
            .next()
            .is_some_and(|first| values.any(|value| value != first))
    };
    let has_families = differs(|of| of.family.name().to_owned());
    let has_sizes = differs(|of| of.size.to_string());
    let mut series: Vec<Series<'_>> = Vec::new();
    for of in established {
        let mut name = mode(of.method).to_owned();
        if has_families {
            write!(name, " {}", of.family.name()).expect("a String takes any text");
        }
        if has_sizes {
            write!(name, " {}", of.size).expect("a String takes any text");
        }
        match series.iter_mut().find(|one| one.name == name) {
            Some(one) => one.points.push(of),
            None => series.push(Series {
                name,
                points: vec![of],
            }),
        }
    }
    for one in &mut series {
        one.points.sort_by_key(|of| of.flows);
    }
    series
}

fn scale(series: &[Series<'_>]) -> Scale {
    let points = || series.iter().flat_map(|one| &one.points);
    let flows = || points().map(|of| f64::from(of.flows));
    let flows_min = flows().fold(f64::INFINITY, f64::min).min(1e9);
    let flows_max = flows().fold(1.0, f64::max);
    let mpps = points().flat_map(|of| {
        let floor = of.roofline_packets_per_s();
        [of.packets_per_s(), floor.unwrap_or(0.0)]
    });
    let mpps_max = mpps.fold(0.0, f64::max) / 1e6;
    // Whole powers of ten at the ends, and some room above.
    let low = 10_f64.powf(flows_min.log10().floor());
    let high = 10_f64.powf(flows_max.log10().ceil());
    Scale {
        flows_min: low.min(flows_max),
        flows_max: high.max(low * 10.0),
        mpps_max: (mpps_max * 1.05).max(0.001),
    }
}

fn axes(svg: &mut String, scale: &Scale) {
    let grey = "stroke=\"#dddddd\"";
    let mut flows = scale.flows_min;
    while flows <= scale.flows_max * 1.001 {
        let x = scale.x(flows);
        stroke(svg, (x, TOP), (x, BOTTOM), grey);
        text(svg, (x, BOTTOM + 20.0), "middle", &count(flows));
        flows *= 10.0;
    }
    let step = step(scale.mpps_max);
    let mut mpps = 0.0;
    while mpps <= scale.mpps_max {
        let y = scale.y(mpps);
        stroke(svg, (LEFT, y), (RIGHT, y), grey);
        // Steps are round numbers; this hides what binary fractions make of them.
        let label = format!("{}", (mpps * 1e6).round() / 1e6);
        text(svg, (LEFT - 8.0, y + 5.0), "end", &label);
        mpps += step;
    }
    let black = "stroke=\"black\"";
    stroke(svg, (LEFT, TOP), (LEFT, BOTTOM), black);
    stroke(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), black);
    let middle = f64::midpoint(LEFT, RIGHT);
    text(svg, (middle, BOTTOM + 48.0), "middle", "connections");
    let middle = f64::midpoint(TOP, BOTTOM);
    let turned = format!("middle\" transform=\"rotate(-90 28 {middle})");
    text(svg, (28.0, middle), &turned, "million packets per second");
}

/// The largest of 1, 2 and 5 times a power of ten that divides the axis into four parts or more.
fn step(max: f64) -> f64 {
    let power = 10_f64.powf((max / 4.0).log10().floor());
    let steps = [5.0, 2.0].map(|factor| factor * power);
    steps
        .into_iter()
        .find(|step| *step <= max / 4.0)
        .unwrap_or(power)
}

/// A power of ten in few characters.
fn count(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{} M", number / 1e6),
        _ if number >= 1e3 => format!("{} k", number / 1e3),
        _ => format!("{number}"),
    }
}

/// The line of a series, or that of its roofline.
fn line(svg: &mut String, scale: &Scale, of: &Series<'_>, colour: &str, is_roofline: bool) {
    let value = |of: &Measurement| {
        if is_roofline {
            of.roofline_packets_per_s()
        } else {
            Some(of.packets_per_s())
        }
    };
    let points = of.points.iter().filter_map(|of| {
        let mpps = value(of)? / 1e6;
        Some((scale.x(f64::from(of.flows)), scale.y(mpps)))
    });
    let points: Vec<(f64, f64)> = points.collect();
    if points.is_empty() {
        return;
    }
    let list: Vec<_> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let (dashes, width) = if is_roofline {
        (DASHES, 1.5)
    } else {
        ("", 2.5)
    };
    let list = list.join(" ");
    svg.push_str(&format!(
        "<polyline points=\"{list}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dashes}/>\n"
    ));
    for (x, y) in points {
        let radius = if is_roofline { 2.5 } else { 4.0 };
        svg.push_str(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>\n"
        ));
    }
}

/// A line of the legend.
fn key(svg: &mut String, y: f64, colour: &str, dashes: &str, name: &str) {
    let style = format!("stroke=\"{colour}\" stroke-width=\"2.5\"{dashes}");
    stroke(svg, (RIGHT + 20.0, y), (RIGHT + 55.0, y), &style);
    text(svg, (RIGHT + 63.0, y + 5.0), "start", name);
}

fn stroke(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    svg.push_str(&format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>\n"
    ));
}

/// Text that begins, ends or has its middle at a point, as `anchor` says, which may go on with other attributes.
fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    svg.push_str(&format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    ));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
