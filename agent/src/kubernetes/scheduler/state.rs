//! What the scheduler knows and decides, without clock or network: what happens goes in, what is to be
//! done comes out. A pod is assumed on its node from the decision on, and forgotten there if binding
//! fails.

mod deciding;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use remora_proto::v1 as wire;
use wire::change::Change;

use super::queue::Queue;
use crate::kubernetes::bind::{Binding, Failure};
use crate::kubernetes::book::Book;
use crate::kubernetes::facts::pod::Phase;
use crate::kubernetes::facts::{NodeFacts, PodFacts, Settings};
use crate::kubernetes::filter::{self, Used};

/// Something a watch has seen.
#[derive(Clone, Debug)]
pub enum Seen<T> {
    /// A list begins: what it does not contain is gone.
    Start,
    Is(Box<T>),
    Gone(Box<T>),
    End,
}

/// Everything that can happen.
#[derive(Debug)]
pub enum Happening {
    Node(Seen<NodeFacts>),
    /// A pod that names this scheduler.
    Own(Seen<PodFacts>),
    /// A pod of somebody else that has a node.
    Other(Seen<PodFacts>),
    Settings(Box<Settings>),
    /// The extender chose this node for a pod of somebody else, which will be seen there, or not.
    Chosen {
        uid: String,
        node: String,
        decision_id: String,
    },
    Bound {
        uid: String,
        result: Result<(), Failure>,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Bind(Binding),
    Tell(Note),
    Report(wire::ReportOutcomeRequest),
}

/// An event of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub warning: bool,
    pub reason: &'static str,
    pub text: String,
}

/// A question to the core, and what it has to hear before.
#[derive(Debug)]
pub struct Ask {
    pub uid: String,
    pub request: wire::PlaceRequest,
    /// Empty where all nodes will do.
    pub among: Vec<String>,
}

/// What the core has to hear.
#[derive(Debug)]
pub enum News {
    Anew(Box<wire::RegisterClusterRequest>),
    Changes(Vec<Change>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Decided, and not seen on its node yet.
    Assumed(String),
    Bound(String),
    Ended,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<PodFacts>,
    own: bool,
    stage: Stage,
    /// Under which the core knows it; empty where it does not.
    decision_id: String,
    /// The core does not take it as ended, however long it lasts.
    confirmed: bool,
    binding: bool,
    told: Option<(String, Instant)>,
}

/// A choice of the extender whose pod was not seen on a node yet.
#[derive(Debug)]
struct Choice {
    node: String,
    decision_id: String,
    until: Instant,
}

/// How long a pod may take from the choice to its node; then the choice holds nothing more.
const BINDING: Duration = Duration::from_secs(60);

/// The sources that have to be heard before anything is decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Nodes,
    Own,
    Other,
}

/// All that it knows.
pub struct State {
    book: Book,
    pods: BTreeMap<String, Entry>,
    /// By pod.
    choices: BTreeMap<String, Choice>,
    /// Of every node that pods are on, known or not.
    used: BTreeMap<String, Used>,
    queue: Queue,
    /// Names that a list under way contained.
    listing: BTreeMap<Source, BTreeSet<String>>,
    heard: BTreeSet<Source>,
    settings_heard: bool,
    changes: Vec<Change>,
    anew: bool,
    /// How many pods the core was told of that it did not place.
    placements: u64,
    bindings: usize,
    most_bindings: usize,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (nodes, pods, waiting) = (self.book.nodes().len(), self.pods.len(), self.queue.len());
        write!(f, "State {{ nodes: {nodes}, pods: {pods}, waiting: {waiting}, bindings: {} }}", self.bindings)
    }
}

impl State {
    pub fn new(cluster: &str, most_bindings: usize) -> State {
        State {
            book: Book::new(cluster, Settings::default()),
            pods: BTreeMap::new(),
            choices: BTreeMap::new(),
            used: BTreeMap::new(),
            queue: Queue::default(),
            listing: BTreeMap::new(),
            heard: BTreeSet::new(),
            settings_heard: false,
            changes: Vec::new(),
            anew: true,
            placements: 0,
            bindings: 0,
            most_bindings,
            effects: Vec::new(),
        }
    }

    /// Nodes, pods and settings are known.
    pub fn is_ready(&self) -> bool {
        self.settings_heard && self.heard.len() == 3
    }

    /// What the core calls the cluster.
    pub fn cluster(&self) -> &str {
        self.book.id()
    }

