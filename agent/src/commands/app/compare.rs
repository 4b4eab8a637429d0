//! Two runs beside each other: what they were made of, where and how long they ran, what came of them.

use std::collections::{BTreeMap, BTreeSet};

use remora_proto::v1 as wire;
use serde::Serialize;

use crate::commands::{bytes, seconds};

/// What a line of a comparison is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// What made it, and of what.
    Made,
    /// Where and how long it ran.
    Ran,
    /// What came of it.
    CameOf,
}

/// One line of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub about: About,
    pub what: String,
    pub old: String,
    pub new: String,
}

impl Line {
    /// Whether both say the same.
    pub fn same(&self) -> bool {
        self.old == self.new
    }
}

/// A run, and the version that it ran, where that is still known.
#[derive(Clone, Copy, Debug)]
pub struct One<'a> {
    pub run: &'a wire::Run,
    pub version: Option<&'a wire::Version>,
}

/// What one of the two lacks.
const MISSING: &str = "not there";

/// What came of two runs: nothing of it differs where one repeats the other. Logs tell of times, so they are left out.
pub fn came_of(old: &wire::Run, new: &wire::Run) -> Vec<Line> {
    let exit = |run: &wire::Run| run.exit.map_or_else(|| "none".to_owned(), |code| code.to_string());
    let own = [("status", old.status.clone(), new.status.clone()), ("exit code", exit(old), exit(new))];
    let own = own.map(|(what, old, new)| Line { about: About::CameOf, what: what.to_owned(), old, new });
    let outputs = |run: &wire::Run| files(run.outputs.iter().filter(|blob| blob.name != "log"));
    own.into_iter().chain(both(About::CameOf, "wrote", &outputs(old), &outputs(new))).collect()
}

/// Everything about two runs.
pub fn whole(old: One<'_>, new: One<'_>) -> Vec<Line> {
    let mut lines = made(old, new);
    let line = |about, what: &str, of: &dyn Fn(&wire::Run) -> String| Line {
        about,
        what: what.to_owned(),
        old: of(old.run),
        new: of(new.run),
    };
    lines.extend([
        line(About::Ran, "node", &|run| run.node.clone()),
        line(About::Ran, "waited", &|run| took(waited_s(run))),
        line(About::Ran, "ran", &|run| took(ran_s(run))),
        line(About::Ran, "processor time", &|run| seconds(run.cpu_s)),
        line(About::Ran, "memory", &|run| bytes(run.memory_bytes as f64)),
        line(About::Ran, "attempts", &|run| run.attempt.to_string()),
    ]);
    lines.extend(came_of(old.run, new.run));
    lines.push(line(About::CameOf, "why", &|run| run.reason.clone()));
    lines
}

fn made(old: One<'_>, new: One<'_>) -> Vec<Line> {
    let line = |what: &str, of: &dyn Fn(One<'_>) -> String| Line {
        about: About::Made,
        what: what.to_owned(),
        old: of(old),
        new: of(new),
    };
    let version = |one: One<'_>, of: fn(&wire::Version) -> String| {
        one.version.map_or_else(|| "no longer kept".to_owned(), of)
    };
    let mut lines = vec![
        line("application", &|one| one.run.app.clone()),
        line("kind", &|one| one.run.kind.clone()),
        line("version", &|one| one.run.version.to_string()),
        line("model", &|one| version(one, |version| hash(&version.model))),
        line("code", &|one| version(one, |version| hash(&version.code))),
        line("seed", &|one| one.run.seed.to_string()),
        line("cause", &|one| one.run.cause.clone()),
        line("asked by", &|one| one.run.actor.clone()),
    ];
    lines.extend(both(About::Made, "parameter", &parameters(old), &parameters(new)));
    lines.extend(both(About::Made, "read", &files(&old.run.inputs), &files(&new.run.inputs)));
    lines
}

type Named = BTreeMap<String, String>;

/// Everything that either has, by name.
fn both(about: About, what: &str, old: &Named, new: &Named) -> Vec<Line> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let told = |known: &Named, name: &String| known.get(name).cloned().unwrap_or_else(|| MISSING.to_owned());
    let line =
        |name| Line { about, what: format!("{what} {name}"), old: told(old, name), new: told(new, name) };
    names.into_iter().map(line).collect()
}

