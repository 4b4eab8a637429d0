//! Plots in the colours of the page.

use maud::{PreEscaped, html};
use remora_trainer::plot::{Labels, Scale, Series, plot};

use super::Part;

/// Curves over iterations, with their last values in words.
pub fn curves(title: &str, y: &str, series: &[Series]) -> Part {
    let drawn = plot(&Labels { title, x: "iteration", y }, Scale::Close, series);
    let last = |series: &Series| {
        series.points.last().map(|(at, value)| format!("{} {value:.3} at iteration {at}", series.name))
    };
    let words: Vec<_> = series.iter().filter_map(last).collect();
    figure(&drawn, &format!("{title}, {y}: {}", words.join("; ")))
}

/// A plot, and what it shows in words.
pub fn figure(drawn: &str, label: &str) -> Part {
    html! { figure { div role="img" aria-label=(label) { (PreEscaped(themed(drawn))) } figcaption.skip { (label) } } }
}

/// What colours stand for, by their names.
pub fn key<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Part {
    html! { p.key { @for (name, fill) in entries {
        svg width="12" height="12" aria-hidden="true" { rect width="12" height="12" fill=(fill) {} } " " (name) " "
    } } }
}

/// Black on white becomes text on ground.
fn themed(svg: &str) -> String {
    let from = svg.find("<svg").unwrap_or(0);
    svg[from..]
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace("\"#FFFFFF\"", "\"none\"")
        .replace("\"#000000\"", "\"currentColor\"")
}