    /// When to look again though nothing happens.
    pub fn next_end(&self) -> Option<Instant> {
        self.queue.next_end()
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn handle(&mut self, now: Instant, wall: Timestamp, happening: Happening) {
        match happening {
            Happening::Node(seen) => self.node(seen),
            Happening::Own(seen) => self.seen_pod(wall, Source::Own, seen),
            Happening::Other(seen) => self.seen_pod(wall, Source::Other, seen),
            Happening::Settings(settings) => {
                self.settings_heard = true;
                self.book.set(*settings);
                self.anew = true;
                self.wake_all();
            }
            Happening::Chosen { uid, node, decision_id } => {
                let known = self.pods.get(&uid).is_some_and(|entry| entry.node().is_some());
                let until = if known { now } else { now + BINDING };
                let before = self.choices.insert(uid, Choice { node, decision_id, until });
                // Whoever asks again did not take the first.
                before.into_iter().for_each(|choice| self.report(choice.decision_id, true, None));
            }
            Happening::Bound { uid, result } => self.bound(now, &uid, result),
        }
    }

    /// Ends choices whose pods were seen on no node in time.
    pub fn let_go(&mut self, now: Instant) {
        let late: Vec<_> = self.choices.extract_if(.., |_, choice| choice.until <= now).collect();
        late.into_iter().for_each(|(_, choice)| self.report(choice.decision_id, true, None));
    }

    /// Something got better on this node: whom it could take is tried at once, but for this one.
    fn may_help(&mut self, name: &str, except: &str) {
        let Some(node) = self.book.nodes().get(name) else { return };
        let idle = Used::default();
        let used = self.used.get(name).unwrap_or(&idle);
        let helped = self.queue.resting().filter(|uid| {
            let allowed = |entry: &Entry| filter::forbids(&entry.facts, node, used).is_none();
            *uid != except && self.pods.get(*uid).is_some_and(allowed)
        });
        for uid in helped.cloned().collect::<Vec<_>>() {
            self.queue.wake(&uid);
        }
    }

    fn wake_all(&mut self) {
        for uid in self.queue.resting().cloned().collect::<Vec<_>>() {
            self.queue.wake(&uid);
        }
    }

    // Pods.

    fn seen_pod(&mut self, wall: Timestamp, source: Source, seen: Seen<PodFacts>) {
        match seen {
            Seen::Start => drop(self.listing.insert(source, BTreeSet::new())),
            Seen::Is(facts) => {
                if let Some(listed) = self.listing.get_mut(&source) {
                    listed.insert(facts.uid.clone());
                }
                self.pod_is(wall, source == Source::Own, Arc::new(*facts));
            }
            Seen::Gone(facts) => self.pod_gone(&facts.uid),
            Seen::End => {
                let listed = self.listing.remove(&source).unwrap_or_default();
                let own = source == Source::Own;
                let of_source = self.pods.iter().filter(|(_, entry)| entry.own == own);
                let gone: Vec<_> =
                    of_source.map(|(uid, _)| uid).filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.pod_gone(uid));
                self.heard.insert(source);
            }
        }
    }

