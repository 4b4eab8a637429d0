//! Remora's own placement policy as an application: what it is, and what its runs read. Its champion is the policy that
//! places tasks, which [`Keeper`] sees to.

mod keeper;

use anyhow::{Context, Result, bail};
use remora_trainer::Config;
use remora_trainer::continual::Gate;
use serde::Deserialize;

use super::core::Launch;
use super::manifest::Manifest;
use super::owner::Handle;
use super::placing::LOCAL;
use super::run::{Blob, RunKind};
use crate::service::{Door, is_heuristic};

pub use keeper::Keeper;

/// The application's name.
pub const NAME: &str = "remora-policy";
/// The trigger that an operator fires.
pub const BY_HAND: &str = "by-hand";
const MANIFEST: &str = include_str!("../../apps/remora-policy/app.toml");
/// Inputs of its runs: the recording, whose trace lies beside it, and the name of the heuristic that decides, if one does.
pub const RECORDING: &str = "recording.toml";
pub const SERVED: &str = "served";

/// What it can be told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// The cluster whose recording it learns from; empty for the only one.
    pub cluster: String,
    /// How long it learns, or how many iterations.
    pub minutes: f64,
    pub steps: Option<u64>,
    /// Worlds of each held-out window, and members of the test family, by which it is judged.
    pub seeds: u64,
    pub members: u64,
    /// Hyper-parameters.
    pub config: Config,
}

impl Default for Parameters {
    fn default() -> Parameters {
        let Gate { seeds, members, .. } = Gate::default();
        let (cluster, config) = (String::new(), Config::default());
        Parameters { cluster, minutes: 30.0, steps: None, seeds, members, config }
    }
}

impl Parameters {
    /// # Errors
    /// What is wrong, with the field's name and what would be right.
    pub fn read(given: serde_json::Value) -> Result<Parameters> {
        let parameters: Parameters = serde_json::from_value(given).context("parameters")?;
        let Parameters { minutes, steps, seeds, members, config, .. } = &parameters;
        if !(minutes.is_finite() && *minutes > 0.0) {
            bail!("parameters.minutes: is {minutes}, want a number above 0");
        }
        for (name, value) in [("steps", steps.unwrap_or(1)), ("seeds", *seeds), ("members", *members)] {
            if !(1..=1_000_000).contains(&value) {
                bail!("parameters.{name}: is {value}, want 1 to 1000000");
            }
        }
        if let Some(problem) = config.problems().first() {
            bail!("parameters.config: {problem}");
        }
        Ok(parameters)
    }
}

/// Seconds that a run may take beyond the time for which it learns, and by how much that may be stretched.
const BESIDES_S: f64 = 5400.0;
const STRETCH: f64 = 1.5;

/// Its app.toml, for a cluster and with so much learning.
///
/// # Errors
/// When that much is no amount.
pub fn manifest(cluster: Option<String>, minutes: Option<f64>, steps: Option<u64>) -> Result<Manifest> {
    let mut manifest = Manifest::read(MANIFEST).context("the application that is shipped")?;
    let mut set = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            manifest.parameters.insert(name.to_owned(), value);
        }
    };
    set("cluster", cluster.map(Into::into));
    set("minutes", minutes.map(Into::into));
    set("steps", steps.map(Into::into));
    let parameters = Parameters::read(serde_json::to_value(&manifest.parameters)?)?;
    if let Some(learn) = &mut manifest.learn {
        learn.limits.timeout_s = learn.limits.timeout_s.max(BESIDES_S + STRETCH * 60.0 * parameters.minutes);
    }
    manifest.check()?;
    Ok(manifest)
}

/// There is nothing to learn from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Nothing(String);

/// The cluster that it learns from, among those that there are.
async fn cluster(door: &Door, parameters: &Parameters) -> Result<String> {
    if !parameters.cluster.is_empty() {
        return Ok(parameters.cluster.clone());
    }
    let mut known = door.clusters().await?;
    // Where this machine's runs are placed, there is nothing to choose between.
    known.retain(|name| name != LOCAL);
    match known.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Nothing("parameters.cluster: is empty, and no cluster is registered".to_owned()).into()),
        several => {
            let told = format!("parameters.cluster: is empty, want one of {}", several.join(", "));
            Err(Nothing(told).into())
        }
    }
}

/// What a run reads besides what it was given already: the recording of its cluster as it is now.
///
/// # Errors
/// [`Nothing`] where there is none to read.
pub async fn given(handle: &Handle, door: &Door, launch: &Launch) -> Result<Vec<Blob>> {
    let mut given = Vec::new();
    let has = |name: &str| launch.run.inputs.iter().any(|input| input.name == name);
    if launch.run.app != NAME || launch.run.again.is_some() {
        return Ok(given);
    }
    let storage = handle.storage();
    let mut give = async |name: String, bytes: Vec<u8>| -> Result<()> {
        given.push(handle.keep(name, bytes).await?);
        Ok(())
    };
    if !has(RECORDING) {
        let parameters = Parameters::read(serde_json::to_value(&launch.definition.manifest.parameters)?);
        let parameters = parameters.map_err(|error| Nothing(format!("{error:#}")))?;
        let recorded = door.recorded(storage, &cluster(door, &parameters).await?).await?.map_err(Nothing)?;
        let files = tokio::task::spawn_blocking(move || -> Result<_> {
            let folder = tempfile::tempdir()?;
            recorded.write(&folder.path().join(RECORDING))?;
            let files = super::folder::files(folder.path())?.into_iter();
            files.map(|(name, path)| Ok((name, std::fs::read(path)?))).collect::<Result<Vec<_>>>()
        });
        for (name, bytes) in files.await?.context("the recording")? {
            give(name, bytes).await?;
        }
    }
    if launch.run.kind == RunKind::Evaluate && !has(SERVED) {
        let served = door.champion().await?;
        if is_heuristic(&served) {
            give(SERVED.to_owned(), served.into_bytes()).await?;
        }
    }
    Ok(given)
}
