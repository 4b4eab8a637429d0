//! What runs in a member: functions, images, data, and how often they are asked for.
//!
//! Times, images, CPU and memory are measured ([`crate::measured`]); how much data a call reads and
//! writes is an assumption of ours, within the ranges of [`functions`].

use std::collections::BTreeMap;

use super::draw::{Draw, neat};
use super::topology::{Group, census, uplinks_bytes_per_s};
use crate::device::{STORAGE, device};
use crate::measured::{self, Function};
use crate::scenario::{
    BurstsFile, CatalogueFile, DatasetFile, DiurnalFile, HomeFile, ImageFile, KindFile, StreamFile,
    TopologyFile, WorkloadFile,
};

/// A measured function as families use it.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub function: &'static str,
    /// Megabytes that a call reads, least and most; none if both are 0.
    pub input_mb: (f64, f64),
    /// Megabytes that it writes.
    pub output_mb: (f64, f64),
    /// Accelerator share that it asks for, thousandths; 0 for none.
    pub accelerator_millis: u32,
}

const fn on_cpu(function: &'static str, input_mb: (f64, f64), output_mb: (f64, f64)) -> Use {
    Use { function, input_mb, output_mb, accelerator_millis: 0 }
}

const fn on_card(
    function: &'static str,
    accelerator_millis: u32,
    input_mb: (f64, f64),
    output_mb: (f64, f64),
) -> Use {
    Use { function, input_mb, output_mb, accelerator_millis }
}

const NONE: (f64, f64) = (0.0, 0.0);
const LITTLE: (f64, f64) = (0.01, 0.1);
/// Photographs, or a short video.
const IMAGES: (f64, f64) = (0.1, 20.0);
const SPEECH: (f64, f64) = (0.5, 30.0);
const BULK: (f64, f64) = (20.0, 200.0);
const MODEL: (f64, f64) = (20.0, 100.0);
/// Episodes below overload last at least so long: else images would still be on their way at the end.
const SHORTEST_S: f64 = 120.0;
/// Larger data is not kept on one kind of boards alone: their cards would be full of it.
const MOST_ON_BOARDS_MB: f64 = 50.0;

const FUNCTIONS: [Use; 14] = [
    on_cpu("mobilenet-inference", IMAGES, LITTLE),
    on_cpu("resnet50-inference", IMAGES, LITTLE),
    on_cpu("speech-inference", SPEECH, LITTLE),
    on_cpu("python-pi", NONE, NONE),
    on_cpu("fio", BULK, BULK),
    on_cpu("resnet50-preprocessing", (50.0, 500.0), BULK),
    on_card("mobilenet-inference-tpu", 1000, IMAGES, LITTLE),
    on_card("resnet50-inference-gpu", 500, IMAGES, LITTLE),
    on_card("speech-inference-gpu", 500, SPEECH, LITTLE),
    on_card("tf-gpu", 500, BULK, MODEL),
    on_card("resnet50-training-gpu", 1000, BULK, MODEL),
    on_card("mlperf-resnet50", 250, IMAGES, LITTLE),
    on_card("mlperf-bert", 250, LITTLE, LITTLE),
    on_card("mlperf-rnnt", 250, SPEECH, LITTLE),
];

/// The functions of the families.
pub fn functions() -> &'static [Use] {
    &FUNCTIONS
}

/// The chain that half of the members have: data is prepared, a model trained on it and used.
const CHAIN: [&str; 3] = ["resnet50-preprocessing", "resnet50-training-gpu", "resnet50-inference"];

impl Use {
    fn measured(&self) -> &'static Function {
        measured::named(self.function).expect("a test looks all of them up")
    }

    /// Mean seconds per device kind.
    fn times(&self) -> BTreeMap<&'static str, f64> {
        self.measured().execution().map(|(kind, time)| (kind, time.mean_s)).collect()
    }
}