fn files<'a>(blobs: impl IntoIterator<Item = &'a wire::Artifact>) -> Named {
    let told = |blob: &wire::Artifact| format!("{} {}", bytes(blob.bytes as f64), hash(&blob.hash));
    blobs.into_iter().map(|blob| (blob.name.clone(), told(blob))).collect()
}

fn parameters(one: One<'_>) -> Named {
    let text = one.version.map_or("", |version| &version.parameters);
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    all.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

/// The beginning of a hash.
fn hash(hash: &str) -> String {
    if hash.is_empty() { "none".to_owned() } else { hash.chars().take(12).collect() }
}

/// Asks for the version that a run is of.
pub fn of_version(run: &wire::Run) -> wire::ListVersionsRequest {
    wire::ListVersionsRequest { app: run.app.clone(), limit: None, number: Some(run.version) }
}

/// Seconds from the request to the start; nothing before that.
pub fn waited_s(run: &wire::Run) -> Option<f64> {
    run.started_ms.map(|started| (started - run.queued_ms) as f64 / 1000.0)
}

/// Seconds from the start to the end, where it had both.
pub fn ran_s(run: &wire::Run) -> Option<f64> {
    run.started_ms.zip(run.ended_ms).map(|(from, to)| (to - from) as f64 / 1000.0)
}

fn took(took: Option<f64>) -> String {
    took.map_or_else(|| "—".to_owned(), |took| format!("{took:.2} s"))
}

#[cfg(test)]
mod tests {
    use remora_proto::v1 as wire;

    use super::{About, Line, One, came_of, whole};

    fn artifact(name: &str, hash: &str) -> wire::Artifact {
        wire::Artifact { name: name.to_owned(), hash: hash.repeat(64), bytes: 5 }
    }

    fn run() -> wire::Run {
        wire::Run {
            id: "a.1".to_owned(),
            status: "succeeded".to_owned(),
            queued_ms: 1000,
            started_ms: Some(1500),
            ended_ms: Some(4000),
            inputs: vec![artifact("request", "a")],
            outputs: vec![artifact("response", "b"), artifact("log", "c")],
            ..wire::Run::default()
        }
    }

    fn differ(lines: Vec<Line>) -> Vec<(About, String, String, String)> {
        let different = lines.into_iter().filter(|line| !line.same());
        different.map(|line| (line.about, line.what, line.old, line.new)).collect()
    }

    #[test]
    fn what_is_the_same_does_not_differ() {
        let old = run();
        let new = wire::Run { id: "a.2".to_owned(), outputs: vec![artifact("response", "b")], ..run() };
        assert!(differ(came_of(&old, &new)).is_empty());
        let version = wire::Version { parameters: "{\"depth\":3}".to_owned(), ..wire::Version::default() };
        let one = |run| One { run, version: Some(&version) };
        assert!(differ(whole(one(&old), one(&new))).is_empty());
    }

    #[test]
    fn differences_are_told_by_what_they_are_about() {
        let old = run();
        let new = wire::Run {
            ended_ms: Some(3000),
            exit: Some(3),
            inputs: vec![artifact("request", "d")],
            outputs: vec![artifact("model", "b")],
            ..run()
        };
        let version = |parameters: &str| wire::Version {
            parameters: parameters.to_owned(),
            ..wire::Version::default()
        };
        let (before, after) = (version("{\"depth\":3,\"rate\":0.5}"), version("{\"depth\":4,\"rate\":0.5}"));
        let found = differ(whole(
            One { run: &old, version: Some(&before) },
            One { run: &new, version: Some(&after) },
        ));
        let expected = [
            (About::Made, "parameter depth", "3", "4"),
            (About::Made, "read request", "5 B aaaaaaaaaaaa", "5 B dddddddddddd"),
            (About::Ran, "ran", "2.50 s", "1.50 s"),
            (About::CameOf, "exit code", "none", "3"),
            (About::CameOf, "wrote model", "not there", "5 B bbbbbbbbbbbb"),
            (About::CameOf, "wrote response", "5 B bbbbbbbbbbbb", "not there"),
        ];
        let expected =
            expected.map(|(about, what, old, new)| (about, what.to_owned(), old.to_owned(), new.to_owned()));
        assert_eq!(found, expected);
    }
}
