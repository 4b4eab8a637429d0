//! Training runs as their folders tell of them. Folders are found by looking through those that the service was told
//! of, and runs are asked for by the names that were found, so no name leads anywhere else. Links are not followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use remora_trainer::run::{ALPHAS, Line, Validation};
use remora_trainer::status::{self, State, Status};
use remora_trainer::summary::Evaluation;
use serde::Deserialize;

use crate::evaluation::{Outcome, outcomes};

/// Files of a run that are given away.
pub const FILES: [&str; 4] = ["config.toml", "metrics.jsonl", "evaluation.json", "report.html"];
/// How deep below a folder runs may lie, how many are known, and how many folders are looked into for them.
const DEPTH: usize = 4;
const MOST_RUNS: usize = 2000;
const MOST_FOLDERS: usize = 20_000;
/// Of a file, how much is read.
const MOST_BYTES: u64 = 64 << 20;
/// Points of a curve.
pub const MOST_POINTS: usize = 500;

/// The runs below some folders.
#[derive(Debug)]
pub struct Runs {
    /// By the name that runs below it begin with.
    roots: BTreeMap<String, PathBuf>,
    /// What metrics said, and how long the file was then and when it was written.
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

#[derive(Debug)]
struct Known {
    length: u64,
    written: Option<SystemTime>,
    figures: Arc<Figures>,
}

/// A run as it stands.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub folder: PathBuf,
    pub status: &'static str,
    pub reason: String,
    pub scenarios: Vec<String>,
    pub seed: u64,
    /// Milliseconds since 1970; 0 where that is not known.
    pub wrote_ms: i64,
    /// Its own note, where it left one.
    pub note: Option<Status>,
    pub figures: Arc<Figures>,
    pub files: Vec<&'static str>,
}

impl Run {
    /// The last validation: of the metrics, or of its end.
    pub fn last(&self) -> Option<&Validation> {
        let end = self.note.as_ref().and_then(|note| note.validation.as_ref());
        end.or(self.figures.last.as_ref())
    }

    /// The least cost over greedy-marginal that a validation came to.
    pub fn best(&self) -> Option<f64> {
        let last = self.last().map(|last| last.cost);
        self.figures.best.into_iter().chain(last).reduce(f64::min)
    }
}

/// What metrics.jsonl comes to.
#[derive(Debug, Default)]
pub struct Figures {
    pub iteration: u64,
    pub decisions: u64,
    pub best: Option<f64>,
    pub last: Option<Validation>,
    pub damaged: u64,
}

/// How a run learnt.
#[derive(Debug)]
pub struct Learnt {
    pub run: Run,
    pub curve: Vec<Point>,
    /// Iterations of a point.
    pub every: usize,
    /// What came of comparing it with others.
    pub results: Vec<Outcome>,
}

/// Some iterations in a row: means, and of validations the last.
#[derive(Debug)]
pub struct Point {
    pub last: Line,
    pub exploring_cost: f64,
    pub policy_loss: f64,
    pub value_loss: Option<f64>,
    pub entropy: f64,
    pub kl: f64,
    pub gradient_norm: f64,
    pub validation: Option<Validation>,
}

/// What of config.toml is told; versions may differ in the rest.
#[derive(Default, Deserialize)]
#[serde(default)]
struct About {
    seed: u64,
    scenarios: Vec<String>,
}

