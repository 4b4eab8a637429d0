//! The learned packer: its features by hand, fgd as one of its settings, and what it is worth.

use remora_policies::packing::{
    AS_FGD, FEATURES, Fgd, KINDS, LEARNED, Learned, Models, Node, Packer, Pod, WEIGHTS, Workload, play,
};

use crate::{openb, small, statistics, ten_seeds};

/// What typical pods want: a core for each GPU, or for 0.3 or 0.47 of one.
fn typical() -> [Pod; 3] {
    [pod(300, 300), pod(470, 470), pod(1000, 1000)]
}

fn pod(cpu_millis: u32, gpu_millis: u32) -> Pod {
    let gpus = u32::from(gpu_millis > 0);
    Pod { cpu_millis, memory_mib: 0, gpu_millis, gpus, models: Models::ANY }
}

/// Two cores and one GPU, of which so much is left.
fn node(left: u32) -> Node {
    let mut node = Node::new(2000, 1024, Models::one(3), 1);
    if left < 1000 {
        node.bind(&pod(0, 1000 - left), 0);
    }
    node
}

/// A feature alone, as the score of the packer that weighs nothing else.
fn feature(name: &str, pod: &Pod, nodes: &[Node]) -> Vec<f64> {
    let place = FEATURES.iter().position(|feature| *feature == name).unwrap();
    let mut weights = [0.0; WEIGHTS];
    weights[place * KINDS..][..KINDS].fill(1.0);
    scores(&mut Learned::new(weights, &typical()), pod, nodes)
}

fn scores(packer: &mut dyn Packer, pod: &Pod, nodes: &[Node]) -> Vec<f64> {
    let feasible: Vec<_> = (0..nodes.len()).collect();
    let mut scores = Vec::new();
    packer.score(pod, nodes, &feasible, &mut scores);
    scores
}

fn check(name: &str, pod: &Pod, node: Node, expected: f64) {
    let [seen] = feature(name, pod, &[node])[..] else { panic!("one node, one score") };
    assert!((seen - expected).abs() < 1e-12, "{name} of {pod:?} on {node:?} is {seen}, not {expected}");
}

#[test]
fn what_becomes_of_the_gpu() {
    let part = pod(0, 300);
    check("left on GPU", &part, node(500), 0.2);
    check("filled", &part, node(500), 0.0);
    check("filled", &part, node(300), 1.0);
    check("opened", &part, node(500), 0.0);
    check("opened", &part, node(1000), 1.0);
    check("fresh", &part, node(1000), 1.0);
    check("idle left", &part, node(1000), 0.0);
    check("idle left", &pod(0, 0), node(1000), 1.0 / 8.0);
    // Whoever wants no part leaves none.
    check("left on GPU", &pod(0, 0), node(500), 0.0);
}

/// A whole pod fills an idle GPU; of 0.7 two of 0.3 leave 0.1, of 0.53 one of 0.47 leaves 0.06. A unit is 0.2.
#[test]
fn waste_is_what_no_set_of_typical_pods_fills() {
    check("waste", &pod(0, 300), node(1000), 0.5);
    check("waste", &pod(0, 470), node(1000), 0.3);
    check("waste", &pod(0, 470), node(470), 0.0);
    check("waste", &pod(0, 200), node(200), -1.0);
}

/// Typical pods want a core for each GPU.
#[test]
fn cpu_and_gpus_out_of_balance() {
    check("short of CPU", &pod(1500, 0), node(1000), 0.5);
    check("spare CPU", &pod(1500, 0), node(1000), -1.0);
    check("spare CPU", &pod(0, 1000), node(1000), 1.0);
    check("CPU left", &pod(720, 1000), node(1000), 0.01);
}

#[test]
fn the_three_fine_falls_make_the_coarse_one() {
    for (pod, left) in [(pod(0, 300), 1000), (pod(0, 470), 500), (pod(2000, 0), 1000)] {
        let nodes = [node(left)];
        let fgd = scores(&mut Fgd::new(&typical()), &pod, &nodes)[0];
        assert_eq!(feature("coarse", &pod, &nodes), [fgd - 50.0]);
        let fine: f64 = ["small", "large", "whole"].map(|name| feature(name, &pod, &nodes)[0]).iter().sum();
        let sigmoid = 100.0 / (1.0 + (-fine * 0.2).exp());
        assert_eq!(sigmoid.floor(), fgd, "{pod:?}");
    }
}

#[test]
fn nodes_have_their_place_in_the_order() {
    assert_eq!(feature("order", &pod(0, 300), &[node(1000); 4]), [0.0, 0.25, 0.5, 0.75]);
}

/// What is known of nodes holds for as long as they stay as they are: also into the next play.
#[test]
fn with_the_weights_of_fgd_it_is_fgd() {
    let plays_alike = |workload: &Workload| {
        let mut learned = Learned::new(AS_FGD, &workload.pods);
        for seed in [1, 2] {
            let instance = workload.instance(seed);
            assert_eq!(play(&instance, &mut learned), play(&instance, &mut Fgd::new(&workload.pods)));
        }
    };
    plays_alike(&small());
    openb("default").iter().for_each(plays_alike);
}

/// The weights that come with it, under a seed that they were not found with.
#[test]
fn it_allocates_more_than_fgd() {
    let Some(workload) = openb("default") else { return };
    let instance = workload.instance(0);
    let end = |packer: &mut dyn Packer| play(&instance, packer).allocated[130];
    let learned = end(&mut Learned::new(LEARNED, &workload.pods));
    let fgd = end(&mut Fgd::new(&workload.pods));
    assert!(learned > fgd, "learned {learned} %, fgd {fgd} %");
}

/// Differences are seed by seed, with the 95 % interval of Student's t at nine degrees of freedom. Only the
/// default list was learned on; pods of the second are the same but for two thirds of those without GPU. On the third,
/// with more pods that share, it is no better than fgd.
#[test]
#[ignore = "sixty plays of 9,000 pods, a minute: --run-ignored all --no-capture prints the table"]
fn what_ten_seeds_say_of_it_and_fgd() {
    for (pods, at_least) in [("default", 0.5), ("cpu050", 0.5), ("gpushare40", -0.1)] {
        let Some(workload) = openb(pods) else { return };
        let learned = ten_seeds(&workload, |_| Box::new(Learned::new(LEARNED, &workload.pods)));
        let fgd = ten_seeds(&workload, |_| Box::new(Fgd::new(&workload.pods)));
        let differences: Vec<_> = learned.iter().zip(&fgd).map(|(learned, fgd)| learned - fgd).collect();
        let [(learned, its_deviation), (fgd, fgds), (more, deviation)] =
            [&learned, &fgd, &differences].map(|figures| statistics(figures));
        let interval = 2.262 * deviation / f64::sqrt(10.0);
        eprintln!(
            "{pods:12} learned {learned:.2} ± {its_deviation:.2} %, fgd {fgd:.2} ± {fgds:.2} %, \
             {more:+.2} ± {interval:.2}"
        );
        assert!(more - interval > at_least, "{pods}: {more} ± {interval}");
    }
}
