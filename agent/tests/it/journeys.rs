//! Training, comparing and importing as a user does: the real binary, real files, the real
//! TensorBoard.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn remora(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_remora")).args(args).current_dir(folder).output().unwrap()
}

fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = remora(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "remora {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and standard error of a command that must fail.
fn fails(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = remora(folder, args);
    assert!(!output.status.success(), "remora {args:?} succeeded");
    assert!(output.stdout.is_empty(), "errors go to stderr only");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(folder, args)).unwrap()
}

const TINY: &str = "
worlds = 2
rollouts = 2
tasks = 20
epochs = 1
minibatch = 32
validate_every = 2
network = { hidden = 16, shortlist = 16 }
[evolution]
until = 0.25
population = 4
worlds = 2
[labels]
until = 0.5
worlds = 2
per_world = 10
updates = 2
minibatch = 16
depth = { candidates = 3, futures = 3, tasks = 5 }
";

#[test]
fn a_training_run_is_repeated_byte_for_byte_and_read_by_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    for out in ["one", "two"] {
        let args = "train --config tiny.toml --scenario urban-sensing --seed 7 --steps 4 --out";
        let args: Vec<&str> = args.split(' ').chain([out]).collect();
        let printed = succeeds(folder.path(), &args);
        assert!(printed.contains("checkpoints/best.safetensors"), "{printed}");
    }
    for file in ["checkpoints/best.safetensors", "checkpoints/latest.safetensors", "metrics.jsonl"] {
        let read = |out: &str| std::fs::read(folder.path().join(out).join(file)).unwrap();
        assert!(read("one") == read("two"), "{file} differs");
    }
    let args = "--json evaluate --scenario urban-sensing --seeds 1 --policy kube-default,one/checkpoints/best.safetensors";
    let evaluation = json(folder.path(), &args.split(' ').collect::<Vec<_>>());
    assert_eq!(evaluation["rows"][0]["cost"], 1.0);
    assert_eq!(evaluation["rows"].as_array().unwrap().len(), 2);
    read_by_tensorboard(&folder.path().join("one"));
}

const READ: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
events = EventAccumulator(sys.argv[1], size_guidance={'histograms': 0, 'images': 0}).Reload()
hparams = EventAccumulator(sys.argv[1] + '/hparams').Reload().summary_metadata['_hparams_/session_start_info']
start = plugin_data_pb2.HParamsPluginData.FromString(hparams.plugin_data.content).session_start_info
print(json.dumps({
    'scalars': {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()['scalars']},
    'histograms': {tag: events.Histograms(tag)[-1].histogram_value.num for tag in events.Tags()['histograms']},
    'images': {tag: [i.width, i.height] for tag in events.Tags()['images'] for i in events.Images(tag)[-1:]},
    'tasks': start.hparams['tasks'].number_value,
}))
";

