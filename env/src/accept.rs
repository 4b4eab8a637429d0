//! What a scenario must satisfy to be accepted; after that the simulation cannot fail.

use std::collections::{BTreeMap, BTreeSet};

use crate::measured::FUNCTIONS;
use crate::scenario::{
    BandwidthFile, ExecutionFile, HomeFile, ImageFile, KindFile, LinkFile, NodesFile, Scenario, SiteFile,
    StreamFile,
};
use crate::time::MOST_S;
use crate::topology::VertexId;
use crate::trace::{Record, Trace};
use crate::world::{build_topology, homes_among, job, member};

/// Everything that is wrong with a scenario; none if it can be accepted.
pub(crate) fn problems(scenario: &Scenario) -> Vec<String> {
    let mut checker = Checker { scenario, problems: Vec::new() };
    checker.topology(scenario);
    checker.catalogue(scenario);
    checker.workload(scenario);
    checker.faults(scenario);
    if checker.problems.is_empty() {
        // Names and homes can be judged only on the assembled graph.
        checker.assembled(scenario);
    }
    checker.problems
}

struct Checker<'a> {
    scenario: &'a Scenario,
    problems: Vec<String>,
}

impl Checker<'_> {
    fn demand(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    fn positive(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = value > 0.0 && value <= MOST;
        self.demand(holds, || format!("{} is {value}, want a number above 0, at most 1e9", key()));
    }

    fn zero_or_more(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = (0.0..=MOST).contains(&value);
        self.demand(holds, || format!("{} is {value}, want a number from 0 to 1e9", key()));
    }

    fn seconds(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = (0.0..=MOST_S).contains(&value);
        self.demand(holds, || format!("{} is {value}, want seconds from 0 to 1e8", key()));
    }

    /// Seconds between two of something that goes on all along.
    fn interval(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = (LEAST_INTERVAL_S..=MOST_S).contains(&value);
        self.demand(holds, || format!("{} is {value}, want seconds from {LEAST_INTERVAL_S} to 1e8", key()));
    }

    fn bandwidth(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = (LEAST_MBPS..=MOST).contains(&value);
        self.demand(holds, || format!("{} is {value}, want Mbit/s from {LEAST_MBPS} to 1e9", key()));
    }

    fn milliseconds(&mut self, key: impl Fn() -> String, value: f64) {
        let holds = (0.0..=MOST_MS).contains(&value);
        self.demand(holds, || format!("{} is {value}, want milliseconds from 0 to 1e6", key()));
    }

    fn share(&mut self, key: impl Fn() -> String, value: f64) {
        self.demand((0.0..=1.0).contains(&value), || {
            format!("{} is {value}, want a share from 0 to 1", key())
        });
    }

    fn known(&mut self, key: impl Fn() -> String, name: &str, names: &[&str]) {
        self.demand(names.contains(&name), || {
            let near = |other: &&&str| (strsim::jaro_winkler(name, other) * 1000.0) as u32;
            let hint = match names.iter().max_by_key(near) {
                Some(nearest) if near(&nearest) > 800 => format!("did you mean {nearest:?}?"),
                _ => format!("known are {}", if names.is_empty() { "none".into() } else { names.join(", ") }),
            };
            format!("{}: nothing is called {name:?}; {hint}", key())
        });
    }

    fn count(&mut self, key: impl Fn() -> String, count: u32) {
        let holds = (1..=1_000_000).contains(&count);
        self.demand(holds, || format!("{}.count is {count}, want 1 to 1000000", key()));
    }

    fn link(&mut self, key: impl Fn() -> String, link: &LinkFile) {
        self.bandwidth(|| format!("{}.up_mbps", key()), link.up_mbps);
        self.bandwidth(|| format!("{}.down_mbps", key()), link.down_mbps.unwrap_or(1.0));
        self.milliseconds(|| format!("{}.latency_ms", key()), link.latency_ms);
        self.zero_or_more(|| format!("{}.price", key()), link.price);
        self.zero_or_more(|| format!("{}.usd_per_gb", key()), link.usd_per_gb);
        if let Some(BandwidthFile { file, trace }) = &link.bandwidth {
            let recordings = &self.scenario.recordings;
            self.demand(recordings.contains_key(&(file.clone(), trace.clone())), || {
                format!("{}.bandwidth.trace: {file} has no trace {trace:?}", key())
            });
        }
        if let Some(jitter) = link.jitter {
            self.milliseconds(|| format!("{}.jitter.median_ms", key()), jitter.median_ms);
            self.demand((0.0..=MOST_SIGMA).contains(&jitter.sigma), || {
                format!("{}.jitter.sigma is {}, want a number from 0 to {MOST_SIGMA}", key(), jitter.sigma)
            });
        }
    }

    fn topology(&mut self, scenario: &Scenario) {
        let file = &scenario.file.topology;
        self.nodes("topology", &file.nodes);
        for site in &file.sites {
            self.site("topology.sites", site);
        }
        let nodes = count_nodes(&file.nodes) + file.sites.iter().map(count_site).fold(0, u64::saturating_add);
        self.demand(nodes <= MOST_NODES, || format!("topology has {nodes} nodes, want at most {MOST_NODES}"));
        for registry in &file.registries {
            self.link(|| format!("topology.registries {:?}.link", registry.name), &registry.link);
        }
    }

    fn site(&mut self, parent: &str, site: &SiteFile) {
        let key = format!("{parent} {:?}", site.name);
        self.count(|| key.clone(), site.count);
        self.link(|| format!("{key}.uplink"), &site.uplink);
        self.nodes(&key, &site.nodes);
        for nested in &site.sites {
            self.site(&format!("{key}.sites"), nested);
        }
    }

    fn nodes(&mut self, parent: &str, groups: &[NodesFile]) {
        for group in groups {
            let key = || format!("{parent}.nodes {:?}", group.name);
            self.count(key, group.count);
            self.link(|| format!("{}.link", key()), &group.link);
            self.seconds(|| format!("{}.startup_s", key()), group.startup_s.unwrap_or(0.0));
            self.positive(|| format!("{}.memory_mib", key()), group.memory_mib.unwrap_or(1.0));
            self.zero_or_more(|| format!("{}.disk_gb", key()), group.disk_gb.unwrap_or(1.0));
            self.positive(|| format!("{}.cpu_millis", key()), f64::from(group.cpu_millis.unwrap_or(1)));
            self.zero_or_more(|| format!("{}.usd_per_gb_s", key()), group.usd_per_gb_s.unwrap_or(0.0));
            if let Some(power) = group.power {
                self.zero_or_more(|| format!("{}.power.idle_w", key()), power.idle_w);
                self.zero_or_more(|| format!("{}.power.busy_w", key()), power.busy_w);
                self.demand(power.busy_w >= power.idle_w, || {
                    format!("{}.power.busy_w is {}, less than idle_w", key(), power.busy_w)
                });
            }
            if let Some(mobile) = group.mobile {
                self.interval(|| format!("{}.mobile.mean_present_s", key()), mobile.mean_present_s);
                self.interval(|| format!("{}.mobile.mean_away_s", key()), mobile.mean_away_s);
            }
            let accelerators = group.accelerator.as_ref().map_or(0, |accelerator| accelerator.count);
            self.demand(accelerators <= MOST_ACCELERATORS, || {
                format!("{}.accelerator.count is {accelerators}, want at most {MOST_ACCELERATORS}", key())
            });
            if group.device().is_none() {
                let missing: Vec<_> = [
                    ("arch", group.arch.is_none()),
                    ("cpu_millis", group.cpu_millis.is_none()),
                    ("memory_mib", group.memory_mib.is_none()),
                    ("disk_gb", group.disk_gb.is_none()),
                    ("startup_s", group.startup_s.is_none()),
                ]
                .into_iter()
                .filter_map(|(name, missing)| missing.then_some(name))
                .collect();
                self.demand(missing.is_empty(), || {
                    format!("{}.kind {:?} is not built in: give {}", key(), group.kind, missing.join(", "))
                });
            }
        }
    }

    fn catalogue(&mut self, scenario: &Scenario) {
        let file = &scenario.file.catalogue;
        for image in &file.images {
            let key = || format!("catalogue.images {:?}", image.name);
            self.count(key, image.count);
            self.share(|| format!("{}.base_share", key()), image.base_share);
            if !image.layers.is_empty() {
                self.layers(&key, image);
                continue;
            }
            self.demand(!image.size_mb.is_empty(), || format!("{}.size_mb names no architecture", key()));
            for (arch, &size) in &image.size_mb {
                self.positive(|| format!("{}.size_mb.{}", key(), arch.name()), size);
            }
        }
        self.same_layers(&file.images);
        for dataset in &file.datasets {
            let key = || format!("catalogue.datasets {:?}", dataset.name);
            self.count(key, dataset.count);
            self.zero_or_more(|| format!("{}.size_mb", key()), dataset.size_mb);
            self.demand(dataset.replicas > 0, || format!("{}.replicas is 0, want at least 1", key()));
        }
        self.members("images", file.images.iter().map(|family| (&family.name, family.count)));
        self.members("datasets", file.datasets.iter().map(|family| (&family.name, family.count)));
        self.distinct("tasks", file.tasks.iter().map(|kind| kind.name.clone()));
        let images: Vec<_> = file.images.iter().map(|image| image.name.as_str()).collect();
        let datasets: Vec<_> = file.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        for kind in &file.tasks {
            self.kind(kind, &images, &datasets);
        }
    }

    /// An image that says what it is made of says nothing else of its size.
    fn layers(&mut self, key: &impl Fn() -> String, image: &ImageFile) {
        let alone = image.size_mb.is_empty() && image.base.is_empty() && image.base_share == 0.0;
        self.demand(alone, || format!("{}.layers is given, and so is its size; want one of them", key()));
        self.demand(image.count == 1, || {
            format!("{}.count is {}, want 1 where layers are given", key(), image.count)
        });
        for (arch, layers) in &image.layers {
            let key = || format!("{}.layers.{}", key(), arch.name());
            self.demand(!layers.is_empty(), || format!("{} is empty, want at least one", key()));
            for (index, layer) in layers.iter().enumerate() {
                self.zero_or_more(|| format!("{} {:?}.mb", key(), layer.name), layer.mb);
                self.demand(layers[..index].iter().all(|other| other.name != layer.name), || {
                    format!("{}: {:?} is listed twice", key(), layer.name)
                });
            }
        }
    }

    /// Layers of one name are one, and so have one size.
    fn same_layers(&mut self, images: &[ImageFile]) {
        let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
        for image in images {
            for layer in image.layers.values().flatten() {
                let first = *sizes.entry(&layer.name).or_insert(layer.mb);
                self.demand(first == layer.mb, || {
                    format!(
                        "catalogue.images {:?}.layers: {:?} has {} MB, and {first} MB elsewhere",
                        image.name, layer.name, layer.mb
                    )
                });
            }
        }
    }

    /// Members of all families have names of their own, and there are not too many.
    fn members<'n>(&mut self, key: &str, families: impl Iterator<Item = (&'n String, u32)> + Clone) {
        let count: u64 = families.clone().map(|(_, count)| u64::from(count)).sum();
        self.demand(count <= MOST_MEMBERS, || {
            format!("catalogue.{key} are {count} in all, want at most {MOST_MEMBERS}")
        });
        if count <= MOST_MEMBERS {
            self.distinct(key, families.flat_map(|(name, count)| members(name, count)));
        }
    }

    fn distinct(&mut self, key: &str, names: impl Iterator<Item = String>) {
        let mut seen = BTreeSet::new();
        for name in names {
            self.demand(!seen.contains(&name), || format!("catalogue.{key}: two are called {name:?}"));
            seen.insert(name);
        }
    }

    fn kind(&mut self, kind: &KindFile, images: &[&str], datasets: &[&str]) {
        let key = || format!("catalogue.tasks {:?}", kind.name);
        if let Some(image) = &kind.image {
            self.known(|| format!("{}.image", key()), image, images);
        }
        for (field, names) in [("inputs", &kind.inputs), ("outputs", &kind.outputs)] {
            for (index, name) in names.iter().enumerate() {
                self.known(|| format!("{}.{field}", key()), name, datasets);
                self.demand(!names[..index].contains(name), || {
                    format!("{}.{field}: {name:?} is listed twice", key())
                });
            }
        }
        self.zero_or_more(|| format!("{}.memory_mib", key()), kind.memory_mib);
        self.demand((1..=1000).contains(&kind.accelerator_millis), || {
            format!("{}.accelerator_millis is {}, want 1 to 1000", key(), kind.accelerator_millis)
        });
        if let Some(function) = &kind.measured {
            let known: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
            self.known(|| format!("{}.measured", key()), function, &known);
        }
        self.demand(kind.measured.is_some() || !kind.execution.is_empty(), || {
            format!("{}.execution names no device kind, and measured no function", key())
        });
        self.positive(|| format!("{}.deadline_s", key()), kind.deadline_s.unwrap_or(1.0));
        for (device, time) in &kind.execution {
            let key = |field: &str| format!("{}.execution.{device}.{field}", key());
            match *time {
                ExecutionFile::Constant { seconds } => self.seconds(|| key("seconds"), seconds),
                ExecutionFile::Exponential { mean_s } => self.seconds(|| key("mean_s"), mean_s),
                ExecutionFile::LogNormal { shape, loc_s, scale_s, min_s, max_s } => {
                    self.positive(|| key("shape"), shape);
                    self.positive(|| key("scale_s"), scale_s);
                    self.seconds(|| key("min_s"), min_s);
                    self.demand(loc_s.is_finite(), || format!("{} is {loc_s}, want a number", key("loc_s")));
                    self.demand(max_s <= MOST_S && max_s > min_s, || {
                        format!("{} is {max_s}, want more than min_s, at most 1e8", key("max_s"))
                    });
                }
            }
        }
    }

    fn workload(&mut self, scenario: &Scenario) {
        let file = &scenario.file.workload;
        let kinds: Vec<_> = scenario.file.catalogue.tasks.iter().map(|kind| kind.name.as_str()).collect();
        self.share(|| "workload.warm_share".to_owned(), file.warm_share);
        if scenario.trace.is_some() {
            return;
        }
        let tasks = file.tasks.unwrap_or(0);
        self.demand((1..=10_000_000).contains(&tasks), || {
            format!("workload.tasks is {tasks}, want 1 to 10000000 (or give workload.trace)")
        });
        let timed = file.streams.iter().any(|stream| stream.after.is_empty());
        self.demand(timed, || "workload.streams has none with a time of its own".to_owned());
        for stream in &file.streams {
            let key = || format!("workload.streams {:?}", stream.task);
            self.known(|| format!("{}.task", key()), &stream.task, &kinds);
            self.seconds(|| format!("{}.fixed_s", key()), stream.fixed_s);
            self.seconds(|| format!("{}.exponential_s", key()), stream.exponential_s);
            self.count(|| format!("{}.instances", key()), stream.instances);
            for before in &stream.after {
                self.known(|| format!("{}.after", key()), before, &kinds);
            }
            if stream.after.is_empty() {
                let gap_s = stream.fixed_s + stream.exponential_s;
                self.positive(|| format!("{}.fixed_s + exponential_s", key()), gap_s);
            }
            self.modulated(&key, stream);
        }
        self.jobs(scenario);
    }

    fn modulated(&mut self, key: &impl Fn() -> String, stream: &StreamFile) {
        if let Some(diurnal) = stream.diurnal {
            self.interval(|| format!("{}.diurnal.period_s", key()), diurnal.period_s);
            self.share(|| format!("{}.diurnal.amplitude", key()), diurnal.amplitude);
        }
        if let Some(bursts) = stream.bursts {
            self.demand((1.0..=1000.0).contains(&bursts.factor), || {
                format!("{}.bursts.factor is {}, want a number from 1 to 1000", key(), bursts.factor)
            });
            self.interval(|| format!("{}.bursts.mean_calm_s", key()), bursts.mean_calm_s);
            self.interval(|| format!("{}.bursts.mean_burst_s", key()), bursts.mean_burst_s);
        }
    }

    /// Every stream comes of an arrival, and what it reads exists by then.
    fn jobs(&mut self, scenario: &Scenario) {
        let streams = &scenario.file.workload.streams;
        let roots = (0..streams.len()).filter(|&stream| streams[stream].after.is_empty());
        let jobs: Vec<_> = roots.map(|root| job(streams, root)).collect();
        for (index, stream) in streams.iter().enumerate() {
            let key = format!("workload.streams {:?}", stream.task);
            let of: Vec<_> = jobs.iter().filter(|job| job.contains(&index)).collect();
            self.demand(!of.is_empty(), || {
                format!("{key}.after: no arrival leads to all of {}", stream.after.join(", "))
            });
            for job in of {
                let twins = job.iter().filter(|other| streams[**other].task == stream.task).count();
                self.demand(twins == 1, || {
                    format!("{key}: a job has {twins} streams of this task, so that its order is not clear")
                });
                let place = job.iter().position(|other| *other == index).unwrap_or(0);
                self.made_before(scenario, &key, stream, &job[..place]);
            }
        }
    }

    /// Datasets without home are written by a task of the same job before they are read.
    fn made_before(&mut self, scenario: &Scenario, key: &str, stream: &StreamFile, before: &[usize]) {
        let catalogue = &scenario.file.catalogue;
        let kind = |task: &str| catalogue.tasks.iter().find(|kind| kind.name == task);
        for input in kind(&stream.task).map_or(&[][..], |kind| &kind.inputs) {
            let family = catalogue.datasets.iter().find(|family| family.name == *input);
            let homeless = family.is_some_and(|family| matches!(family.home, HomeFile::Producer));
            let streams = &scenario.file.workload.streams;
            let writes =
                |&other: &usize| kind(&streams[other].task).is_some_and(|k| k.outputs.contains(input));
            self.demand(!homeless || before.iter().any(writes), || {
                format!(
                    "{key}: dataset {input:?} stays with its producer, but no task before this one writes it"
                )
            });
            let renewed = stream.renews_input && homeless;
            self.demand(!renewed, || format!("{key}.renews_input: dataset {input:?} has no home"));
        }
    }

    fn faults(&mut self, scenario: &Scenario) {
        let file = &scenario.file.faults;
        let key = |field: &str| format!("faults.{field}");
        if let Some(crashes) = &file.crashes {
            self.interval(|| key("crashes.mean_up_s"), crashes.mean_up_s);
            self.interval(|| key("crashes.mean_down_s"), crashes.mean_down_s);
        }
        if let Some(links) = &file.links {
            self.interval(|| key("links.mean_up_s"), links.mean_up_s);
            self.interval(|| key("links.mean_down_s"), links.mean_down_s);
            self.share(|| key("links.capacity"), links.capacity);
        }
        if let Some(stragglers) = &file.stragglers {
            self.share(|| key("stragglers.share"), stragglers.share);
            let slowdown = stragglers.slowdown;
            self.demand((1.0..=1000.0).contains(&slowdown), || {
                format!("faults.stragglers.slowdown is {slowdown}, want a number from 1 to 1000")
            });
        }
        if file.telemetry_s != 0.0 {
            self.interval(|| key("telemetry_s"), file.telemetry_s);
        }
        self.demand(file.retries <= MOST_RETRIES, || {
            format!("faults.retries is {}, want at most {MOST_RETRIES}", file.retries)
        });
        self.interval(|| key("backoff_s"), file.backoff_s);
    }

    fn assembled(&mut self, scenario: &Scenario) {
        let topology = build_topology(scenario);
        self.demand(!topology.nodes.is_empty(), || "topology has no nodes".to_owned());
        let mut names: Vec<_> =
            (0..topology.vertex_count()).map(|v| topology.vertex_name(v as VertexId)).collect();
        names.sort_unstable();
        for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.problems.push(format!("topology: two things are called {:?}", pair[0]));
        }
        for registry in &scenario.file.topology.registries {
            if let Some(site) = &registry.site {
                let switches: Vec<_> = topology.switches.iter().map(String::as_str).collect();
                self.known(|| format!("topology.registries {:?}.site", registry.name), site, &switches);
            }
        }
        let has_images = !scenario.file.catalogue.images.is_empty();
        self.demand(!has_images || !topology.registries.is_empty(), || {
            "topology.registries is empty but catalogue.images is not".to_owned()
        });
        for dataset in &scenario.file.catalogue.datasets {
            let key = || format!("catalogue.datasets {:?}.home", dataset.name);
            if let HomeFile::Nodes(nodes) = &dataset.home {
                for name in nodes.iter().filter(|name| topology.node_named(name).is_none()) {
                    self.problems.push(format!("{}: no node is called {name:?}", key()));
                }
            }
            let homeless = matches!(dataset.home, HomeFile::Producer);
            self.demand(homeless || !homes_among(&dataset.home, &topology).is_empty(), || {
                format!("{} fits no node", key())
            });
        }
        if let Some(trace) = &scenario.trace {
            self.recorded(scenario, trace);
        }
    }

    /// Arrivals of a trace may name only what the catalogue has, and read only what exists by then.
    fn recorded(&mut self, scenario: &Scenario, trace: &Trace) {
        let file = &scenario.file.catalogue;
        let kinds: BTreeSet<_> = file.tasks.iter().map(|kind| kind.name.clone()).collect();
        let images: BTreeSet<_> = file.images.iter().flat_map(|f| members(&f.name, f.count)).collect();
        let datasets: BTreeSet<_> = file.datasets.iter().flat_map(|f| members(&f.name, f.count)).collect();
        let homeless = file.homeless();
        let mut written: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for (index, record) in trace.records.iter().enumerate() {
            let Record::Arrival(arrival) = record else { continue };
            // The first line is the header.
            let line = index + 2;
            let names = |key, names: &'_ [String], known: &BTreeSet<String>| {
                let unknown = names.iter().find(|name| !known.contains(*name));
                unknown.map(|name| {
                    format!("trace, line {line}, {key} of {:?}: the catalogue has no {name:?}", arrival.name)
                })
            };
            self.problems.extend(names("kind", arrival.kind.as_slice(), &kinds));
            self.problems.extend(names("image", arrival.image.as_slice(), &images));
            self.problems.extend(names("inputs", &arrival.inputs, &datasets));
            self.problems.extend(names("outputs", &arrival.outputs, &datasets));
            self.problems.extend(names("renews", arrival.renews.as_slice(), &datasets));
            // What the tasks before this one write, and those before them.
            let mut before: BTreeSet<&String> = BTreeSet::new();
            for name in &arrival.after {
                before.extend(written.get(name.as_str()).into_iter().flatten());
            }
            for name in arrival.inputs.iter().chain(&arrival.renews).filter(|name| homeless.contains(*name)) {
                self.demand(before.contains(name), || {
                    format!(
                        "trace, line {line}, inputs of {:?}: dataset {name:?} stays with its producer, but no task before this one \
                         writes it",
                        arrival.name
                    )
                });
            }
            if !homeless.is_empty() {
                before.extend(&arrival.outputs);
                written.insert(&arrival.name, before);
            }
        }
    }
}

