//! Files of any content are accepted or refused with line and field, never a panic; and what is
//! accepted plays to the end with balanced books. `PROPTEST_CASES` sets how many are tried.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};
use proptest::sample::Index;
use remora_env::observation::Reference;
use remora_env::scenario::ScenarioError;
use remora_env::trace::{Trace, TraceError};
use remora_env::{Episode, Next, Scenario};

/// A scenario with every key of the format.
const EVERYTHING: &str = include_str!("../data/everything.toml");
/// Files that it refers to are here.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// A trace with every key of the format.
const TRACE: &str = r#"{"remora_trace":2,"source":"by hand"}
{"arrival":{"at_s":0.5,"name":"a","kind":"detect","image":"detector-1","inputs":["frames-0","map"],"outputs":["boxes-0"],"renews":"frames-0","luck":0.25}}
{"arrival":{"at_s":0.5,"name":"b","kind":"report","image":"detector-1","inputs":["boxes-0"],"outputs":["report-0"],"after":["a"],"luck":0.5}}
{"arrival":{"at_s":1,"name":"c","cpu_millis":500,"memory_bytes":1000000,"accelerators":1,"accelerator_millis":500,"accelerator_models":["own-card"],"duration_s":3,"deadline_s":9,"priority":1}}
{"decision":{"at_s":1.5,"task":"a","node":"box","policy":"mine","alpha":0.5}}
{"outcome":{"at_s":9,"task":"a","end":"completed","node":"box","arrived_s":0.5,"admitted_s":2,"fetched_s":3,"started_s":4,"executed_s":8,"image_bytes":1,"input_bytes":2,"output_bytes":3,"moved_bytes":6.5,"wan_bytes":0,"retries":1,"deadline_missed":true}}
"#;

/// What stands where something else stood.
const WORDS: [&str; 26] = [
    "0",
    "1",
    "7",
    "-1",
    "0.01",
    "1e-300",
    "1e9",
    "1e300",
    "nan",
    "inf",
    "-0.0",
    "4294967295",
    "9223372036854775807",
    "true",
    "\"\"",
    "\"box\"",
    "\"detect\"",
    "\"frames\"",
    "\"producer\"",
    "\"anywhere\"",
    "[]",
    "{}",
    "null",
    "\"\\u0000\"",
    "[\"detect\", \"report\"]",
    "{ seconds = 1 }",
];

/// One way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    Byte(Index, u8),
    /// A value or another word becomes one of [`WORDS`].
    Word(Index, usize),
    /// A line goes, or comes again elsewhere.
    Drop(Index),
    Repeat(Index, Index),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = proptest::prop_oneof![
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (any::<Index>(), 0..WORDS.len()).prop_map(|(at, word)| Damage::Word(at, word)),
        1 => any::<Index>().prop_map(Damage::Drop),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        1 => any::<Index>().prop_map(Damage::Cut),
    ];
    prop::collection::vec(one, 1..4)
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut text = text.to_owned();
    for damage in damages {
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            break;
        }
        text = match damage {
            Damage::Byte(at, byte) => {
                let mut bytes = text.clone().into_bytes();
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Damage::Word(at, word) => with_word(&text, *at, WORDS[*word]),
            Damage::Drop(at) => {
                let at = at.index(lines.len());
                [&lines[..at], &lines[at + 1..]].concat().join("\n")
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(lines.len()), to.index(lines.len()));
                [&lines[..to], &lines[from..=from], &lines[to..]].concat().join("\n")
            }
            Damage::Cut(at) => {
                let at = text.floor_char_boundary(at.index(text.len()));
                text[..at].to_owned()
            }
        };
    }
    text
}

/// The text with one of its words, numbers and strings replaced.
fn with_word(text: &str, at: Index, word: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || "_-.\"/".contains(c);
    let mut words: Vec<(usize, usize)> = Vec::new();
    for (start, part) in text.match_indices(is_word) {
        match words.last_mut() {
            Some((_, end)) if *end == start => *end += part.len(),
            _ => words.push((start, start + part.len())),
        }
    }
    if words.is_empty() {
        return text.to_owned();
    }
    let (start, end) = words[at.index(words.len())];
    format!("{}{word}{}", &text[..start], &text[end..])
}