impl Runs {
    /// Below these folders; none where there are none.
    pub fn below(folders: &[PathBuf]) -> Option<Runs> {
        let mut roots = BTreeMap::new();
        for folder in folders {
            // One that is made later is found later.
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let name = folder.file_name().map_or_else(|| "runs".to_owned(), |it| it.to_string_lossy().into());
            let names = (2..).map(|number| format!("{name}-{number}"));
            let name = std::iter::once(name.clone()).chain(names).find(|name| !roots.contains_key(name));
            roots.insert(name.unwrap_or_default(), folder);
        }
        (!roots.is_empty()).then(|| Runs { roots, known: Mutex::default() })
    }

    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.roots.values().map(PathBuf::as_path)
    }

    /// Folders that hold runs, by name.
    fn find(&self) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        let mut looked = 0;
        for (name, root) in &self.roots {
            let mut open = vec![(name.clone(), root.clone(), 0)];
            while let Some((name, folder, depth)) = open.pop() {
                looked += 1;
                if found.len() >= MOST_RUNS || looked > MOST_FOLDERS {
                    return found;
                }
                if is_run(&folder) {
                    found.insert(name, folder);
                } else if depth < DEPTH {
                    open.extend(
                        folders(&folder).map(|(inner, path)| (format!("{name}/{inner}"), path, depth + 1)),
                    );
                }
            }
        }
        found
    }

    /// Those in whose names a text is: those under way, then the others by when they last wrote, newest first.
    pub fn list(&self, matching: &str) -> Vec<Run> {
        let found = self.find();
        self.forget_but(&found);
        let wanted = found.into_iter().filter(|(id, _)| id.contains(matching));
        let mut runs: Vec<Run> = wanted
            .map(|(id, folder)| {
                let figures = self.figures(&folder);
                read_run(id, folder, figures)
            })
            .collect();
        runs.sort_by(|a, b| {
            let rank = |run: &Run| (run.status != "running", -run.wrote_ms);
            rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id))
        });
        runs
    }

    /// How a run learns, in so many points; nothing where there is no such run.
    pub fn learnt(&self, id: &str, points: usize) -> Option<Learnt> {
        let folder = self.find().remove(id)?;
        let (mut lines, figures) = self.metrics(&folder);
        let every = lines.len().div_ceil(points.max(1)).max(1);
        let results = results(&folder);
        let run = read_run(id.to_owned(), folder, figures);
        if let Some(last) = lines.last_mut().filter(|last| last.validation.is_none()) {
            last.validation = run.note.as_ref().and_then(|note| note.validation.clone());
        }
        Some(Learnt { run, curve: lines.chunks(every).map(point).collect(), every, results })
    }

    /// One of [`FILES`] of a run; nothing where it is not there.
    pub fn file(&self, id: &str, name: &str) -> Option<Vec<u8>> {
        let name = FILES.into_iter().find(|known| *known == name)?;
        read(&self.find().remove(id)?.join(name)).ok()
    }

    /// Changes whenever a run does, as far as that can be seen from outside.
    pub fn mark(&self) -> Vec<(String, i64, bool)> {
        let seen = |(id, folder): (String, PathBuf)| (id, wrote_ms(&folder), status::is_running(&folder));
        self.find().into_iter().map(seen).collect()
    }

    /// What metrics come to, read anew only where the file changed.
    fn figures(&self, folder: &Path) -> Arc<Figures> {
        let (length, written) = stamp(folder);
        let same = |known: &&Known| (known.length, known.written) == (length, written);
        let before = self.known().get(folder).filter(same).map(|known| known.figures.clone());
        before.unwrap_or_else(|| self.metrics(folder).1)
    }

    /// What metrics say, and what they come to.
    fn metrics(&self, folder: &Path) -> (Vec<Line>, Arc<Figures>) {
        // Of before it is read: what is written meanwhile makes it be read again.
        let (length, written) = stamp(folder);
        let (lines, damaged) = lines(folder);
        let costs = lines.iter().filter_map(|line| Some(line.validation.as_ref()?.cost));
        let figures = Arc::new(Figures {
            iteration: lines.last().map_or(0, |line| line.iteration),
            decisions: lines.last().map_or(0, |line| line.decisions),
            best: costs.reduce(f64::min),
            last: lines.iter().rev().find_map(|line| line.validation.clone()),
            damaged,
        });
        self.known().insert(folder.to_owned(), Known { length, written, figures: figures.clone() });
        (lines, figures)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_but(&self, found: &BTreeMap<String, PathBuf>) {
        let mut known = self.known();
        if known.len() > found.len() {
            known.retain(|folder, _| found.values().any(|still| still == folder));
        }
    }
}

