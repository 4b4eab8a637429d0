//! `remora report`: the technical report from what was recorded, and whether it comes out again.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::{print, table};
use crate::files::write;
use crate::report::agreement::{Compared, alike, compare};
use crate::report::{Experiments, document, page, record};

/// Make the technical report from recorded experiments, record them anew, or see whether they come out again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  remora report --out report.html
  remora report --quick
  remora report --record --only test-family")]
pub struct Args {
    /// Folder with report.md, experiments.toml and recorded/.
    #[arg(long, value_name = "FOLDER", default_value = "docs/report")]
    from: PathBuf,
    /// The page [default: none; the tables in report.md are brought up to date].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The same as PDF, printed by an installed Chromium or Chrome.
    #[arg(long, value_name = "FILE")]
    pdf: Option<PathBuf>,
    /// Run the experiments and record what they come to: hours, unless --only says which.
    #[arg(long)]
    record: bool,
    /// Run each experiment on a part of its worlds, in minutes, and compare with what is recorded; nothing is written.
    #[arg(long, conflicts_with_all = ["record", "out", "pdf"])]
    quick: bool,
    /// Only these experiments.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
}

pub fn run(args: &Args, as_json: bool) -> Result<()> {
    let experiments = Experiments::read(&args.from)?;
    let chosen = experiments.only(&args.only)?;
    if args.quick {
        return quick(args, &chosen, as_json);
    }
    if args.record {
        for experiment in chosen {
            eprintln!("{}: remora {}", experiment.name, experiment.command);
            record::write(
                &args.from,
                &experiment.name,
                &record::run(&args.from, experiment, &experiment.command)?,
            )?;
        }
    }
    let source = args.from.join("report.md");
    let text =
        std::fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let fresh = document::refresh(&args.from, &text).with_context(|| source.display().to_string())?;
    let plots = fresh.plots.iter().map(|(name, svg)| (args.from.join(name), svg));
    let changed = (fresh.text != text).then_some((source, &fresh.text));
    for (path, content) in plots.chain(changed) {
        write(&path, content)?;
    }
    let html = page::render(&fresh.text, &fresh.plots);
    let folder = tempfile::tempdir().context("a page to print wants a place")?;
    let out = args.out.clone().unwrap_or_else(|| folder.path().join("report.html"));
    write(&out, &html)?;
    if let Some(pdf) = &args.pdf {
        page::print(&out, pdf)?;
    }
    for path in args.out.iter().chain(&args.pdf) {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn quick(args: &Args, chosen: &[&crate::report::Experiment], as_json: bool) -> Result<()> {
    let mut all: Vec<(&str, Compared)> = Vec::new();
    let mut others = 0;
    for experiment in chosen {
        let Some(command) = &experiment.quick else { continue };
        let recorded = record::read(&args.from, &experiment.name)?;
        eprintln!("{}: remora {command}", experiment.name);
        let now = record::run(&args.from, experiment, command)?;
        if now.comparisons.is_empty() {
            alike(&recorded, &now).map_err(|wrong| anyhow!("experiment {}: {wrong}", experiment.name))?;
            others += 1;
        }
        all.extend(compare(&recorded, &now).into_iter().map(|compared| (experiment.name.as_str(), compared)));
    }
    let apart = all.iter().filter(|(_, compared)| !compared.agrees()).count();
    if as_json {
        let row = |(experiment, c): &(&str, Compared)| {
            json!({
                "experiment": experiment, "scenario": c.scenario, "policy": c.policy, "baseline": c.baseline,
                "alpha": c.alpha, "recorded": c.recorded.ratio, "recorded_low": c.recorded.low,
                "recorded_high": c.recorded.high, "now": c.now.ratio, "now_low": c.now.low, "now_high": c.now.high,
                "agrees": c.agrees(),
            })
        };
        super::tables::print_rows(&all.iter().map(row).collect::<Vec<_>>())?;
    } else {
        let mut shown = table(&["scenario", "policy", "over", "α", "recorded", "now, on fewer worlds", ""]);
        for (_, c) in &all {
            let mark = if c.agrees() { "agrees" } else { "APART" };
            let alpha = c.alpha.to_string();
            shown.add_row([
                &c.scenario,
                &c.policy,
                &c.baseline,
                &alpha,
                &c.recorded.to_string(),
                &c.now.to_string(),
                mark,
            ]);
        }
        print(shown)?;
    }
    if all.is_empty() && others == 0 {
        bail!("nothing was compared: no experiment that was chosen has a quick form");
    }
    if apart > 0 {
        bail!("{apart} of {} comparisons are apart from what is recorded", all.len());
    }
    eprintln!("all {} comparisons agree with what is recorded, within their 95 % intervals", all.len());
    if others > 0 {
        eprintln!(
            "of others, whose figures are those of a machine or of longer runs, {others} say the same things"
        );
    }
    Ok(())
}
