//! The application that ships with Remora: its own policy.

use anyhow::{Context, Result};

use crate::appcore::own;

/// How Remora's own policy learns.
#[derive(Debug, clap::Args)]
pub struct OwnArgs {
    /// Register Remora's own placement policy, which learns from recorded outcomes.
    #[arg(long, conflicts_with_all = ["manifest", "file"])]
    own: bool,
    /// The cluster that it learns from; may be left out where there is only one.
    #[arg(long, requires = "own", value_name = "NAME")]
    cluster: Option<String>,
    /// Let one run learn for so long [default: 30].
    #[arg(long, requires = "own", conflicts_with = "steps")]
    minutes: Option<f64>,
    /// Let one run learn for so many iterations instead: the same bytes every time.
    #[arg(long, requires = "own")]
    steps: Option<u64>,
}

impl OwnArgs {
    /// Its app.toml, where it is asked for.
    pub fn manifest(self) -> Result<Option<String>> {
        if !self.own {
            return Ok(None);
        }
        let manifest = own::manifest(self.cluster, self.minutes, self.steps)?;
        toml::to_string(&manifest).map(Some).context("a manifest becomes TOML")
    }
}
