//! How results are printed: tables for people, one JSON object with `rows` for programs.

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use remora_trainer::evaluate::{Evaluation, Row};
use remora_trainer::report::is_learned;
use serde::Serialize;

use super::table;

/// One JSON object on stdout.
pub fn print_json<T: Serialize>(value: &T) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
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

/// One row per scenario and policy at one α.
pub fn evaluation(evaluation: &Evaluation, alpha: f64) -> Table {
    let (scenarios, policies, _) = evaluation.axes();
    let mut table = table(&[
        "scenario",
        "policy",
        "placed",
        "data moved GB",
        "left a site GB",
        "mean response s",
        "p95 s",
        "cost",
        "against greedy-marginal",
    ]);
    for column in 2..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for scenario in &scenarios {
        for (rank, policy) in policies.iter().enumerate() {
            let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
            let ratio = evaluation.comparison(scenario, policy, "greedy-marginal", alpha);
            let name = if is_learned(policy) { format!("→ {policy}") } else { policy.clone() };
            table.add_row([
                Cell::new(if rank == 0 { scenario.as_str() } else { "" }),
                Cell::new(name),
                Cell::new(placed(&mean)),
                Cell::new(format!("{:.2}", mean(|row| row.data_moved_gb))),
                Cell::new(format!("{:.2}", mean(|row| row.wan_gb))),
                Cell::new(format!("{:.2}", mean(|row| row.response_mean_s))),
                Cell::new(format!("{:.2}", mean(|row| row.response_p95_s))),
                Cell::new(format!("{:.3}", mean(|row| row.cost))),
                Cell::new(
                    ratio
                        .as_ref()
                        .map_or_else(|| "—".to_owned(), remora_trainer::statistics::Ratio::to_string),
                ),
            ]);
        }
    }
    table
}

/// How many of the tasks found a node, on average.
fn placed(mean: &dyn Fn(fn(&Row) -> f64) -> f64) -> String {
    let (tasks, unplaceable) = (mean(|row| row.tasks as f64), mean(|row| row.unplaceable as f64));
    if unplaceable == 0.0 { "all".to_owned() } else { format!("{:.0} of {tasks:.0}", tasks - unplaceable) }
}

/// What the columns of [`evaluation`] mean.
pub const LEGEND: &str = "\
data moved: bytes over links between nodes, times each link's price (a byte over a thin uplink counts more)
cost: α · data moved + (1 − α) · mean response, each over kube-default's on the same worlds; kube-default is 1
against greedy-marginal: cost over that of the strongest heuristic, paired, with its 95 % interval; below 1 is better";
