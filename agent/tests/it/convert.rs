//! The door under messages that nobody would send: whatever is accepted can be worked with, and
//! nothing panics.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use prost::Message;
use remora_agent::service::convert;
use remora_env::catalogue::Task;
use remora_env::{Observation, Time};
use remora_policies::{by_name, choose};
use remora_proto::v1 as wire;

use crate::server::{dry_run, small_cluster, small_task};

/// Other seeds find other things: change it to look for them.
const SEED: u64 = 1;

/// What one field is changed to.
#[derive(Clone, Debug)]
struct Values {
    whole: i64,
    number: f64,
    text: String,
    flag: bool,
}

/// Changes one field of the parts that an index picks.
type Change = fn(&mut wire::Cluster, &mut wire::Facts, &Index, &Values);

const CHANGES: &[Change] = &[
    |c, _, _, v| c.reference_response_s = v.number,
    |c, _, _, v| c.reference_moved_bytes = v.number,
    |c, _, _, v| c.registries.push(v.text.clone()),
    |c, _, _, v| c.switches.push(v.text.clone()),
    |c, _, i, v| c.nodes[i.index(3)].name = v.text.clone(),
    |c, _, i, v| c.nodes[i.index(3)].kind = v.text.clone(),
    |c, _, i, v| c.nodes[i.index(3)].cpu_millis = v.whole,
    |c, _, i, v| c.nodes[i.index(3)].memory_bytes = v.whole,
    |c, _, i, v| c.nodes[i.index(3)].disk_bytes = Some(v.whole),
    |c, _, i, v| c.nodes[i.index(3)].startup_s = Some(v.number),
    |c, _, i, v| drop(c.nodes[i.index(3)].labels.insert("data.skippy.io/storage".to_owned(), v.text.clone())),
    |c, _, i, v| {
        c.nodes[i.index(3)].accelerator =
            Some(wire::Accelerator { model: "edge-tpu".to_owned(), count: v.whole });
    },
    |c, _, i, v| c.links[i.index(4)].outer = v.text.clone(),
    |c, _, i, v| c.links[i.index(4)].inner = v.text.clone(),
    |c, _, i, v| c.links[i.index(4)].up_bytes_per_s = v.number,
    |c, _, i, v| c.links[i.index(4)].down_bytes_per_s = v.number,
    |c, _, i, v| c.links[i.index(4)].latency_s = Some(v.number),
    |c, _, i, v| c.links[i.index(4)].price = Some(v.number),
    |c, _, i, v| c.links[i.index(4)].shared = v.flag,
    |c, _, i, v| c.images[0].variants[i.index(2)].layers[0].bytes = Some(v.whole),
    |c, _, i, v| c.images[0].variants[i.index(2)].layers[0].name = v.text.clone(),
    |c, _, i, v| c.datasets[i.index(2)].bytes = Some(v.whole),
    |c, _, i, v| c.datasets[i.index(2)].homes.push(v.text.clone()),
    |c, _, _, v| c.task_kinds[0].cpu_millis = Some(v.whole),
    |c, _, _, v| c.task_kinds[0].cpu_use_millis = Some(v.whole),
    |c, _, _, v| c.task_kinds[0].memory_bytes = Some(v.whole),
    |c, _, _, v| c.task_kinds[0].accelerators = v.whole,
    |c, _, _, v| c.task_kinds[0].accelerator_millis = v.whole,
    |c, _, _, v| c.task_kinds[0].accelerator_models.push(v.text.clone()),
    |c, _, _, v| c.task_kinds[0].execution_elsewhere_s = Some(v.number),
    |c, _, i, v| c.task_kinds[0].execution[i.index(3)].mean_s = Some(v.number),
    |c, _, _, v| c.task_kinds[0].deadline_s = Some(v.number),
    |c, _, _, v| drop(c.task_kinds[0].demands.insert(v.text.clone(), v.text.clone())),
    |c, _, _, v| c.task_kinds[0].priority = v.whole as i32,
    |c, _, i, _| c.datasets[i.index(2)].homes.clear(),
    |c, _, _, v| c.queue_limit = Some(v.whole),
    |c, _, _, v| c.peers = v.flag,
    |_, f, _, v| f.arrivals_per_s = v.number,
    |_, f, _, v| {
        f.images.push(wire::ImageFacts {
            image: "vision".to_owned(),
            arrivals_per_s: v.number,
            waited_s: Some(v.number),
            displaced_bytes: Some(v.number),
        })
    },
    |_, f, i, v| {
        let link = Some(i.index(4) as i64);
        f.links.push(wire::LinkFacts { link, up_transfers: v.whole, down_transfers: v.whole });
    },
    |_, f, _, v| {
        let (dataset, holders) = ("labels".to_owned(), vec!["desk".to_owned(), v.text.clone()]);
        f.datasets.push(wire::DatasetFacts { dataset, holders, waited_s: Some(v.number) });
    },
    |_, f, _, v| f.nodes[0].images.push(v.text.clone()),
    |_, f, _, v| f.nodes[0].arriving_layers.push(v.text.clone()),
    |_, f, _, v| f.nodes[0].placed[0].expected_remaining_s = Some(v.number),
    |_, f, _, v| f.nodes[0].placed[0].expected_span_s = Some(v.number),
    |_, f, _, v| f.nodes[0].placed[0].queued = v.flag,
    |_, f, _, v| f.nodes[0].placed[0].accelerators.push(v.whole),
    |_, f, _, v| f.nodes[0].placed[0].decision_id = v.text.clone(),
    |_, f, _, _| {
        let same = f.nodes[0].placed[0].clone();
        f.nodes[0].placed.push(same);
    },
];

