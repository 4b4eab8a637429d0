//! Testbeds: real processes on small networks. Times are limits of patience, never of speed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Two sites of two nodes each; a task reads data that lives in the other site and writes it back.
const SMALL: &str = r#"
name = "small-testbed"
[topology]
peers = true
registries = [{ name = "registry", link = { up_mbps = 80, latency_ms = 2 } }]
[[topology.sites]]
name = "left"
uplink = { up_mbps = 16, latency_ms = 5, price = 4, wan = true }
nodes = [{ name = "nuc", count = 2, kind = "nuc", link = { up_mbps = 80 }, startup_s = 0.2, disk_gb = 0.004 }]
[[topology.sites]]
name = "right"
uplink = { up_mbps = 16, latency_ms = 5, price = 4, wan = true }
nodes = [{ name = "nuc", count = 2, kind = "nuc", link = { up_mbps = 80 }, startup_s = 0.2 }]
[[catalogue.images]]
name = "app"
count = 2
size_mb = { amd64 = 2 }
base = "base"
base_share = 0.5
[[catalogue.datasets]]
name = "data"
count = 3
size_mb = 0.8
home = { nodes = ["right/nuc-1"] }
[[catalogue.datasets]]
name = "result"
count = 3
size_mb = 0.3
home = { nodes = ["left/nuc-1"] }
[[catalogue.tasks]]
name = "work"
image = "app"
inputs = ["data"]
outputs = ["result"]
cpu_millis = 1000
memory_mib = 100
execution = { nuc = { seconds = 0.4 } }
[[catalogue.tasks]]
name = "look"
image = "app"
inputs = ["result"]
cpu_millis = 1000
memory_mib = 100
execution = { nuc = { seconds = 0.2 } }
[workload]
tasks = 24
[[workload.streams]]
task = "work"
instances = 3
fixed_s = 0.6
exponential_s = 0.6
renews_input = true
[[workload.streams]]
task = "look"
instances = 3
after = ["work"]
[faults]
backoff_s = 0.2
retries = 8
"#;

fn remora(folder: &Path, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("small.toml"), SMALL).unwrap();
    let common = ["testbed", "run", "small.toml", "--speed", "1", "--json", "--no-links"];
    Command::new(env!("CARGO_BIN_EXE_remora"))
        .args(common)
        .args(arguments)
        .current_dir(folder)
        .env_remove("REMORA_SERVER")
        .output()
        .unwrap()
}

/// Runs the small world and demands that each task came to one end and each byte is accounted for.
fn runs(folder: &Path, arguments: &[&str]) -> Value {
    let output = remora(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = told["rows"][0].clone();
    let ends = ["completed", "given_up", "orphaned", "turned_away", "unplaceable"];
    let ended: u64 = ends.iter().map(|end| row[end].as_u64().unwrap()).sum();
    assert_eq!((ended, row["tasks"].as_u64()), (24, Some(24)), "{row}");
    assert_eq!(row["books_balance"], true, "{row}");
    row
}

const LOOPBACK: [&str; 6] = ["--network", "loopback", "--policy", "round-robin", "--out", "out"];

fn with_fault<'a>(faults: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = LOOPBACK.to_vec();
    arguments.extend(["--patience", "2"]);
    arguments.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
    arguments
}

