//! Who of several schedulers works: the one that holds a Lease and renews it in time.
//!
//! Clocks of other machines are not believed. A lease has run out when it has not changed for as long
//! as it says, as seen from here.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

/// Which lease, and how patient everybody is with it.
#[derive(Clone, Debug)]
pub struct Config {
    pub namespace: String,
    pub name: String,
    /// Who this is, unlike anybody else.
    pub identity: String,
    /// Others take over when it was not renewed for so long; whole seconds.
    pub duration: Duration,
    /// It stops working when it could not renew for so long; less than `duration`.
    pub renew_deadline: Duration,
    /// How often it renews or looks.
    pub period: Duration,
}

impl Config {
    /// With the patience of Kubernetes' own components: 15, 10 and 2 seconds.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Config {
        Config {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            period: Duration::from_secs(2),
        }
    }
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Take,
    Renew,
    Wait,
}

/// A lease as it was last seen to change.
#[derive(Debug, Default)]
pub struct Observed {
    spec: Option<LeaseSpec>,
    at: Option<Instant>,
}

impl Observed {
    /// What to do now that the lease looks like this.
    pub fn step(&mut self, lease: &LeaseSpec, identity: &str, now: Instant) -> Step {
        if self.spec.as_ref() != Some(lease) {
            (self.spec, self.at) = (Some(lease.clone()), Some(now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        let patience =
            Duration::from_secs(u64::try_from(lease.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        if holder == identity {
            Step::Renew
        } else if holder.is_empty() || self.at.is_none_or(|at| now.duration_since(at) >= patience) {
            Step::Take
        } else {
            Step::Wait
        }
    }
}

/// Tries to hold the lease until told to stop, and tells whether it does; gives it back in the end.
pub async fn hold(
    client: Client,
    config: Config,
    leading: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &config.namespace);
    let (mut observed, mut renewed) = (Observed::default(), None::<Instant>);
    loop {
        let asked = Instant::now();
        let held = match tokio::time::timeout(config.renew_deadline, attempt(&leases, &config, &mut observed))
            .await
        {
            Ok(Ok(held)) => Some(held),
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = config.name, "the lease cannot be read or written");
                None
            }
            Err(_) => None,
        };
        match held {
            Some(true) => renewed = Some(asked),
            Some(false) => renewed = None,
            None => renewed = renewed.filter(|at| at.elapsed() < config.renew_deadline),
        }
        let leads = renewed.is_some();
        leading.send_if_modified(|before| {
            let changed = *before != leads;
            if changed {
                tracing::info!(identity = config.identity, leads, "leadership changed");
            }
            *before = leads;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(config.period) => {}
            // Who is gone without a word may have bindings under way: others wait until the lease runs out.
            told = stop.wait_for(|stop| *stop) => if told.is_ok() { break } else { return },
        }
    }
    if renewed.is_some() {
        leading.send_replace(false);
        give_back(&leases, &config).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the lease could not be given back; others take it when it runs out");
        });
    }
}

/// Looks once; true if it holds the lease afterwards.
async fn attempt(leases: &Api<Lease>, config: &Config, observed: &mut Observed) -> kube::Result<bool> {
    let Some(mut lease) = leases.get_opt(&config.name).await? else {
        let metadata = ObjectMeta { name: Some(config.name.clone()), ..ObjectMeta::default() };
        let new = Lease { metadata, spec: Some(spec(config, None)) };
        return won(leases.create(&PostParams::default(), &new).await);
    };
    let before = lease.spec.take().unwrap_or_default();
    let step = observed.step(&before, &config.identity, Instant::now());
    let spec = match step {
        Step::Wait => return Ok(false),
        Step::Renew => LeaseSpec { renew_time: Some(now()), ..before },
        Step::Take => spec(config, before.lease_transitions),
    };
    lease.spec = Some(spec);
    won(leases.replace(&config.name, &PostParams::default(), &lease).await)
}

/// Somebody else was quicker: that is no error.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn give_back(leases: &Api<Lease>, config: &Config) -> kube::Result<()> {
    let mut lease = leases.get(&config.name).await?;
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() == Some(&config.identity) {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        leases.replace(&config.name, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

fn spec(config: &Config, transitions: Option<i32>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(config.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
        acquire_time: Some(now()),
        renew_time: Some(now()),
        lease_transitions: Some(transitions.map_or(0, |count| count.saturating_add(1))),
        ..LeaseSpec::default()
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewal: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewal).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_has_not_changed_for_its_time() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(observed.step(&lease("other", 0), "me", start), Step::Wait);
        assert_eq!(observed.step(&lease("other", 0), "me", after(14)), Step::Wait);
        // Renewed, though by a clock that is far behind.
        assert_eq!(observed.step(&lease("other", -9000), "me", after(14)), Step::Wait);
        assert_eq!(observed.step(&lease("other", -9000), "me", after(28)), Step::Wait);
        assert_eq!(observed.step(&lease("other", -9000), "me", after(29)), Step::Take);
        assert_eq!(observed.step(&lease("me", 1), "me", after(30)), Step::Renew);
        assert_eq!(observed.step(&lease("", 1), "me", after(31)), Step::Take);
    }
}
