//! Small worlds whose course can be worked out by hand.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use remora_env::bandwidth::Recording;
use remora_env::observation::{Candidate, Reference};
use remora_env::{Episode, Next, Outcome, Scenario};

/// A shop: two machines and a store behind an uplink of 8 Mbit/s = 1 MB/s, a registry and a far store
/// beyond it. Images have layers of 10 and 20 MB. One core and half a gigabyte for each task.
const SHOP: &str = r#"
name = "shop"
[topology]
registries = [{ name = "registry", link = { up_mbps = 1000 } }]
nodes = [{ name = "far", kind = "nuc", link = { up_mbps = 1000 }, labels = { "data.skippy.io/storage" = "" } }]
[[topology.sites]]
name = "shop"
uplink = { up_mbps = 8, price = 4, usd_per_gb = 0.5, wan = true }
[[topology.sites.nodes]]
name = "near"
kind = "nuc"
link = { up_mbps = 80 }
labels = { "data.skippy.io/storage" = "" }
[[topology.sites.nodes]]
name = "box"
count = 2
kind = "box"
arch = "amd64"
cpu_millis = 2000
memory_mib = 1024
disk_gb = 0.05
startup_s = 1
accelerator = { model = "card", count = 1 }
power = { idle_w = 10, busy_w = 50 }
usd_per_gb_s = 0.001
link = { up_mbps = 80 }
[[catalogue.images]]
name = "app"
count = 2
size_mb = { amd64 = 30 }
base = "base"
base_share = 0.6666666666666666
[[catalogue.datasets]]
name = "film"
size_mb = 8
home = { nodes = ["far"] }
[[catalogue.datasets]]
name = "copied"
size_mb = 8
home = { nodes = ["far", "shop/near"] }
[[catalogue.datasets]]
name = "result"
size_mb = 16
home = { nodes = ["far"] }
[[catalogue.tasks]]
name = "job"
cpu_millis = 1000
memory_mib = 512
execution = { box = { seconds = 4 } }
[[catalogue.tasks]]
name = "card"
cpu_millis = 100
memory_mib = 1
accelerators = 1
accelerator_millis = 500
execution = { box = { seconds = 4 } }
[[catalogue.tasks]]
name = "urgent"
cpu_millis = 2000
memory_mib = 512
priority = 5
deadline_s = 7
execution = { box = { seconds = 4 } }
[workload]
trace = "arrivals.jsonl"
"#;

/// Plays arrivals, each `(at_s, node, further fields)` of a task kind of the scenario, named by
/// their number.
fn run(text: &str, arrivals: &[(f64, &str, &str)]) -> (Vec<Outcome>, Vec<Candidate>) {
    let scenario = load(text, arrivals);
    let world = Arc::new(scenario.world(0));
    let mut episode = Episode::new(Arc::clone(&world), 0.5, Reference::new(10.0, 1e8)).audited();
    let mut seen = Vec::new();
    while let Next::Decide(observation) = episode.next() {
        let (_, name, _) = arrivals[observation.id as usize];
        let node = world.topology.node_named(name).unwrap();
        seen.push(*observation.candidates().iter().find(|candidate| candidate.node == node).unwrap());
        episode.step(node);
    }
    let mut outcomes = episode.outcomes().to_vec();
    outcomes.sort_by_key(|outcome| outcome.task);
    (outcomes, seen)
}

fn load(text: &str, arrivals: &[(f64, &str, &str)]) -> Scenario {
    let folder = tempfile::tempdir().unwrap();
    let mut trace = String::from("{\"remora_trace\":2}\n");
    for (index, (at_s, _, fields)) in arrivals.iter().enumerate() {
        trace += &format!("{{\"arrival\":{{\"at_s\":{at_s},\"name\":\"{index}\",{fields}}}}}\n");
    }
    std::fs::write(folder.path().join("arrivals.jsonl"), trace).unwrap();
    Scenario::parse(text, "by hand", Some(folder.path())).unwrap()
}

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value}, expected {expected}");
}

