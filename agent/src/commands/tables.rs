//! How results are printed: tables for people, one JSON object with `rows` for programs.

use anyhow::Result;
use comfy_table::CellAlignment;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use remora_trainer::evaluate::Row;
use remora_trainer::summary::{Evaluation, is_learned};
use serde::Serialize;

use super::{print, table};

/// One JSON object on stdout.
pub fn print_json<T: Serialize>(value: &T) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// `{"rows": […]}` on stdout.
pub fn print_rows<T: Serialize>(rows: &[T]) -> Result<()> {
    print_json(&serde_json::json!({ "rows": rows }))
}

/// A progress bar on stderr, shown only where stderr is a terminal.
pub fn progress(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("the template is one of ours");
    bar.set_style(style.progress_chars("━╸ "));
    bar
}

/// A table for each scenario at one α, a row for each policy.
pub fn evaluation(evaluation: &Evaluation, alpha: f64) -> String {
    let (scenarios, _, _) = evaluation.axes();
    scenarios.iter().map(|name| format!("{name}\n{}\n", scenario(evaluation, name, alpha))).collect()
}

fn scenario(evaluation: &Evaluation, scenario: &str, alpha: f64) -> String {
    let (_, policies, _) = evaluation.axes();
    // Narrow enough for a terminal of 80 columns.
    let mut table = table(&["policy", "moved", "mean s", "cost", "÷ bound", "÷ greedy-marginal"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for policy in &policies {
        let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
        let ratio = evaluation.comparison(scenario, policy, "greedy-marginal", alpha);
        table.add_row([
            if is_learned(policy) { format!("→ {policy}") } else { policy.clone() },
            format!("{:.1}", mean(|row| row.data_moved_gb)),
            format!("{:.2}", mean(|row| row.response_mean_s)),
            format!("{:.3}", mean(|row| row.cost)),
            evaluation
                .over_bound(scenario, policy, alpha)
                .map_or_else(|| "—".to_owned(), |ratio| format!("{ratio:.2}")),
            ratio.map_or_else(|| "—".to_owned(), |ratio| ratio.to_string()),
        ]);
    }
    let incomplete = policies.iter().filter_map(|policy| {
        let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
        incomplete(policy, &mean)
    });
    let to_beat = to_beat(evaluation, scenario, alpha).unwrap_or_default();
    format!("{table}\n{to_beat}{}", incomplete.collect::<String>())
}

/// A line for the cheapest rule, and for what learned policies cost against it.
fn to_beat(evaluation: &Evaluation, scenario: &str, alpha: f64) -> Option<String> {
    let opponent = evaluation.opponent(scenario, alpha)?;
    let (_, policies, _) = evaluation.axes();
    let ratios = policies.iter().filter(|policy| is_learned(policy)).filter_map(|policy| {
        let ratio = evaluation.comparison(scenario, policy, &opponent, alpha)?;
        Some(format!("; {policy} costs {ratio} of it"))
    });
    Some(format!(" to beat: {opponent}{}\n", ratios.collect::<String>()))
}

/// A line for a policy under which some tasks did not come to their result; the figures of the table
/// are those of the others.
fn incomplete(policy: &str, mean: &dyn Fn(fn(&Row) -> f64) -> f64) -> Option<String> {
    let (tasks, unplaceable) = (mean(|row| row.tasks as f64), mean(|row| row.unplaceable as f64));
    let (failed, retries) = (mean(|row| row.failed as f64), mean(|row| row.retries as f64));
    (unplaceable + failed > 0.0).then(|| {
        format!(
            " {policy}: of {tasks:.0} tasks {unplaceable:.0} fit no node and {failed:.1} failed, after {retries:.0} new tries\n"
        )
    })
}

/// What the columns of [`evaluation`] mean.
pub const LEGEND: &str = "\
moved               GB over links between nodes, times each link's price
mean s              response time, from a task's arrival to its stored result
cost                α · moved + (1 − α) · mean response, each over kube-default's
                    on the same worlds, so that kube-default is 1
÷ bound             cost over what no schedule can cost less than
÷ greedy-marginal   cost over that of greedy-marginal, with the 95 %
                    interval of the paired worlds; below 1 is better
to beat             the cheapest policy that neither learns nor simulates";