fn read_by_tensorboard(run: &Path) {
    let Some(python) = std::env::var_os("REMORA_TEST_PYTHON") else {
        eprintln!("skipped: REMORA_TEST_PYTHON names no interpreter with tensorboard");
        return;
    };
    let output = Command::new(python).args(["-c", READ]).arg(run.join("tensorboard")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scalars = &shown["scalars"];
    assert!(shown["histograms"]["features/wait"].as_f64().unwrap() > 0.0, "{shown}");
    assert!(shown["histograms"]["policy/probability"].as_f64().unwrap() > 0.0, "{shown}");
    assert_eq!(shown["images"]["validation/front"], serde_json::json!([320, 320]));
    assert_eq!(shown["tasks"], 20.0);
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entropy = scalars["policy/entropy"].as_array().unwrap();
    assert_eq!(entropy.len(), lines.len(), "one event for each iteration");
    for (event, line) in entropy.iter().zip(&lines) {
        assert_eq!(event[0], line["iteration"]);
        let (shown, kept) = (event[1].as_f64().unwrap(), line["entropy"].as_f64().unwrap());
        assert!((shown - kept).abs() < 1e-6, "{shown} and {kept}");
    }
    assert_eq!(scalars["validation/cost_over_greedy_marginal"].as_array().unwrap().len(), 2);
}

#[test]
fn a_policy_learns_on_from_what_was_recorded_and_the_gate_decides() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("tiny.toml"), TINY).unwrap();
    let scenario = succeeds(at, &["scenario", "show", "urban-sensing"]);
    std::fs::write(at.join("long.toml"), scenario.replace("\ntasks = 400\n", "\ntasks = 900\n")).unwrap();
    let args = "trace record --scenario long.toml --policy round-robin --out recorded.toml";
    succeeds(at, &args.split(' ').collect::<Vec<_>>());
    let learn = "--json learn recorded.toml --config tiny.toml --steps 4 --members 2 --out learnt";
    let learnt = json(at, &learn.split(' ').collect::<Vec<_>>())["rows"][0].clone();
    assert!(learnt["calibration"]["tasks"].as_u64().unwrap() > 500, "{learnt}");
    assert!(learnt["calibration"]["error"][0].as_f64().unwrap() < 1e-9, "it was simulated: {learnt}");
    let verdict: Value =
        serde_json::from_slice(&std::fs::read(at.join("learnt/verdict.json")).unwrap()).unwrap();
    assert_eq!(learnt["verdict"], verdict);
    // Of so little learning nothing is sure, and what is promoted is there.
    let promoted = at.join("learnt/promoted.safetensors").exists();
    assert_eq!(verdict["promoted"], promoted);
    let better = verdict["recorded"]["high"].as_f64().unwrap() < 1.0;
    let remembers = verdict["known"]["ratio"].as_f64().unwrap() <= 1.01;
    assert_eq!(promoted, better && remembers, "{verdict}");

    let (_, error) = fails(at, &["learn", "learnt/windows/window-0.toml", "--out", "again"]);
    assert!(error.contains("records no outcomes"), "{error}");
}

#[test]
fn quickstart_trains_compares_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let quick = ["quickstart", "--minutes", "0.02", "--no-serve", "--out", "quick"];
    let printed = succeeds(folder.path(), &quick);
    for policy in ["random", "kube-default", "skippy", "greedy-completion", "→ trained"] {
        assert!(printed.contains(policy), "{policy} is missing: {printed}");
    }
    let report = std::fs::read_to_string(folder.path().join("quick/report.html")).unwrap();
    let plots = report.matches("<svg").count();
    assert_eq!(plots, 3 * 3 + 1 + 2, "three for each scenario, a timeline and two curves");
    let elsewhere = report.matches("http").count() - report.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(elsewhere, 0, "the page asks nobody else");
    let evaluation = std::fs::read_to_string(folder.path().join("quick/evaluation.json")).unwrap();
    let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
    assert_eq!(evaluation["rows"].as_array().unwrap().len(), 3 * 8 * 5 * 5, "scenarios, policies, α, seeds");
    // Again, in place of the first; but never in place of something else.
    succeeds(folder.path(), &quick);
    let (code, error) = fails(folder.path(), &["quickstart", "--json", "--no-serve", "--out", "."]);
    assert_eq!(code, 1);
    assert!(error.contains("is not an earlier quickstart"), "{error}");
}

#[test]
fn evaluation_is_the_same_again_but_for_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let args = ["--json", "evaluate", "--scenario", "industrial-iot", "--seeds", "2", "--alpha", "0,1"];
        let mut evaluation = json(folder.path(), &args);
        for row in evaluation["rows"].as_array_mut().unwrap() {
            row["decision_us"] = Value::Null;
        }
        evaluation
    };
    let first = run();
    assert_eq!(first, run());
    let kube = first["rows"].as_array().unwrap().iter().filter(|row| row["policy"] == "kube-default");
    assert!(kube.clone().count() == 4 && kube.clone().all(|row| row["cost"] == 1.0));
}

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nn0,4000,8192,0,\nn1,8000,8192,2,T4\n";
const PODS: &str = "\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,1000,512,0,0,,LS,Running,0,50,0
p1,1000,512,1,500,T4,LS,Running,5,60,6
p2,1000,512,4,1000,,LS,Running,7,60,8
";
const IMPORT: [&str; 9] =
    ["trace", "import", "openb", "--nodes", "nodes.csv", "--pods", "pods.csv", "--out", "openb.toml"];

