//! Waiting times against closed forms of queueing theory.

use std::sync::Arc;

use remora_env::observation::Reference;
use remora_env::{Episode, Scenario};

/// One node with `servers` cores for tasks of one core each, exponential gaps and execution times.
fn queue(servers: u32, mean_gap_s: f64, mean_execution_s: f64, tasks: u32) -> Scenario {
    let text = format!(
        r#"
name = "queue"
[topology]
nodes = [{{ name = "n", kind = "box", arch = "amd64", cpu_millis = {cpu}, memory_mib = 100, disk_gb = 1, startup_s = 0, link = {{ up_mbps = 1 }} }}]
[[catalogue.tasks]]
name = "t"
cpu_millis = 1000
memory_mib = 1
execution = {{ box = {{ mean_s = {mean_execution_s} }} }}
[workload]
tasks = {tasks}
streams = [{{ task = "t", exponential_s = {mean_gap_s} }}]
"#,
        cpu = servers * 1000
    );
    Scenario::parse(&text, "queue", None).unwrap()
}

/// Mean wait of `runs` runs, seconds, the first tenth of each left out: it begins idle.
fn mean_wait_s(scenario: &Scenario, runs: u64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for seed in 0..runs {
        let mut episode = Episode::new(Arc::new(scenario.world(seed)), 0.5, Reference::new(1.0, 1e6));
        while episode.pending().is_some() {
            episode.step(0);
        }
        let settled = episode.outcomes().len() / 10;
        for outcome in &episode.outcomes()[settled..] {
            sum += outcome.admitted.since_s(outcome.arrived);
            count += 1.0;
        }
    }
    sum / count
}

/// Erlang's C: the probability that all of `servers` are busy at an offered load of `load` erlang.
fn erlang_c(servers: u32, load: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 0.0);
    for k in 0..servers {
        sum += term;
        term *= load / f64::from(k + 1);
    }
    let last = term / (1.0 - load / f64::from(servers));
    last / (sum + last)
}

/// M/M/1: W = ρ / (μ − λ) (Kleinrock, *Queueing Systems I*, section 3.2).
#[test]
fn one_server_waits_as_m_m_1_does() {
    let (lambda, mu) = (0.6, 1.0);
    let scenario = queue(1, 1.0 / lambda, 1.0 / mu, 50_000);
    let expected = lambda / mu / (mu - lambda);
    let waited = mean_wait_s(&scenario, 24);
    assert!((waited / expected - 1.0).abs() < 0.02, "{waited} s, expected {expected} s");
}

/// M/M/c: W = C(c, a) / (cμ − λ) with Erlang's C (Kleinrock, *Queueing Systems I*, section 3.5).
#[test]
fn several_servers_wait_as_m_m_c_does() {
    for (servers, lambda) in [(2, 1.4), (4, 3.0)] {
        let scenario = queue(servers, 1.0 / lambda, 1.0, 50_000);
        let expected = erlang_c(servers, lambda) / (f64::from(servers) - lambda);
        let waited = mean_wait_s(&scenario, 32);
        assert!((waited / expected - 1.0).abs() < 0.02, "{servers}: {waited} s, expected {expected} s");
    }
}

/// M/M/1/K with room for k − 1 to wait: the share (1 − ρ) ρᵏ / (1 − ρᵏ⁺¹) is turned away.
#[test]
fn a_full_queue_turns_away_as_m_m_1_k_does() {
    let mut scenario = queue(1, 1.0, 0.9, 50_000);
    scenario.file.topology.queue_limit = Some(3);
    let (rho, k) = (0.9_f64, 4);
    let expected = (1.0 - rho) * rho.powi(k) / (1.0 - rho.powi(k + 1));
    let mut turned_away = 0;
    for seed in 0..16 {
        let mut episode = Episode::new(Arc::new(scenario.world(seed)), 0.5, Reference::new(1.0, 1e6));
        while episode.pending().is_some() {
            episode.step(0);
        }
        turned_away += episode.outcomes().iter().filter(|outcome| !outcome.is_completed()).count();
    }
    let share = turned_away as f64 / (16.0 * 50_000.0);
    assert!((share / expected - 1.0).abs() < 0.02, "{share}, expected {expected}");
}