    fn pod_is(&mut self, wall: Timestamp, own: bool, facts: Arc<PodFacts>) {
        let uid = facts.uid.clone();
        if !self.pods.contains_key(&uid) {
            if own {
                self.warn(&facts);
            }
            let entry = Entry {
                facts: Arc::clone(&facts),
                own,
                stage: Stage::Waiting,
                decision_id: String::new(),
                confirmed: false,
                binding: false,
                told: None,
            };
            self.pods.insert(uid.clone(), entry);
        }
        let stage = self.pods[&uid].stage.clone();
        if facts.phase != Phase::Alive {
            self.end(wall, &uid, &facts);
        } else if let Some(node) = facts.occupies() {
            self.is_on(&uid, node, &facts);
        } else if stage == Stage::Waiting {
            let rests = self.queue.rests(&uid);
            let changed = *self.pods[&uid].facts != *facts;
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.facts = Arc::clone(&facts);
            }
            if facts.deleting || facts.gated || !own {
                self.queue.leave(&uid);
            } else if !rests || changed {
                self.queue.enter(&uid, facts.priority, facts.created);
            }
        }
    }

    /// It was seen on a node: where it was assumed, or where somebody else put it.
    fn is_on(&mut self, uid: &str, node: &str, facts: &Arc<PodFacts>) {
        self.queue.leave(uid);
        let entry = self.pods.get_mut(uid).expect("the pod was entered");
        let before = entry.node().map(str::to_owned);
        let old = std::mem::replace(&mut entry.facts, Arc::clone(facts));
        entry.stage = Stage::Bound(node.to_owned());
        if let Some(before) = &before {
            self.used.entry(before.clone()).or_default().remove(&old);
        }
        self.used.entry(node.to_owned()).or_default().add(facts);
        if before.as_deref() != Some(node) {
            self.forget_decision(uid);
            match self.choices.remove(uid) {
                Some(choice) if choice.node == node => {
                    let entry = self.pods.get_mut(uid).expect("the pod was entered");
                    (entry.decision_id, entry.confirmed) = (choice.decision_id, false);
                }
                other => {
                    other.into_iter().for_each(|choice| self.report(choice.decision_id, true, None));
                    self.place_there(uid, node);
                }
            }
        }
    }

    /// Tells the core of a pod on a node that it knows, but did not choose for it.
    fn place_there(&mut self, uid: &str, node: &str) {
        if self.anew || !self.book.knows(node) {
            return;
        }
        let entry = self.pods.get_mut(uid).expect("the pod was entered");
        // No decision has the id of one before it, which the core may remember.
        self.placements += 1;
        entry.decision_id = format!("{uid}/{}", self.placements);
        entry.confirmed = true;
        let (task, changes) = self.book.task(&entry.facts);
        let task = Some(placed_task(&entry.decision_id, &entry.facts, task));
        self.change(changes);
        self.change([Change::Placed(wire::Placed { node: node.to_owned(), task })]);
    }

    /// The decision did not come to pass.
    fn forget_decision(&mut self, uid: &str) {
        let entry = self.pods.get_mut(uid).expect("the pod was entered");
        let decision_id = std::mem::take(&mut entry.decision_id);
        if !decision_id.is_empty() {
            self.report(decision_id, true, None);
        }
    }

    fn report(&mut self, decision_id: String, failed: bool, response_s: Option<f64>) {
        self.effects.push(Effect::Report(wire::ReportOutcomeRequest {
            cluster_id: self.book.id().to_owned(),
            decision_id,
            failed,
            response_s,
            ..wire::ReportOutcomeRequest::default()
        }));
    }

    fn end(&mut self, wall: Timestamp, uid: &str, facts: &Arc<PodFacts>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.facts = Arc::clone(facts);
        if entry.stage == Stage::Ended {
            return;
        }
        self.queue.leave(uid);
        let taken = self.release(uid);
        let entry = self.pods.get_mut(uid).expect("it was there a moment ago");
        entry.stage = Stage::Ended;
        let decision_id = std::mem::take(&mut entry.decision_id);
        let response =
            facts.created.map(|created| facts.ended.unwrap_or(wall).duration_since(created).as_secs_f64());
        if !decision_id.is_empty() {
            let measured = response.filter(|s| (0.0..=1e9).contains(s));
            self.report(decision_id, facts.phase == Phase::Failed, measured);
        }
        taken.iter().for_each(|node| self.may_help(node, uid));
    }

    /// Deleted: it holds nothing any more, and if it had not ended, it did not get to its end.
    fn pod_gone(&mut self, uid: &str) {
        self.queue.leave(uid);
        if !self.pods.contains_key(uid) {
            return;
        }
        let freed = self.release(uid);
        self.forget_decision(uid);
        self.pods.remove(uid);
        freed.iter().for_each(|node| self.may_help(node, uid));
    }

    /// Gives back what it holds; the node it held.
    fn release(&mut self, uid: &str) -> Option<String> {
        let entry = self.pods.get(uid)?;
        let node = entry.node()?.to_owned();
        let used = self.used.entry(node.clone()).or_default();
        used.remove(&entry.facts);
        if *used == Used::default() || used.pods <= 0 {
            self.used.remove(&node);
        }
        Some(node)
    }
}

impl Entry {
    fn node(&self) -> Option<&str> {
        match &self.stage {
            Stage::Assumed(node) | Stage::Bound(node) => Some(node),
            Stage::Waiting | Stage::Ended => None,
        }
    }
}

fn placed_task(decision_id: &str, facts: &PodFacts, task: wire::Task) -> wire::PlacedTask {
    let remaining_s = facts.work.execution.as_ref().and_then(|execution| execution.elsewhere);
    wire::PlacedTask {
        task: Some(task),
        expected_remaining_s: Some(remaining_s.unwrap_or(if facts.work.service { 3600.0 } else { 10.0 })),
        decision_id: decision_id.to_owned(),
        ..wire::PlacedTask::default()
    }
}
