//! Workflows.

use std::sync::Arc;

use remora_env::import::{ImportError, Imported, WfFormatOptions, wfformat};
use remora_env::observation::Reference;
use remora_env::{Episode, Next};

use super::{Folder, accepted, shared, unplaceable};

const DIAMOND: &str = r#"{
  "name": "diamond", "schemaVersion": "1.5",
  "workflow": {
    "specification": {
      "tasks": [
        { "name": "join", "id": "join", "parents": ["left", "right"], "children": [], "inputFiles": ["l", "r", "raw"], "outputFiles": ["result"] },
        { "name": "split", "id": "split", "parents": [], "children": ["left", "right"], "inputFiles": ["raw"], "outputFiles": ["a", "b", "c"] },
        { "name": "left", "id": "left", "parents": ["split"], "children": ["join"], "inputFiles": ["a", "c"], "outputFiles": ["l"] },
        { "name": "right", "id": "right", "parents": ["split"], "children": ["join"], "inputFiles": ["b", "c"], "outputFiles": ["r"] }
      ],
      "files": [
        { "id": "raw", "sizeInBytes": 50000000 }, { "id": "a", "sizeInBytes": 1000000 },
        { "id": "b", "sizeInBytes": 2000000 }, { "id": "c", "sizeInBytes": 4000000 },
        { "id": "l", "sizeInBytes": 8000000 }, { "id": "r", "sizeInBytes": 8000000 },
        { "id": "result", "sizeInBytes": 100 }
      ]
    },
    "execution": { "makespanInSeconds": 9, "tasks": [
      { "id": "split", "runtimeInSeconds": 2.5, "coreCount": 2 }, { "id": "left", "runtimeInSeconds": 3 },
      { "id": "right", "runtimeInSeconds": 4 }, { "id": "join", "runtimeInSeconds": 1, "memoryInBytes": 1000000 }
    ] }
  }
}"#;

fn import(text: &str) -> Result<Imported, ImportError> {
    let options = WfFormatOptions { jobs: 2, ..WfFormatOptions::default() };
    wfformat(&Folder::new().file("diamond.json", text), &options)
}

/// Plays with the first candidate always.
fn play(imported: &Imported) -> Episode {
    let scenario = accepted(imported);
    assert_eq!(unplaceable(&scenario), 0);
    let mut episode = Episode::new(Arc::new(scenario.world(0)), 0.5, Reference::new(10.0, 1e8)).audited();
    while let Next::Decide(observation) = episode.next() {
        let node = observation.candidates()[0].node;
        episode.step(node);
    }
    episode
}

#[test]
fn files_become_datasets_by_who_writes_and_reads_them() {
    let imported = import(DIAMOND).unwrap();
    let arrivals: Vec<_> = imported.trace.arrivals().map(|a| serde_json::to_string(a).unwrap()).collect();
    // raw and result are in the store; of what split writes, a, b and c have other readers each.
    insta::assert_snapshot!(arrivals[..4].join("\n"));
    let datasets = &imported.scenario.catalogue.datasets;
    assert_eq!(datasets.len(), 2 * 7);
    let episode = play(&imported);
    assert!(episode.outcomes().iter().all(|outcome| outcome.is_completed()));
    // All on the first node: raw comes once for each job, nothing else moves but the result.
    let moved: u64 = episode.outcomes().iter().map(|outcome| outcome.input_bytes).sum();
    assert_eq!(moved, 2 * 50_000_000);
    let stored: u64 = episode.outcomes().iter().map(|outcome| outcome.output_bytes).sum();
    assert_eq!(stored, 2 * 100);
}

#[test]
fn damaged_workflows_are_refused() {
    let refusal = |from: &str, to: &str| import(&DIAMOND.replacen(from, to, 1)).unwrap_err().to_string();
    for (from, to, message) in [
        (
            r#""parents": [], "#,
            r#""parents": ["join"], "#,
            r#"task "join" comes, through its parents, after itself"#,
        ),
        (
            r#"["left", "right"], "children": []"#,
            r#"["left", "up"], "children": []"#,
            r#"task "join" has the parent "up", which is no task"#,
        ),
        (r#""id": "left", "runtime"#, r#""id": "l", "runtime"#, r#"task "left" has no execution"#),
        (r#"{ "id": "l", "sizeInBytes": 8000000 }, "#, "", r#"file "l" has no size in files"#),
        (
            r#""parents": ["left", "right"]"#,
            r#""parents": ["left"]"#,
            r#"task "join" reads "r", which "right" writes, but does not come after it"#,
        ),
        (
            r#""outputFiles": ["r"]"#,
            r#""outputFiles": ["r", "l"]"#,
            r#"file "l" is written by "left" and by "right""#,
        ),
        (
            r#""runtimeInSeconds": 3"#,
            r#""runtimeInSeconds": -3"#,
            r#"task "left": runtimeInSeconds is -3, want 0 to 100000000"#,
        ),
        (r#""runtimeInSeconds": 3"#, r#""runtimeInSeconds": "x""#, "line 19: invalid type"),
        (
            r#""schemaVersion": "1.5""#,
            r#""schemaVersion": "1.3""#,
            r#"schemaVersion is "1.3", only 1.5 is supported"#,
        ),
    ] {
        let refusal = refusal(from, to);
        assert!(refusal.contains(message), "{refusal}");
    }
}

#[test]
fn the_workflows_of_wfinstances_come_through_and_complete() {
    let Some(folder) = shared("wfinstances-dags") else { return };
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert_eq!(files.len(), 11);
    for file in files {
        let mut options = WfFormatOptions { jobs: 2, ..WfFormatOptions::default() };
        // Some tasks recorded more cores or memory than a NUC has.
        options.edge.kind = "server".to_owned();
        let imported = wfformat(&file, &options).unwrap_or_else(|error| panic!("{error}"));
        let episode = play(&imported);
        let unfinished = episode.outcomes().iter().filter(|outcome| !outcome.is_completed()).count();
        assert_eq!(unfinished, 0, "{}", file.display());
    }
}