#[test]
fn an_imported_trace_runs_and_no_pod_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nodes.csv"), NODES).unwrap();
    std::fs::write(folder.path().join("pods.csv"), PODS).unwrap();
    let printed = succeeds(folder.path(), &IMPORT);
    assert!(printed.contains("2 nodes") && printed.contains("3 tasks, of which 1 fit no node"), "{printed}");
    let args = "--json evaluate --scenario openb.toml --policy greedy-completion --seeds 1";
    let row = &json(folder.path(), &args.split(' ').collect::<Vec<_>>())["rows"][0];
    assert_eq!((&row["tasks"], &row["unplaceable"]), (&3.into(), &1.into()));
}

#[test]
fn a_recorded_episode_is_a_scenario_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let record =
        ["--json", "trace", "record", "--scenario", "urban-sensing", "--seed", "1", "--out", "mine.toml"];
    assert_eq!(json(folder.path(), &record)["rows"][0]["tasks"], 400);
    let stats = json(folder.path(), &["--json", "trace", "stats", "mine.trace.jsonl"]);
    for figure in ["arrivals", "decisions", "outcomes"] {
        assert_eq!(stats["rows"][0][figure], 400, "{stats}");
    }
    let checked = succeeds(folder.path(), &["scenario", "check", "mine.toml"]);
    assert!(checked.contains("is accepted: 91 nodes"), "{checked}");
}

/// The whole public trace, where it is at hand.
#[test]
fn every_pod_of_the_openb_cluster_is_placed_or_reported() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/alibaba-openb-gpu-v2023");
    let [nodes, pods] =
        ["openb_node_list_all_node.csv", "openb_pod_list_default.csv"].map(|name| data.join(name));
    if !nodes.exists() {
        eprintln!("skipped: {} is not here", nodes.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [nodes, pods] = [nodes.to_str().unwrap(), pods.to_str().unwrap()];
    let import =
        ["--json", "trace", "import", "openb", "--nodes", nodes, "--pods", pods, "--out", "openb.toml"];
    let imported = &json(folder.path(), &import)["rows"][0];
    assert_eq!((&imported["nodes"], &imported["tasks"]), (&1523.into(), &8152.into()));
    let args = "--json evaluate --scenario openb.toml --policy kube-default --seeds 1";
    let row = &json(folder.path(), &args.split(' ').collect::<Vec<_>>())["rows"][0];
    // An evaluation counts outcomes: each pod has one, placed or not.
    assert_eq!((&row["tasks"], &row["unplaceable"]), (&8152.into(), &imported["unplaceable"]));
}

#[test]
fn a_damaged_trace_is_reported_with_its_place_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nodes.csv"), NODES).unwrap();
    std::fs::write(folder.path().join("pods.csv"), PODS.replace("p1,1000", "p1,1x00")).unwrap();
    let (code, error) = fails(folder.path(), &IMPORT);
    assert_eq!(code, 1);
    assert!(error.contains("pods.csv, line 3, column cpu_milli: \"1x00\" is not"), "{error}");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["nodes.csv", "pods.csv"]);
}

