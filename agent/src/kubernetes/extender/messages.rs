//! What Kubernetes' scheduler sends and reads. The keys have capitals: the types have no JSON names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Of `filter` and `prioritize`. One of the two is null: names come from a scheduler that was told that
/// the extender knows the nodes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Args<'a> {
    pub pod: Pod,
    #[serde(borrow)]
    pub nodes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub node_names: Option<&'a RawValue>,
}

/// The same where the pod is not asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Nodes<'a> {
    #[serde(borrow)]
    pub nodes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub node_names: Option<&'a RawValue>,
}

/// A list whose items are passed on as they came.
#[derive(Debug, Deserialize, Serialize)]
pub struct Items<'a> {
    #[serde(borrow, default)]
    pub items: Vec<&'a RawValue>,
}

/// What of a node tells whether it is known.
#[derive(Debug, Deserialize)]
pub struct Slim {
    #[serde(default)]
    pub metadata: SlimMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimMeta {
    pub name: String,
    pub resource_version: String,
    pub uid: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FilterResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_names: Option<&'a RawValue>,
    pub failed_nodes: BTreeMap<String, String>,
    pub failed_and_unresolvable_nodes: BTreeMap<String, String>,
    pub error: String,
}

/// From 0 to 10, whole: one score with a point makes Kubernetes ignore all of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostPriority {
    pub host: String,
    pub score: i64,
}

#[derive(Debug, Deserialize)]
pub struct BindingArgs {
    #[serde(rename = "PodName")]
    pub pod_name: String,
    #[serde(rename = "PodNamespace")]
    pub pod_namespace: String,
    #[serde(rename = "PodUID")]
    pub pod_uid: String,
    #[serde(rename = "Node")]
    pub node: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BindingResult {
    pub error: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreemptionArgs {
    pub node_name_to_victims: Option<BTreeMap<String, Victims>>,
    pub node_name_to_meta_victims: Option<BTreeMap<String, MetaVictims>>,
}

/// Pods in full.
#[derive(Debug, Deserialize)]
pub struct Victims {
    #[serde(rename = "Pods", default)]
    pub pods: Vec<Slim>,
    #[serde(rename = "NumPDBViolations", default)]
    pub pdb_violations: i64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct MetaVictims {
    #[serde(rename = "Pods", default)]
    pub pods: Vec<MetaPod>,
    #[serde(rename = "NumPDBViolations", default)]
    pub pdb_violations: i64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct MetaPod {
    #[serde(rename = "UID")]
    pub uid: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreemptionResult {
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}
