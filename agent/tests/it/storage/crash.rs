//! A process that dies while it writes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use remora_agent::storage::{Entry, Kind, Options, Storage};
use tokio::sync::mpsc;

use super::{Place, entry, everywhere};

const DEATHS: u32 = 20;
/// Entries between snapshots.
const SNAPSHOT: u64 = 500;

fn numbered(number: u64) -> Entry {
    let kind = if number == 0 { Kind::Registered } else { Kind::Changed };
    entry("hall", kind, number as i64, number.to_be_bytes())
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body.try_into().unwrap())
}

/// What the child process does: it writes until it is killed, and says what is durable.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other process of `nothing_acknowledged_is_lost`"]
async fn child() {
    let Ok(folder) = std::env::var("REMORA_TEST_CHILD_FOLDER") else { return };
    let database_url = std::env::var("REMORA_TEST_CHILD_URL").ok();
    let storage = Storage::open(Options { database_url, ..Options::new(folder) }).await.unwrap();
    let recorder = storage.recorder();
    let (waiting, mut acknowledged) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some((number, durable)) = acknowledged.recv().await {
            let durable: std::pin::Pin<Box<dyn Future<Output = Result<i64, _>> + Send>> = durable;
            durable.await.unwrap();
            println!("\ndurable {number}");
        }
    });
    // Sequence numbers begin with 1, ours with 0.
    for number in recorder.health().durable as u64.. {
        if number % 3 == 0 {
            waiting.send((number, Box::pin(recorder.commit(numbered(number))) as _)).await.unwrap();
        } else {
            recorder.record(numbered(number)).unwrap();
        }
        if number % SNAPSHOT == 0 {
            recorder.snapshot("hall", number as i64, number.to_be_bytes().into()).unwrap();
        }
    }
}

/// Lets a child write for a while and kills it; returns the last number that it said was durable.
fn life(place: &Place, length: Duration) -> u64 {
    let options = place.options();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["storage::crash::child", "--exact", "--ignored", "--nocapture"]);
    command.env("REMORA_TEST_CHILD_FOLDER", options.folder).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(url) = options.database_url {
        command.env("REMORA_TEST_CHILD_URL", url);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = |line: String| line.strip_prefix("durable ").and_then(|number| number.parse().ok());
    let first = lines.by_ref().find_map(said).expect("the child writes");
    std::thread::sleep(length);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.filter_map(said).last().unwrap_or(first)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    everywhere(async |place| {
        for death in 0..DEATHS {
            let length = Duration::from_millis(u64::from(death * 7 % 60));
            let acknowledged = tokio::task::block_in_place(|| life(place, length));
            let storage = place.open().await;
            let mut journal = storage.export("hall");
            let mut found = 0;
            while let Some(recorded) = journal.next().await.unwrap() {
                assert_eq!((recorded.sequence, recorded.entry), (found as i64 + 1, numbered(found)));
                found += 1;
            }
            assert!(found > acknowledged, "{acknowledged} was acknowledged, {found} are there");
            let restored = storage.restore().await.unwrap();
            let hall = &restored[0];
            let begin = hall.snapshot.as_ref().map_or(0, |snapshot| number(&snapshot.body) + 1);
            assert!(begin.is_multiple_of(SNAPSHOT) || begin % SNAPSHOT == 1, "{begin}");
            let numbers: Vec<_> = hall.entries.iter().map(|recorded| number(&recorded.entry.body)).collect();
            assert_eq!(numbers, (begin..found).collect::<Vec<_>>());
            storage.close().await;
        }
    })
    .await;
}
