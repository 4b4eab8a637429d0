//! Binding a pod to a node.

use k8s_openapi::api::core::v1::{Binding as Object, ObjectReference, Pod};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// What shall be bound where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
}

/// Why a pod is not bound.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is bound already, or another one has its name.
    #[error("{0}")]
    Conflict(String),
    #[error("the pod does not exist any more")]
    Gone,
    /// It may have worked all the same; asking again tells.
    #[error("{0}")]
    Unclear(String),
}

/// Binds it. The API server does not ask whether the node exists or has room.
///
/// # Errors
/// Why it is not bound.
pub async fn bind(client: &Client, binding: &Binding) -> Result<(), Failure> {
    let object = Object {
        metadata: ObjectMeta {
            name: Some(binding.name.clone()),
            namespace: Some(binding.namespace.clone()),
            uid: Some(binding.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(binding.node.clone()),
            ..ObjectReference::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &binding.namespace);
    let parameters = PostParams::default();
    let bound =
        pods.create_subresource::<_, serde_json::Value>("binding", &binding.name, &parameters, &object);
    match bound.await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Failure::Conflict(status.message.clone())),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Failure::Gone),
        Err(error) => Err(Failure::Unclear(error.to_string())),
    }
}