/// 30 MB over 1 MB/s; the second image shares 20 MB of base, so that 10 MB are left.
#[test]
fn layers_are_pulled_once() {
    let (outcomes, seen) = run(
        SHOP,
        &[
            (0.0, "shop/box-0", r#""kind":"job","image":"app-0""#),
            (50.0, "shop/box-0", r#""kind":"job","image":"app-1""#),
        ],
    );
    near(seen[0].pull_s, 30.0);
    assert_eq!((outcomes[0].image_bytes, outcomes[0].wan_bytes), (30_000_000, 30_000_000));
    near(outcomes[0].moved_bytes, 4.0 * 30e6);
    // Pull, start, execute.
    near(outcomes[0].response_s(), 30.0 + 1.0 + 4.0);
    assert_eq!(outcomes[1].image_bytes, 10_000_000);
    near(outcomes[1].response_s(), 10.0 + 1.0 + 4.0);
}

/// What is on its way comes closer while a task waits, and what those before it in the queue need will be there.
#[test]
fn who_waits_finds_what_others_brought() {
    let app = |index: usize| format!(r#""kind":"urgent","image":"app-{index}","inputs":["film"]"#);
    let arrivals = [
        (0.0, "shop/box-0", r#""kind":"urgent","image":"app-0""#),
        (1.0, "shop/box-0", r#""kind":"urgent","image":"app-0""#),
        (2.0, "shop/box-0", &app(1)),
        (3.0, "shop/box-0", &app(1)),
    ];
    for text in [SHOP, &SHOP.replace("[topology]\n", "[topology]\npeers = true\n")] {
        let (outcomes, seen) = run(text, &arrivals);
        // One task at a time: the image is there long before the second begins.
        near(seen[1].wait_s, 30.0 + 1.0 + 4.0 - 1.0);
        near(seen[1].completion_s(), outcomes[1].response_s());
        // Of the other image 10 MB are not under way, nor is the film; as two layers cross the uplink, a third of
        // it is free at this moment.
        near(seen[2].moved_bytes, 4.0 * 18e6);
        near(seen[2].pull_s + seen[2].fetch_s, 54.0);
        assert_eq!((seen[2].missing_image_bytes, seen[2].missing_input_bytes), (30_000_000, 8_000_000));
        // The fourth needs the same.
        near(seen[3].moved_bytes, 0.0);
        near(seen[3].pull_s + seen[3].fetch_s, 0.0);
        assert_eq!((seen[3].missing_image_bytes, seen[3].missing_input_bytes), (20_000_000, 0));
        assert_eq!((outcomes[3].image_bytes, outcomes[3].input_bytes), (0, 0));
    }
}

/// The second machine gets the image from the first: 30 MB over two links of 10 MB/s, not over the
/// uplink.
#[test]
fn images_come_from_a_peer_that_has_them() {
    let arrivals = [
        (0.0, "shop/box-0", r#""kind":"job","image":"app-0""#),
        (50.0, "shop/box-1", r#""kind":"job","image":"app-0""#),
    ];
    let peers = SHOP.replace("[topology]\n", "[topology]\npeers = true\n");
    let (alone, _) = run(SHOP, &arrivals);
    let (outcomes, seen) = run(&peers, &arrivals);
    near(alone[1].response_s(), 30.0 + 1.0 + 4.0);
    near(outcomes[1].response_s(), 3.0 + 1.0 + 4.0);
    near(seen[1].pull_s, 3.0);
    assert_eq!((outcomes[1].image_bytes, outcomes[1].wan_bytes), (30_000_000, 0));
}

/// A copy in the shop is read instead of the one beyond the uplink.
#[test]
fn the_cheapest_replica_is_read() {
    let (outcomes, _) = run(
        SHOP,
        &[
            (0.0, "shop/box-0", r#""kind":"job","inputs":["copied"]"#),
            (50.0, "shop/box-0", r#""kind":"job","inputs":["film"]"#),
        ],
    );
    assert_eq!((outcomes[0].input_bytes, outcomes[0].wan_bytes), (8_000_000, 0));
    near(outcomes[0].response_s(), 0.8 + 1.0 + 4.0);
    assert_eq!((outcomes[1].input_bytes, outcomes[1].wan_bytes), (8_000_000, 8_000_000));
    near(outcomes[1].response_s(), 8.0 + 1.0 + 4.0);
}

/// Outputs go to where the application wants them, and what was copied before is out of date then.
#[test]
fn outputs_are_stored_at_home_and_replace_older_copies() {
    let (outcomes, _) = run(
        SHOP,
        &[
            (0.0, "shop/box-0", r#""kind":"job","inputs":["result"]"#),
            (50.0, "shop/box-0", r#""kind":"job","inputs":["result"]"#),
            (100.0, "shop/box-1", r#""kind":"job","outputs":["result"]"#),
            (150.0, "shop/box-0", r#""kind":"job","inputs":["result"]"#),
        ],
    );
    let read: Vec<u64> = outcomes.iter().map(|outcome| outcome.input_bytes).collect();
    assert_eq!(read, [16_000_000, 0, 0, 16_000_000]);
    near(outcomes[2].completed.since_s(outcomes[2].executed), 16.0);
}

/// The disk has room for 50 MB: the image used longest ago gives way, one that runs does not.
#[test]
fn the_least_recently_used_gives_way_on_a_full_disk() {
    let text = SHOP.replace("base_share = 0.6666666666666666", "base_share = 0");
    let app = |index: usize| format!(r#""kind":"job","image":"app-{index}""#);
    let film = r#""kind":"job","inputs":["film"]"#;
    let (outcomes, _) = run(
        &text,
        &[
            (0.0, "shop/box-0", &app(0)),
            (50.0, "shop/box-0", film),
            // 30 + 8 + 30 MB are too many: the image goes, the film was used later.
            (100.0, "shop/box-0", &app(1)),
            (150.0, "shop/box-0", film),
            (200.0, "shop/box-0", &app(0)),
        ],
    );
    let fetched: Vec<u64> =
        outcomes.iter().map(|outcome| outcome.image_bytes + outcome.input_bytes).collect();
    assert_eq!(fetched, [30_000_000, 8_000_000, 30_000_000, 0, 30_000_000]);
}

/// Two halves of a card are given out at once; the third task waits for one of them.
#[test]
fn accelerators_are_shared_and_counted() {
    let card = (0.0, "shop/box-0", r#""kind":"card""#);
    let (outcomes, seen) = run(SHOP, &[card, card, card]);
    let fits: Vec<bool> = seen.iter().map(|candidate| candidate.fits_now).collect();
    assert_eq!(fits, [true, true, false]);
    let admitted: Vec<f64> = outcomes.iter().map(|outcome| outcome.admitted.as_s()).collect();
    assert_eq!(&admitted[..2], [0.0, 0.0]);
    near(admitted[2], 5.0);
}

/// Of those that wait, the urgent one goes first; done after 10 s, it is late all the same.
#[test]
fn the_urgent_go_first_and_what_comes_late_is_said_to() {
    let node = "shop/box-0";
    let (outcomes, _) = run(
        SHOP,
        &[
            (0.0, node, r#""kind":"urgent""#),
            (1.0, node, r#""kind":"job""#),
            (2.0, node, r#""kind":"urgent""#),
        ],
    );
    let admitted: Vec<f64> = outcomes.iter().map(|outcome| outcome.admitted.as_s()).collect();
    near(admitted[2], 5.0);
    near(admitted[1], 10.0);
    let late: Vec<bool> = outcomes.iter().map(|outcome| outcome.deadline_missed).collect();
    assert_eq!(late, [false, false, true]);
}

/// A core of two in use for 4 s: half of the way from 10 to 50 W. Half a gigabyte held for 4 s, and
/// 8 MB over a link that costs.
#[test]
fn energy_and_dollars_are_those_of_the_execution_and_the_links() {
    let (outcomes, _) = run(SHOP, &[(0.0, "shop/box-0", r#""kind":"job","inputs":["film"]"#)]);
    near(outcomes[0].energy_j, 20.0 * 4.0);
    let held_gb = 512.0 * 1024.0 * 1024.0 / 1e9;
    near(outcomes[0].usd, held_gb * 4.0 * 0.001 + 0.008 * 0.5);
}

/// A task that follows two others arrives with the later of them.
#[test]
fn a_join_waits_for_all_before_it() {
    let (outcomes, _) = run(
        SHOP,
        &[
            (0.0, "shop/box-0", r#""kind":"job""#),
            (0.0, "shop/box-1", r#""kind":"job","inputs":["film"]"#),
            (0.0, "shop/box-0", r#""kind":"job","after":["0","1"]"#),
        ],
    );
    near(outcomes[2].arrived.as_s(), 13.0);
    near(outcomes[2].response_s(), 5.0);
}

/// Policies see the state last reported: a task that ended since then still counts.
#[test]
fn telemetry_grows_stale() {
    let arrivals = [(0.0, "shop/box-0", r#""kind":"urgent""#), (7.0, "shop/box-0", r#""kind":"urgent""#)];
    let (_, fresh) = run(SHOP, &arrivals);
    let (stale_outcomes, stale) = run(&format!("{SHOP}\n[faults]\ntelemetry_s = 60\n"), &arrivals);
    assert!(fresh[1].fits_now && !stale[1].fits_now);
    // What happens is what is, not what was seen.
    near(stale_outcomes[1].response_s(), 5.0);
}

/// Both directions of a cell share its air: two transfers at once take twice as long, where a wire
/// with an uplink and a downlink of its own lets both pass.
#[test]
fn a_cell_shares_its_air_between_both_directions() {
    let arrivals = [
        (0.0, "shop/box-0", r#""kind":"job","outputs":["result"]"#),
        // 16 MB leave the shop from 5 s on, and 16 MB come in.
        (5.0, "shop/box-1", r#""kind":"job","inputs":["result"]"#),
    ];
    let stored = |text: &str| {
        let (outcomes, _) = run(text, &arrivals);
        outcomes[0].completed.since_s(outcomes[0].executed)
    };
    near(stored(SHOP), 16.0);
    near(stored(&SHOP.replace("up_mbps = 8,", "up_mbps = 8, shared = true,")), 32.0);
    near(stored(&SHOP.replace("up_mbps = 8,", "up_mbps = 32, down_mbps = 8,")), 4.0);
}

/// The delay of a link is its latency and a log-normal jitter, drawn for each transfer.
#[test]
fn jitter_is_log_normal_on_top_of_the_latency() {
    let text = SHOP.replace(
        "up_mbps = 8,",
        "up_mbps = 8, latency_ms = 500, jitter = { median_ms = 1000, sigma = 0.5 },",
    );
    let fetch = r#""kind":"job","inputs":["film"]"#;
    let renewing = r#""kind":"job","inputs":["film"],"renews":"film""#;
    let mut arrivals = vec![(0.0, "shop/box-0", fetch)];
    arrivals.extend((1..2000).map(|index| (f64::from(index) * 60.0, "shop/box-0", renewing)));
    let (outcomes, seen) = run(&text, &arrivals);
    let mut delays: Vec<f64> =
        outcomes.iter().map(|outcome| outcome.fetched.since_s(outcome.admitted) - 8.0 - 0.5).collect();
    delays.sort_by(f64::total_cmp);
    // Medians and quartiles of e^(0.5 z) seconds, and the mean e^(0.5²/2), which estimates use.
    for (rank, expected) in [(500, 0.7137), (1000, 1.0), (1500, 1.4011)] {
        assert!((delays[rank] / expected - 1.0).abs() < 0.06, "{} at {rank}", delays[rank]);
    }
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((mean / 1.1331 - 1.0).abs() < 0.04, "{mean}");
    assert!((seen[1].fetch_s - 8.0 - 0.5 - 1.1331).abs() < 1e-3, "{}", seen[1].fetch_s);
}

/// An uplink of 8 Mbit/s that follows a recording moves as much within a period as it would anyway,
/// wherever in the recording it begins.
#[test]
fn a_period_of_a_recording_moves_what_its_mean_would() {
    let recorded = |file: &str, trace: &str| {
        SHOP.replace(
            "up_mbps = 8,",
            &format!("up_mbps = 8, bandwidth = {{ file = {file:?}, trace = {trace:?} }},"),
        )
    };
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bandwidth.csv");
    lasts_a_period(&recorded(own, "walk"), 40.0);
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/bandwidth-traces");
    for file in ["norway_3g_hsdpa.csv", "oboe.csv", "puffer_220218.csv"] {
        let path = Path::new(shared).join(file);
        if !path.exists() {
            eprintln!("skipped: {} is not there", path.display());
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let names: BTreeSet<&str> = text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        let wanted: BTreeSet<&str> = names.iter().copied().step_by(names.len() / 4).collect();
        for (trace, recording) in Recording::read(&path, &wanted).unwrap() {
            lasts_a_period(&recorded(path.to_str().unwrap(), &trace), recording.period_s);
        }
    }
}

/// Reading as many bytes as the uplink carries in a period takes exactly one.
fn lasts_a_period(text: &str, period_s: f64) {
    let text = text
        .replace("disk_gb = 0.05", "disk_gb = 100")
        .replace("name = \"film\"\nsize_mb = 8\n", &format!("name = \"film\"\nsize_mb = {period_s}\n"));
    for seed in 0..3 {
        let scenario = load(&text, &[(0.0, "shop/box-0", r#""kind":"job","inputs":["film"]"#)]);
        let world = Arc::new(scenario.world(seed));
        let node = world.topology.node_named("shop/box-0").unwrap();
        let mut episode = Episode::new(world, 0.5, Reference::new(10.0, 1e8));
        episode.step(node);
        let outcome = &episode.outcomes()[0];
        let took_s = outcome.fetched.since_s(outcome.admitted);
        assert!((took_s / period_s - 1.0).abs() < 1e-3, "{took_s} s of {period_s} s");
    }
}
