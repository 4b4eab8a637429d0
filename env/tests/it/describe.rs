//! A cluster that is described as a file and read back is the same cluster.

use remora_env::catalogue::{Catalogue, Dataset, ExecutionTime, Image, Kind, Layer, Requests};
use remora_env::device::Arch;
use remora_env::power::Power;
use remora_env::scenario::{Described, ScenarioFile, StreamFile, WorkloadFile, describe};
use remora_env::topology::{Delay, Direction, Link, Node, Topology};
use remora_env::{Scenario, World};

/// The world of a file with this description.
fn read_back(described: &Described) -> World {
    let task = described.catalogue.tasks[0].name.clone();
    let stream = StreamFile { task, instances: 1, exponential_s: 1.0, ..StreamFile::default() };
    let file = ScenarioFile {
        name: "again".to_owned(),
        topology: described.topology.clone(),
        catalogue: described.catalogue.clone(),
        workload: WorkloadFile { tasks: Some(1), streams: vec![stream], ..WorkloadFile::default() },
        ..ScenarioFile::default()
    };
    let text = toml::to_string(&file).unwrap();
    Scenario::parse(&text, "again.toml", None).unwrap_or_else(|error| panic!("{error}\n{text}")).world(0)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// The same machines, the same data, the same ways.
fn equal(before: &World, after: &World) {
    let (old, new) = (&before.topology, &after.topology);
    let node = |world: &World, name: &str| world.topology.node_named(name).unwrap();
    assert_eq!((old.nodes.len(), old.peers, old.queue_limit), (new.nodes.len(), new.peers, new.queue_limit));
    for was in &old.nodes {
        let is = &new.nodes[node(after, &was.name) as usize];
        assert_eq!(
            Node { power: Power::default(), ..was.clone() },
            Node { power: Power::default(), ..is.clone() }
        );
        assert!(close(was.power.watts(1.0), is.power.watts(1.0)), "{}", was.name);
    }
    let (was, is) = (&before.catalogue, &after.catalogue);
    assert_eq!(was.kinds.len(), is.kinds.len());
    for (was, is) in was.kinds.iter().zip(&is.kinds) {
        let timeless =
            |kind: &Kind| Kind { execution: Vec::new(), execution_elsewhere: None, ..kind.clone() };
        assert_eq!(timeless(was), timeless(is));
        for node in &old.nodes {
            let mean = |kind: &Kind| kind.execution_on(&node.kind).map(|time| time.mean_s);
            assert_eq!(mean(was), mean(is), "{} on {}", was.name, node.kind);
        }
    }
    for (was, is) in was.images.iter().zip(&is.images) {
        assert_eq!(was.name, is.name);
        for arch in Arch::ALL {
            let layers = |catalogue: &Catalogue, image: &Image| -> Vec<Layer> {
                image.layers(arch).iter().map(|&layer| catalogue.layers[layer as usize].clone()).collect()
            };
            assert_eq!(layers(&before.catalogue, was), layers(&after.catalogue, is));
        }
    }
    assert_eq!(was.datasets.len(), is.datasets.len());
    for (was, is) in was.datasets.iter().zip(&is.datasets) {
        let homes = |topology: &Topology, data: &Dataset| -> Vec<String> {
            data.homes.iter().map(|&home| topology.nodes[home as usize].name.clone()).collect()
        };
        assert_eq!((&was.name, was.bytes, homes(old, was)), (&is.name, is.bytes, homes(new, is)));
    }
    let first = &old.nodes[0].name;
    for other in &old.nodes {
        for direction in [Direction::From, Direction::To] {
            let path = |world: &World| {
                world.topology.path(node(world, first), node(world, &other.name), direction).unwrap()
            };
            let (was, is) = (path(before), path(after));
            assert!(other.name == *first || close(was.bytes_per_s, is.bytes_per_s), "{was:?} {is:?}");
            assert!(close(was.latency_s, is.latency_s), "{was:?} {is:?}");
            assert_eq!((was.price, was.wan), (is.price, is.wan));
        }
    }
}

#[test]
fn clusters_of_scenarios_come_back() {
    let members =
        (0..12).flat_map(|index| ["train-family", "test-family"].map(|name| format!("{name}/{index}")));
    let built_in = ["urban-sensing", "industrial-iot", "cloud-regions"].map(str::to_owned);
    for name in built_in.into_iter().chain(members) {
        let world = Scenario::load(&name).unwrap().world(3);
        let described = describe(&world.topology, &world.catalogue);
        assert_eq!(described.notes, Vec::<String>::new(), "{name}");
        assert!(described.names.iter().all(|(was, is)| was == is), "{name}");
        equal(&world, &read_back(&described));
    }
}

#[test]
fn nodes_alike_are_said_once() {
    let world = Scenario::load("urban-sensing").unwrap().world(0);
    let described = describe(&world.topology, &world.catalogue);
    let text = toml::to_string(&described.topology).unwrap();
    let groups = text.matches("cpu_millis = ").count();
    assert!(groups < 20, "{groups} groups of {} nodes", world.topology.nodes.len());
}

fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        kind: "any".to_owned(),
        arch: Arch::Amd64,
        cpu_millis: 1000,
        memory_bytes: 1_000_003,
        disk_bytes: 7,
        accelerator: None,
        startup_s: 0.5,
        labels: Vec::new(),
        power: Power::default(),
        usd_per_gb_s: 0.0,
    }
}