/// Plays an accepted scenario, if it is not too large for a test.
fn play(scenario: &Scenario) {
    let tasks = scenario.file.workload.tasks.unwrap_or(0);
    if tasks > 1000 {
        return;
    }
    let world = Arc::new(scenario.world(1));
    if world.topology.nodes.len() > 1000 {
        return;
    }
    let mut episode = Episode::new(world, 0.5, Reference::new(1.0, 1e6));
    let mut turn = 0;
    while let Next::Decide(observation) = episode.next() {
        turn += 1;
        let node = observation.candidates()[turn % observation.candidates().len()].node;
        episode.step(node);
        if turn > 5000 {
            break;
        }
    }
    episode.check();
}

/// A refusal names the line, and the field where the file is TOML at all.
fn check_refusal(error: &ScenarioError) {
    match error {
        ScenarioError::Invalid { problems, .. } => {
            for problem in problems {
                let rest = problem.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
                let (line, field) = rest.unwrap_or_else(|| panic!("no line in {problem:?}"));
                assert!(
                    line.parse::<usize>().is_ok() && field.starts_with(char::is_alphabetic),
                    "{problem:?}"
                );
            }
        }
        ScenarioError::Syntax { source, .. } => assert!(source.to_string().contains("line "), "{error}"),
        ScenarioError::Read { .. } | ScenarioError::Trace(_) | ScenarioError::Bandwidth(_) => {}
        ScenarioError::Unknown { .. } | ScenarioError::Family(_) => panic!("a text has no name: {error}"),
    }
}

fn scenario_holds(text: &str) {
    match Scenario::parse(text, "fuzzed.toml", Some(Path::new(FOLDER))) {
        Ok(scenario) => play(&scenario),
        Err(error) => check_refusal(&error),
    }
}

fn trace_holds(text: &[u8]) {
    let trace = match Trace::parse(text, Path::new("fuzzed.jsonl")) {
        Ok(trace) => trace,
        Err(TraceError::Line { line, reason, .. }) => {
            assert!(line > 0 && !reason.is_empty());
            return;
        }
        Err(error) => panic!("reading from memory fails: {error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    trace.write(&folder.path().join("trace.jsonl")).unwrap();
    std::fs::copy(Path::new(FOLDER).join("bandwidth.csv"), folder.path().join("bandwidth.csv")).unwrap();
    let (start, end) =
        (EVERYTHING.find("[[workload.streams]]").unwrap(), EVERYTHING.find("[faults]").unwrap());
    let text = format!("{}{}", &EVERYTHING[..start], &EVERYTHING[end..]);
    let text = text.replace("[workload]\n", "[workload]\ntrace = \"trace.jsonl\"\n");
    match Scenario::parse(&text, "fuzzed.toml", Some(folder.path())) {
        Ok(scenario) => play(&scenario),
        Err(ScenarioError::Invalid { problems, .. }) => {
            assert!(problems.iter().all(|problem| problem.starts_with("trace, line ")), "{problems:?}");
        }
        Err(error) => panic!("the scenario is good: {error}"),
    }
}

#[test]
fn undamaged_files_are_accepted() {
    let scenario = Scenario::parse(EVERYTHING, "everything.toml", Some(Path::new(FOLDER))).unwrap();
    assert_eq!(scenario.world(0).tasks.len(), 60);
    assert_eq!(Trace::parse(TRACE.as_bytes(), Path::new("t")).unwrap().records.len(), 5);
    trace_holds(TRACE.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_scenarios_are_refused_by_line_and_field_or_run(damages in damage()) {
        scenario_holds(&damaged(EVERYTHING, &damages));
    }

    #[test]
    fn damaged_traces_are_refused_by_line_and_field_or_run(damages in damage()) {
        trace_holds(damaged(TRACE, &damages).as_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        scenario_holds(&String::from_utf8_lossy(&bytes));
        trace_holds(&bytes);
    }
}
