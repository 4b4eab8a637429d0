//! The one owner of what the extender knows: it turns a pod and nodes into scores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_proto::v1 as wire;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status};
use wire::change::Change;

use super::Config;
use crate::kubernetes::book::{Book, MAX_NODES};
use crate::kubernetes::core::Core;
use crate::kubernetes::facts::{NodeFacts, PodFacts, image_name};
use crate::kubernetes::scheduler::state::Happening;

/// Best score of an extender.
pub const MAX_SCORE: i64 = 10;
/// Nodes that are not known are looked for again after this long.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Most candidates that the core lists.
const ALL: i64 = 20_000;

/// Nodes of a request.
#[derive(Debug)]
pub enum Among {
    /// Of a registered cluster.
    Names(Vec<String>),
    /// Names in order, and those of them that are new or changed.
    Nodes(Vec<String>, Vec<NodeFacts>),
}

/// A pod that asks for scores, in the order of its nodes.
#[derive(Debug)]
pub struct Ask {
    pub pod: PodFacts,
    pub among: Among,
    /// Only the best node is wanted: it alone has a score.
    pub best: bool,
    pub reply: oneshot::Sender<Result<Vec<i64>, Status>>,
}

/// What a registered cluster calls things.
#[derive(Debug, Default)]
struct Vocabulary {
    kinds: BTreeSet<String>,
    /// By full name.
    images: BTreeMap<String, String>,
    datasets: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

pub struct Advisor {
    core: Arc<dyn Core>,
    cluster: String,
    /// Kinds, images and datasets for clusters that somebody else registers.
    words: Book,
    known: Option<Vocabulary>,
    /// When that was read.
    read: Instant,
    /// The cluster that requests with full nodes are about.
    own: Book,
    registered: bool,
    /// What the core has not heard of it yet.
    changes: Vec<Change>,
    /// Versions of its nodes, for those who read requests.
    heard: watch::Sender<Arc<BTreeMap<String, String>>>,
    /// Hears of choices in the registered cluster.
    keeper: Option<mpsc::Sender<Happening>>,
}

impl Advisor {
    pub fn new(
        core: Arc<dyn Core>,
        Config { cluster, settings, keeper, .. }: Config,
        heard: watch::Sender<Arc<BTreeMap<String, String>>>,
    ) -> Advisor {
        let own = format!("{cluster}/extender");
        Advisor {
            core,
            words: Book::new(&cluster, settings.clone()),
            cluster,
            known: None,
            read: Instant::now(),
            own: Book::new(&own, settings),
            registered: false,
            changes: Vec::new(),
            heard,
            keeper,
        }
    }

