//! Beside Kubernetes: facts, the extender's protocol, the scheduler over a double of the API server and,
//! where there is one, over the real control plane.

mod double;
mod extender;
mod facts;
mod filter;
mod jobs;
mod manifests;
mod real;
mod scheduler;

use serde_json::{Value, json};

/// A ready node with this much CPU and memory in a zone.
pub fn node(name: &str, cpu: &str, memory: &str, zone: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory, "ephemeral-storage": "100Gi", "pods": "110" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone,
        } },
        "spec": {},
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// A pod for our scheduler that runs once.
pub fn pod(name: &str, cpu: &str, memory: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "test" } },
        "spec": {
            "schedulerName": "remora", "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "busybox", "resources": {
                "requests": { "cpu": cpu, "memory": memory },
            } }],
        },
        "status": { "phase": "Pending" },
    })
}
