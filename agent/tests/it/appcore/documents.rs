//! The docs say what the code does.

use std::path::Path;

use remora_agent::appcore::states::{TABLE, diagram};

/// What stands between these marks in `docs/life-cycle.md` is written by the test, with `UPDATE=1`.
const MARKS: (&str, &str) = ("<!-- from the table -->\n", "<!-- until here -->\n");

#[test]
fn the_life_cycle_is_drawn_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/life-cycle.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(MARKS.0).unwrap();
    let (_, after) = rest.split_once(MARKS.1).unwrap();
    let rows = TABLE.map(|(from, cause, to)| format!("| {from} | {cause} | {to} |\n")).concat();
    let drawn = format!("```mermaid\n{}```\n\n| from | cause | to |\n|---|---|---|\n{rows}", diagram());
    let fresh = [before, MARKS.0, &drawn, MARKS.1, after].concat();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(
        fresh == document,
        "docs/life-cycle.md is stale; UPDATE=1 cargo nextest run -p remora-agent life_cycle writes it again"
    );
}
