//! The link's estimate, the decisions and the regret over time.

use std::collections::BTreeSet;

use remora_trainer::plot::{Labels, Scale, Series, plot};
use remora_trainer::statistics::mean;

use super::{Decided, Learning, Sample};

/// Decisions over which a curve is a moving mean.
const WINDOW: usize = 60;
const TIME: &str = "s of the testbed";

fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.into(), points, joined: true }
}

/// The series with a line up to `top` where the link was degraded and where it went on after learning.
fn marked(learning: &Learning, title: &str, y: &str, mut series: Vec<Series>) -> String {
    let points = series.iter().flat_map(|series| &series.points);
    let top = points.map(|point| point.1).fold(0.0, f64::max);
    let mark = |name: &str, at_s: f64| line(name, vec![(at_s, 0.0), (at_s, top)]);
    series.extend(learning.degraded_s.map(|at_s| mark("link degraded", at_s)));
    series.push(mark(if learning.learnt.promoted { "promoted" } else { "not promoted" }, learning.went_on_s));
    plot(&Labels { title, x: TIME, y }, Scale::Linear, &series)
}

/// What the link was taken to carry and what it was made to, as SVG.
pub fn link(learning: &Learning) -> String {
    let curve = |name: &str, figure: fn(&Sample) -> f64| {
        line(name, learning.samples.iter().map(|sample| (sample.at_s, figure(sample))).collect())
    };
    let series = vec![
        curve("up, estimated", |sample| sample.up_mbps),
        curve("down, estimated", |sample| sample.down_mbps),
        curve("up, shaped", |sample| sample.shaped_up_mbps),
        curve("down, shaped", |sample| sample.shaped_down_mbps),
    ];
    marked(learning, "What the link is taken to carry", "Mbit/s", series)
}

/// A moving mean over decisions, each of which may say nothing.
fn moving(decisions: &[Decided], figure: impl Fn(&Decided) -> Option<f64>) -> Vec<(f64, f64)> {
    let known: Vec<(f64, f64)> =
        decisions.iter().filter_map(|decided| Some((decided.at_s, figure(decided)?))).collect();
    let window = WINDOW.min(known.len().max(1));
    let last = |points: &[(f64, f64)]| points[points.len() - 1].0;
    known.windows(window).map(|points| (last(points), mean(points.iter().map(|point| point.1)))).collect()
}

/// Which sites tasks went to, and how often the shadow would have chosen otherwise, as SVG.
pub fn decisions(learning: &Learning) -> String {
    let decisions = &learning.decisions;
    let sites: BTreeSet<&String> = decisions.iter().map(|decided| &decided.site).collect();
    let at = |site: &String| {
        line(format!("at {site}"), moving(decisions, |decided| Some(f64::from(decided.site == *site))))
    };
    let mut series: Vec<Series> = sites.into_iter().map(at).collect();
    series.push(line("shadow differs", moving(decisions, |decided| Some(f64::from(decided.shadow()?.0)))));
    marked(learning, "Where tasks go", "share of the last decisions", series)
}

/// How much dearer decisions came, and the shadow's would have been expected to come, as SVG.
pub fn regret(learning: &Learning) -> String {
    let decisions = &learning.decisions;
    let series = vec![
        line("regret", moving(decisions, |decided| decided.regret)),
        line("shadow, expected", moving(decisions, |decided| Some(decided.shadow()?.1 - 1.0))),
    ];
    marked(learning, "Dearer than expected", "cost over expected, less 1", series)
}
