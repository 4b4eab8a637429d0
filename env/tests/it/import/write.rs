//! Writing an import: a scenario and its trace, or neither.

use remora_env::import::openb;

use super::{Folder, NODES, PODS, REQUESTS, accepted};

#[test]
fn a_scenario_is_written_with_its_trace_and_where_it_is_from() {
    let folder = Folder::new();
    let imported = folder.openb(NODES, PODS).unwrap();
    let trace = imported.write(&folder.path("mine.toml")).unwrap();
    assert_eq!(trace, folder.path("mine.trace.jsonl"));
    assert_eq!(folder.names(), ["mine.toml", "mine.trace.jsonl", "nodes.csv", "pods.csv"]);
    insta::assert_snapshot!(std::fs::read_to_string(folder.path("mine.toml")).unwrap(), @r#"
    # From alibaba/clusterdata cluster-trace-gpu-v2023 (for research and study), nodes and pods.
    # - nodes: 2; with gpus: 1; gpus: 8
    # - pods: 4, none left out
    # - assumed, as the trace has no network or disks: 10000 Mbit/s and 0.1 ms for each node, 1000 GB of disk, no time to start a container
    # - pods never scheduled, for which the duration is deletion_time - creation_time: 1
    # - pods with a duration of 0 s, kept: 1
    # - pods deleted in the last second of the list, 200, whose duration the end of the recording may have cut off, kept: 1
    # - pods earlier than the one above, sorted by creation_time: 2

    name = "pods"
    summary = "4 pods on the 2 nodes of a GPU cluster"

    [topology]
    registries = []
    sites = []

    [[topology.nodes]]
    name = "plain"
    count = 1
    kind = "cpu-server"
    arch = "amd64"
    cpu_millis = 32000
    memory_mib = 262144.0
    disk_gb = 1000.0
    startup_s = 0.0

    [topology.nodes.link]
    up_mbps = 10000.0
    latency_ms = 0.1
    price = 1.0

    [[topology.nodes]]
    name = "big"
    count = 1
    kind = "v100m32"
    arch = "amd64"
    cpu_millis = 96000
    memory_mib = 786432.0
    disk_gb = 1000.0
    startup_s = 0.0

    [topology.nodes.link]
    up_mbps = 10000.0
    latency_ms = 0.1
    price = 1.0

    [topology.nodes.accelerator]
    model = "V100M32"
    count = 8

    [catalogue]
    images = []
    datasets = []
    tasks = []

    [workload]
    warm_share = 0.0
    streams = []
    trace = "mine.trace.jsonl"
    "#);
}

#[test]
fn both_sources_make_scenarios_that_are_accepted() {
    let folder = Folder::new();
    assert_eq!(accepted(&folder.openb(NODES, PODS).unwrap()).world(1).tasks.len(), 4);
    assert_eq!(accepted(&folder.genai(REQUESTS).unwrap()).world(1).tasks.len(), 3);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = Folder::new();
    let imported = folder.genai(REQUESTS).unwrap();
    std::fs::create_dir_all(folder.path("taken.toml/within")).unwrap();
    let before = folder.names();
    let message = folder.refusal(imported.write(&folder.path("taken.toml")));
    assert!(message.starts_with("cannot write taken.toml: "), "{message}");
    assert_eq!(folder.names(), before);

    std::fs::create_dir_all(folder.path("other.trace.jsonl/within")).unwrap();
    let before = folder.names();
    let message = folder.refusal(imported.write(&folder.path("other.toml")));
    assert!(message.starts_with("cannot write trace other.trace.jsonl: "), "{message}");
    assert_eq!(folder.names(), before);

    let message = folder.refusal(imported.write(&folder.path("no/such/folder.toml")));
    assert!(message.starts_with("cannot write trace no/such/folder.trace.jsonl: "), "{message}");
    for name in ["scenario", ".toml", ".."] {
        let message = folder.refusal(imported.write(&folder.path(name)));
        assert!(message.ends_with("want one in UTF-8 that ends in .toml"), "{message}");
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn names_cannot_break_out_of_comments_or_strings() {
    let folder = Folder::new();
    let nodes = folder.file("no\nname = \"x\".csv", NODES.replace("big", "\"b\"\"ig\\\""));
    let imported = openb(&nodes, &folder.file("pods.csv", PODS)).unwrap();
    let scenario = accepted(&imported);
    assert_eq!(scenario.file.name, "pods");
    assert_eq!(scenario.file.topology.nodes[1].name, "b\"ig\\");
}