/// A run as its folder and what its metrics come to tell of it.
fn read_run(id: String, folder: PathBuf, figures: Arc<Figures>) -> Run {
    let mut reason = String::new();
    let about = match read(&folder.join("config.toml")) {
        Ok(text) => toml::from_str(&String::from_utf8_lossy(&text)).unwrap_or_else(|_| {
            reason = "config.toml is damaged".to_owned();
            About::default()
        }),
        Err(error) => {
            reason = format!("config.toml cannot be read: {error}");
            About::default()
        }
    };
    let note = read(&folder.join(status::FILE)).ok();
    let note: Option<Status> = note.and_then(|text| serde_json::from_slice(&text).ok());
    let status = match note.as_ref().map(|note| note.state) {
        _ if status::is_running(&folder) => "running",
        Some(State::Ended) => "ended",
        Some(State::Failed) => "failed",
        Some(State::Running) | None => "stopped",
    };
    if let Some(why) = note.as_ref().map(|note| &note.reason).filter(|why| !why.is_empty()) {
        reason = why.clone();
    }
    let files = FILES.into_iter().filter(|name| is_file(&folder.join(name))).collect();
    let About { seed, scenarios } = about;
    let wrote_ms = wrote_ms(&folder);
    Run { id, folder, status, reason, scenarios, seed, wrote_ms, note, figures, files }
}

/// How long metrics are, and when they were last written.
fn stamp(folder: &Path) -> (u64, Option<SystemTime>) {
    let metadata = folder.join("metrics.jsonl").symlink_metadata().ok();
    (metadata.as_ref().map_or(0, |it| it.len()), metadata.and_then(|it| it.modified().ok()))
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_file())
}

/// Training begins with its configuration and a folder for checkpoints.
fn is_run(folder: &Path) -> bool {
    is_file(&folder.join("config.toml"))
        && (folder.join("checkpoints").is_dir() || is_file(&folder.join("metrics.jsonl")))
}

/// Plain folders in a folder, in order; hidden ones are left out, and what cannot be read.
fn folders(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let plain = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named = plain.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut found: Vec<_> = named.filter(|(name, _)| !name.starts_with('.')).collect();
    // The last is looked into first.
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found.into_iter()
}

/// A plain file, as far as it is read.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !is_file(path) {
        return Err(ErrorKind::NotFound.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What of metrics.jsonl can be read, and how many lines cannot. The last may be half written and is not damaged.
fn lines(folder: &Path) -> (Vec<Line>, u64) {
    let text = read(&folder.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (mut lines, mut damaged) = (Vec::new(), 0);
    for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Line>(line) {
            Ok(line) => lines.push(line),
            Err(_) => damaged += 1,
        }
    }
    (lines, damaged)
}

/// When something of a run was last written.
fn wrote_ms(folder: &Path) -> i64 {
    let written = ["metrics.jsonl", status::FILE, "evaluation.json", "config.toml"]
        .into_iter()
        .filter_map(|name| folder.join(name).symlink_metadata().ok()?.modified().ok());
    let since_1970 = written.max().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since_1970.map_or(0, |since| since.as_millis() as i64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// `lines` has one line at least.
fn point(lines: &[Line]) -> Point {
    let of = |figure: fn(&Line) -> f64| mean(lines.iter().map(figure)).unwrap_or_default();
    Point {
        last: lines[lines.len() - 1].clone(),
        exploring_cost: of(|line| line.exploring_cost),
        policy_loss: of(|line| line.policy_loss),
        value_loss: mean(lines.iter().filter_map(|line| line.value_loss)),
        entropy: of(|line| line.entropy),
        kl: of(|line| line.kl),
        gradient_norm: of(|line| line.gradient_norm),
        validation: lines.iter().rev().find_map(|line| line.validation.clone()),
    }
}

/// What evaluation.json says, if it can be read.
fn results(folder: &Path) -> Vec<Outcome> {
    let text = read(&folder.join("evaluation.json")).unwrap_or_default();
    serde_json::from_slice::<Evaluation>(&text).as_ref().map(outcomes).unwrap_or_default()
}

/// A validation's costs with the α of each.
pub fn by_alpha(validation: &Validation) -> impl Iterator<Item = (f64, f64)> {
    ALPHAS.into_iter().zip(validation.by_alpha.iter().copied())
}
