//! What is said to the service about policies, and to the application that learns.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use remora_proto::v1::cluster_service_client::ClusterServiceClient;
use remora_proto::v1::placement_service_client::PlacementServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::appcore::manifest::Manifest;
use crate::appcore::own;
use crate::appcore::run::MODEL;
use crate::client::{self, refused, whole};

/// The policy that was trained in simulation: learning begins with it, too.
const TRAINED: &str = "pretrained";
/// The budget with which the heuristic is asked beside every decision, and beyond which nothing goes.
const ANY_REGRET: f64 = 1000.0;
const WHY: &str = "a testbed on which it learns";
const PAUSE: Duration = Duration::from_millis(200);
/// Beyond what learning and evaluation may take.
const SLACK: Duration = Duration::from_secs(300);
/// How long what was promoted may take to decide.
const TAKING_OVER: Duration = Duration::from_secs(60);

/// Connections to the service.
#[derive(Clone, Debug)]
pub struct Talk {
    cluster: String,
    clusters: ClusterServiceClient<Channel>,
    placements: PlacementServiceClient<Channel>,
    policies: PolicyServiceClient<Channel>,
    apps: AppServiceClient<Channel>,
}

/// What became of learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learnt {
    /// How the learn run ended, and why it did not succeed.
    pub status: String,
    pub reason: String,
    /// Learning and evaluation.
    pub seconds: f64,
    /// What the gate said, where there was something to judge.
    pub verdict: Option<Judged>,
    pub promoted: bool,
    /// Who decides now.
    pub champion: String,
}

/// What the gate said of the version; mean costs are over pairs of the same world and dial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub version: i64,
    pub passed: bool,
    pub metric: String,
    pub samples: i64,
    pub candidate: Option<f64>,
    pub champion: Option<f64>,
    pub reason: String,
}

impl Learnt {
    /// In one line.
    pub fn told(&self) -> String {
        let Learnt { status, reason, seconds, verdict, promoted, champion } = self;
        match verdict {
            None => format!("nothing was learnt in {seconds:.0} s ({status}): {reason}"),
            Some(judged) if *promoted => {
                format!(
                    "version {} is promoted after {seconds:.0} s and decides as {champion}: {}",
                    judged.version, judged.reason
                )
            }
            Some(judged) => {
                format!(
                    "version {} is not promoted after {seconds:.0} s, {champion} goes on: {}",
                    judged.version, judged.reason
                )
            }
        }
    }
}

impl Talk {
    /// For a cluster, by its id, of the service at this address; connects when it first asks.
    ///
    /// # Errors
    /// When it is no address.
    pub fn new(server: &str, cluster: &str) -> Result<Talk> {
        let channel = client::lazy(server)?;
        Ok(Talk {
            cluster: cluster.to_owned(),
            clusters: ClusterServiceClient::new(channel.clone()),
            placements: PlacementServiceClient::new(channel.clone()),
            policies: PolicyServiceClient::new(channel.clone()),
            apps: AppServiceClient::new(channel),
        })
    }

    /// Puts the trained policy in the shadow, has the heuristic asked beside each decision, and takes the application
    /// into use.
    pub async fn begin(&mut self, manifest: &Manifest) -> Result<()> {
        self.set_shadow(TRAINED).await?;
        let cluster_id = self.cluster.clone();
        let serving =
            wire::Serving { cluster_id, regret_budget: Some(ANY_REGRET), ..wire::Serving::default() };
        let request = wire::SetServingRequest { serving: Some(serving), reason: WHY.to_owned() };
        self.policies.set_serving(request).await.map_err(refused)?;
        let manifest = toml::to_string(manifest).context("a manifest becomes TOML")?;
        let first = wire::RegisterAppRequest { manifest, ..wire::RegisterAppRequest::default() };
        self.apps.register(tokio_stream::iter([first])).await.map_err(refused)?;
        let command = wire::AppCommand::Enable.into();
        let enable = wire::CommandAppRequest { name: own::NAME.to_owned(), command, reason: WHY.to_owned() };
        self.apps.command(enable).await.map_err(refused)?;
        Ok(())
    }

    async fn set_shadow(&mut self, policy: &str) -> Result<()> {
        let (alias, policy, reason) = ("shadow".to_owned(), policy.to_owned(), WHY.to_owned());
        let request = wire::SetAliasRequest { alias, policy, reason, expected: None };
        self.policies.set_alias(request).await.map_err(refused)?;
        Ok(())
    }

    /// Puts what a run learnt in the shadow: there it shows what it would do.
    async fn shadow_learnt(&mut self, run: &str) -> Result<()> {
        let request = wire::GetArtifactRequest { run: run.to_owned(), name: MODEL.to_owned() };
        let chunk = whole(self.apps.get_artifact(request).await.map_err(refused)?.into_inner()).await?;
        let (name, note) = (run.to_owned(), WHY.to_owned());
        let upload = wire::UploadPolicyRequest { name, note, chunk, ..Default::default() };
        let uploaded = self.policies.upload(tokio_stream::iter([upload])).await.map_err(refused)?;
        self.set_shadow(&uploaded.into_inner().id).await
    }