    /// Answers until nobody can ask any more.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(mut ask) = asks.recv().await {
            if let Among::Nodes(names, new) = &mut ask.among {
                self.meet(names, std::mem::take(new));
            }
            // Whoever ran out of time is not waiting.
            if !ask.reply.is_closed() {
                let scores = self.answer(&ask).await;
                ask.reply.send(scores).unwrap_or_default();
            }
        }
    }

    async fn answer(&mut self, ask: &Ask) -> Result<Vec<i64>, Status> {
        match &ask.among {
            Among::Names(names) => match self.registered(ask, names).await {
                // Somebody registered the cluster anew, with other words.
                Err(status) if status.code() == Code::InvalidArgument => {
                    self.known = None;
                    self.registered(ask, names).await
                }
                answer => answer,
            },
            Among::Nodes(names, _) => match self.described(ask, names).await {
                Err(status) if status.code() == Code::NotFound => {
                    self.registered = false;
                    self.described(ask, names).await
                }
                answer => answer,
            },
        }
    }

    // A cluster that somebody else registers.

    async fn registered(&mut self, ask: &Ask, names: &[String]) -> Result<Vec<i64>, Status> {
        let strange = |known: &Vocabulary| names.iter().any(|name| !known.nodes.contains(name));
        if self.known.as_ref().is_none_or(|known| strange(known) && self.read.elapsed() > READ_AGAIN) {
            self.read = Instant::now();
            self.known = Some(vocabulary(&self.core.get(&self.cluster).await?));
            self.words.forget();
        }
        let (mut task, changes) = self.words.task(&ask.pod);
        let known = self.known.as_mut().expect("it was just read");
        if !known.kinds.contains(&task.kind) && known.kinds.contains(&ask.pod.work.kind) {
            task.kind.clone_from(&ask.pod.work.kind);
        }
        if let Some(name) = known.images.get(&task.image) {
            task.image.clone_from(name);
        }
        let missing: Vec<_> = changes.into_iter().filter(|change| known.lacks(change, &task)).collect();
        if !missing.is_empty() {
            self.core.update(&self.cluster, missing.clone()).await?;
            missing.iter().for_each(|change| known.learn(change));
        }
        let among = names.iter().filter(|name| known.nodes.contains(*name)).cloned().collect();
        self.scores(self.cluster.clone(), ask, task, names, among).await
    }

    // A cluster of the nodes that requests bring.

    /// Enters nodes that are new or changed.
    fn meet(&mut self, names: &[String], new: Vec<NodeFacts>) {
        if new.is_empty() {
            return;
        }
        if self.own.nodes().len() + new.len() > MAX_NODES {
            self.own.keep_only(&names.iter().map(String::as_str).collect());
            self.registered = false;
        }
        for node in new {
            self.changes.extend(self.own.apply(Arc::new(node)));
        }
        let versions = self.own.nodes().iter().map(|(name, node)| (name.clone(), node.version.clone()));
        self.heard.send_replace(Arc::new(versions.collect()));
    }

    async fn described(&mut self, ask: &Ask, names: &[String]) -> Result<Vec<i64>, Status> {
        if self.own.is_crowded() {
            self.own.forget();
            self.registered = false;
        }
        let (task, learnt) = self.own.task(&ask.pod);
        self.changes.extend(learnt);
        if !self.registered {
            self.changes.clear();
            let request = self.own.registration();
            let request = request.ok_or_else(|| Status::failed_precondition("no node can be registered"))?;
            self.core.register(request).await?;
            self.registered = true;
        } else if !self.changes.is_empty() {
            let updated = self.core.update(self.own.id(), std::mem::take(&mut self.changes)).await;
            self.registered = updated.is_ok();
            updated?;
        }
        let known = |name: &&String| self.own.nodes().get(*name).is_some_and(|node| node.arch.is_some());
        let among = names.iter().filter(known).cloned().collect();
        self.scores(self.own.id().to_owned(), ask, task, names, among).await
    }

    async fn scores(
        &self,
        cluster_id: String,
        ask: &Ask,
        task: wire::Task,
        names: &[String],
        among: Vec<String>,
    ) -> Result<Vec<i64>, Status> {
        // Among none of them would mean among all.
        if among.is_empty() {
            return Ok(vec![0; names.len()]);
        }
        // Who asks for scores decides by more than them.
        let keeper = self.keeper.as_ref().filter(|_| ask.best && cluster_id == self.cluster);
        let request = wire::PlaceRequest {
            cluster_id,
            task: Some(task),
            alpha: ask.pod.alpha,
            dry_run: keeper.is_none(),
            max_candidates: Some(if ask.best { 0 } else { ALL }),
            ..wire::PlaceRequest::default()
        };
        let answer = self.core.place(request, among).await?;
        if let Some(keeper) = keeper {
            self.tell(keeper, &ask.pod.uid, &answer).await;
        }
        if ask.best {
            return Ok(names.iter().map(|name| if *name == answer.node { MAX_SCORE } else { 0 }).collect());
        }
        Ok(whole_scores(names, &answer.candidates))
    }

    /// Tells of a choice; what nobody hears of holds nothing.
    async fn tell(&self, keeper: &mpsc::Sender<Happening>, uid: &str, answer: &wire::PlaceResponse) {
        let [uid, node, decision_id] = [uid, &answer.node, &answer.decision_id].map(str::to_owned);
        if keeper.try_send(Happening::Chosen { uid, node, decision_id: decision_id.clone() }).is_err() {
            let cluster_id = self.cluster.clone();
            let report =
                wire::ReportOutcomeRequest { cluster_id, decision_id, failed: true, ..Default::default() };
            drop(self.core.report(report).await);
        }
    }
}

