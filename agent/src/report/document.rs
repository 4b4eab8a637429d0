//! The report's text, with tables and plots that are made of what was recorded.
//!
//! A mark says what is to stand between it and the next `<!-- end -->`:
//!
//! ```text
//! <!-- ratios NAME over BASELINE [of POLICY,…] -->     cost over that of another policy, per scenario and α
//! <!-- means NAME at ALPHA [of POLICY,…] -->           what was moved, how long it took, what it cost
//! <!-- fronts NAME -->                                  hypervolumes
//! <!-- rows NAME [from LIST] columns KEY[%][=TITLE],… -->  rows of any other command
//! <!-- plot NAME of SCENARIO -->                        data moved against response time, or what the command drew
//! <!-- made NAME -->                                    the command, when and where
//! ```
//!
//! A KEY leads into what a row holds by dots (`moved.ratio`, `by_alpha.0`), `%` shows a share as per cent, and a TITLE has
//! `_` for spaces.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use remora_trainer::plot;
use remora_trainer::statistics::Ratio;
use remora_trainer::summary::{Comparison, Front};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::record::{self, Record};

const END: &str = "<!-- end -->";

/// A text, and the plots that it shows by the names of their files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub text: String,
    pub plots: BTreeMap<String, String>,
}

/// Writes anew what stands at marks.
///
/// # Errors
/// When a mark is wrong, or asks for what was not recorded.
pub fn refresh(folder: &Path, text: &str) -> Result<Document> {
    let mut made = Document::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!-- ") {
        let (mark, after) = after.split_once(" -->").context("a mark <!-- without its end -->")?;
        let line = 1 + text.len().checked_sub(after.len()).map_or(0, |at| text[..at].matches('\n').count());
        let at = || format!("line {line}: <!-- {mark} -->");
        let (_, after) = after.split_once(END).ok_or_else(|| anyhow!("{}: no {END} follows", at()))?;
        let between = fill(folder, mark, &mut made.plots).with_context(at)?;
        write!(made.text, "{before}<!-- {mark} -->\n{between}{END}")?;
        rest = after;
    }
    made.text.push_str(rest);
    Ok(made)
}

/// What a mark asks for.
struct Mark<'a> {
    kind: &'a str,
    record: Record,
    name: &'a str,
    keys: BTreeMap<&'a str, &'a str>,
}

impl Mark<'_> {
    fn key(&self, key: &str) -> Result<&str> {
        self.keys.get(key).copied().ok_or_else(|| anyhow!("{} wants {key} and what", self.kind))
    }

    /// Whether this policy is asked for.
    fn of(&self, policy: &str) -> bool {
        self.keys.get("of").is_none_or(|list| list.split(',').any(|name| name == policy))
    }
}

fn fill(folder: &Path, mark: &str, plots: &mut BTreeMap<String, String>) -> Result<String> {
    let words: Vec<_> = mark.split_whitespace().collect();
    let [kind, name, pairs @ ..] = words.as_slice() else { bail!("it names no record") };
    if pairs.len() % 2 != 0 {
        bail!("a key has no value");
    }
    let keys = pairs.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let mark = Mark { kind, record: record::read(folder, name)?, name, keys };
    match mark.kind {
        "ratios" => ratios(&mark),
        "means" => means(&mark),
        "fronts" => Ok(fronts(&mark)),
        "rows" => rows(&mark),
        "plot" => trade_off(&mark, plots),
        "made" => Ok(made(&mark.record)),
        kind => bail!("{kind:?} is none of ratios, means, fronts, rows, plot, made"),
    }
}

/// A Markdown table; the first `left` columns are words.
fn table(header: &[String], left: usize, rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<_> =
        (0..header.len()).map(|at| if at < left { "---" } else { "---:" }.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}", line(header), line(&rule).replace(' ', ""))
}