fn values() -> impl Strategy<Value = Values> {
    let wholes = select(vec![
        i64::MIN,
        -1,
        0,
        1,
        2,
        999,
        1000,
        1_000_000,
        1_000_000_000,
        1_000_000_000_000_000,
        i64::MAX,
    ]);
    let numbers = select(vec![
        f64::NAN,
        f64::NEG_INFINITY,
        -1.0,
        -0.0,
        0.0,
        f64::MIN_POSITIVE,
        1e-9,
        1.0,
        1e6,
        1e9,
        1e13,
        f64::MAX,
        f64::INFINITY,
    ]);
    let known =
        ["", "desk", "board", "cloud", "hall", "registry", "vision", "base:amd64", "video", "edge-tpu"];
    let texts = prop_oneof![select(known.to_vec()).prop_map(str::to_owned), Just("é".repeat(300)), ".{0,9}"];
    (prop_oneof![wholes, any::<i64>()], prop_oneof![numbers, any::<f64>()], texts, any::<bool>())
        .prop_map(|(whole, number, text, flag)| Values { whole, number, text, flag })
}

/// The small cluster with a task on the desk.
fn busy_cluster() -> wire::RegisterClusterRequest {
    let task = wire::PlacedTask {
        task: Some(small_task()),
        expected_remaining_s: Some(3.5),
        expected_span_s: None,
        ..wire::PlacedTask::default()
    };
    let desk = wire::NodeFacts { node: "desk".to_owned(), placed: vec![task], ..wire::NodeFacts::default() };
    let facts = wire::Facts { nodes: vec![desk], ..wire::Facts::default() };
    wire::RegisterClusterRequest { facts: Some(facts), ..small_cluster() }
}

/// What is accepted must be good for everything that follows. Returns whether it was.
fn survives(request: &wire::RegisterClusterRequest) -> bool {
    let Ok(registration) = convert::registration(request, Time::ZERO) else { return false };
    let cluster = &registration.cluster;
    cluster.check();
    let catalogue = &cluster.catalogue;
    for kind in 0..catalogue.kinds.len().min(3) as u32 {
        let image = (!catalogue.images.is_empty()).then_some(0);
        let inputs = (0..catalogue.datasets.len() as u32).collect();
        let task =
            Task { kind, image, inputs, outputs: (0..catalogue.datasets.len().min(1) as u32).collect() };
        let Some(observation) = Observation::new(cluster, &task, 7, 0.5, registration.reference) else {
            continue;
        };
        for policy in ["greedy-completion", "greedy-marginal", "skippy", "kube-default"] {
            let choice = choose(&mut *by_name(policy, 0).unwrap(), &observation);
            assert!(observation.candidates()[choice.index].completion_s().is_finite(), "{choice:?}");
        }
        let mut features = vec![0.0; remora_env::observation::FEATURE_COUNT];
        observation.features(&observation.look(&[0]), std::iter::once(&mut features[..]));
        assert!(features.iter().all(|feature| feature.is_finite()), "{features:?}");
    }
    // And it comes back the way it went.
    let again = convert::export(&registration.id, cluster, registration.reference, &BTreeMap::new());
    let twice = convert::registration(&again, Time::ZERO).expect("what was exported is accepted");
    for (node, before) in twice.cluster.nodes.into_iter().zip(&cluster.nodes) {
        let mut node = (*node).clone();
        for (commitment, before) in node.commitments.iter_mut().zip(&before.commitments) {
            // Seconds hold nanoseconds for a hundred days.
            assert!(commitment.expected_end.0.abs_diff(before.expected_end.0) < 1000);
            assert!(commitment.span.0.abs_diff(before.span.0) < 1000);
            (commitment.expected_end, commitment.span) = (before.expected_end, before.span);
        }
        assert_eq!(node, **before);
    }
    true
}

#[test]
fn the_cluster_that_is_changed_here_is_accepted() {
    assert!(survives(&busy_cluster()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, rng_seed: RngSeed::Fixed(SEED), ..ProptestConfig::default() })]

    #[test]
    fn clusters_with_odd_fields(
        changes in proptest::collection::vec((select(CHANGES), any::<Index>(), values()), 1..4),
    ) {
        let mut request = busy_cluster();
        let (cluster, facts) = (request.cluster.as_mut().unwrap(), request.facts.as_mut().unwrap());
        for (change, index, values) in &changes {
            change(cluster, facts, index, values);
        }
        survives(&request);
    }

    #[test]
    fn clusters_with_damaged_bytes(
        damage in proptest::collection::vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = busy_cluster().encode_to_vec();
        for (index, byte, how) in damage {
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Ok(request) = wire::RegisterClusterRequest::decode(&bytes[..]) {
            survives(&request);
        }
    }

    #[test]
    fn requests_with_odd_fields(v in values(), w in values(), which in 0..7_u8) {
        let mut request = dry_run(small_task());
        let task = request.task.as_mut().unwrap();
        match which {
            0 => request.alpha = Some(v.number),
            1 => request.max_candidates = Some(v.whole),
            2 => request.request_id = v.text,
            3 => task.kind = v.text,
            4 => task.inputs = vec![v.text, w.text.clone()],
            5 => task.outputs.push(v.text),
            _ => request.task = None,
        }
        if let Ok(order) = convert::order(&request) {
            assert!(order.alpha.is_none_or(|alpha| (0.0..=1.0).contains(&alpha)));
        }
        let report = wire::ReportOutcomeRequest {
            cluster_id: w.text.clone(),
            decision_id: w.text,
            failed: w.flag,
            response_s: Some(w.number),
            transfer_bytes: Some(w.whole),
            ..wire::ReportOutcomeRequest::default()
        };
        if let Ok(report) = convert::report(&report) {
            assert!(report.response_s.is_none_or(f64::is_finite));
        }
    }
}
