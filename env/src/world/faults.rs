//! From the faults of a scenario file to the processes of a world.

use std::sync::Arc;

use rand::RngExt;

use super::topology::Varying;
use crate::faults::{Faults, Process, Stragglers};
use crate::random::{Purpose, stream};
use crate::scenario::{BandwidthFile, InterruptedFile, Scenario};
use crate::time::Time;
use crate::topology::{NodeId, Topology};

pub(super) fn build_faults(scenario: &Scenario, topology: &Topology, varying: &Varying, seed: u64) -> Faults {
    let file = &scenario.file.faults;
    let mut processes = Vec::new();
    if let Some(crashes) = &file.crashes {
        let crashing = topology.nodes.iter().enumerate();
        let crashing =
            crashing.filter(|(_, node)| crashes.kinds.is_empty() || crashes.kinds.contains(&node.kind));
        processes.extend(crashing.map(|(node, _)| Process::Churn {
            node: node as NodeId,
            present_s: crashes.mean_up_s,
            away_s: crashes.mean_down_s,
        }));
    }
    processes.extend(varying.mobile.iter().map(|&(node, mobile)| Process::Churn {
        node,
        present_s: mobile.mean_present_s,
        away_s: mobile.mean_away_s,
    }));
    if let Some(degraded) = &file.links {
        let leaving = topology.links.iter().enumerate().filter(|(_, link)| link.wan);
        processes.extend(leaving.map(|(link, _)| Process::Degradation {
            link: link as u32,
            whole_s: degraded.mean_up_s,
            degraded_s: degraded.mean_down_s,
            capacity: degraded.capacity,
        }));
    }
    processes.extend(playbacks(scenario, varying, seed));
    Faults {
        processes,
        stragglers: file.stragglers.map(|s| Stragglers { share: s.share, slowdown: s.slowdown }),
        transfers_fail: file.transfers == InterruptedFile::Fail,
        telemetry: (file.telemetry_s > 0.0).then(|| Time::from_s(file.telemetry_s)),
        retries: file.retries,
        backoff: Time::from_s(file.backoff_s),
    }
}

/// Links that follow a recording, each from a point of its own.
fn playbacks(scenario: &Scenario, varying: &Varying, seed: u64) -> Vec<Process> {
    let mut rng = stream(seed, Purpose::Faults, 0);
    let playback = |(link, bandwidth): &(u32, BandwidthFile)| {
        let recording = &scenario.recordings[&(bandwidth.file.clone(), bandwidth.trace.clone())];
        let start = recording.index_at(rng.random::<f64>() * recording.period_s);
        Process::Playback { link: *link, recording: Arc::clone(recording), start }
    };
    varying.recorded.iter().map(playback).collect()
}
