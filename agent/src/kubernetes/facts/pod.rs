//! What a Pod object says.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, PodSpec, Toleration};

use super::annotation::{self, Execution, Map, Named};
use super::{Resources, image_name, resources};

/// How far a pod has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Alive,
    Succeeded,
    Failed,
}

/// A port of the node that a pod listens on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub port: i32,
    pub protocol: String,
    /// `0.0.0.0` is all of them.
    pub address: String,
}

impl HostPort {
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let all = |address: &str| matches!(address, "0.0.0.0" | "::");
        (self.port, &self.protocol) == (other.port, &other.protocol)
            && (self.address == other.address || all(&self.address) || all(&other.address))
    }
}

/// What a pod demands of a node, besides resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demands {
    pub selector: Map,
    /// One of them must hold; None where nothing is demanded.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    /// Something that only Kubernetes' own scheduler knows how to grant.
    pub beyond: Option<&'static str>,
}

/// What it does, as policies see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    pub kind: String,
    /// Full names, in order, each once.
    pub images: Vec<String>,
    pub inputs: Vec<Named>,
    pub outputs: Vec<Named>,
    pub execution: Option<Execution>,
    /// It runs until it is deleted.
    pub service: bool,
    pub prefers: Map,
    pub deadline_s: Option<f64>,
}

/// A pod, as far as anybody here needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub scheduler: String,
    pub created: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub priority: i32,
    pub alpha: Option<f64>,
    /// Where it was bound to.
    pub node: Option<String>,
    pub phase: Phase,
    pub deleting: bool,
    /// Something still holds it back.
    pub gated: bool,
    pub requests: Resources,
    pub demands: Demands,
    pub work: Work,
    pub warnings: Vec<String>,
}

impl PodFacts {
    /// Everything that is read of a pod.
    pub fn of(pod: &Pod) -> PodFacts {
        let no_spec = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let mut warnings = Vec::new();
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        PodFacts {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            scheduler: spec.scheduler_name.clone().unwrap_or_default(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            ended: ended(pod),
            priority: spec.priority.unwrap_or(0),
            alpha: annotation::read(&annotations, annotation::ALPHA, &mut warnings, |text| {
                annotation::number(text, 0.0, 1.0)
            }),
            node: spec.node_name.clone().filter(|node| !node.is_empty()),
            phase: match status.and_then(|status| status.phase.as_deref()) {
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                _ => Phase::Alive,
            },
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            requests: resources::of_pod(spec, &mut warnings),
            demands: demands(spec),
            work: work(pod, spec, &annotations, &mut warnings),
            warnings,
        }
    }

    /// It holds what it requests on its node.
    pub fn occupies(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| self.phase == Phase::Alive)
    }
}

/// When its last container ended.
fn ended(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends =
        statuses.iter().filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max()
}

fn demands(spec: &PodSpec) -> Demands {
    let affinity = spec.affinity.as_ref();
    let required = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    Demands {
        selector: spec.node_selector.clone().unwrap_or_default(),
        affinity: required.map(|required| required.node_selector_terms.clone()),
        tolerations: spec.tolerations.clone().unwrap_or_default(),
        host_ports: host_ports(spec),
        beyond: beyond(spec),
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let host = spec.host_network.unwrap_or(false);
    ports
        .filter_map(|port| {
            let number = port.host_port.or(host.then_some(port.container_port)).filter(|&port| port > 0)?;
            let or = |text: &Option<String>, otherwise: &str| {
                text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| otherwise.to_owned())
            };
            let (protocol, address) = (or(&port.protocol, "TCP"), or(&port.host_ip, "0.0.0.0"));
            Some(HostPort { port: number, protocol, address })
        })
        .collect()
}

/// What must hold and is not checked here: better no place than a wrong one.
fn beyond(spec: &PodSpec) -> Option<&'static str> {
    let affinity = spec.affinity.as_ref();
    let required = affinity.and_then(|a| a.pod_affinity.as_ref()).is_some_and(|pods| {
        pods.required_during_scheduling_ignored_during_execution
            .as_ref()
            .is_some_and(|terms| !terms.is_empty())
    });
    let anti = affinity.and_then(|a| a.pod_anti_affinity.as_ref()).is_some_and(|pods| {
        pods.required_during_scheduling_ignored_during_execution
            .as_ref()
            .is_some_and(|terms| !terms.is_empty())
    });
    let spread = spec.topology_spread_constraints.iter().flatten();
    let claims = spec.volumes.iter().flatten();
    if required || anti {
        Some("required pod affinity")
    } else if spread.into_iter().any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule") {
        Some("topology spread constraints that must hold")
    } else if claims.into_iter().any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()) {
        Some("persistent volume claims")
    } else if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        Some("resource claims")
    } else {
        None
    }
}

fn work(pod: &Pod, spec: &PodSpec, annotations: &Map, warnings: &mut Vec<String>) -> Work {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let mut images: Vec<String> = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let image = container.image.as_deref().filter(|image| !image.is_empty() && image.len() < 400);
        let image = image.map(image_name);
        images.extend(image.filter(|image| !images.contains(image)));
    }
    let mut data = |key: &str, skippy: [&str; 2]| {
        let mut listed =
            annotation::read(annotations, key, warnings, annotation::datasets).unwrap_or_default();
        let written = skippy.iter().find_map(|key| labels.get(*key).or_else(|| annotations.get(*key)));
        for named in written.and_then(|path| annotation::datasets(path).ok()).into_iter().flatten() {
            if listed.iter().all(|other| other.name != named.name) {
                listed.push(named);
            }
        }
        listed
    };
    let inputs = data(annotation::INPUTS, annotation::SKIPPY_INPUT);
    let outputs = data(annotation::OUTPUTS, annotation::SKIPPY_OUTPUT);
    let named = annotation::read(annotations, annotation::KIND, warnings, annotation::name);
    let prefers = labels.iter().filter(|(key, _)| key.contains(annotation::SKIPPY_CAPABILITY));
    Work {
        kind: named.unwrap_or_else(|| kind_of(pod, &labels)),
        images,
        inputs,
        outputs,
        execution: annotation::read(annotations, annotation::EXECUTION, warnings, annotation::execution),
        service: !matches!(spec.restart_policy.as_deref(), Some("Never" | "OnFailure")),
        prefers: prefers.map(|(key, value)| (key.clone(), value.clone())).collect(),
        deadline_s: annotation::read(annotations, annotation::DEADLINE, warnings, |text| {
            annotation::number(text, 1e-3, 1e9)
        }),
    }
}

/// What pods of one sort have in common where nobody says it.
fn kind_of(pod: &Pod, labels: &Map) -> String {
    let label = ["app.kubernetes.io/name", "app"].into_iter().find_map(|key| labels.get(key));
    let owner = pod.metadata.owner_references.iter().flatten().next().map(|owner| &owner.name);
    let name = label.or(owner).filter(|name| (1..=annotation::MAX_NAME).contains(&name.len()));
    name.cloned().unwrap_or_else(|| "pod".to_owned())
}
