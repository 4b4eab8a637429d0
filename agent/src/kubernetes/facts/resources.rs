//! What containers request and nodes offer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity;

/// Amounts of everything that is counted, each from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    /// Of everything else, by name, for example `nvidia.com/gpu`.
    pub extended: BTreeMap<String, i64>,
}

/// Amounts by name, as objects have them.
pub type Named = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads amounts; those that are no quantities are left out and told of.
    pub fn read(named: Option<&Named>, warnings: &mut Vec<String>) -> Resources {
        let mut resources = Resources::default();
        for (name, Quantity(text)) in named.into_iter().flatten() {
            let amount = if name == "cpu" { quantity::millis(text) } else { quantity::whole(text) };
            match amount {
                Ok(amount) => *resources.entry(name) = amount.max(0),
                Err(problem) => warnings.push(format!("resource {name}: {problem}")),
            }
        }
        resources
    }

    fn entry(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu_millis,
            "memory" => &mut self.memory_bytes,
            "ephemeral-storage" => &mut self.storage_bytes,
            _ => self.extended.entry(name.to_owned()).or_default(),
        }
    }

    /// Both amounts of everything that either has.
    fn join(&mut self, other: &Resources, with: impl Fn(i64, i64) -> i64) {
        self.cpu_millis = with(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.storage_bytes = with(self.storage_bytes, other.storage_bytes);
        for (name, &amount) in &other.extended {
            let mine = self.extended.entry(name.clone()).or_default();
            *mine = with(*mine, amount);
        }
    }

    pub fn add(&mut self, other: &Resources) {
        self.join(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.join(other, |mine, theirs| (mine - theirs).max(0));
    }

    /// The first resource of which less than `wanted` is left of `self` beside `used`.
    pub fn short_of<'a>(&self, used: &Resources, wanted: &'a Resources) -> Option<&'a str> {
        let short = |offer: i64, used: i64, wanted: i64| wanted > 0 && offer.saturating_sub(used) < wanted;
        if short(self.cpu_millis, used.cpu_millis, wanted.cpu_millis) {
            return Some("cpu");
        }
        if short(self.memory_bytes, used.memory_bytes, wanted.memory_bytes) {
            return Some("memory");
        }
        if short(self.storage_bytes, used.storage_bytes, wanted.storage_bytes) {
            return Some("ephemeral-storage");
        }
        let of = |all: &Resources, name: &String| all.extended.get(name).copied().unwrap_or(0);
        let extended = wanted.extended.iter();
        let mut missing = extended.filter(|(name, wanted)| short(of(self, name), of(used, name), **wanted));
        missing.next().map(|(name, _)| name.as_str())
    }
}

/// What a pod sets aside, as Kubernetes counts it: all containers and sidecars together, or the most
/// that an init container needs beside the sidecars started before it, whichever is more; what the
/// pod as a whole requests instead where it does; and the overhead of its runtime.
pub fn of_pod(spec: &PodSpec, warnings: &mut Vec<String>) -> Resources {
    let mut requests = Resources::default();
    for container in &spec.containers {
        requests.add(&of_container(container, warnings));
    }
    let (mut sidecars, mut most) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, warnings);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        most.join(&own, i64::max);
    }
    requests.add(&sidecars);
    requests.join(&most, i64::max);
    if let Some(whole) = &spec.resources {
        let whole = requested(whole, warnings);
        requests.join(&whole, |parts, whole| if whole > 0 { whole } else { parts });
    }
    requests.add(&Resources::read(spec.overhead.as_ref(), warnings));
    requests
}

fn of_container(container: &Container, warnings: &mut Vec<String>) -> Resources {
    container.resources.as_ref().map_or_else(Resources::default, |all| requested(all, warnings))
}

/// Requests, and limits where nothing is requested: that is what Kubernetes makes of them.
fn requested(all: &ResourceRequirements, warnings: &mut Vec<String>) -> Resources {
    let mut named = all.limits.clone().unwrap_or_default();
    named.extend(all.requests.clone().unwrap_or_default());
    Resources::read(Some(&named), warnings)
}