    /// What a link is taken to carry, bytes per second: outwards, and back. Nothing where that is what it was registered
    /// with.
    pub async fn estimate(&mut self, link: usize) -> Result<Option<[f64; 2]>> {
        let request = wire::GetClusterRequest { id: self.cluster.clone(), live: false };
        let told = self.clusters.get(request).await.map_err(refused)?.into_inner();
        let estimates = told.facts.unwrap_or_default().link_estimates;
        let estimate = estimates.iter().find(|estimate| estimate.link == Some(link as i64));
        Ok(estimate.map(|estimate| [estimate.up_bytes_per_s, estimate.down_bytes_per_s]))
    }

    /// A decision with what came of it.
    pub async fn receipt(&mut self, decision: &str) -> Result<wire::Receipt> {
        let (cluster_id, decision_id) = (self.cluster.clone(), decision.to_owned());
        let request = wire::ExplainRequest { cluster_id, decision_id };
        Ok(self.placements.explain(request).await.map_err(refused)?.into_inner())
    }

    /// Has the application learn from what was recorded, and waits until the gate has spoken. What is not promoted goes
    /// into the shadow.
    pub async fn learn(&mut self, manifest: &Manifest) -> Result<Learnt> {
        let began = Instant::now();
        let before = self.champion().await?;
        let request = wire::CommandTriggerRequest {
            app: own::NAME.to_owned(),
            trigger: own::BY_HAND.to_owned(),
            command: wire::TriggerCommand::Fire.into(),
            ..wire::CommandTriggerRequest::default()
        };
        self.apps.command_trigger(request).await.map_err(refused)?;
        let limits = [&manifest.learn, &manifest.evaluate].into_iter().flatten();
        let most_s: f64 = limits.map(|learning| learning.limits.timeout_s).sum();
        let most = Duration::from_secs_f64(most_s) + SLACK;
        let run = self.learning_over(began, most).await?;
        let version = self.versions().await?.into_iter().find(|version| version.run == run.id);
        let verdict = version.and_then(|version| Some(judged(version.number, version.verdict?)));
        let promoted = verdict.as_ref().is_some_and(|verdict| verdict.passed);
        let seconds = began.elapsed().as_secs_f64();
        if verdict.is_some() && !promoted {
            self.shadow_learnt(&run.id).await?;
        }
        let champion = if promoted { self.another_champion(&before).await? } else { before };
        Ok(Learnt { status: run.status, reason: run.reason, seconds, verdict, promoted, champion })
    }

    /// Waits until nothing is learnt or judged any more; the run that learnt.
    async fn learning_over(&mut self, began: Instant, most: Duration) -> Result<wire::Run> {
        loop {
            let list =
                wire::ListRunsRequest { app: own::NAME.to_owned(), ..wire::ListRunsRequest::default() };
            let runs = self.apps.list_runs(list).await.map_err(refused)?.into_inner().runs;
            let get = wire::GetAppRequest { name: own::NAME.to_owned() };
            let app = self.apps.get(get).await.map_err(refused)?.into_inner();
            // What it learnt is judged from the moment at which its run has ended, which the application, asked later, shows.
            let run = runs.into_iter().find(|run| run.kind == "learn");
            if let Some(run) = run.filter(|run| run.ended_ms.is_some())
                && app.learning_run.is_empty()
            {
                return Ok(run);
            }
            if began.elapsed() > most {
                bail!("{} is {} and did not end learning within {} s", app.name, app.state, most.as_secs());
            }
            sleep(PAUSE).await;
        }
    }

    async fn versions(&mut self) -> Result<Vec<wire::Version>> {
        let request = wire::ListVersionsRequest { app: own::NAME.to_owned(), limit: None, number: None };
        Ok(self.apps.list_versions(request).await.map_err(refused)?.into_inner().versions)
    }

    /// Id of the policy that decides.
    async fn champion(&mut self) -> Result<String> {
        let request = wire::GetPolicyRequest { policy: "champion".to_owned() };
        Ok(self.policies.get(request).await.map_err(refused)?.into_inner().id)
    }

    /// Waits until another than this one decides.
    async fn another_champion(&mut self, before: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let champion = self.champion().await?;
            if champion != before {
                return Ok(champion);
            }
            if began.elapsed() > TAKING_OVER {
                bail!("a version was promoted, and {before} goes on deciding");
            }
            sleep(PAUSE).await;
        }
    }
}

fn judged(version: i64, verdict: wire::Verdict) -> Judged {
    let wire::Verdict { passed, metric, samples, candidate, champion, reason } = verdict;
    Judged { version, passed, metric, samples, candidate, champion, reason }
}
