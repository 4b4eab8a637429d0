//! How a task gets its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_env::Time;
use remora_env::catalogue::Task;
use remora_env::cluster::TaskId;
use remora_env::observation::{Candidate, Observation};
use remora_env::topology::NodeId;
use remora_policies::heuristics::KubeDefault;
use remora_policies::{Choice, choose};
use remora_proto::v1 as wire;

use super::{Books, Decision, Made};
use crate::service::convert::{self, DEFAULT_CANDIDATES, Field, MAX_PLACED};
use crate::service::messages::{Answer, Order, Other, Ranked};
use crate::service::names::look_up;
use crate::service::policies::{Alias, Policies};
use crate::service::refusal::Refusal;
use crate::service::savings::KUBE_DEFAULT;
use crate::service::serving::{Decider, Serving, Why};
use crate::service::why;

/// Ids of decisions that differ from the shadow's that are remembered.
const EXAMPLES: usize = 100;
/// A decision without an outcome is never taken as ended sooner.
const LEAST_EXPIRY_S: f64 = 3600.0;

/// Who decides, under which numbers.
#[derive(Debug)]
pub(in crate::service) struct Chooser {
    pub policies: Policies,
    /// Begins the ids of all decisions of this run of the service; no other run has it.
    pub run: String,
    /// Number of the next decision.
    pub next: u64,
    /// How long the champion usually takes.
    pub usual: Duration,
    /// Whom decisions are compared with, whoever has which role.
    kube_default: KubeDefault,
}

/// With less than so many times the usual left, there is no time for the policy.
const HASTE: u32 = 4;

impl Chooser {
    pub fn new(policies: Policies, run: String) -> Chooser {
        let kube_default = KubeDefault::new(policies.seed());
        Chooser { policies, run, next: 0, usual: Duration::ZERO, kube_default }
    }

    /// What Kubernetes' default scheduler would choose, where somebody has chosen.
    fn kube_default(&mut self, (who, index): (&str, usize), observation: &Observation<'_>) -> Other {
        let same = who == KUBE_DEFAULT;
        let index = if same { index } else { choose(&mut self.kube_default, observation).index };
        Other::new(KUBE_DEFAULT.into(), observation, &observation.candidates()[index])
    }

    /// Lets somebody choose; the id of who did, and the choice. Where there is nobody, the champion.
    fn ask(&mut self, id: &str, observation: &Observation<'_>) -> Option<(Arc<str>, Choice)> {
        let started = Instant::now();
        let (id, policy) = self.policies.get(id)?;
        let choice = choose(policy, observation);
        // A running mean; one slow answer does not make haste.
        self.usual = (self.usual * 15 + started.elapsed()) / 16;
        Some((id, choice))
    }

    fn who(&self, alias: Alias) -> Option<String> {
        self.policies.role(alias).map(str::to_owned)
    }
}

impl Books {
    pub fn place(
        &mut self,
        order: &Order,
        request: &Arc<wire::PlaceRequest>,
        serving: &Serving,
        chooser: &mut Chooser,
    ) -> Result<(Arc<Answer>, bool), Refusal> {
        let task = self.names.task(Field::root("task"), &order.task)?;
        if order.dry_run {
            return Ok((Arc::new(self.decide(order, &task, serving, chooser)?), false));
        }
        if let Some(answer) = self.repeated(order, &task)? {
            return Ok((answer, false));
        }
        self.cluster.note_arrival(&task);
        let mut answer = self.decide(order, &task, serving, chooser)?;
        let node = answer.chosen.candidate.node;
        if self.cluster.nodes[node as usize].commitments.len() >= MAX_PLACED {
            let name = &self.cluster.topology.nodes[node as usize].name;
            return Err(Refusal::Full(format!(
                "node {name:?} has {MAX_PLACED} tasks; report the outcomes of those that ended"
            )));
        }
        answer.decision_id = format!("{}-{}", chooser.run, chooser.next);
        let answer = Arc::new(answer);
        self.compare(&answer);
        self.commit(task, chooser.next, Arc::clone(request), Arc::clone(&answer), serving.expire_after);
        chooser.next += 1;
        Ok((answer, true))
    }