/// Values in order of first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn ratios(mark: &Mark<'_>) -> Result<String> {
    let over = mark.key("over")?;
    let of = |c: &&Comparison| c.baseline == over && mark.of(&c.policy);
    let compared: Vec<_> = mark.record.comparisons.iter().filter(of).collect();
    if compared.is_empty() {
        bail!("nothing recorded compares with {over:?}; `over` of the experiment says what is kept");
    }
    let alphas = distinct(compared.iter().map(|c| c.alpha));
    let header: Vec<_> = ["scenario".to_owned(), "policy".to_owned()]
        .into_iter()
        .chain(alphas.iter().map(|alpha| format!("α = {alpha}")))
        .collect();
    let lines = distinct(compared.iter().map(|c| (c.scenario.clone(), c.policy.clone())));
    let cell = |scenario: &str, policy: &str, alpha: f64| {
        let found =
            compared.iter().find(|c| c.scenario == scenario && c.policy == policy && c.alpha == alpha);
        let Some(cost) = found.map(|c| c.cost) else { return "—".to_owned() };
        match cost.to_string().split_once(' ') {
            // Better beyond doubt.
            Some((ratio, interval)) if cost.high.is_some_and(|high| high < 1.0) => {
                format!("**{ratio}** {interval}")
            }
            _ => cost.to_string(),
        }
    };
    let rows: Vec<_> = lines
        .iter()
        .map(|(scenario, policy)| {
            let cells = alphas.iter().map(|&alpha| cell(scenario, policy, alpha));
            [scenario.clone(), policy.clone()].into_iter().chain(cells).collect()
        })
        .collect();
    Ok(table(&header, 2, &rows))
}

fn means(mark: &Mark<'_>) -> Result<String> {
    let alpha: f64 = mark.key("at")?.parse().context("at wants a number")?;
    let of = |means: &&record::Means| means.alpha == alpha && mark.of(&means.policy);
    let found: Vec<_> = mark.record.means.iter().filter(of).collect();
    if found.is_empty() {
        bail!("nothing is recorded at α = {alpha}");
    }
    let header = [
        "scenario",
        "policy",
        "worlds",
        "data moved GB",
        "left a site GB",
        "mean response s",
        "p95 s",
        "cost",
    ];
    let row = |of: &&record::Means| {
        let figures = [
            format!("{:.1}", of.data_moved_gb),
            format!("{:.1}", of.wan_gb),
            format!("{:.1}", of.response_mean_s),
            format!("{:.1}", of.response_p95_s),
            format!("{:.3}", of.cost),
        ];
        [of.scenario.clone(), of.policy.clone(), of.worlds.to_string()].into_iter().chain(figures).collect()
    };
    Ok(table(&header.map(str::to_owned), 2, &found.iter().map(row).collect::<Vec<_>>()))
}

fn fronts(mark: &Mark<'_>) -> String {
    let row = |front: &Front| {
        vec![front.scenario.clone(), front.policy.clone(), format!("{:.3}", front.hypervolume)]
    };
    let rows: Vec<_> = mark.record.fronts.iter().filter(|front| mark.of(&front.policy)).map(row).collect();
    table(&["scenario", "policy", "hypervolume"].map(str::to_owned), 2, &rows)
}

fn rows(mark: &Mark<'_>) -> Result<String> {
    let rows = match mark.keys.get("from") {
        None => &mark.record.rows,
        Some(list) => mark.record.lists.get(*list).ok_or_else(|| anyhow!("no list {list:?} is recorded"))?,
    };
    let columns: Vec<_> = mark.key("columns")?.split(',').map(Column::read).collect();
    let unknown = |column: &&Column<'_>| !rows.iter().any(|row| at(row, column.key).is_some());
    if let Some(unknown) = columns.iter().find(unknown) {
        bail!("no row has {:?}", unknown.key);
    }
    let words = |key: &str| rows.iter().any(|row| at(row, key).is_some_and(Value::is_string));
    let left = columns.iter().take_while(|column| words(column.key)).count();
    let row =
        |row: &Map<String, Value>| columns.iter().map(|column| column.cell(at(row, column.key))).collect();
    let lines: Vec<Vec<String>> = rows.iter().map(row).collect();
    let header: Vec<_> = columns.iter().map(|column| column.title.clone()).collect();
    Ok(table(&header, left, &lines))
}

