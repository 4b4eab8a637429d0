//! Whole task graphs: schedules that hold, optima that nothing beats, and the published table.

use std::time::Duration;

use rand::RngExt;
use remora_env::random::{Purpose, stream};
use remora_policies::graph::learned::{LEARNED, learned};
use remora_policies::graph::{
    Job, Schedule, heft, list, min_list_one_node, network_aware_list, one_node, optimum,
};

type Scheduler = fn(&Job, usize) -> Schedule;
const SCHEDULERS: [(&str, Scheduler); 6] = [
    ("list", list),
    ("network-aware list", network_aware_list),
    ("one node", one_node),
    ("min of both", min_list_one_node),
    ("heft", heft),
    ("learned", |job, machines| learned(job, machines, &LEARNED)),
];

#[test]
fn schedules_hold_and_nothing_beats_the_optimum() {
    for seed in 0..60 {
        let mut rng = stream(seed, Purpose::Arrivals, 7);
        let tasks = rng.random_range(4..=7);
        let job = Job::random(&mut rng, tasks, [0.1, 0.5, 2.0][seed as usize % 3]);
        let machines = rng.random_range(2..=4);
        let best = optimum(&job, machines, Duration::from_secs(60));
        assert!(best.proved, "{job:?}");
        best.schedule.check(&job, machines).unwrap();
        assert!(best.schedule.makespan(&job) >= job.lower_bound(machines), "{job:?}");
        for (name, schedule) in SCHEDULERS {
            let schedule = schedule(&job, machines);
            schedule.check(&job, machines).unwrap_or_else(|problem| panic!("{name}: {problem}: {job:?}"));
            assert!(schedule.makespan(&job) >= best.schedule.makespan(&job), "{name} beats it: {job:?}");
        }
    }
}

/// Ratios to the optimum of list, network-aware list, one node and the better of the last two, against
/// those of a re-implementation of the same problem (exact by CP-SAT) on other random jobs of these
/// sorts; 30 jobs a row, 5 to 10 tasks, 4 machines. So few jobs leave a standard error on either side:
/// the means may differ by 0.05 and three standard errors of their difference.
#[test]
fn ratios_to_the_optimum_are_as_published() {
    const JOBS: u64 = 30;
    const TABLE: [(f64, [f64; 4]); 7] = [
        (0.1, [1.05, 1.00, 1.78, 1.00]),
        (0.3, [1.19, 1.06, 1.79, 1.06]),
        (0.5, [1.43, 1.17, 1.59, 1.17]),
        (1.0, [1.89, 1.35, 1.26, 1.17]),
        (2.0, [2.90, 1.59, 1.10, 1.05]),
        (5.0, [6.05, 2.65, 1.01, 1.00]),
        (10.0, [12.2, 4.96, 1.00, 1.00]),
    ];
    let mut wrong = Vec::new();
    for (row, (rho, published)) in TABLE.into_iter().enumerate() {
        let mut ratios: [Vec<f64>; SCHEDULERS.len()] = Default::default();
        for seed in 0..JOBS {
            let mut rng = stream(seed, Purpose::Arrivals, 100 + row as u64);
            let tasks = rng.random_range(5..=10);
            let job = Job::random(&mut rng, tasks, rho);
            let best = f64::from(optimum(&job, 4, Duration::from_secs(4)).schedule.makespan(&job));
            for (ratios, (_, schedule)) in ratios.iter_mut().zip(SCHEDULERS) {
                ratios.push(f64::from(schedule(&job, 4).makespan(&job)) / best);
            }
        }
        let mut line = format!("ρ = {rho:>4}");
        let published = published.map(Some).into_iter().chain([None, None]);
        for ((ratios, theirs), (name, _)) in ratios.iter().zip(published).zip(SCHEDULERS) {
            let mean = ratios.iter().sum::<f64>() / JOBS as f64;
            let spread = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (JOBS - 1) as f64;
            let error = (spread / JOBS as f64).sqrt();
            line += &format!("  {name} {mean:.2} ± {error:.2}");
            let Some(theirs) = theirs else { continue };
            line += &format!(" ({theirs:.2})");
            if (mean - theirs).abs() > 0.05 + 3.0 * 2_f64.sqrt() * error {
                wrong.push(format!("ρ = {rho}: {name} {mean:.2} ± {error:.2}, published {theirs}"));
            }
        }
        eprintln!("{line}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// On jobs that its weights were not chosen on, larger ones among them.
#[test]
fn what_was_learnt_is_shorter_and_never_longer() {
    const JOBS: u64 = 200;
    let mut saved = Vec::new();
    for seed in 0..JOBS {
        let mut rng = stream(seed, Purpose::Arrivals, 9);
        let (tasks, machines) = (rng.random_range(5..=30), rng.random_range(2..=8));
        let rho = 10_f64.powf(rng.random_range(-1.0..1.0));
        let job = Job::random(&mut rng, tasks, rho);
        let (ours, theirs) = (learned(&job, machines, &LEARNED), min_list_one_node(&job, machines));
        ours.check(&job, machines).unwrap_or_else(|problem| panic!("{problem}: {job:?}"));
        let [ours, theirs] = [ours, theirs].map(|schedule| schedule.makespan(&job));
        assert!(ours <= theirs, "{ours} slots where {theirs} do: {job:?}");
        saved.push((f64::from(theirs) / f64::from(ours)).ln());
    }
    let mean = saved.iter().sum::<f64>() / saved.len() as f64;
    eprintln!("shorter by {:.1} % on average", 100.0 * mean);
    assert!(mean > 0.03, "{mean}");
}