/// Tasks as they were noted.
fn tasks(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("out/tasks.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the processes noted of the tasks that they worked on to their end: decisions, each once.
fn done(folder: &Path) -> Vec<String> {
    let mut done = Vec::new();
    for node in std::fs::read_dir(folder.join("out/nodes")).unwrap() {
        let text = std::fs::read_to_string(node.unwrap().path().join("ledger.jsonl")).unwrap();
        for line in text.lines() {
            // The last one of a process that was killed may be cut short.
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            if line["ended"]["report"]["failed"] == "" {
                done.push(line["ended"]["decision"].as_str().unwrap().to_owned());
            }
        }
    }
    done
}

/// Nothing is lost and nothing done twice unless it says so: completed tasks are those that some node completed.
fn nothing_is_lost_or_done_twice(folder: &Path, row: &Value) {
    let mut done = done(folder);
    let in_vain = row["worked_in_vain"].as_u64().unwrap() as usize;
    let completed = row["completed"].as_u64().unwrap() as usize;
    assert_eq!(done.len(), completed + in_vain, "{row}");
    done.sort();
    done.dedup();
    assert_eq!(done.len(), completed + in_vain, "a decision was carried out twice");
    for task in tasks(folder) {
        let last = task["tries"].as_array().unwrap().last();
        let succeeded = last.is_some_and(|last| last["failed"] == "");
        assert_eq!(task["end"] == "completed", succeeded, "{task}");
        let unsuccessful = task["tries"].as_array().unwrap().iter().filter(|tried| tried["failed"] != "");
        let reasons = unsuccessful.clone().filter(|tried| tried["failed"].as_str().unwrap().len() > 3);
        assert_eq!(unsuccessful.count(), reasons.count(), "a try failed without a reason: {task}");
        assert!(task["end"] == "completed" || !task["reason"].as_str().unwrap().is_empty(), "{task}");
    }
}

#[test]
fn bytes_and_tasks_are_all_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let row = runs(folder.path(), &LOOPBACK);
    assert_eq!((&row["completed"], &row["retries"]), (&24.into(), &0.into()), "{row}");
    assert_eq!(row["books"]["broken"], 0, "{row}");
    assert_eq!(row["books"]["lost_bytes"], 0, "{row}");
    // What tasks moved is what crossed the network: no byte more or less.
    let moved = |task: &Value, what: &str| task[what].as_u64().unwrap();
    let tasks = tasks(folder.path());
    let sum: u64 = ["image_bytes", "input_bytes", "output_bytes"]
        .iter()
        .map(|what| tasks.iter().map(|task| moved(task, what)).sum::<u64>())
        .sum();
    assert!(sum > 10_000_000, "{row}");
    assert_eq!(Some(sum), row["books"]["received_bytes"].as_u64(), "{row}");
    assert!(tasks.iter().all(|task| task["execution_s"].as_f64().unwrap() > 0.15), "a task did not execute");
    // A disk on the left has room for an image and little more.
    assert!(row["books"]["evicted"].as_u64().unwrap() > 0, "{row}");
    nothing_is_lost_or_done_twice(folder.path(), &row);
    // The recording is one that the simulator replays.
    let calibrate = ["trace", "calibrate", "out/recorded.toml", "--out", "calibrated.toml", "--json"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_remora")).args(calibrate).current_dir(folder.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["rows"][0]["calibration"]["tasks"].as_u64().unwrap() > 12, "{told}");
}

#[test]
fn a_killed_node_loses_no_task() {
    let folder = tempfile::tempdir().unwrap();
    // Longer away than others are patient, and the node where data lives.
    let faults = with_fault(&["node:right/nuc-0@1.5+5", "node:right/nuc-1@3+0.5"]);
    let row = runs(folder.path(), &faults);
    assert_eq!(row["completed"], 24, "{row}");
    nothing_is_lost_or_done_twice(folder.path(), &row);
    let tried: Vec<_> = tasks(folder.path()).into_iter().filter(|task| task["retries"] != 0).collect();
    assert!(!tried.is_empty(), "nothing ran on a node that was killed: {row}");
}

#[test]
fn a_cut_link_holds_up_transfers_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let row = runs(folder.path(), &with_fault(&["link:right@1+3", "link:left@5+2*0.2"]));
    assert_eq!(row["completed"], 24, "{row}");
    nothing_is_lost_or_done_twice(folder.path(), &row);
    let slowest =
        tasks(folder.path()).iter().map(|task| task["response_s"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(slowest > 1.5, "nobody noticed: {row}");
}

#[test]
fn a_killed_service_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let row = runs(folder.path(), &with_fault(&["server@1.5+1.5", "server@6+0.1"]));
    assert_eq!(row["completed"], 24, "{row}");
    assert_eq!(row["retries"], 0, "no node was harmed: {row}");
    nothing_is_lost_or_done_twice(folder.path(), &row);
}

#[test]
fn a_testbed_in_namespaces_is_shaped_by_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--network", "namespaces", "--fault", "link:right@1+1", "--patience", "4", "--out", "out"];
    let output = remora(folder.path(), &arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("namespaces cannot be used here") {
        eprintln!("skipped: {stderr}");
        return;
    }
    let row = runs(folder.path(), &arguments);
    assert_eq!((&row["network"], &row["completed"]), (&"namespaces".into(), &24.into()), "{row}");
    nothing_is_lost_or_done_twice(folder.path(), &row);
}

/// What is measured is both directions at once: a busy machine makes it less, nothing makes it more.
#[test]
fn a_shared_link_in_namespaces_has_its_rate_once() {
    let folder = tempfile::tempdir().unwrap();
    let shared = SMALL.replace("up_mbps = 16,", "up_mbps = 16, shared = true,");
    std::fs::write(folder.path().join("shared.toml"), shared).unwrap();
    let arguments = ["testbed", "run", "shared.toml", "--speed", "1", "--json", "--network", "namespaces"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_remora"));
    let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("namespaces cannot be used here") || stderr.contains("a shared link wants") {
        eprintln!("skipped: {stderr}");
        return;
    }
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    let measured = told["links"].as_array().unwrap();
    let uplinks: Vec<&Value> = measured.iter().filter(|link| link["shaped_mbps"] == 16.0).collect();
    assert_eq!(uplinks.len(), 2, "each once: {measured:?}");
    for uplink in uplinks {
        let mbps = uplink["measured_mbps"].as_f64().unwrap();
        assert!(mbps > 0.0 && mbps < 1.1 * 16.0, "{uplink}");
    }
}

/// A command of `testbed` about the small world; what it printed.
fn told(folder: &Path, command: &str, arguments: &[&str]) -> Value {
    std::fs::write(folder.join("small.toml"), SMALL).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_remora"))
        .args(["testbed", command, "small.toml", "--speed", "1", "--json", "--network", "loopback"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("REMORA_SERVER")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn policies_are_compared_on_several_worlds() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--policies", "greedy-marginal,round-robin", "--tasks", "6", "--seeds", "2", "--out", "out"];
    let told = told(folder.path(), "compare", &arguments);
    for (row, policy) in told["rows"].as_array().unwrap().iter().zip(["greedy-marginal", "round-robin"]) {
        assert_eq!(
            (&row["policy"], &row["worlds"], &row["completed"]),
            (&policy.into(), &2.into(), &12.into()),
            "{row}"
        );
        let ratio = &row["response_s"]["ratio"];
        assert!(ratio["low"].as_f64().unwrap() <= ratio["high"].as_f64().unwrap(), "{row}");
        // The causes of what is moved in one of the two only add up.
        let share = |key: &str| row["bytes"][key].as_f64().unwrap();
        let causes = ["other_decisions", "images", "inputs", "outputs", "other_source", "not_in_both"];
        let sum: f64 = causes.into_iter().map(share).sum();
        assert!((sum - share("excess")).abs() < 1e-9, "{row}");
    }
    assert_eq!(told["rows"][0]["measured_over_first"]["ratio"], 1.0);
    assert_eq!(told["ranking"].as_array().unwrap().len(), 6);
    assert!(folder.path().join("out/round-robin-1/tasks.jsonl").exists());
}

#[test]
fn what_happens_is_watched_learnt_from_and_plotted() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--tasks",
        "24",
        "--policy",
        "round-robin",
        "--degrade",
        "right*0.25",
        "--steps",
        "1",
        "--out",
        "out",
    ];
    let told = told(folder.path(), "learn", &arguments);
    assert_eq!(
        (&told["run"]["completed"], &told["run"]["books_balance"]),
        (&24.into(), &true.into()),
        "{told}"
    );
    // AppCore started a run, and that found too little to learn from: who decides goes on.
    let learnt = &told["learnt"][0];
    assert_eq!((&learnt["status"], &learnt["promoted"]), (&"failed".into(), &false.into()), "{told}");
    assert!(learnt["reason"].as_str().unwrap().contains("want at least 800"), "{told}");
    assert_eq!(learnt["champion"], "round-robin");
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["decisions"].as_u64().unwrap()).sum::<u64>(), 24, "{told}");
    assert_eq!(rows[2]["phase"], "after learning");
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join("out").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for decided in lines("decisions.jsonl") {
        assert!(decided["shadow_node"].is_string() && decided["regret"].is_number(), "{decided}");
    }
    let link = lines("link.jsonl");
    let (first, last) = (&link[0], link.last().unwrap());
    let mbps = |sample: &Value, key: &str| sample[key].as_f64().unwrap();
    assert!(
        [first, last].into_iter().zip([16.0, 4.0]).all(|(at, shaped)| mbps(at, "shaped_up_mbps") == shaped)
    );
    let taken = |sample: &Value| mbps(sample, "up_mbps").min(mbps(sample, "down_mbps"));
    assert!(taken(first) > 15.0 && taken(last) < 12.0, "nobody noticed: {first} {last}");
    for name in ["decisions.svg", "regret.svg", "link.svg"] {
        assert!(std::fs::read_to_string(folder.path().join("out").join(name)).unwrap().starts_with("<svg"));
    }
}

/// Processes that have this word among their arguments.
fn processes(word: &str) -> usize {
    let named = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    };
    std::fs::read_dir("/proc").unwrap().flatten().map(named).filter(|found| *found).count()
}

