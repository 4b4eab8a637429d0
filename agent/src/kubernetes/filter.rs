//! What forbids a pod a node. Nothing else may bind against it: the API server does not check.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use super::facts::pod::HostPort;
use super::facts::{NodeFacts, PodFacts, Resources};

/// Why not, in the words of Kubernetes' own scheduler where it has some.
pub type Reason = Cow<'static, str>;

/// What pods hold of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    pub resources: Resources,
    pub pods: i64,
    pub ports: Vec<HostPort>,
}

impl Used {
    pub fn add(&mut self, pod: &PodFacts) {
        self.resources.add(&pod.requests);
        self.pods += 1;
        self.ports.extend(pod.demands.host_ports.iter().cloned());
    }

    pub fn remove(&mut self, pod: &PodFacts) {
        self.resources.subtract(&pod.requests);
        self.pods -= 1;
        for port in &pod.demands.host_ports {
            if let Some(index) = self.ports.iter().position(|other| other == port) {
                self.ports.swap_remove(index);
            }
        }
    }
}

/// The first thing that forbids this pod this node.
pub fn forbids(pod: &PodFacts, node: &NodeFacts, used: &Used) -> Option<Reason> {
    if node.arch.is_none() {
        return Some("node(s) had an architecture unknown to the policies".into());
    }
    if node.stores_only() {
        return Some("node(s) only hold data".into());
    }
    if let Some(reason) = state(pod, node) {
        return Some(reason);
    }
    if !selected(pod, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    if pod.demands.host_ports.iter().any(|port| used.ports.iter().any(|other| port.conflicts(other))) {
        return Some("node(s) didn't have free ports for the requested pod ports".into());
    }
    if used.pods >= node.max_pods {
        return Some("Too many pods".into());
    }
    let short = node.allocatable.short_of(&used.resources, &pod.requests);
    short.map(|resource| format!("Insufficient {resource}").into())
}

/// Counts per reason, as `kubectl describe` shows them: "0/5 nodes are available: 5 Insufficient cpu."
pub fn summary(nodes: usize, reasons: &BTreeMap<Reason, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let counts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    format!("0/{nodes} nodes are available: {}.", counts.join(", "))
}

/// Cordoned, not ready or tainted, and the pod does not tolerate it.
fn state(pod: &PodFacts, node: &NodeFacts) -> Option<Reason> {
    let tolerations = &pod.demands.tolerations;
    let tolerated = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let cordon = || Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if node.unschedulable && !tolerated(&cordon()) {
        return Some("node(s) were unschedulable".into());
    }
    if !node.ready {
        return Some("node(s) were not ready".into());
    }
    let hard = node.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    let mut standing = hard.filter(|taint| !tolerated(taint));
    standing.next().map(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into()
    })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same = |wanted: &Option<String>, is: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == is)
    };
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = taint.value.as_deref().unwrap_or_default();
    same(&toleration.effect, &taint.effect)
        && (same(&toleration.key, &taint.key)
            && (exists || toleration.key.as_deref().is_some_and(|key| !key.is_empty())))
        && (exists
            || (matches!(toleration.operator.as_deref(), None | Some("" | "Equal"))
                && toleration.value.as_deref().unwrap_or_default() == value))
}

fn selected(pod: &PodFacts, node: &NodeFacts) -> bool {
    pod.demands.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && pod.demands.affinity.as_ref().is_none_or(|terms| terms.iter().any(|term| holds(term, node)))
}

/// An empty term holds nowhere.
fn holds(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    let (labels, fields): (Vec<_>, Vec<_>) = (labels.collect(), fields.collect());
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|wanted| meets(wanted, node.labels.get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| meets(wanted, field(&wanted.key)))
}

/// What is not understood is not met.
fn meets(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|other| other == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let bounds = || Some((number(value?)?, number(values.first().filter(|_| values.len() == 1)?)?));
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => bounds().is_some_and(|(is, bound)| is > bound),
        "Lt" => bounds().is_some_and(|(is, bound)| is < bound),
        _ => false,
    }
}
