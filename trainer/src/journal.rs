//! What an evaluation has played so far, line by line, so that it can be interrupted.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use remora_env::{Scenario, Scenarios};
use remora_policies::by_name;
use serde::{Deserialize, Serialize};

use crate::evaluate::{CLAIRVOYANT, Plan, Row};

/// A row, with how response times are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    #[serde(flatten)]
    pub row: Row,
    /// What 0, 5, …, 100 % of the tasks stay under, seconds.
    pub response_s: Vec<f64>,
}

/// First line: what rows of this file belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    remora_evaluation: u32,
    revision: String,
    /// Name and content of each scenario, or of a family its first member.
    scenarios: BTreeMap<String, String>,
    /// Name of each policy and what it was: for a checkpoint its content hash.
    policies: BTreeMap<String, String>,
    tries: u64,
    #[serde(default = "one")]
    per_member: u64,
}

fn one() -> u64 {
    1
}

const VERSION: u32 = 1;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: {source}")]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("{path} is of another evaluation: {what} is not the same; choose another folder")]
    Other { path: PathBuf, what: String },
}

type Key = (String, String, u64, u64);

/// What is played already, and where to note what is played now.
#[derive(Debug, Default)]
pub struct Journal {
    known: BTreeMap<Key, Played>,
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Journal {
    /// Opens the journal of a plan, or begins it. More seeds, more values of α, more policies and scenarios
    /// may follow; those there must be the same.
    pub fn open(path: &Path, plan: &Plan) -> Result<Journal, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        let options = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = options.map_err(failed)?;
        let mut header = header(plan);
        let mut journal = Journal::default();
        let mut lines = BufReader::new(&file);
        let (mut line, mut number, mut whole) = (String::new(), 0, 0);
        while lines.read_line(&mut line).map_err(failed)? > 0 {
            number += 1;
            // A line without end is of an interruption: what it was is played again.
            if !line.ends_with('\n') {
                break;
            }
            let wrong = |source| JournalError::Line { path: path.to_owned(), line: number, source };
            if let Ok(earlier) = serde_json::from_str::<Header>(&line) {
                header
                    .include(earlier)
                    .map_err(|what| JournalError::Other { path: path.to_owned(), what })?;
            } else {
                let played: Played = serde_json::from_str(&line).map_err(wrong)?;
                journal.known.insert(key(&played.row), played);
            }
            whole += line.len() as u64;
            line.clear();
        }
        drop(lines);
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let text = serde_json::to_string(&header).expect("a header is plain data") + "\n";
        file.write_all(text.as_bytes()).map_err(failed)?;
        journal.file = Some((path.to_owned(), Mutex::new(file)));
        Ok(journal)
    }

    /// What was played before.
    pub fn known(&self, scenario: &str, policy: &str, alpha: f64, seed: u64) -> Option<Played> {
        self.known.get(&(scenario.to_owned(), policy.to_owned(), alpha.to_bits(), seed)).cloned()
    }

    /// Notes what was played now.
    pub fn append(&self, played: &Played) -> Result<(), JournalError> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        let text = serde_json::to_string(played).expect("a row is plain data") + "\n";
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(|source| JournalError::File { path: path.clone(), source })
    }
}

fn key(row: &Row) -> Key {
    (row.scenario.clone(), row.policy.clone(), row.alpha.to_bits(), row.seed)
}

fn header(plan: &Plan) -> Header {
    let content = |scenarios: &Scenarios| {
        let scenario: std::borrow::Cow<'_, Scenario> = scenarios.at(0);
        let text = serde_json::to_string(&scenario.file).expect("a scenario is plain data");
        (scenarios.name().to_owned(), text)
    };
    let identity = |policy: &String| {
        let made = by_name(policy, 0).ok().filter(|_| !CLAIRVOYANT.contains(&policy.as_str()));
        (policy.clone(), made.map_or_else(|| policy.clone(), |made| made.name().to_owned()))
    };
    Header {
        remora_evaluation: VERSION,
        revision: env!("CARGO_PKG_VERSION").to_owned(),
        scenarios: plan.scenarios.iter().map(content).collect(),
        policies: plan.policies.iter().map(identity).collect(),
        tries: plan.tries,
        per_member: plan.per_member,
    }
}

impl Header {
    /// Takes over what an earlier header has besides; says what is not the same.
    fn include(&mut self, earlier: Header) -> Result<(), String> {
        if earlier.remora_evaluation != self.remora_evaluation || earlier.revision != self.revision {
            return Err(format!("the version of Remora ({})", earlier.revision));
        }
        if earlier.tries != self.tries && earlier.policies.contains_key("hindsight") {
            return Err(format!("the number of tries ({})", earlier.tries));
        }
        if earlier.per_member != self.per_member {
            return Err(format!("the number of worlds per member ({})", earlier.per_member));
        }
        include("scenario", &mut self.scenarios, earlier.scenarios)?;
        include("policy", &mut self.policies, earlier.policies)
    }
}

fn include(
    what: &str,
    ours: &mut BTreeMap<String, String>,
    earlier: BTreeMap<String, String>,
) -> Result<(), String> {
    for (name, content) in earlier {
        if ours.get(&name).is_some_and(|ours| *ours != content) {
            return Err(format!("{what} {name}"));
        }
        ours.insert(name, content);
    }
    Ok(())
}
