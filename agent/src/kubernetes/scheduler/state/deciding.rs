//! From a pod that waits to a binding, and what is told of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remora_proto::v1 as wire;
use tonic::{Code, Status};
use wire::change::Change;

use super::{Ask, Effect, Entry, News, Note, Stage, State};
use crate::kubernetes::bind::{Binding, Failure};
use crate::kubernetes::facts::PodFacts;
use crate::kubernetes::filter::{self, Used};

/// The same failure is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(300);

impl State {
    /// The next pod with the nodes that nothing forbids it; those without any are told so.
    pub fn next(&mut self, now: Instant) -> Option<Ask> {
        while self.bindings < self.most_bindings {
            let uid = self.queue.first(now)?;
            let facts = Arc::clone(&self.pods.get(&uid)?.facts);
            if let Some(beyond) = facts.demands.beyond {
                let text = format!(
                    "it demands {beyond}, which this scheduler does not know how to grant; use the extender"
                );
                self.fail(now, &uid, text);
                continue;
            }
            match self.allowed(&facts) {
                Err(text) => self.fail(now, &uid, text),
                Ok(among) => {
                    if self.book.is_crowded() {
                        self.book.forget();
                        self.anew = true;
                    }
                    let (task, changes) = self.book.task(&facts);
                    self.change(changes);
                    let request = wire::PlaceRequest {
                        cluster_id: self.book.id().to_owned(),
                        task: Some(task),
                        alpha: facts.alpha,
                        max_candidates: Some(1),
                        ..wire::PlaceRequest::default()
                    };
                    return Some(Ask { uid, request, among });
                }
            }
        }
        None
    }

    /// Names of the nodes that nothing forbids it; none where nothing forbids it any.
    fn allowed(&self, pod: &PodFacts) -> Result<Vec<String>, String> {
        let (mut among, mut reasons) = (Vec::new(), BTreeMap::new());
        let idle = Used::default();
        // Both are in the order of names.
        let mut all_used = self.used.iter().peekable();
        for (name, node) in self.book.nodes() {
            while all_used.next_if(|(other, _)| *other < name).is_some() {}
            let used = all_used.next_if(|(other, _)| *other == name).map_or(&idle, |(_, used)| used);
            match filter::forbids(pod, node, used) {
                None => among.push(name),
                Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
            }
        }
        let nodes = self.book.nodes().len();
        match among.len() {
            0 => Err(filter::summary(nodes, &reasons)),
            all if all == nodes => Ok(Vec::new()),
            _ => Ok(among.into_iter().cloned().collect()),
        }
    }