/// Shape of a delay's distribution beyond which its mean says nothing.
const MOST_SIGMA: f64 = 3.0;

/// Less between two crashes, bursts or reports than anything could follow.
const LEAST_INTERVAL_S: f64 = 0.1;

/// The slowest link, a kilobit per second.
pub(crate) const LEAST_MBPS: f64 = 0.001;

/// The longest delay of a link.
pub(crate) const MOST_MS: f64 = 1e6;

/// More than enough tries.
const MOST_RETRIES: u32 = 1000;

/// Bound of other figures: 10⁹ megabytes, gigabytes of disk or Mbit/s are more than anything
/// has, and sums of them stay exact.
pub(crate) const MOST: f64 = 1e9;

/// Accelerators of one node.
pub(crate) const MOST_ACCELERATORS: u32 = 1024;

/// More than any cluster has, and still fits in memory.
const MOST_NODES: u64 = 1_000_000;
const MOST_MEMBERS: u64 = 1_000_000;

fn count_nodes(groups: &[NodesFile]) -> u64 {
    groups.iter().map(|group| u64::from(group.count)).sum()
}

/// Nodes and switches of all copies of a site.
fn count_site(site: &SiteFile) -> u64 {
    let one = site.sites.iter().map(count_site).fold(1 + count_nodes(&site.nodes), u64::saturating_add);
    one.saturating_mul(u64::from(site.count))
}

fn members(name: &str, count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |index| member("", name, index, count))
}