#[test]
fn nothing_is_left_of_a_run_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    let mark = folder.path().canonicalize().unwrap().to_string_lossy().into_owned();
    let mut run = Command::new(env!("CARGO_BIN_EXE_remora"))
        .args(["testbed", "run", "small.toml", "--speed", "1", "--no-links", "--out", "out"])
        .args(["--network", "loopback"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = |what: &dyn Fn(usize) -> bool| {
        let began = Instant::now();
        while !what(processes(&mark)) {
            assert!(began.elapsed() < Duration::from_secs(60), "{} processes", processes(&mark));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // Five nodes and registries, and the service.
    until(&|processes| processes >= 6);
    run.kill().unwrap();
    run.wait().unwrap();
    until(&|processes| processes == 0);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = remora(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong = refused(&["--network", "loopback", "--fault", "node:middle/nuc@1+1"]);
    assert!(wrong.contains("has no node \"middle/nuc\", want one of left/nuc-0"), "{wrong}");
    let wrong = refused(&["--network", "loopback", "--fault", "nuc@1"]);
    assert!(wrong.contains("want node:NAME@AT+FOR"), "{wrong}");
    let wrong = refused(&["--network", "loopback", "--patience", "0"]);
    assert!(wrong.contains("--patience is 0, want a number above 0"), "{wrong}");
    let wrong = refused(&["--network", "loopback", "--policy", "skipy"]);
    assert!(wrong.contains("no policy is called \"skipy\""), "{wrong}");
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/thesis.tex"), "").unwrap();
    let wrong = refused(&["--network", "loopback", "--out", "full"]);
    assert!(wrong.contains("is not an earlier run of a testbed"), "{wrong}");
    assert!(folder.path().join("full/thesis.tex").exists());
}
