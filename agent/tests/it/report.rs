//! The report: recorded, rendered, and played again.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use remora_agent::report::document::refresh;
use remora_agent::report::{Experiments, page};
use tempfile::TempDir;

fn report(arguments: &[&str], folder: &Path) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_remora"));
    command.current_dir(root).arg("report").args(arguments).arg("--from").arg(folder).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const EXPERIMENTS: &str = r#"
[[experiment]]
name = "tiny"
command = "evaluate --scenario urban-sensing --policy kube-default,greedy-completion,greedy-marginal --seeds 3"
quick = "evaluate --scenario urban-sensing --policy kube-default,greedy-marginal --seeds 2"
over = ["kube-default"]

[[experiment]]
name = "scenarios"
command = "scenario list"
quick = "scenario list"
"#;

const TEXT: &str = "# A report

<!-- ratios tiny over kube-default of greedy-marginal -->
what stood here before
<!-- end -->

<!-- means tiny at 0.5 -->
<!-- end -->

<!-- plot tiny of urban-sensing -->
<!-- end -->

<!-- rows scenarios columns scenario,nodes -->
<!-- end -->

The end.
";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("experiments.toml"), EXPERIMENTS).unwrap();
    fs::write(folder.path().join("report.md"), TEXT).unwrap();
    folder
}

#[test]
fn experiments_are_recorded_shown_and_come_out_again() {
    let folder = folder();
    let out = folder.path().join("page.html");
    let missing = report(&["--quick"], folder.path());
    assert!(told(&missing).contains("`remora report --record --only tiny` makes it"), "{}", told(&missing));
    let made = report(&["--record", "--out", out.to_str().unwrap()], folder.path());
    assert!(made.status.success(), "{}", told(&made));
    let text = fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(text.contains("| urban-sensing | greedy-marginal | **0."), "{text}");
    assert!(!text.contains("what stood here before") && text.ends_with("\nThe end.\n"), "{text}");
    assert!(text.contains("| urban-sensing | greedy-completion | 3 |"), "{text}");
    assert!(text.contains("| scenario | nodes |"), "{text}");
    assert!(fs::read_to_string(folder.path().join("tiny-urban-sensing.svg")).unwrap().starts_with("<svg"));
    let page = fs::read_to_string(&out).unwrap();
    assert!(page.contains("<h1>A report</h1>") && page.contains("<td>greedy-marginal</td>"), "{page}");
    assert!(page.contains("<svg") && !page.contains("<img"), "the plot is in the page");

    let again = report(&["--quick"], folder.path());
    assert!(again.status.success(), "{}", told(&again));
    assert!(told(&again).contains("all 1 comparisons agree"), "{}", told(&again));
    assert!(
        told(&again).contains("of others") && told(&again).contains("1 say the same"),
        "{}",
        told(&again)
    );
    // A figure that does not come out is said to be apart.
    let path = folder.path().join("recorded/tiny.json");
    let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for compared in record["comparisons"].as_array_mut().unwrap() {
        (compared["low"], compared["high"]) = (1.5.into(), 1.6.into());
    }
    fs::write(&path, record.to_string()).unwrap();
    let apart = report(&["--quick", "--json"], folder.path());
    assert_eq!(apart.status.code(), Some(1));
    assert!(told(&apart).contains("1 of 1 comparisons are apart"), "{}", told(&apart));
    assert!(String::from_utf8_lossy(&apart.stdout).contains("\"agrees\": false"));
}

#[test]
fn what_is_wrong_with_a_report_is_said_with_its_place() {
    let folder = folder();
    let wrong = |text: &str| format!("{:#}", refresh(folder.path(), text).unwrap_err());
    for (text, problem) in [
        ("\n<!-- ratios tiny over x", "a mark <!-- without its end -->"),
        ("a\nb <!-- made tiny --> c", "line 2: <!-- made tiny -->: no <!-- end --> follows"),
        ("<!-- made --><!-- end -->", "it names no record"),
        ("<!-- means tiny at --><!-- end -->", "a key has no value"),
        ("<!-- made nobody --><!-- end -->", "`remora report --record --only nobody` makes it"),
    ] {
        assert!(wrong(text).contains(problem), "{}", wrong(text));
    }
    let of = |text: &str| {
        fs::write(folder.path().join("experiments.toml"), text).unwrap();
        format!("{:#}", Experiments::read(folder.path()).unwrap_err())
    };
    let one = "[[experiment]]\nname = 'a'\ncommand = 'bench env'\n";
    assert!(of(&one.repeat(2)).contains("experiment[1].name: \"a\" is there twice"));
    assert!(of(&one.replace("'a'", "'../a'")).contains("want letters, digits and -"));
    assert!(of(&one.replace("command", "comand")).contains("comand"));
    let unknown =
        report(&["--only", "nothing"], &Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report"));
    assert!(
        told(&unknown).contains("there is no experiment \"nothing\"; known are built-in"),
        "{}",
        told(&unknown)
    );
}

/// The tables of the report that is shipped are those of its records.
#[test]
fn the_shipped_report_is_made_of_its_records() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report");
    let text = fs::read_to_string(folder.join("report.md")).unwrap();
    let fresh = refresh(&folder, &text).unwrap();
    assert!(fresh.text == text, "docs/report/report.md is stale: remora report writes it again");
    for (name, svg) in &fresh.plots {
        assert!(
            fs::read_to_string(folder.join(name)).unwrap() == *svg,
            "{name} is stale: remora report writes it again"
        );
    }
    let page = page::render(&fresh.text, &fresh.plots);
    assert!(
        !page.contains("http://") || page.contains("http://www.w3.org"),
        "nothing is fetched from elsewhere"
    );
}

#[test]
fn the_shipped_report_comes_out_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report");
    let again = report(&["--quick"], &folder);
    assert!(again.status.success(), "{}{}", String::from_utf8_lossy(&again.stdout), told(&again));
}
