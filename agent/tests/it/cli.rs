//! The binary: help, exit codes, and a conversation with a running `remora serve`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const REMORA: &str = env!("CARGO_BIN_EXE_remora");

fn remora(arguments: &[&str]) -> Output {
    Command::new(REMORA).args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 17] = [
        &["quickstart"],
        &["scenario"],
        &["trace"],
        &["train"],
        &["evaluate"],
        &["serve"],
        &["place"],
        &["outcome"],
        &["cluster"],
        &["cluster", "register"],
        &["cluster", "list"],
        &["cluster", "show"],
        &["cluster", "remove"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["audit"],
    ];
    for command in commands {
        let output = remora(&[command, &["--help"]].concat());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("Example:\n  remora "), "{command:?}: {help}");
        assert!(help.contains("--json"), "{command:?}: {help}");
    }
}

#[test]
fn exit_codes_tell_failure_from_wrong_usage() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["serve", "--alpha", "2"], 2, "want 0 to 1"),
        (&["serve", "--listen", "0.0.0.0:0"], 2, "add --insecure"),
        (&["place", "--task", "detect"], 2, "--cluster"),
        (&["fly"], 2, "unrecognized"),
        (&["serve", "--policy", "skipy"], 1, "no policy is called \"skipy\""),
        (
            &["serve", "--policy", "skippy", "--scenario", "urban-sensin"],
            1,
            "did you mean \"urban-sensing\"?",
        ),
        (&["cluster", "list", "--server", "http://127.0.0.1:1"], 1, "start it with `remora serve`"),
    ];
    for (arguments, code, message) in cases {
        let output = remora(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// A running `remora serve`, killed when the test fails.
struct Serving {
    process: Child,
    address: String,
}

impl Serving {
    fn start() -> Serving {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--policy", "greedy-completion", "--json"];
        let mut process = Command::new(REMORA)
            .args(arguments)
            .args(["--scenario", "urban-sensing"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        Serving { process, address: told["listen"].as_str().unwrap().to_owned() }
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        remora(&[arguments, &["--server", &self.address]].concat())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

#[test]
fn a_conversation() {
    let mut serving = Serving::start();
    let registered =
        json(&serving.ask(&["cluster", "register", "industrial-iot", "--id", "plant", "--json"]));
    assert_eq!(
        (registered["rows"][0]["id"].as_str(), registered["replaced"].as_bool()),
        (Some("plant"), Some(false))
    );
    let listed = json(&serving.ask(&["cluster", "list", "--json"]));
    let ids: Vec<_> =
        listed["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["plant", "urban-sensing"]);

    let task =
        ["--cluster", "urban-sensing", "--task", "train", "--image", "train-0", "--input", "training-set-0"];
    let place = [&["place"], &task[..]].concat();
    let asked = serving.ask(&[&place[..], &["--dry-run"]].concat());
    let text = String::from_utf8(asked.stdout).unwrap();
    assert!(text.starts_with("place train on cell-") && text.contains("dry run"), "{text}");
    let placed = json(&serving.ask(&[&place[..], &["--json", "--candidates", "3"]].concat()));
    assert_eq!(placed["rows"].as_array().unwrap().len(), 3);
    assert_eq!(placed["node"], placed["rows"][0]["node"]);
    let shown = json(&serving.ask(&["cluster", "show", "urban-sensing", "--json"]));
    let rows = shown["rows"].as_array().unwrap();
    let busy: Vec<_> = rows.iter().filter(|row| row["running"] != 0).map(|row| &row["node"]).collect();
    assert_eq!(busy, [&placed["node"]]);

    let decision = placed["decision_id"].as_str().unwrap();
    let outcome = ["outcome", "--cluster", "urban-sensing", "--decision", decision, "--response-s", "20.5"];
    assert_eq!(String::from_utf8(serving.ask(&outcome).stdout).unwrap(), "noted\n");
    assert_eq!(String::from_utf8(serving.ask(&outcome).stdout).unwrap(), "was reported before\n");
    let unknown = serving.ask(&["place", "--cluster", "attic", "--task", "x"]);
    assert_eq!(unknown.status.code(), Some(1));
    let errors = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(errors, "error: cluster_id: no cluster is called \"attic\" (NotFound)\n");
    assert!(serving.ask(&["cluster", "remove", "plant"]).status.success());

    let id = serving.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(serving.process.wait().unwrap().code(), Some(0));
}
