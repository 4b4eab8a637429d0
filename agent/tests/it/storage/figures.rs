//! How fast it is here: `cargo nextest run -p remora-agent --run-ignored only figures --no-capture`.

use std::time::{Duration, Instant};

use remora_agent::storage::{Kind, Recorder};

use super::{entry, everywhere, fill};

/// Bytes of a body, about those of a decision on a small cluster.
const BODY: usize = 300;

fn decided(number: usize) -> remora_agent::storage::Entry {
    let mut decided = entry("hall", Kind::Decided, number as i64, vec![7; BODY]);
    decided.decision_id = Some(format!("decision-{number}"));
    decided
}

async fn latencies(recorder: &Recorder, clients: usize, each: usize) -> String {
    let client = |client: usize| {
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::with_capacity(each);
            for number in 0..each {
                let start = Instant::now();
                recorder.commit(decided(client * each + number)).await.unwrap();
                latencies.push(start.elapsed());
            }
            latencies
        })
    };
    let clients: Vec<_> = (0..clients).map(client).collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await.unwrap());
    }
    latencies.sort();
    let quantile = |share: f64| latencies[(share * (latencies.len() - 1) as f64) as usize];
    format!("p50 {:?}, p99 {:?}", quantile(0.5), quantile(0.99))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn figures() {
    everywhere(async |place| {
        let kind = if place.options().database_url.is_some() { "PostgreSQL" } else { "SQLite" };
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 1).await;
        println!("{kind}: commit alone: {}", latencies(&recorder, 1, 500).await);
        println!("{kind}: commit, 64 at a time: {}", latencies(&recorder, 64, 100).await);
        recorder.snapshot("hall", 0, vec![1; 1 << 20]).unwrap();
        let (mut since, mut calls) = (0, Duration::ZERO);
        for total in [10_000, 100_000] {
            let start = Instant::now();
            while since < total {
                recorder.record(decided(since)).unwrap();
                since += 1;
            }
            calls += start.elapsed();
            let batch = total - if total == 10_000 { 0 } else { 10_000 };
            recorder.flush().await.unwrap();
            println!(
                "{kind}: {batch} entries recorded: {:.0} a second",
                batch as f64 / start.elapsed().as_secs_f64()
            );
            let start = Instant::now();
            let restored = storage.restore().await.unwrap();
            assert_eq!(restored[0].entries.len(), total);
            println!("{kind}: {total} entries restored in {:?}", start.elapsed());
        }
        println!("{kind}: a call to record: {:?}", calls / since as u32);
        storage.close().await;
    })
    .await;
}