/// Catalogue and workload at this load, and about how many seconds it lasts.
pub(super) fn draw(
    draw: &mut Draw,
    topology: &TopologyFile,
    load: f64,
) -> (CatalogueFile, WorkloadFile, f64) {
    let groups: Vec<Group<'_>> = census(topology).into_iter().filter(|group| !group.storage).collect();
    let runs = |used: &Use| {
        let times = used.times();
        groups.iter().filter(|group| times.contains_key(group.kind)).map(|group| group.nodes).sum::<u32>()
    };
    let possible: Vec<Use> = FUNCTIONS.into_iter().filter(|used| runs(used) >= 2).collect();
    let count = draw.count(3, 6) as usize;
    let mut chosen = draw.some(&possible, count);
    let chained =
        draw.chance(0.5) && CHAIN.iter().all(|name| possible.iter().any(|used| used.function == *name));
    if chained {
        chosen.retain(|used| !CHAIN.contains(&used.function));
        chosen.extend(CHAIN.iter().filter_map(|name| FUNCTIONS.iter().find(|used| used.function == *name)));
    }
    let mut catalogue = CatalogueFile::default();
    let storage = census(topology).iter().any(|group| group.storage);
    for used in &chosen {
        add(draw, &mut catalogue, used, &groups, storage);
    }
    if chained {
        link_chain(&mut catalogue);
    }
    let weights = chosen.iter().map(|used| weight(draw, used, &groups)).collect();
    let shares = shares(weights, &chosen, chained);
    let computed_per_s = most_per_s(&catalogue, &chosen, &shares, &groups);
    let mut rate = load * computed_per_s.min(network_per_s(&catalogue, &chosen, &shares, topology));
    let tasks = if draw.chance(1.0 / 3.0) { 2000 } else { draw.count(200, 1000) };
    if load < 1.0 {
        rate = rate.min(f64::from(tasks) / SHORTEST_S);
    }
    let duration_s = f64::from(tasks) / rate;
    let bursty = draw.chance(0.5);
    let mut streams = Vec::new();
    for (used, share) in chosen.iter().zip(&shares) {
        let after = chained && CHAIN[1..].contains(&used.function);
        let datasets = catalogue.datasets.iter().find(|family| family.bucket == used.function);
        let instances = datasets.map_or(6, |family| family.count);
        if after {
            streams.push(following(used, instances));
        } else {
            streams.extend(timed(draw, used, instances, share * rate, bursty.then_some(duration_s)));
        }
    }
    let workload =
        WorkloadFile { tasks: Some(tasks), warm_share: draw.uniform(0.15, 0.5), streams, trace: None };
    (catalogue, workload, duration_s)
}

