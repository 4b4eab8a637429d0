//! The application as it is run: a process for each step, everything in the environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod generator;
mod learning;
mod refusals;
mod scoring;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder to work in, with one folder of data per name and the outputs beside them.
struct Desk {
    folder: TempDir,
}

/// One run, as the environment describes it.
struct Run<'a> {
    desk: &'a Desk,
    command: Command,
    output: PathBuf,
}

impl Desk {
    fn new() -> Desk {
        Desk { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Makes readings of a pump: `options` as on the command line, separated by blanks.
    fn generate(&self, name: &str, options: &str) -> PathBuf {
        succeeded(&self.try_to_generate(name, options));
        self.path(name)
    }

    fn try_to_generate(&self, name: &str, options: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sensor-anomaly"));
        command.arg("generate").args(options.split_whitespace()).arg("--out").arg(self.path(name));
        command.current_dir(self.folder.path()).output().unwrap()
    }

    fn run(&self, kind: &str, input: &str, output: &str) -> Run<'_> {
        let output = self.folder(output);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sensor-anomaly"));
        command.arg("run").env("REMORA_KIND", kind).env("REMORA_SEED", "7");
        command.env("REMORA_INPUT", self.folder.path().join(input)).env("REMORA_OUTPUT", &output);
        Run { desk: self, command, output }
    }

    /// Learns from a folder of data; returns the model.
    fn learn(&self, input: &str, output: &str, from: Option<&Path>, parameters: &Value) -> PathBuf {
        let run = self.run("learn", input, output).parameters(parameters);
        match from {
            Some(model) => run.model(model).done("model"),
            None => run.done("model"),
        }
    }

    /// Mean errors of candidate and champion on what is held out of a folder of data.
    fn compare(&self, input: &str, candidate: &Path, champion: &Path) -> (f64, f64) {
        let scores = self.run("evaluate", input, "evaluation").model(candidate).champion(champion);
        let scores = json_of(&scores.done("scores.json"));
        assert_eq!(scores["metric"], "reconstruction_error");
        let (candidate, champion) = (numbers(&scores["candidate"]), numbers(&scores["champion"]));
        assert_eq!(candidate.len(), champion.len());
        (mean(&candidate), mean(&champion))
    }

    /// The answer to a request.
    fn score(&self, request: &str, model: &Path) -> Value {
        json_of(&self.run("execute", request, "answer").model(model).done("response"))
    }
}

impl Run<'_> {
    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    fn model(self, path: &Path) -> Self {
        self.env("REMORA_MODEL", path)
    }

    fn champion(self, path: &Path) -> Self {
        self.env("REMORA_CHAMPION", path)
    }

    fn parameters(self, parameters: &Value) -> Self {
        let path = self.desk.write("parameters.json", parameters.to_string());
        self.env("REMORA_PARAMETERS", path)
    }

    /// The file that a run which succeeds makes.
    fn done(mut self, file: &str) -> PathBuf {
        succeeded(&self.command.output().unwrap());
        self.output.join(file)
    }

    /// What a run says which fails because its input cannot be used.
    fn bad_input(self) -> String {
        self.fails(65)
    }

    /// What a run says which fails otherwise.
    fn refused(self) -> String {
        self.fails(1)
    }

    fn fails(mut self, code: i32) -> String {
        let output = self.command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read_dir(&self.output).unwrap().count(), 0, "a run that fails leaves nothing");
        said
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Rows of a CSV file below its header.
fn rows(path: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| line.split(',').map(|field| field.parse().unwrap()).collect();
    text.lines().skip(1).map(row).collect()
}

fn defaults() -> Value {
    json!({})
}
