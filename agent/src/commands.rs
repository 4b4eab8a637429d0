//! The commands of `remora`, one module each, and what they share.

pub mod ablate;
pub mod app;
pub mod audit;
pub mod bench;
pub mod cluster;
pub mod dispute;
pub mod evaluate;
pub mod kubernetes;
pub mod learn;
pub mod node;
pub mod outcome;
pub mod own;
pub mod place;
pub mod policy;
pub mod quickstart;
pub mod report;
pub mod scenario;
pub mod serve;
pub mod settings;
pub mod tables;
pub mod testbed;
pub mod token;
pub mod trace;
pub mod train;
pub mod tune;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::service::{Alias, is_heuristic};

/// Prints a result on stdout. A reader that has seen enough is no error.
pub fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A table in the style of all commands.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// Bytes for people.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e5 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b:.0} B"),
    }
}

/// Seconds for people.
pub fn seconds(seconds: f64) -> String {
    if seconds == 0.0 { "-".to_owned() } else { format!("{seconds:.2} s") }
}

/// A time for people, from milliseconds since 1970; 0 is never.
pub fn date(at_ms: i64) -> String {
    let at = (at_ms != 0).then(|| OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000)).ok()).flatten();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "—".to_owned())
}

/// Reads a time on the command line, as milliseconds since 1970.
pub fn time(text: &str) -> Result<i64, String> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    let at = at.map_err(|_| format!("{text:?} is no time, want one such as 2026-03-01T10:00:00Z"))?;
    Ok(at.as_millisecond())
}

/// What a checkpoint in a file is called: as its run, where it is the best of one, and else as its file. Names that mean
/// another policy are not given away.
pub fn called(path: &Path) -> String {
    let name = own_name(path);
    let means_another = is_heuristic(&name) || name == "pretrained" || Alias::named(&name).is_some();
    if means_another { format!("{name}.safetensors") } else { name }
}

fn own_name(path: &Path) -> String {
    let text =
        |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = text(path.file_stem());
    let folder = path.parent().filter(|folder| text(folder.file_name()) == "checkpoints");
    match folder.map(|folder| text(folder.parent().and_then(Path::file_name))) {
        Some(run) if run.is_empty() => stem,
        Some(run) if stem == "best" => run,
        Some(run) => format!("{run}-{stem}"),
        None => stem,
    }
}

/// Reads the dial on the command line.
pub fn alpha(text: &str) -> Result<f64, String> {
    let alpha: f64 = text.parse().map_err(|_| format!("{text:?} is no number, want 0 to 1"))?;
    if (0.0..=1.0).contains(&alpha) { Ok(alpha) } else { Err(format!("is {text}, want 0 to 1")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn checkpoints_are_called_as_their_runs() {
        for (path, expected) in [
            ("runs/mine/checkpoints/best.safetensors", "mine"),
            ("runs/mine/checkpoints/last.safetensors", "mine-last"),
            ("checkpoints/best.safetensors", "best"),
            ("policy.safetensors", "policy"),
            ("runs/random/checkpoints/best.safetensors", "random.safetensors"),
            ("champion.safetensors", "champion.safetensors"),
            ("runs/learnt/promoted.safetensors", "promoted"),
        ] {
            assert_eq!(super::called(Path::new(path)), expected, "{path}");
        }
    }
}
