//! Plots as inline SVG: no scripts, no fonts to fetch.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::{
    Cartesian2d, Circle, DrawingArea, IntoDrawingArea, LineSeries, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::{BLACK, Color, WHITE};

/// Points of one policy or measure, in plot order.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Joined by a line; single points otherwise.
    pub joined: bool,
}

/// Title and axes.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero, or below.
    Linear,
    /// Linear, and only as far as values go: for curves whose course matters more than their height.
    Close,
    /// For positive values over several magnitudes.
    Logarithmic,
    /// So only the horizontal axis; the vertical one is linear.
    LogarithmicX,
}

/// Of a plot with its legend.
const WIDTH: u32 = 665;
const HEIGHT: u32 = 380;
/// Width of the plot itself; the legend stands beside it.
const PLOT_WIDTH: u32 = 470;
const LEGEND_LINE: i32 = 22;
/// Points that a line marks one by one; more would hide it.
const MARKED: usize = 60;
/// Colours that colour-blind readers tell apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Draws the series on two axes of the same scale.
pub fn plot(labels: &Labels<'_>, scale: Scale, series: &[Series]) -> String {
    let mut svg = String::new();
    {
        // The legend may be longer than the plot is high.
        let size = (WIDTH, HEIGHT.max(70 + LEGEND_LINE as u32 * series.len() as u32));
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area, labels, scale, series).expect("drawing into a string does not fail");
    }
    svg
}

/// Mean response time against data moved: of each policy its points over the dial, in order, seconds and gigabytes.
pub fn trade_off(title: &str, policies: impl IntoIterator<Item = (String, Vec<(f64, f64)>)>) -> String {
    let series = policies.into_iter().map(|(name, mut points)| {
        // Those that do not know the dial stay where they are.
        points.dedup();
        let joined = points.len() > 1;
        Series { name, points, joined }
    });
    let labels = Labels { title, x: "mean response time (s)", y: "data moved (GB, price-weighted)" };
    plot(&labels, Scale::Logarithmic, &series.collect::<Vec<_>>())
}

type Failure = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(area: &Area<'_>, labels: &Labels<'_>, scale: Scale, series: &[Series]) -> Result<(), Failure> {
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(PLOT_WIDTH);
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let of_y = if scale == Scale::LogarithmicX { Scale::Linear } else { scale };
    let (x, y) = (span(all().map(|p| p.0), scale), span(all().map(|p| p.1), of_y));
    let logarithmic = |range: Range<f64>| {
        let ticks = ticks(&range);
        range.log_scale().with_key_points(ticks)
    };
    let mut builder = ChartBuilder::on(&left);
    builder.caption(labels.title, ("sans-serif", 18)).margin(14).x_label_area_size(44).y_label_area_size(56);
    match scale {
        Scale::Linear | Scale::Close => fill(&mut builder.build_cartesian_2d(x, y)?, labels, series)?,
        Scale::Logarithmic => {
            fill(&mut builder.build_cartesian_2d(logarithmic(x), logarithmic(y))?, labels, series)?;
        }
        Scale::LogarithmicX => fill(&mut builder.build_cartesian_2d(logarithmic(x), y)?, labels, series)?,
    }
    legend(&right, series)?;
    area.present()?;
    Ok(())
}

fn fill<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    labels: &Labels<'_>,
    series: &[Series],
) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| tick(*value))
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for (index, series) in series.iter().enumerate() {
        let colour = colour(index);
        if !series.joined || series.points.len() <= MARKED {
            chart.draw_series(series.points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
        if series.joined {
            chart.draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?;
        }
    }
    Ok(())
}

fn legend(area: &Area<'_>, series: &[Series]) -> Result<(), Failure> {
    for (index, series) in series.iter().enumerate() {
        let y = 54 + LEGEND_LINE * index as i32;
        area.draw(&Rectangle::new([(4, y), (16, y + 12)], colour(index).filled()))?;
        area.draw(&Text::new(series.name.clone(), (22, y), ("sans-serif", 14)))?;
    }
    Ok(())
}

/// The colours over again, each time darker.
fn colour(index: usize) -> RGBColor {
    let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
    let darker = |part: u8| (f64::from(part) * 0.6_f64.powi((index / COLOURS.len()) as i32)) as u8;
    RGBColor(darker(red), darker(green), darker(blue))
}

/// Horizontal bars, one for each name, from zero; a line marks `reference`.
pub fn bars(title: &str, x: &str, bars: &[(String, f64)], reference: f64) -> String {
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH, 90 + 24 * bars.len() as u32)).into_drawing_area();
        draw_bars(&area, title, x, bars, reference).expect("drawing into a string does not fail");
    }
    svg
}

