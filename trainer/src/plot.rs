//! Plots as inline SVG: no scripts, no fonts to fetch.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition,
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

const SIZE: (u32, u32) = (620, 400);
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

/// Draws the series on linear axes.
pub fn plot(labels: &Labels<'_>, series: &[Series]) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area, labels, series).expect("drawing into a string does not fail");
    }
    svg
}

type Failure = Box<dyn std::error::Error>;

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    labels: &Labels<'_>,
    series: &[Series],
) -> Result<(), Failure> {
    area.fill(&WHITE)?;
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let mut chart = ChartBuilder::on(area)
        .caption(labels.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(span(all().map(|p| p.0)), span(all().map(|p| p.1)))?;
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for (index, series) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dots = series.points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
        chart.draw_series(dots)?.label(&series.name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(4))
        });
        if series.joined {
            chart.draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

/// From zero (or below) to a little above the greatest value.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if high > low { low..high + 0.08 * (high - low) } else { low..low + 1.0 }
}