    /// What the core said. The choice is checked again: nothing else stands between it and the node.
    pub fn decided(&mut self, now: Instant, uid: &str, answer: Result<wire::PlaceResponse, Status>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => {
                self.anew |= matches!(status.code(), Code::NotFound | Code::InvalidArgument);
                return self.fail(now, uid, status.message().to_owned());
            }
        };
        let facts = Arc::clone(&self.pods[uid].facts);
        let idle = Used::default();
        let used = self.used.get(&answer.node).unwrap_or(&idle);
        let forbidden = match self.book.nodes().get(&answer.node) {
            None => Some("it does not exist".into()),
            Some(node) => filter::forbids(&facts, node, used),
        };
        if let Some(reason) = forbidden {
            self.report(answer.decision_id, true, None);
            return self.fail(now, uid, format!("node {} was chosen, but {reason}", answer.node));
        }
        self.queue.leave(uid);
        self.used.entry(answer.node.clone()).or_default().add(&facts);
        let entry = self.pods.get_mut(uid).expect("its facts were just read");
        entry.stage = Stage::Assumed(answer.node.clone());
        entry.decision_id = answer.decision_id;
        entry.confirmed = false;
        entry.binding = true;
        self.bindings += 1;
        self.effects.push(Effect::Bind(Binding {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: uid.to_owned(),
            node: answer.node,
        }));
    }

    pub(super) fn bound(&mut self, now: Instant, uid: &str, result: Result<(), Failure>) {
        self.bindings = self.bindings.saturating_sub(1);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.binding = false;
        let facts = Arc::clone(&entry.facts);
        match (&entry.stage, result) {
            (Stage::Assumed(node) | Stage::Bound(node), Ok(())) => {
                let text = format!("Successfully assigned {}/{} to {node}", facts.namespace, facts.name);
                self.tell(&facts, false, "Scheduled", text);
            }
            (Stage::Assumed(_), Err(failure)) => {
                let freed = self.release(uid);
                self.forget_decision(uid);
                self.pods.get_mut(uid).expect("it was just read").stage = Stage::Waiting;
                self.fail(now, uid, format!("binding failed: {failure}"));
                freed.iter().for_each(|node| self.may_help(node, uid));
            }
            _ => {}
        }
    }

    // Telling.

    pub(super) fn fail(&mut self, now: Instant, uid: &str, text: String) {
        let entry = self.pods.get_mut(uid).expect("only known pods are tried");
        let facts = Arc::clone(&entry.facts);
        self.queue.rest(uid, facts.priority, facts.created, now);
        let told = entry.told.as_ref();
        if told.is_none_or(|(last, at)| *last != text || now.duration_since(*at) > TELL_AGAIN) {
            entry.told = Some((text.clone(), now));
            self.tell(&facts, true, "FailedScheduling", text);
        }
    }

    pub(super) fn warn(&mut self, facts: &Arc<PodFacts>) {
        for warning in &facts.warnings {
            self.tell(facts, true, "IgnoredAnnotation", warning.clone());
        }
    }

    pub(super) fn tell(&mut self, facts: &PodFacts, warning: bool, reason: &'static str, text: String) {
        self.effects.push(Effect::Tell(Note {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: facts.uid.clone(),
            warning,
            reason,
            text,
        }));
    }

    // What the core has to hear.

    pub(super) fn change(&mut self, changes: impl IntoIterator<Item = Change>) {
        if !self.anew {
            self.changes.extend(changes);
        }
    }

    /// What the core has not heard yet; none while there is no node, as no cluster is without. It is
    /// registered first, and what is placed there follows.
    pub fn news(&mut self) -> Option<News> {
        if self.book.is_empty() {
            return None;
        }
        if !self.anew {
            let changes = std::mem::take(&mut self.changes);
            return (!changes.is_empty()).then_some(News::Changes(changes));
        }
        (self.anew, self.changes) = (false, Vec::new());
        // With a registration the core forgets its decisions.
        self.choices.clear();
        let on = |(uid, entry): (&String, &Entry)| Some((uid.clone(), entry.node()?.to_owned()));
        for (uid, node) in self.pods.iter().filter_map(on).collect::<Vec<_>>() {
            self.pods.get_mut(&uid).expect("it was just listed").decision_id.clear();
            self.place_there(&uid, &node);
        }
        // Kinds, images and datasets are part of the registration.
        self.changes.retain(|change| matches!(change, Change::Placed(_)));
        self.book.registration().map(Box::new).map(News::Anew)
    }

    /// Pods that still run are there to stay: the core does not take them as ended, though it hears nothing.
    pub fn confirm(&mut self) {
        let bound = |entry: &&mut Entry| {
            matches!(entry.stage, Stage::Bound(_)) && !entry.confirmed && !entry.decision_id.is_empty()
        };
        let mut confirmed = Vec::new();
        for entry in self.pods.values_mut().filter(bound) {
            entry.confirmed = true;
            confirmed.push(Change::ConfirmedDecisionId(entry.decision_id.clone()));
        }
        self.change(confirmed);
    }

    /// The core did not take it: next time it hears everything.
    pub fn not_heard(&mut self) {
        self.anew = true;
    }
}
