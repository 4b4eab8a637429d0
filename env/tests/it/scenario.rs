//! Scenario files are read strictly and say all that is wrong with them.

use std::sync::Arc;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use remora_env::observation::Reference;
use remora_env::{Episode, Next, Scenario};

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
      topology.sites "edge".uplink.up_mbps is -10, want a number above 0, at most 1e9
      topology.sites "edge".nodes "pi".kind "pi5" is not built in: give arch, cpu_millis, memory_mib, disk_gb, startup_s
      catalogue.tasks "serve".image: nothing is called "sevre"; did you mean "serve"?
      workload.tasks is 0, want 1 to 10000000 (or give workload.trace)
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

/// Everything a number in a file can be.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "7",
    "-1",
    "0.001",
    "1e-300",
    "1e9",
    "1e300",
    "nan",
    "inf",
    "4294967295",
    "9223372036854775807",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever numbers stand in a file, it is refused, or it plays to the end with balanced books.
    #[test]
    fn extreme_numbers_are_refused_or_run(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..NUMBERS.len()), 1..4),
    ) {
        let mut words: Vec<String> = GOOD.split(' ').map(str::to_owned).collect();
        let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let places: Vec<usize> = (0..words.len()).filter(|&i| is_number(&words[i])).collect();
        for (index, number) in changes {
            let word = &mut words[places[index.index(places.len())]];
            let behind = word.trim_start_matches(|c: char| !matches!(c, ',' | '\n')).to_owned();
            *word = format!("{}{behind}", NUMBERS[number]);
        }
        let text = words.join(" ");
        let Ok(scenario) = Scenario::parse(&text, "fuzzed", None) else { return Ok(()) };
        if scenario.file.workload.tasks.is_some_and(|tasks| tasks > 1000) {
            return Ok(());
        }
        let world = Arc::new(scenario.world(1));
        let mut episode = Episode::new(world, 0.5, Reference::new(1.0, 1e6));
        while let Next::Decide(observation) = episode.next() {
            let candidate = observation.candidates[0];
            episode.step(candidate.node);
        }
        episode.check();
    }

    /// A file with a few bytes changed is accepted or refused, never a panic; what is accepted can
    /// be instantiated.
    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(scenario) = Scenario::parse(&text, "fuzzed", None) {
            scenario.world(1).initial_cluster().check();
        }
    }
}
