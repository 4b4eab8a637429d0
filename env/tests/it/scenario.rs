//! Scenario files are read strictly and say all that is wrong with them.

use remora_env::Scenario;

const GOOD: &str = r#"
name = "small"
[topology]
registries = [{ name = "registry", link = { up_mbps = 1000 } }]
[[topology.sites]]
name = "edge"
uplink = { up_mbps = 10, wan = true }
nodes = [{ name = "pi", count = 2, kind = "rpi3", link = { up_mbps = 100 } }]
[[catalogue.images]]
name = "serve"
size_mb = { arm = 100 }
[[catalogue.tasks]]
name = "serve"
image = "serve"
cpu_millis = 1000
memory_mib = 60
execution = { rpi3 = { seconds = 1.0 } }
[workload]
tasks = 10
streams = [{ task = "serve", exponential_s = 1.0 }]
"#;

fn refused(text: &str) -> String {
    Scenario::parse(text, "small.toml", None).expect_err("accepted").to_string()
}

#[test]
fn a_good_file_is_accepted() {
    let world = Scenario::parse(GOOD, "small.toml", None).unwrap().world(0);
    let names: Vec<_> = world.topology.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["edge/pi-0", "edge/pi-1"]);
    assert_eq!(world.tasks.len(), 10);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let error = refused(&GOOD.replace("wan = true", "wann = true"));
    assert!(error.contains("line 7") && error.contains("unknown field `wann`"), "{error}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = GOOD
        .replace("up_mbps = 10,", "up_mbps = -10,")
        .replace("image = \"serve\"", "image = \"sevre\"")
        .replace("kind = \"rpi3\"", "kind = \"pi5\"")
        .replace("tasks = 10", "tasks = 0");
    insta::assert_snapshot!(refused(&text), @r#"
    small.toml has 4 problems:
      line 7: topology.sites "edge".uplink.up_mbps is -10, want Mbit/s from 0.001 to 1e9
      line 8: topology.sites "edge".nodes "pi".kind "pi5" is not built in: give arch, cpu_millis, memory_mib, disk_gb, startup_s
      line 14: catalogue.tasks "serve".image: nothing is called "sevre"; did you mean "serve"?
      line 19: workload.tasks is 0, want 1 to 10000000 (or give workload.trace)
    "#);
}

#[test]
fn a_cluster_beyond_all_memory_is_refused() {
    let error = refused(
        &GOOD
            .replace("count = 2,", "count = 1000000,")
            .replace("name = \"edge\"", "name = \"edge\"\ncount = 1000000"),
    );
    assert!(error.contains("topology has 1000001000000 nodes, want at most 1000000"), "{error}");
}

#[test]
fn two_things_of_one_name_are_refused() {
    let error = refused(&GOOD.replace("name = \"registry\"", "name = \"edge\""));
    assert!(error.contains("two things are called \"edge\""), "{error}");
}

#[test]
fn two_tasks_of_one_name_are_refused() {
    let start = GOOD.find("[[catalogue.tasks]]").unwrap();
    let end = GOOD.find("[workload]").unwrap();
    let error = refused(&GOOD.replace("[workload]", &format!("{}[workload]", &GOOD[start..end])));
    assert!(error.contains("catalogue.tasks: two are called \"serve\""), "{error}");
}

#[test]
fn a_misspelt_name_gets_a_suggestion() {
    let error = Scenario::load("urban-sensin").unwrap_err().to_string();
    assert_eq!(error, "no scenario is called \"urban-sensin\"; did you mean \"urban-sensing\"?");
}

#[test]
fn built_in_scenarios_have_the_published_sizes() {
    for (name, nodes) in [("urban-sensing", 91), ("industrial-iot", 120), ("cloud-regions", 449)] {
        assert_eq!(Scenario::load(name).unwrap().world(0).topology.nodes.len(), nodes, "{name}");
    }
}
