//! The same scenario in less time: what a testbed can play within minutes.

use std::sync::Arc;

use super::{ExecutionFile, LinkFile, NodesFile, Scenario, ScenarioFile, SiteFile};
use crate::bandwidth::Recording;
use crate::measured::{self, Function};
use crate::trace::{Record, Trace};

impl Scenario {
    /// The same scenario `speed` times as fast: every duration and every size is divided by `speed`, so that links
    /// carry what they carried, and everything happens in the same order. Memory, CPU and prices stay.
    ///
    /// Under the same decisions each response time of a world is that of this scenario's world divided by `speed`,
    /// up to rounding to nanoseconds and bytes.
    pub fn faster(&self, speed: f64) -> Scenario {
        let mut scenario = self.clone();
        hasten(&mut scenario.file, speed);
        if let Some(trace) = &mut scenario.trace {
            hasten_trace(trace, speed);
        }
        for recording in scenario.recordings.values_mut() {
            let points = recording.points.iter().map(|&(t_s, share)| (t_s / speed, share)).collect();
            *recording = Arc::new(Recording { points, period_s: recording.period_s / speed });
        }
        scenario
    }
}

fn hasten(file: &mut ScenarioFile, speed: f64) {
    let topology = &mut file.topology;
    topology.registries.iter_mut().for_each(|registry| hasten_link(&mut registry.link, speed));
    topology.nodes.iter_mut().for_each(|nodes| hasten_nodes(nodes, speed));
    topology.sites.iter_mut().for_each(|site| hasten_site(site, speed));
    for image in &mut file.catalogue.images {
        image.size_mb.values_mut().for_each(|mb| *mb /= speed);
        image.layers.values_mut().flatten().for_each(|layer| layer.mb /= speed);
    }
    file.catalogue.datasets.iter_mut().for_each(|dataset| dataset.size_mb /= speed);
    for kind in &mut file.catalogue.tasks {
        kind.execution.values_mut().for_each(|time| *time = divided(time, speed));
        let function = kind.measured.as_deref().and_then(measured::named);
        for (device, time) in function.into_iter().flat_map(Function::execution) {
            kind.execution.entry(device.to_owned()).or_insert_with(|| time.to_file(1.0 / speed));
        }
        divide(&mut kind.deadline_s, speed);
    }
    for stream in &mut file.workload.streams {
        stream.fixed_s /= speed;
        stream.exponential_s /= speed;
        if let Some(diurnal) = &mut stream.diurnal {
            diurnal.period_s /= speed;
        }
        if let Some(bursts) = &mut stream.bursts {
            bursts.mean_calm_s /= speed;
            bursts.mean_burst_s /= speed;
        }
    }
    let faults = &mut file.faults;
    if let Some(crashes) = &mut faults.crashes {
        crashes.mean_up_s /= speed;
        crashes.mean_down_s /= speed;
    }
    if let Some(links) = &mut faults.links {
        links.mean_up_s /= speed;
        links.mean_down_s /= speed;
    }
    faults.telemetry_s /= speed;
    faults.backoff_s /= speed;
}

fn divide(seconds: &mut Option<f64>, speed: f64) {
    *seconds = seconds.map(|seconds| seconds / speed);
}

fn divided(time: &ExecutionFile, speed: f64) -> ExecutionFile {
    match *time {
        ExecutionFile::Constant { seconds } => ExecutionFile::Constant { seconds: seconds / speed },
        ExecutionFile::Exponential { mean_s } => ExecutionFile::Exponential { mean_s: mean_s / speed },
        ExecutionFile::LogNormal { shape, loc_s, scale_s, min_s, max_s } => ExecutionFile::LogNormal {
            shape,
            loc_s: loc_s / speed,
            scale_s: scale_s / speed,
            min_s: min_s / speed,
            max_s: max_s / speed,
        },
    }
}

fn hasten_site(site: &mut SiteFile, speed: f64) {
    hasten_link(&mut site.uplink, speed);
    site.nodes.iter_mut().for_each(|nodes| hasten_nodes(nodes, speed));
    site.sites.iter_mut().for_each(|site| hasten_site(site, speed));
}

fn hasten_link(link: &mut LinkFile, speed: f64) {
    link.latency_ms /= speed;
    if let Some(jitter) = &mut link.jitter {
        jitter.median_ms /= speed;
    }
}

fn hasten_nodes(nodes: &mut NodesFile, speed: f64) {
    hasten_link(&mut nodes.link, speed);
    let device = nodes.device();
    nodes.disk_gb = nodes.disk_gb.or(device.map(|device| device.disk_bytes as f64 / 1e9));
    nodes.startup_s = nodes.startup_s.or(device.map(|device| device.startup_s));
    divide(&mut nodes.disk_gb, speed);
    divide(&mut nodes.startup_s, speed);
    if let Some(mobile) = &mut nodes.mobile {
        mobile.mean_present_s /= speed;
        mobile.mean_away_s /= speed;
    }
}

fn hasten_trace(trace: &mut Trace, speed: f64) {
    for record in &mut trace.records {
        match record {
            Record::Arrival(arrival) => {
                arrival.at_s /= speed;
                divide(&mut arrival.duration_s, speed);
                divide(&mut arrival.deadline_s, speed);
            }
            Record::Decision(decision) => decision.at_s /= speed,
            Record::Outcome(ended) => {
                let times = [
                    &mut ended.at_s,
                    &mut ended.arrived_s,
                    &mut ended.admitted_s,
                    &mut ended.fetched_s,
                    &mut ended.started_s,
                    &mut ended.executed_s,
                ];
                times.into_iter().for_each(|time| *time /= speed);
            }
        }
    }
}