/// Adds the image, the data and the task kind of a function.
fn add(draw: &mut Draw, catalogue: &mut CatalogueFile, used: &Use, groups: &[Group<'_>], storage: bool) {
    let measured = used.measured();
    let name = used.function;
    let on_base = draw.chance(0.5);
    catalogue.images.push(ImageFile {
        name: name.to_owned(),
        count: draw.count(1, 4),
        size_mb: measured.image_mb.iter().copied().collect(),
        base_share: if on_base { draw.uniform(0.3, 0.9) } else { 0.0 },
        base: if on_base { "base".to_owned() } else { String::new() },
        ..ImageFile::default()
    });
    let instances = draw.count(6, 20);
    let bulky = used.input_mb.1.max(used.output_mb.1) > MOST_ON_BOARDS_MB;
    let home = home(draw, groups, storage, bulky);
    let replicas = if draw.chance(0.3) { draw.count(2, 3) } else { 1 };
    let mut kind = KindFile {
        name: name.to_owned(),
        measured: Some(name.to_owned()),
        image: Some(name.to_owned()),
        cpu_millis: neat(f64::from(measured.cpu_use_millis) * draw.uniform(0.5, 1.0)) as u32,
        memory_mib: f64::from(measured.memory_mib),
        accelerators: u32::from(used.accelerator_millis > 0),
        accelerator_millis: used.accelerator_millis.max(1),
        ..KindFile::default()
    };
    for (role, (least, most)) in [("in", used.input_mb), ("out", used.output_mb)] {
        if most == 0.0 {
            continue;
        }
        let family = format!("{name}.{role}");
        catalogue.datasets.push(DatasetFile {
            name: family.clone(),
            count: instances,
            size_mb: draw.log_uniform(least, most),
            home: home.clone(),
            replicas: if role == "in" { replicas } else { 1 },
            bucket: name.to_owned(),
        });
        if role == "in" { kind.inputs.push(family) } else { kind.outputs.push(family) }
    }
    if draw.chance(0.5) {
        let fastest_s = used.times().into_values().fold(f64::INFINITY, f64::min);
        kind.deadline_s = Some(neat((10.0 + fastest_s) * draw.log_uniform(2.0, 20.0)));
    }
    if draw.chance(0.2) {
        kind.priority = 1;
    }
    catalogue.tasks.push(kind);
}

/// Where the data of a function lives: on storage boxes, on one kind of device or anywhere.
fn home(draw: &mut Draw, groups: &[Group<'_>], storage: bool, bulky: bool) -> HomeFile {
    let kind = draw.one(groups).kind.to_owned();
    match draw.count(0, 3) {
        0 if !bulky => HomeFile::Kind(kind),
        0 | 1 => HomeFile::Anywhere,
        _ if storage => HomeFile::Label(STORAGE.to_owned()),
        _ => HomeFile::Anywhere,
    }
}

/// Training reads what preparation wrote, and inference the model besides its input.
fn link_chain(catalogue: &mut CatalogueFile) {
    let [prepared, model] = [format!("{}.out", CHAIN[0]), format!("{}.out", CHAIN[1])];
    for kind in &mut catalogue.tasks {
        if kind.name == CHAIN[1] {
            kind.inputs = vec![prepared.clone()];
        } else if kind.name == CHAIN[2] {
            kind.inputs.push(model.clone());
        }
    }
    // One set of instances runs through the chain.
    let count =
        catalogue.datasets.iter().find(|family| family.name == prepared).map_or(1, |family| family.count);
    for family in catalogue.datasets.iter_mut().filter(|family| CHAIN.contains(&family.bucket.as_str())) {
        family.count = count;
    }
    catalogue.datasets.retain(|family| family.name != format!("{}.in", CHAIN[1]));
}

/// How often a function is asked for against others: the heavier, the less.
fn weight(draw: &mut Draw, used: &Use, groups: &[Group<'_>]) -> f64 {
    let times = used.times();
    let here: Vec<f64> = groups.iter().filter_map(|group| times.get(group.kind).copied()).collect();
    let mean_s = here.iter().sum::<f64>() / here.len() as f64;
    draw.uniform(0.2, 1.0) / (1.0 + mean_s).powf(0.7)
}

/// Weights that sum to 1, in which all of a chain are asked for equally often.
fn shares(mut weights: Vec<f64>, chosen: &[Use], chained: bool) -> Vec<f64> {
    let of_chain = |used: &Use| chained && CHAIN.contains(&used.function);
    let members = || chosen.iter().zip(&weights).filter(|(used, _)| of_chain(used));
    let least = members().map(|(_, weight)| *weight).fold(f64::INFINITY, f64::min);
    for (weight, used) in weights.iter_mut().zip(chosen) {
        if of_chain(used) {
            *weight = least;
        }
    }
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Tasks per second at which the busiest device kind is in use all the time, if work is spread as
/// evenly as devices permit: the smallest such maximum, found by exponentiated gradient descent on
/// the shares of each function's calls that go to each group of nodes.
fn most_per_s(catalogue: &CatalogueFile, chosen: &[Use], shares: &[f64], groups: &[Group<'_>]) -> f64 {
    const ROUNDS: u32 = 400;
    // Share of a group's nodes that one call per second keeps busy.
    let busy: Vec<Vec<f64>> = chosen
        .iter()
        .zip(shares)
        .map(|(used, share)| groups.iter().map(|group| share * occupied_s(catalogue, used, group)).collect())
        .collect();
    let mut split: Vec<Vec<f64>> =
        busy.iter().map(|busy| evened(busy.iter().map(|s| 1.0 / s).collect())).collect();
    let mut best = f64::INFINITY;
    for round in 1..=ROUNDS {
        let mut in_use = vec![0.0; groups.len()];
        for (split, busy) in split.iter().zip(&busy) {
            for (group, used) in in_use.iter_mut().enumerate().filter(|(group, _)| split[*group] > 0.0) {
                *used += split[group] * busy[group];
            }
        }
        let most = in_use.iter().copied().fold(0.0, f64::max);
        best = f64::min(best, most);
        // The steeper, the nearer to the maximum itself.
        let pressure: Vec<f64> =
            in_use.iter().map(|used| (f64::from(round).sqrt() * (used / most - 1.0)).exp()).collect();
        for (split, busy) in split.iter_mut().zip(&busy) {
            let next = split.iter().zip(busy).zip(&pressure).map(|((share, busy), pressure)| {
                if *share == 0.0 { 0.0 } else { share * (-0.5 * pressure * (busy / most).min(10.0)).exp() }
            });
            *split = evened(next.collect());
        }
    }
    1.0 / best
}

/// Scaled to sum up to 1.
fn evened(shares: Vec<f64>) -> Vec<f64> {
    let total: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / total).collect()
}

/// Node-seconds that one call takes of a group of nodes, over their number; infinite where it cannot
/// run.
fn occupied_s(catalogue: &CatalogueFile, used: &Use, group: &Group<'_>) -> f64 {
    let Some(time_s) = used.times().get(group.kind).copied() else { return f64::INFINITY };
    let device = device(group.kind).expect("a test looks all kinds up");
    let kind = catalogue.tasks.iter().find(|kind| kind.name == used.function).expect("it was added");
    let cpu = f64::from(device.cpu_millis);
    let held_s = device.startup_s + time_s;
    let requested = f64::from(kind.cpu_millis) / cpu * held_s;
    let burnt = f64::from(used.measured().cpu_use_millis) / cpu * time_s;
    let cards = device.accelerator.map_or(1, |(_, count)| count);
    let accelerated = f64::from(used.accelerator_millis) / 1000.0 / f64::from(cards) * held_s;
    requested.max(burnt).max(accelerated) / f64::from(group.nodes)
}

/// Tasks per second at which the uplinks of cells and cloudlets are full, if half of what tasks read
/// and write crosses them.
fn network_per_s(catalogue: &CatalogueFile, chosen: &[Use], shares: &[f64], topology: &TopologyFile) -> f64 {
    let size = |name: &String| {
        catalogue.datasets.iter().find(|family| family.name == *name).map_or(0.0, |f| f.size_mb)
    };
    let of_kind = |used: &Use| {
        let kind = catalogue.tasks.iter().find(|kind| kind.name == used.function);
        kind.map_or(0.0, |kind| kind.inputs.iter().chain(&kind.outputs).map(size).sum::<f64>())
    };
    let megabytes: f64 = chosen.iter().zip(shares).map(|(used, share)| share * of_kind(used)).sum();
    uplinks_bytes_per_s(topology) / (0.5e6 * megabytes.max(0.001))
}

/// A stream that comes after the one before it in the chain.
fn following(used: &Use, instances: u32) -> StreamFile {
    let place = CHAIN.iter().position(|name| *name == used.function).unwrap_or(1);
    StreamFile {
        task: used.function.to_owned(),
        instances,
        after: vec![CHAIN[place - 1].to_owned()],
        ..StreamFile::default()
    }
}

/// The streams of a function that is asked for so often: most instances alike, a few of them more.
/// `bursts_over_s` is how long an episode lasts, where there are bursts.
fn timed(
    draw: &mut Draw,
    used: &Use,
    instances: u32,
    per_s: f64,
    bursts_over_s: Option<f64>,
) -> Vec<StreamFile> {
    let renews_input = used.input_mb.1 > 0.0 && draw.chance(0.5);
    let periodic = draw.chance(0.3);
    let diurnal = draw.chance(0.2);
    let favourites = (instances / 5).max(1);
    let favoured = draw.uniform(0.2, 0.6);
    let mut streams = Vec::new();
    for (instances, share) in [(instances, 1.0 - favoured), (favourites, favoured)] {
        let gap_s = f64::from(instances) / (per_s * share);
        streams.push(StreamFile {
            task: used.function.to_owned(),
            instances,
            fixed_s: if periodic { neat(0.7 * gap_s) } else { 0.0 },
            exponential_s: neat(if periodic { 0.3 * gap_s } else { gap_s }),
            renews_input,
            diurnal: bursts_over_s.filter(|_| diurnal).map(|duration_s| DiurnalFile {
                period_s: neat(duration_s),
                amplitude: draw.uniform(0.3, 0.9),
            }),
            bursts: bursts_over_s.map(|duration_s| BurstsFile {
                factor: 4.0,
                mean_calm_s: neat(duration_s / 8.0),
                mean_burst_s: neat(duration_s / 24.0),
            }),
            ..StreamFile::default()
        });
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::{CHAIN, FUNCTIONS, Group, Use, most_per_s};
    use crate::device::device;
    use crate::scenario::{CatalogueFile, KindFile};

    #[test]
    fn functions_are_measured_and_ask_for_accelerators_where_they_need_them() {
        for used in FUNCTIONS {
            assert_eq!(used.measured().accelerated, used.accelerator_millis > 0, "{}", used.function);
        }
        assert!(CHAIN.iter().all(|name| FUNCTIONS.iter().any(|used| used.function == *name)));
    }

    /// Two groups, one function that both run: in the optimum both are busy all the time, so the rates
    /// add up.
    #[test]
    fn work_is_spread_until_all_are_equally_busy() {
        let kind = KindFile { name: "python-pi".to_owned(), cpu_millis: 1254, ..KindFile::default() };
        let catalogue = CatalogueFile { tasks: vec![kind], ..CatalogueFile::default() };
        let used: Vec<Use> = FUNCTIONS.into_iter().filter(|used| used.function == "python-pi").collect();
        let groups = [("nuc", 3), ("rpi4", 20)].map(|(kind, nodes)| Group { kind, nodes, storage: false });
        let alone = |group: &Group<'_>| {
            let held_s = device(group.kind).unwrap().startup_s + used[0].times()[group.kind];
            f64::from(group.nodes) * 4000.0 / 1254.0 / held_s
        };
        let most = most_per_s(&catalogue, &used, &[1.0], &groups);
        let together: f64 = groups.iter().map(alone).sum();
        assert!((most / together - 1.0).abs() < 0.02, "{most} against {together}");
    }
}