fn link(from: u32, to: u32, up_bytes_per_s: f64, down_bytes_per_s: f64) -> Link {
    Link {
        from,
        to,
        up_bytes_per_s,
        down_bytes_per_s,
        delay: Delay::constant(0.002),
        price: 1.0,
        usd_per_byte: 0.0,
        wan: false,
        shared: false,
    }
}

fn catalogue() -> Catalogue {
    let kind = Kind {
        name: "work".to_owned(),
        requests: Requests { cpu_millis: 10, ..Requests::default() },
        cpu_use_millis: 10,
        execution: vec![("any".to_owned(), ExecutionTime::constant(2.0))],
        execution_elsewhere: None,
        prefers: Vec::new(),
        demands: Vec::new(),
        deadline_s: None,
        priority: 0,
    };
    Catalogue { kinds: vec![kind], ..Catalogue::default() }
}

/// Nodes that pass traffic on, no switch at all, a registry that a circle leads to.
#[test]
fn what_is_no_tree_becomes_one_and_says_so() {
    let nodes = vec![node("a"), node("b"), node("c")];
    // a – b – c, the circle closed by c – a, and the registry behind c. Links of which the outer end is inside.
    let links = vec![link(0, 1, 1e6, 2e6), link(1, 2, 3e6, 4e6), link(2, 0, 5e6, 6e6), link(2, 3, 7e6, 50.0)];
    let topology = Topology::new(nodes, vec!["registry".to_owned()], Vec::new(), links);
    let described = describe(&topology, &catalogue());
    let counted =
        |what: &str| described.notes.iter().any(|note| note.contains(what) && note.ends_with(": 1"));
    assert!(counted("close a circle") && counted("below a kilobit"), "{:?}", described.notes);
    let world = read_back(&described);
    let again = |name: &str| world.topology.node_named(&described.names[name]).unwrap();
    // c has most links, so that it is the middle; a and b keep their own links to it.
    let speed = |from: &str, to: &str| {
        world.topology.path(again(from), again(to), Direction::From).unwrap().bytes_per_s
    };
    assert!(close(speed("b", "c"), 3e6) && close(speed("c", "b"), 4e6));
    assert!(close(speed("c", "a"), 5e6) && close(speed("a", "c"), 6e6));
    assert!(close(speed("a", "b"), 4e6), "{}", speed("a", "b"));
    let is = &world.topology.nodes[again("a") as usize];
    assert_eq!((is.memory_bytes, is.disk_bytes), (1_000_003, 7));
    assert_eq!(world.catalogue.kinds[0].execution_on(&is.kind).unwrap().mean_s, 2.0);
    assert!(world.catalogue.kinds[0].execution_on("other").is_none());
}

#[test]
fn a_node_before_a_switch_and_names_that_would_clash_are_kept_apart() {
    let nodes = vec![node("rack/a"), node("gate"), node("a")];
    // The gate's own rack; a, whose name there would be that of the other.
    let links = vec![link(0, 4, 1e6, 1e6), link(1, 4, 2e6, 2e6), link(3, 1, 3e6, 3e6), link(2, 3, 4e6, 4e6)];
    let switches = vec!["rack".to_owned(), "core".to_owned()];
    let topology = Topology::new(nodes, Vec::new(), switches, links);
    let described = describe(&topology, &catalogue());
    let world = read_back(&described);
    let path = |from: &str, to: &str| {
        let again = |name: &str| world.topology.node_named(&described.names[name]).unwrap();
        world.topology.path(again(from), again(to), Direction::From).unwrap()
    };
    assert!(close(path("rack/a", "gate").bytes_per_s, 1e6));
    assert!(close(path("a", "gate").bytes_per_s, 3e6), "{:?}", described.names);
    assert!(close(path("a", "gate").latency_s, 0.004), "the node's own link costs nothing");
    let distinct: std::collections::BTreeSet<_> = described.names.values().collect();
    assert_eq!(distinct.len(), 3);
}