/// Scores of a policy as those of an extender: the best node has 10, the others lie between it and the
/// worst in proportion to what the policy says of them, rounded down, so that nothing ties with the
/// best but its equals. Nodes that the policy did not consider, or does not know, have 0.
pub fn whole_scores(names: &[String], candidates: &[wire::Candidate]) -> Vec<i64> {
    let scored = candidates.iter().filter_map(|candidate| Some((candidate.node.as_str(), candidate.score?)));
    let scored: BTreeMap<_, _> = scored.filter(|(_, score)| score.is_finite()).collect();
    let of_these = || names.iter().filter_map(|name| scored.get(name.as_str()).copied());
    let best = of_these().fold(f64::NEG_INFINITY, f64::max);
    let worst = of_these().fold(f64::INFINITY, f64::min);
    let score = |score: f64| {
        let share = if best > worst { (score - worst) / (best - worst) } else { 1.0 };
        if score == best { MAX_SCORE } else { ((share * MAX_SCORE as f64) as i64).clamp(0, MAX_SCORE - 1) }
    };
    names.iter().map(|name| scored.get(name.as_str()).map_or(0, |&value| score(value))).collect()
}

fn vocabulary(request: &wire::RegisterClusterRequest) -> Vocabulary {
    let Some(cluster) = &request.cluster else { return Vocabulary::default() };
    Vocabulary {
        kinds: cluster.task_kinds.iter().map(|kind| kind.name.clone()).collect(),
        images: cluster.images.iter().map(|image| (full(&image.name), image.name.clone())).collect(),
        datasets: cluster.datasets.iter().map(|dataset| dataset.name.clone()).collect(),
        nodes: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
    }
}

/// The name of several images as one has each in full already.
fn full(name: &str) -> String {
    if name.contains(" + ") { name.to_owned() } else { image_name(name) }
}

impl Vocabulary {
    /// The cluster has to learn this before it can place that.
    fn lacks(&self, change: &Change, task: &wire::Task) -> bool {
        match change {
            Change::TaskKind(kind) => kind.name == task.kind && !self.kinds.contains(&kind.name),
            Change::Image(image) => !self.images.contains_key(&image.name),
            Change::Dataset(dataset) => !self.datasets.contains(&dataset.name),
            _ => false,
        }
    }

    fn learn(&mut self, change: &Change) {
        match change {
            Change::TaskKind(kind) => drop(self.kinds.insert(kind.name.clone())),
            Change::Image(image) => drop(self.images.insert(full(&image.name), image.name.clone())),
            Change::Dataset(dataset) => drop(self.datasets.insert(dataset.name.clone())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::whole_scores;
    use remora_proto::v1::Candidate;

    #[test]
    fn scores_are_whole_and_the_best_stands_alone() {
        let names: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let candidate =
            |node: &str, score| Candidate { node: node.to_owned(), score, ..Candidate::default() };
        let candidates = [
            candidate("b", Some(-1.0)),
            candidate("a", Some(-1.001)),
            candidate("c", Some(-2.0)),
            candidate("d", None),
        ];
        assert_eq!(whole_scores(&names, &candidates), [9, 10, 0, 0, 0]);
        assert_eq!(whole_scores(&names, &candidates[..1]), [0, 10, 0, 0, 0]);
        assert_eq!(whole_scores(&names, &[]), [0; 5]);
    }
}
