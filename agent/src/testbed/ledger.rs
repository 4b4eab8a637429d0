//! What the processes of a testbed note down: each byte that was sent and received, each task that was worked on.
//!
//! A file of lines for each process, written at once: what a process noted before it was killed is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use remora_env::cluster::{Item, TaskId};
use remora_env::topology::{NodeId, VertexId};
use serde::{Deserialize, Serialize};

/// Its name in the folder of a process.
pub const LEDGER: &str = "ledger.jsonl";

/// A task as it is sent to a node. Numbers are those of the world that all processes know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Under which its outcome is reported.
    pub decision: String,
    pub id: TaskId,
    /// Index of the task in the world.
    pub task: u32,
    pub inputs: Vec<Input>,
    /// Datasets that it writes, and the version that it makes of each.
    pub outputs: Vec<(u32, u32)>,
    /// How long it executes where it has the CPU that it uses.
    pub execution_s: f64,
    /// Seconds since it arrived, when it was sent.
    pub age_s: f64,
    /// Only ask what became of it.
    pub again: bool,
}

/// A dataset that a task reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    pub dataset: u32,
    /// This version or a later one.
    pub version: u32,
    /// Who keeps it for good.
    pub sources: Vec<NodeId>,
}

/// What became of a job. Times are seconds since the node was given it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Why it came to nothing; empty if it did not.
    pub failed: String,
    /// Its requests were set aside.
    pub admitted_s: f64,
    /// The layers of its image were there.
    pub pulled_s: f64,
    /// Its inputs were there too.
    pub fetched_s: f64,
    /// Its container ran.
    pub started_s: f64,
    pub executed_s: f64,
    pub stored_s: f64,
    /// CPU that its execution took.
    pub cpu_s: f64,
    pub moved: Vec<Moved>,
}

/// Bytes that were moved for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    pub cargo: Cargo,
    pub from: VertexId,
    pub to: VertexId,
    pub bytes: u64,
    pub seconds: f64,
    /// Transfers to or from the node that were under way at the same time, at its beginning.
    pub others: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cargo {
    Image,
    Input,
    Output,
}

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Bytes were handed to the network.
    Sent(Passed),
    /// Bytes came from it, and each was compared with what it has to be.
    Received(Passed),
    /// Bytes came that were not what they have to be.
    Wrong { transfer: String, item: String },
    /// A job ended here that was so old when it came.
    Ended { decision: String, age_s: f64, report: Report },
    /// The service knows: "" as any outcome, else what it said.
    Told { decision: String, answer: String },
    /// Something was removed to make room.
    Evicted { item: String, bytes: u64 },
}

/// One side of a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    /// The same at both ends.
    pub transfer: String,
    pub item: String,
    /// The other end.
    pub with: VertexId,
    pub bytes: u64,
    pub seconds: f64,
    /// All that was wanted.
    pub whole: bool,
}

/// How an item is called between processes and in ledgers.
pub fn name(item: Item) -> String {
    match item {
        Item::Layer(layer) => format!("layer/{layer}"),
        Item::Dataset(dataset) => format!("dataset/{dataset}"),
    }
}

/// The ledger of one process.
#[derive(Debug)]
pub struct Ledger(Mutex<File>);

impl Ledger {
    pub fn open(folder: &Path) -> io::Result<Ledger> {
        Ok(Ledger(Mutex::new(File::options().create(true).append(true).open(folder.join(LEDGER))?)))
    }

    /// Notes a line. What cannot be noted is said on stderr: the books will not balance.
    pub fn note(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("plain data becomes JSON");
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&text) {
            eprintln!("error: the ledger cannot be written: {error}");
        }
    }
}

/// Reads a ledger; the last line may be cut short where its process was killed.
pub fn read(folder: &Path) -> Result<Vec<Line>> {
    let path = folder.join(LEDGER);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{line:?}"))).collect()
}

/// The books of bytes over all processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Books {
    pub transfers: usize,
    /// Broken off by a fault, by a timeout or with their process; what they had carried was fetched on from there.
    pub broken: usize,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Sent over transfers that broke, and never received.
    pub lost_bytes: u64,
    /// Transfers that ended well at one side, and of which the other knows other bytes or nothing.
    pub unbalanced: usize,
    /// Transfers whose bytes were wrong.
    pub wrong: usize,
    pub evicted: usize,
    pub evicted_bytes: u64,
}

impl Books {
    /// Adds up all ledgers.
    pub fn of<'a>(lines: impl Iterator<Item = &'a Line>) -> Books {
        let mut books = Books::default();
        let mut ends: BTreeMap<&str, [Option<&Passed>; 2]> = BTreeMap::new();
        for line in lines {
            match line {
                Line::Sent(passed) => ends.entry(&passed.transfer).or_default()[0] = Some(passed),
                Line::Received(passed) => ends.entry(&passed.transfer).or_default()[1] = Some(passed),
                Line::Wrong { .. } => books.wrong += 1,
                Line::Evicted { bytes, .. } => {
                    books.evicted += 1;
                    books.evicted_bytes += bytes;
                }
                Line::Ended { .. } | Line::Told { .. } => {}
            }
        }
        for [sent, received] in ends.into_values() {
            let bytes = |side: Option<&Passed>| side.map_or(0, |passed| passed.bytes);
            let whole = |side: Option<&Passed>| side.is_some_and(|passed| passed.whole);
            books.transfers += 1;
            books.sent_bytes += bytes(sent).max(bytes(received));
            books.received_bytes += bytes(received);
            if whole(sent) && whole(received) {
                books.unbalanced += usize::from(bytes(sent) != bytes(received));
            } else if whole(received) && sent.is_some() {
                books.unbalanced += 1;
            } else {
                books.broken += 1;
                books.lost_bytes += bytes(sent).saturating_sub(bytes(received));
            }
        }
        books
    }

    /// Every byte that was sent was received, as it had to be, or is known to have been lost.
    pub fn balance(&self) -> bool {
        self.unbalanced == 0 && self.wrong == 0 && self.sent_bytes == self.received_bytes + self.lost_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Books, Line, Passed};

    fn passed(transfer: &str, bytes: u64, whole: bool) -> Passed {
        let (transfer, item) = (transfer.to_owned(), "layer/1".to_owned());
        Passed { transfer, item, with: 0, bytes, seconds: 1.0, whole }
    }

    #[test]
    fn bytes_that_are_missing_are_noticed() {
        let lines = [
            Line::Sent(passed("a", 10, true)),
            Line::Received(passed("a", 10, true)),
            Line::Sent(passed("b", 10, false)),
            Line::Received(passed("b", 4, false)),
        ];
        let books = Books::of(lines.iter());
        assert!(books.balance(), "{books:?}");
        assert_eq!((books.transfers, books.broken, books.lost_bytes), (2, 1, 6));
        let short = [Line::Sent(passed("a", 10, true)), Line::Received(passed("a", 9, true))];
        assert!(!Books::of(short.iter()).balance());
        let wrong = Line::Wrong { transfer: "a".to_owned(), item: "layer/1".to_owned() };
        assert!(!Books::of(lines.iter().chain([&wrong])).balance());
    }
}