/// What a column shows.
struct Column<'a> {
    key: &'a str,
    title: String,
    percent: bool,
}

impl Column<'_> {
    fn read(text: &str) -> Column<'_> {
        let (key, title) = text.split_once('=').map_or((text, None), |(key, title)| (key, Some(title)));
        let share = key.strip_suffix('%');
        let key = share.unwrap_or(key);
        let title = title.map_or_else(|| key.replace(['_', '.'], " "), |title| title.replace('_', " "));
        Column { key, title, percent: share.is_some() }
    }

    fn cell(&self, value: Option<&Value>) -> String {
        match value {
            None | Some(Value::Null) => "—".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(is)) => if *is { "yes" } else { "no" }.to_owned(),
            Some(Value::Number(number)) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                if self.percent { percent(number) } else { figure(number) }
            }
            Some(other) => {
                Ratio::deserialize(other).map_or_else(|_| other.to_string(), |ratio| ratio.to_string())
            }
        }
    }
}

fn percent(share: f64) -> String {
    // Nothing has no sign.
    let percent = (1000.0 * share).round() / 10.0 + 0.0;
    format!("{percent:.1} %")
}

/// What a row holds under a key.
fn at<'a>(row: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((first, rest)) => row.get(first)?.pointer(&format!("/{}", rest.replace('.', "/"))),
        None => row.get(key),
    }
}

/// Four digits, and no more than stand before the point.
fn figure(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = 3 - (value.abs().max(1e-9).log10().floor() as i32).min(3);
    format!("{value:.*}", digits.clamp(0, 6) as usize)
}

fn trade_off(mark: &Mark<'_>, plots: &mut BTreeMap<String, String>) -> Result<String> {
    let scenario = mark.key("of")?;
    let file = format!("{}-{scenario}.svg", mark.name);
    if let Some(drawn) = mark.record.plots.get(scenario) {
        plots.insert(file.clone(), drawn.clone());
        return Ok(format!("![{scenario} over time]({file})\n"));
    }
    let found: Vec<_> = mark.record.means.iter().filter(|means| means.scenario == scenario).collect();
    if found.is_empty() {
        bail!("nothing is recorded of scenario {scenario:?}");
    }
    let points = |policy: String| {
        let of = found.iter().filter(|means| means.policy == policy);
        let points = of.map(|means| (means.response_mean_s, means.data_moved_gb)).collect();
        (policy, points)
    };
    let policies = distinct(found.iter().map(|means| means.policy.clone()));
    plots.insert(file.clone(), plot::trade_off(scenario, policies.into_iter().map(points)));
    Ok(format!("![Data moved against response time on {scenario}]({file})\n"))
}

fn made(record: &Record) -> String {
    let Record { command, revision, cores, seconds, .. } = record;
    format!("`{command}`: revision {revision}, {cores} cores, {seconds:.0} s.\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Column, at, figure};

    #[test]
    fn figures_have_the_digits_that_they_are_worth() {
        let shown = [0.0, 3.0, 0.12345, 12.3456, 1234.56, 65_432.1, 1e-7].map(figure);
        assert_eq!(shown, ["0", "3", "0.1235", "12.35", "1235", "65432", "0.000000"]);
    }

    #[test]
    fn keys_lead_into_rows() {
        let row =
            json!({"a": {"ratio": 0.5, "low": 0.25, "high": 0.75}, "b": [1, 2.5], "c": null, "d": true});
        let row = row.as_object().unwrap();
        let shown = ["a", "a.low", "a.low%", "b.1", "c", "d", "e", "b.7"].map(|text| {
            let column = Column::read(text);
            column.cell(at(row, column.key))
        });
        assert_eq!(shown, ["0.500 [0.250, 0.750]", "0.2500", "25.0 %", "2.500", "—", "yes", "—", "—"]);
        let titles = ["b.1=at_0.5", "response_s.low%", "a.low%=share"].map(|text| Column::read(text).title);
        assert_eq!(titles, ["at 0.5", "response s low", "share"]);
    }
}
