//! The measure of fragmentation, by hand.

use remora_policies::packing::{Fgd, Models, Node, Packer, Pod, TypicalPods};

const CORES: u32 = 8;

fn pod(cores: u32, gpus: u32, gpu_millis: u32) -> Pod {
    Pod { cpu_millis: 1000 * cores, memory_mib: 0, gpu_millis, gpus, models: Models::ANY }
}

/// Eight cores and GPUs of which 1, 0.5 and 0.2 are left: 1.7 in all.
fn node() -> Node {
    let mut node = Node::new(1000 * CORES, 1024, Models::one(3), 3);
    node.bind(&pod(0, 1, 500), 1);
    node.bind(&pod(0, 1, 800), 2);
    assert_eq!(node.gpus(), [1000, 500, 200]);
    node
}

fn fragmentation(pods: &[Pod]) -> f64 {
    TypicalPods::of(pods).fragmentation(&node())
}

/// The three cases of the paper's measure, each for a workload of one kind of pod.
#[test]
fn what_one_kind_of_pod_cannot_use() {
    // It runs: what is left of GPUs with too little room for it.
    assert_eq!(fragmentation(&[pod(1, 1, 100)]), 0.0);
    assert_eq!(fragmentation(&[pod(1, 1, 300)]), 200.0);
    assert_eq!(fragmentation(&[pod(1, 1, 501)]), 700.0);
    assert_eq!(fragmentation(&[pod(CORES, 1, 1000)]), 700.0);
    // It does not run, for lack of GPUs, of cores or of the model: all that is left.
    assert_eq!(fragmentation(&[pod(1, 2, 1000)]), 1700.0);
    assert_eq!(fragmentation(&[pod(CORES + 1, 1, 100)]), 1700.0);
    assert_eq!(fragmentation(&[Pod { models: Models::one(2), ..pod(1, 1, 100) }]), 1700.0);
    // It wants no GPU, and so uses none of them.
    assert_eq!(fragmentation(&[pod(1, 0, 0)]), 1700.0);
}

#[test]
fn a_workload_counts_by_how_often_its_pods_come() {
    let (part, pair) = (pod(1, 1, 300), pod(1, 2, 1000));
    assert_eq!(fragmentation(&[part, part, pair, part]), (3.0 * 200.0 + 1700.0) / 4.0);
    // Pods that make up less than a twentieth do not count.
    let mut mostly = vec![part; 96];
    mostly.extend([pair; 4]);
    assert_eq!(fragmentation(&mostly), 200.0);
}

/// Memory decides whether a pod fits, not what counts as fragmented.
#[test]
fn memory_does_not_fragment() {
    assert_eq!(fragmentation(&[Pod { memory_mib: 4096, ..pod(1, 1, 300) }]), 200.0);
}

/// Half a GPU goes where half a GPU is left, which nobody else could use; a fifth keeps the whole one whole.
#[test]
fn the_steepest_descent_spares_what_is_asked_for() {
    let mut fgd = Fgd::new(&[pod(1, 1, 1000)]);
    assert_eq!(fgd.gpu(&pod(1, 1, 500), &node()), 1);
    assert_eq!(fgd.gpu(&pod(1, 1, 200), &node()), 1);
    let mut scores = Vec::new();
    let empty = Node::new(1000 * CORES, 1024, Models::one(3), 3);
    fgd.score(&pod(1, 1, 500), &[empty, node()], &[0, 1], &mut scores);
    assert!(scores[1] > scores[0], "{scores:?}");
}
