//! A scenario that has grown is the same scenario with more of everything.

use remora_env::family::Family;
use remora_env::scenario::built_in;
use remora_env::world::{Planned, When};
use remora_env::{Scenario, contract};

/// Arrivals per second and node.
fn load(scenario: &Scenario) -> f64 {
    let world = scenario.world(1);
    let at = |planned: &Planned| if let When::At(time) = planned.when { Some(time.as_s()) } else { None };
    let arrivals: Vec<f64> = world.tasks.iter().filter_map(at).collect();
    let last = arrivals.iter().copied().fold(0.0, f64::max);
    arrivals.len() as f64 / last / world.topology.nodes.len() as f64
}

fn scenarios() -> impl Iterator<Item = Scenario> {
    let members = (0..30).map(|index| Scenario::member(Family::Train, index));
    members.chain(built_in().map(|name| Scenario::load(name).unwrap()))
}

#[test]
fn clusters_grow_to_any_number_of_nodes_and_keep_their_load() {
    for scenario in scenarios() {
        let before = scenario.world(0).topology.nodes.len() as u32;
        for nodes in [before, before + 1, before + 7, 2 * before, 3 * before - 1] {
            let larger = scenario.larger(nodes, None).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(larger.world(0).topology.nodes.len() as u32, nodes, "{}", larger.name());
            let text = larger.to_toml();
            let read = Scenario::parse(&text, larger.name(), None).unwrap();
            assert_eq!(read.to_toml(), text);
        }
        let larger = scenario.larger(10 * before, None).unwrap();
        let (was, is) = (load(&scenario), load(&larger));
        assert!((0.5..2.0).contains(&(is / was)), "{}: {was} became {is}", scenario.name());
    }
}

#[test]
fn larger_clusters_keep_the_books() {
    for scenario in scenarios().step_by(8) {
        let before = scenario.world(0).topology.nodes.len() as u32;
        let larger = scenario.larger(2 * before + 3, Some(100)).unwrap();
        assert_eq!(larger.world(0).tasks.len(), 100);
        contract::check(&larger, 1, 100).unwrap();
    }
}

#[test]
fn what_named_the_only_site_names_the_first() {
    let text = r#"
name = "one"
[topology]
registries = [{ name = "registry", site = "place", link = { up_mbps = 1000 } }]
nodes = [{ name = "store", kind = "nuc", link = { up_mbps = 1000 } }]
[[topology.sites]]
name = "place"
uplink = { up_mbps = 100 }
nodes = [{ name = "nuc", kind = "nuc", link = { up_mbps = 1000 } }]
[[topology.sites.sites]]
name = "room"
count = 2
uplink = { up_mbps = 100 }
nodes = [{ name = "pi", count = 3, kind = "rpi3", link = { up_mbps = 100 } }]
[catalogue]
datasets = [{ name = "map", size_mb = 1, home = { nodes = ["place/nuc", "store"] } }]
tasks = [{ name = "see", inputs = ["map"], cpu_millis = 100, memory_mib = 10, execution = { any = { seconds = 1 } } }]
[workload]
tasks = 10
streams = [{ task = "see", instances = 4, exponential_s = 10 }]
"#;
    let scenario = Scenario::parse(text, "one", None).unwrap();
    let larger = scenario.larger(20, None).unwrap();
    let names: Vec<_> = larger.world(0).topology.nodes.iter().map(|node| node.name.clone()).collect();
    assert_eq!(names.len(), 20);
    assert_eq!(names.iter().filter(|name| *name == "store").count(), 1, "{names:?}");
    // Two whole places of seven, and five nodes of a third: its own, one whole room and one of the other's.
    let of = |site: &str| names.iter().filter(|name| name.starts_with(site)).count();
    assert_eq!([of("place-0/"), of("place-1/"), of("place-part/")], [7, 7, 5], "{names:?}");
    let file = &larger.file;
    assert_eq!(file.topology.registries[0].site.as_deref(), Some("place-0"));
    assert!(larger.to_toml().contains(r#"["place-0/nuc", "store"]"#), "{}", larger.to_toml());
    assert_eq!((file.workload.streams[0].instances, file.workload.tasks), (10, Some(25)));
    assert_eq!(file.catalogue.datasets[0].count, 1);
}

#[test]
fn what_cannot_grow_says_why() {
    let scenario = Scenario::load("urban-sensing").unwrap();
    let before = scenario.world(0).topology.nodes.len();
    let refused = |nodes| scenario.larger(nodes, None).unwrap_err().to_string();
    assert!(refused(5).contains(&format!("nodes is 5, want the {before} that there are, or more")));
    assert!(refused(u32::MAX).contains("nodes, want at most"), "{}", refused(u32::MAX));
}