    /// The answer that a request of this id got before.
    fn repeated(&self, order: &Order, task: &Task) -> Result<Option<Arc<Answer>>, Refusal> {
        let Some(request_id) = &order.request_id else { return Ok(None) };
        let Some(decision) = self.requests.get(request_id).and_then(|id| self.decisions.get(id)) else {
            return Ok(None);
        };
        if *decision.task != *task {
            let problem = format_args!("{request_id:?} was the id of a request for another task");
            return Err(Field::root("request_id").refuse(problem).into());
        }
        Ok(decision.made.as_ref().map(|made| Arc::clone(&made.answer)))
    }

    /// Nodes to choose among, ascending; `None` for all.
    fn among(&self, order: &Order) -> Result<Option<Vec<NodeId>>, Refusal> {
        if order.among.is_empty() {
            return Ok(None);
        }
        let names = order.among.iter().enumerate();
        let node = |(index, name): (usize, &String)| {
            look_up(Field::item_of_root("among", index), "node", name, &self.names.nodes)
        };
        let mut nodes = names.map(node).collect::<Result<Vec<_>, _>>()?;
        nodes.sort_unstable();
        nodes.dedup();
        Ok(Some(nodes))
    }

    /// What a policy sees of a task with this number; `None` where no node takes it.
    pub(super) fn observation<'a>(
        &'a self,
        order: &Order,
        task: &'a Task,
        number: u64,
        alpha: f64,
    ) -> Result<Option<Observation<'a>>, Refusal> {
        let cluster = &self.cluster;
        let observation = match self.among(order)? {
            None => Observation::new(cluster, task, number, alpha, self.reference),
            Some(nodes) => {
                Observation::among(cluster, task, number, alpha, self.reference, nodes.iter().copied())
            }
        };
        Ok(observation.map(|observation| observation.after(&self.arrivals)))
    }

    fn decide(
        &self,
        order: &Order,
        task: &Task,
        serving: &Serving,
        chooser: &mut Chooser,
    ) -> Result<Answer, Refusal> {
        let (number, cluster) = (chooser.next, &self.cluster);
        let alpha = order.alpha.unwrap_or(serving.alpha);
        let observation = self.observation(order, task, number, alpha)?;
        let observation = observation.ok_or_else(|| Refusal::Nowhere(why::nowhere(cluster, task)))?;
        let hasty = order.deadline.is_some_and(|deadline| {
            deadline.saturating_duration_since(Instant::now()) < chooser.usual * HASTE
        });
        let decider = if hasty { Decider::Fallback(Why::NoTime) } else { serving.decider(number) };
        let champion = |chooser: &Chooser| chooser.who(Alias::Champion);
        let (who, fallback) = match decider {
            Decider::Fallback(why) => (None, Some(why)),
            Decider::Candidate => (chooser.who(Alias::Candidate).or_else(|| champion(chooser)), None),
            Decider::Champion => (champion(chooser), None),
        };
        let who = who.unwrap_or_else(|| serving.fallback.clone());
        let (policy, choice) = chooser
            .ask(&who, &observation)
            .ok_or_else(|| Refusal::Broken(format!("policy {who:?} is not ready to decide")))?;
        let mut other = |who: &dyn Fn(&Chooser) -> Option<String>| {
            let who = who(chooser)?;
            let (policy, choice) = chooser.ask(&who, &observation)?;
            Some(Other::new(policy, &observation, &observation.candidates()[choice.index]))
        };
        let advised = if fallback == Some(Why::Advises) { other(&champion) } else { None };
        let budgeted = serving.regret_budget > 0.0 && fallback.is_none();
        let heuristic = if budgeted { other(&|_| Some(serving.fallback.clone())) } else { None };
        let shadow =
            if serving.shadowed(number) { other(&|chooser| chooser.who(Alias::Shadow)) } else { None };
        let compared = !order.dry_run && !hasty;
        let kube_default = compared.then(|| chooser.kube_default((&policy, choice.index), &observation));
        let ranked = |&index: &usize| Ranked {
            candidate: observation.candidates()[index],
            score: choice.scores[index],
        };
        let chosen = ranked(&choice.index);
        Ok(Answer {
            topology: Arc::clone(&cluster.topology),
            decision_id: String::new(),
            policy,
            fallback,
            alpha,
            feasible: observation.count(),
            chosen,
            cost: observation.cost(&chosen.candidate),
            candidates: best_first(&choice.scores, order.max_candidates).iter().map(ranked).collect(),
            advised,
            shadow,
            heuristic,
            kube_default,
        })
    }

    /// Counts how the shadow compares.
    fn compare(&mut self, answer: &Answer) {
        let Some(other) = &answer.shadow else { return };
        let shadow = &mut self.shadow;
        if shadow.policy != *other.policy || shadow.decided != *answer.policy {
            *shadow = super::Shadow {
                policy: other.policy.to_string(),
                decided: answer.policy.to_string(),
                ..super::Shadow::default()
            };
        }
        shadow.decisions += 1;
        shadow.ratios += if answer.cost > 0.0 { other.cost / answer.cost } else { 1.0 };
        if other.node != answer.chosen.candidate.node {
            shadow.differ += 1;
            shadow.examples.push_back(answer.decision_id.clone());
            if shadow.examples.len() > EXAMPLES {
                shadow.examples.pop_front();
            }
        }
    }

    /// Enters a decision.
    pub(super) fn commit(
        &mut self,
        task: Task,
        commitment: TaskId,
        request: Arc<wire::PlaceRequest>,
        answer: Arc<Answer>,
        expire_after: f64,
    ) {
        let Candidate { node, .. } = answer.chosen.candidate;
        let task = Arc::new(task);
        self.arrivals.note(self.cluster.now, Arc::clone(&task));
        let expected = answer.chosen.candidate.expected();
        if self.cluster.place(commitment, Arc::clone(&task), node, expected) {
            self.begin(node, commitment, &task);
        }
        let id = answer.decision_id.clone();
        if !request.request_id.is_empty() {
            self.requests.insert(request.request_id.clone(), id.clone());
        }
        let mut kept = answer;
        if kept.candidates.len() > DEFAULT_CANDIDATES {
            Arc::make_mut(&mut kept).candidates.truncate(DEFAULT_CANDIDATES);
        }
        let at = self.cluster.now;
        self.saved.add(convert::ms(at), &kept);
        let expires = Books::expiry(at, kept.chosen.candidate.completion_s(), expire_after);
        self.expiring.insert((expires, id.clone()));
        let made = Some(Made { at, request, answer: kept });
        let versions = self.versions(&task);
        let decision = Decision {
            commitment,
            node,
            task,
            versions,
            made,
            outcome: None,
            disputed: None,
            expires: Some(expires),
            ended: false,
        };
        self.decisions.insert(id, decision);
        self.decided += 1;
    }

    pub(super) fn expiry(at: Time, expected_s: f64, expire_after: f64) -> Time {
        at.after_s((expected_s * expire_after).max(LEAST_EXPIRY_S))
    }
}

/// Indices of the `count` highest scores, highest first, the first of equals first.
fn best_first(scores: &[f64], count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    // A score that is no number ranks last, as it does for the choice.
    let key = |index: usize| if scores[index].is_nan() { f64::NEG_INFINITY } else { scores[index] };
    let order = |&a: &usize, &b: &usize| key(b).total_cmp(&key(a)).then(a.cmp(&b));
    let mut indices: Vec<_> = (0..scores.len()).collect();
    if count < indices.len() {
        indices.select_nth_unstable_by(count, order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::best_first;

    #[test]
    fn best_scores_come_first_and_equals_in_order() {
        let scores = [1.0, 3.0, f64::NAN, 3.0, f64::NEG_INFINITY, 2.0];
        assert_eq!(best_first(&scores, 3), [1, 3, 5]);
        assert_eq!(best_first(&scores, 9), [1, 3, 5, 0, 2, 4]);
        assert!(best_first(&scores, 0).is_empty());
    }
}
