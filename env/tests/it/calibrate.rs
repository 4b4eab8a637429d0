//! A calibrated scenario is as fast as what was recorded.

use std::sync::Arc;

use remora_env::calibrate::calibrate;
use remora_env::observation::Reference;
use remora_env::record::Recorder;
use remora_env::{Episode, Next, Scenario};

/// Records a world of `real`, and gives the recording to who believes in `believed`.
fn recorded(real: &Scenario, believed: &Scenario) -> Scenario {
    let mut episode = Episode::new(Arc::new(real.world(5)), 0.5, Reference::new(20.0, 1e8));
    let mut recorder = Recorder::new("spread");
    let mut turn = 0;
    while let Next::Decide(observation) = episode.next() {
        turn += 1;
        let node = observation.node(turn % observation.count());
        recorder.decide(&episode, node);
        episode.step(node);
    }
    let trace = recorder.finish(real, &episode).trace;
    let mut believed = believed.clone();
    believed.file.workload.streams.clear();
    believed.file.workload.tasks = None;
    believed.trace = Some(trace);
    believed
}

#[test]
fn slow_devices_and_links_are_found_and_the_simulation_comes_to_what_was_recorded() {
    let believed = Scenario::load("industrial-iot").unwrap();
    let mut real = believed.clone();
    let serve = real.file.catalogue.tasks.iter_mut().find(|task| task.name == "serve").unwrap();
    for file in serve.execution.values_mut() {
        if let remora_env::scenario::ExecutionFile::LogNormal { loc_s, scale_s, min_s, max_s, .. } = file {
            [loc_s, scale_s, min_s, max_s].into_iter().for_each(|value| *value *= 1.7);
        }
    }
    let premises = &mut real.file.topology.sites[0];
    premises.uplink.up_mbps /= 3.0;
    premises.uplink.down_mbps = premises.uplink.down_mbps.map(|mbps| mbps / 3.0);

    let (calibrated, calibration) = calibrate(&recorded(&real, &believed), 5).unwrap();
    let serving: Vec<f64> =
        calibration.executions.iter().filter(|f| f.of.starts_with("serve on ")).map(|f| f.factor).collect();
    assert!(!serving.is_empty() && serving.iter().all(|f| (f - 1.7).abs() < 0.1), "{calibration:?}");
    let training = calibration.executions.iter().filter(|f| f.of.starts_with("train on "));
    assert!(training.map(|f| f.factor).all(|f| (f - 1.0).abs() < 0.1), "{calibration:?}");
    assert!(calibration.transfers.iter().all(|f| f.factor > 1.3), "{calibration:?}");
    let [before, after] = calibration.error;
    assert!(before > 0.2 && after < 0.1, "{calibration:?}");
    assert!(
        calibrated.file.topology.sites[0].uplink.up_mbps < believed.file.topology.sites[0].uplink.up_mbps
    );
}

#[test]
fn what_was_simulated_needs_no_calibration() {
    let scenario = Scenario::load("urban-sensing").unwrap();
    let (_, calibration) = calibrate(&recorded(&scenario, &scenario), 5).unwrap();
    assert!(calibration.error.iter().all(|error| *error < 1e-9), "{calibration:?}");
    let factors = calibration.executions.iter().chain(&calibration.transfers);
    assert!(factors.map(|f| f.factor).all(|f| (f - 1.0).abs() < 1e-9), "{calibration:?}");
}

#[test]
fn without_a_recording_nothing_is_calibrated() {
    assert!(calibrate(&Scenario::load("urban-sensing").unwrap(), 0).is_none());
}
