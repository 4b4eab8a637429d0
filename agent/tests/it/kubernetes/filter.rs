//! What forbids a pod a node.

use k8s_openapi::api::core::v1::{Node, Pod};
use remora_agent::kubernetes::facts::{NodeFacts, PodFacts};
use remora_agent::kubernetes::filter::{Used, forbids};
use serde_json::{Value, json};

use super::{node, pod};

/// The reason, after these changes to an ordinary pod and node.
fn reason(
    pod_change: impl Fn(&mut Value),
    node_change: impl Fn(&mut Value),
    others: usize,
) -> Option<String> {
    let (mut pod, mut node) = (pod("p", "1", "1Gi"), node("n", "4", "8Gi", "zone-0"));
    node["metadata"]["labels"]["cores"] = json!("16");
    pod_change(&mut pod);
    node_change(&mut node);
    let pod = PodFacts::of(&serde_json::from_value::<Pod>(pod).unwrap());
    let node = NodeFacts::of(&serde_json::from_value::<Node>(node).unwrap());
    let mut used = Used::default();
    (0..others).for_each(|_| used.add(&pod));
    forbids(&pod, &node, &used).map(String::from)
}

#[test]
fn nodes_are_forbidden_for_a_reason() {
    let same = |_: &mut Value| {};
    assert_eq!(reason(same, same, 0), None);
    assert_eq!(reason(same, same, 3), None);
    assert_eq!(reason(same, same, 4).unwrap(), "Insufficient cpu");
    let gpu = |pod: &mut Value| {
        pod["spec"]["containers"][0]["resources"]["limits"] = json!({ "nvidia.com/gpu": 1.to_string() })
    };
    assert_eq!(reason(gpu, same, 0).unwrap(), "Insufficient nvidia.com/gpu");
    assert_eq!(
        reason(same, |n| n["status"]["allocatable"]["pods"] = json!("2"), 2).unwrap(),
        "Too many pods"
    );
    assert_eq!(reason(same, |n| n["status"]["conditions"] = json!([]), 0).unwrap(), "node(s) were not ready");
    assert_eq!(
        reason(same, |n| n["spec"]["unschedulable"] = json!(true), 0).unwrap(),
        "node(s) were unschedulable"
    );
    let storage = |n: &mut Value| n["metadata"]["labels"]["data.skippy.io/storage"] = json!("");
    assert_eq!(reason(same, storage, 0).unwrap(), "node(s) only hold data");
    let port = |p: &mut Value| {
        p["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }])
    };
    assert_eq!(reason(port, same, 1).unwrap(), "node(s) didn't have free ports for the requested pod ports");
}

#[test]
fn taints_need_tolerations() {
    let tainted = |effect: &'static str| {
        move |n: &mut Value| n["spec"]["taints"] = json!([{ "key": "k", "value": "v", "effect": effect }])
    };
    let tolerates =
        |toleration: Value| move |p: &mut Value| p["spec"]["tolerations"] = json!([toleration.clone()]);
    let same = |_: &mut Value| {};
    assert_eq!(reason(same, tainted("NoSchedule"), 0).unwrap(), "node(s) had untolerated taint {k: v}");
    assert!(reason(same, tainted("NoExecute"), 0).is_some());
    assert_eq!(reason(same, tainted("PreferNoSchedule"), 0), None);
    for (toleration, tolerated) in [
        (json!({ "operator": "Exists" }), true),
        (json!({ "key": "k", "operator": "Exists" }), true),
        (json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), false),
        (json!({ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }), true),
        (json!({ "key": "k", "value": "v" }), true),
        (json!({ "key": "k", "value": "w" }), false),
        (json!({ "key": "j", "operator": "Exists" }), false),
        (json!({ "value": "v" }), false),
    ] {
        let left = reason(tolerates(toleration.clone()), tainted("NoSchedule"), 0);
        assert_eq!(left.is_none(), tolerated, "{toleration}");
    }
}

#[test]
fn selectors_and_affinity_choose() {
    let select =
        |p: &mut Value| p["spec"]["nodeSelector"] = json!({ "topology.kubernetes.io/zone": "zone-1" });
    let why = "node(s) didn't match Pod's node affinity/selector";
    let same = |_: &mut Value| {};
    assert_eq!(reason(select, same, 0).unwrap(), why);
    let terms = |terms: Value| {
        move |p: &mut Value| {
            let required = json!({ "nodeSelectorTerms": terms.clone() });
            p["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                required;
        }
    };
    let wanted = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
    for (expression, holds) in [
        (wanted("cores", "In", &["8", "16"]), true),
        (wanted("cores", "NotIn", &["8"]), true),
        (wanted("cores", "NotIn", &["16"]), false),
        (wanted("none", "NotIn", &["16"]), true),
        (wanted("cores", "Exists", &[]), true),
        (wanted("cores", "DoesNotExist", &[]), false),
        (wanted("cores", "Gt", &["8"]), true),
        (wanted("cores", "Lt", &["8"]), false),
        (wanted("cores", "Gt", &["many"]), false),
        (wanted("cores", "Near", &["16"]), false),
    ] {
        let left = reason(terms(json!([{ "matchExpressions": [expression.clone()] }])), same, 0);
        assert_eq!(left.is_none(), holds, "{expression}");
    }
    let named = json!([{}, { "matchFields": [wanted("metadata.name", "In", &["n"])] }]);
    assert_eq!(reason(terms(named), same, 0), None);
    assert_eq!(reason(terms(json!([{}])), same, 0).unwrap(), why);
}