#[test]
fn wrong_usage_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = fails(folder.path(), &["trian"]);
    assert!(code == 2 && error.contains("'train'"), "{error}");
    let (code, error) = fails(folder.path(), &["evaluate", "--policy", "skipy"]);
    assert!(code == 1 && error.contains("no policy is called \"skipy\""), "{error}");
    let (code, error) = fails(folder.path(), &["evaluate", "--scenario", "urban-sensin"]);
    assert!(code == 1 && error.contains("did you mean \"urban-sensing\"?"), "{error}");
    let (code, error) = fails(folder.path(), &["scenario", "check", "none.toml"]);
    assert!(code == 1 && error.matches("No such file").count() == 1, "{error}");
    let (code, error) = fails(folder.path(), &["train", "--out", "/proc/nowhere", "--steps", "1"]);
    assert!(code == 1 && error.contains("cannot write /proc/nowhere"), "{error}");
    std::fs::write(folder.path().join("bad.toml"), "learning_rat = 1").unwrap();
    let (code, error) = fails(folder.path(), &["train", "--config", "bad.toml", "--out", "run"]);
    assert!(code == 1 && error.contains("unknown field `learning_rat`"), "{error}");
}

#[test]
fn scenarios_are_listed_shown_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let shown = succeeds(folder.path(), &["scenario", "show", "urban-sensing"]);
    std::fs::write(folder.path().join("mine.toml"), shown).unwrap();
    let checked = succeeds(folder.path(), &["scenario", "check", "mine.toml"]);
    assert!(checked.contains("is accepted: 91 nodes"), "{checked}");
    assert_eq!(json(folder.path(), &["scenario", "list", "--json"])["rows"].as_array().unwrap().len(), 7);
    assert_eq!(json(folder.path(), &["scenario", "schema"])["title"], "ScenarioFile");
}

#[test]
fn an_evaluation_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let evaluate = |scenario: &'static str, policies: &'static str| {
        ["evaluate", "--scenario", scenario, "--seeds", "2", "--policy", policies, "--out", "e", "--json"]
    };
    let all = "kube-default,greedy-marginal,hindsight";
    succeeds(folder.path(), &evaluate("industrial-iot", "kube-default,greedy-marginal"));
    let rows = folder.path().join("e/rows.jsonl");
    // As after `kill -9` in the middle of a line.
    let text = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, &text[..text.len() - 40]).unwrap();
    let first = json(folder.path(), &evaluate("industrial-iot", all));
    let again = json(folder.path(), &evaluate("industrial-iot", all));
    assert_eq!(first, again, "figures of rows that were played are kept, decision times included");
    assert_eq!(first["rows"].as_array().unwrap().len(), 6);
    let fronts = first["fronts"].as_array().unwrap();
    assert!(fronts.iter().all(|front| front["hypervolume"].as_f64().is_some()), "{fronts:?}");
    for row in first["rows"].as_array().unwrap() {
        assert!(row["bound"].as_f64().unwrap() < row["cost"].as_f64().unwrap(), "{row}");
    }
    // A line that is no row is refused with its place.
    std::fs::write(&rows, "{\"remora\n").unwrap();
    let (code, error) = fails(folder.path(), &evaluate("industrial-iot", all));
    assert_eq!(code, 1);
    assert!(error.contains("rows.jsonl, line 1"), "{error}");
}

#[test]
fn weights_are_tuned_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let tune = ["tune", "--policy", "skippy", "--worlds", "2", "--population", "4", "--generations", "1"];
    let told = succeeds(folder.path(), &tune);
    assert!(told.contains("the first costs"), "{told}");
    let file = "runs/tune-skippy/skippy-tuned.toml";
    let named = format!("skippy,{file}");
    let evaluation = json(
        folder.path(),
        &["evaluate", "--scenario", "urban-sensing", "--seeds", "1", "--policy", &named, "--json"],
    );
    assert_eq!(evaluation["rows"][1]["policy"], file);
    let wrong = "policy = \"skippy\"\n[weights]\nbalance = 1\n";
    std::fs::write(folder.path().join("wrong.toml"), wrong).unwrap();
    let (code, error) = fails(folder.path(), &["evaluate", "--policy", "wrong.toml"]);
    assert_eq!(code, 1);
    assert!(error.contains("weights.balance is not known: skippy has balanced"), "{error}");
    let (code, error) = fails(folder.path(), &["tune", "--policy", "random"]);
    assert_eq!(code, 2);
    assert!(error.contains("has no weights"), "{error}");
}