fn draw_bars(
    area: &Area<'_>,
    title: &str,
    x: &str,
    bars: &[(String, f64)],
    reference: f64,
) -> Result<(), Failure> {
    area.fill(&WHITE)?;
    let greatest = bars.iter().map(|(_, value)| *value).fold(reference, f64::max) * 1.12;
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 18)).margin(14).x_label_area_size(44).y_label_area_size(190);
    let count = bars.len() as f64;
    let mut chart = builder.build_cartesian_2d(0.0..greatest, -count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc(x)
        .x_label_formatter(&|value| tick(*value))
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (name, value)) in bars.iter().enumerate() {
        let top = -(index as f64);
        chart.draw_series([Rectangle::new(
            [(0.0, top - 0.15), (*value, top - 0.85)],
            colour(index).filled(),
        )])?;
        let at = chart.backend_coord(&(*value, top - 0.2));
        area.draw(&Text::new(format!("{value:.3}"), (at.0 + 6, at.1), ("sans-serif", 13)))?;
        let at = chart.backend_coord(&(0.0, top - 0.2));
        area.draw(&Text::new(name.clone(), (14, at.1), ("sans-serif", 13)))?;
    }
    let mark = [(reference, 0.0), (reference, -count)];
    chart.draw_series(LineSeries::new(mark, BLACK.stroke_width(1)))?;
    Ok(())
}

/// Something that lasts on a line of a timeline.
#[derive(Clone, Debug)]
pub struct Span {
    /// Line that it is drawn on, from the top.
    pub line: usize,
    /// Place among those at the same time on one line, and how many places there are.
    pub place: (usize, usize),
    pub from: f64,
    pub to: f64,
    /// What it is, as an index into the phases.
    pub phase: usize,
    /// Written behind it.
    pub name: Option<String>,
}

/// Spans on named lines over time, with a colour for each phase.
pub fn timeline(title: &str, lines: &[String], phases: &[&str], spans: &[Span]) -> String {
    let mut svg = String::new();
    {
        let size = (2 * WIDTH, 110 + 30 * lines.len() as u32);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw_timeline(&area, title, lines, phases, spans).expect("drawing into a string does not fail");
    }
    svg
}

/// Height of a timeline's title and phases.
const HEAD: u32 = 64;

fn draw_timeline(
    area: &Area<'_>,
    title: &str,
    lines: &[String],
    phases: &[&str],
    spans: &[Span],
) -> Result<(), Failure> {
    area.fill(&WHITE)?;
    let from = spans.iter().map(|span| span.from).fold(f64::INFINITY, f64::min);
    let to = spans.iter().map(|span| span.to).fold(f64::NEG_INFINITY, f64::max);
    // Room for the last name.
    let range = if to > from { from..to + 0.06 * (to - from) } else { 0.0..1.0 };
    let (head, area) = area.split_vertically(HEAD);
    head.draw(&Text::new(title.to_owned(), (190, 14), ("sans-serif", 18)))?;
    for (index, phase) in phases.iter().enumerate() {
        let x = 190 + 110 * index as i32;
        head.draw(&Rectangle::new([(x, 44), (x + 12, 56)], colour(index).filled()))?;
        head.draw(&Text::new((*phase).to_owned(), (x + 18, 44), ("sans-serif", 14)))?;
    }
    let mut builder = ChartBuilder::on(&area);
    builder.margin(14).x_label_area_size(44).y_label_area_size(190);
    let count = lines.len() as f64;
    let mut chart = builder.build_cartesian_2d(range, -count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc("s since the episode began")
        .x_label_formatter(&|value| tick(*value))
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let at = chart.backend_coord(&(from, -(index as f64) - 0.25));
        area.draw(&Text::new(line.clone(), (14, at.1 - HEAD as i32), ("sans-serif", 13)))?;
    }
    for span in spans {
        let height = 0.84 / span.place.1.max(1) as f64;
        let top = -(span.line as f64) - 0.08 - height * span.place.0 as f64;
        let corners = [(span.from, top), (span.to, top - height * 0.9)];
        chart.draw_series([Rectangle::new(corners, colour(span.phase).filled())])?;
        if let Some(name) = &span.name {
            let (right, middle) = chart.backend_coord(&(span.to, top - height * 0.45));
            area.draw(&Text::new(name.clone(), (right + 3, middle - 5 - HEAD as i32), ("sans-serif", 10)))?;
        }
    }
    Ok(())
}

/// One, two and five times the powers of ten within a range.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let powers = (range.start.log10().floor() as i32)..=(range.end.log10().ceil() as i32);
    let all = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    all.filter(|value| range.contains(value)).collect()
}

/// A number on an axis, without needless digits.
fn tick(value: f64) -> String {
    if (1e-9..0.01).contains(&value.abs()) {
        return format!("{value:.1e}");
    }
    // Nothing has no sign.
    let rounded = format!("{:.3}", if value.abs() < 1e-9 { 0.0 } else { value });
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// All values with a margin.
fn span(values: impl Iterator<Item = f64>, scale: Scale) -> Range<f64> {
    let finite = values.filter(|value| value.is_finite());
    match scale {
        Scale::Linear => {
            let (low, high) = finite.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
            if high > low { low..high + 0.08 * (high - low) } else { low..low + 1.0 }
        }
        Scale::Close => {
            let (low, high) =
                finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            // A flat line has room above and below.
            let flat = if high == 0.0 { 0.1 } else { 0.1 * high.abs() };
            let margin = if high > low { 0.08 * (high - low) } else { flat };
            if high >= low { low - margin..high + margin } else { 0.0..1.0 }
        }
        Scale::Logarithmic | Scale::LogarithmicX => {
            // Nothing at all has no place on the axis: it is drawn at the low end.
            let (low, high) = finite
                .filter(|value| *value > 0.0)
                .fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
            if high > 0.0 { low / 1.4..high * 1.4 } else { 0.1..10.0 }
        }
    }
}
