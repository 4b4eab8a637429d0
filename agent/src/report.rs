//! The technical report: experiments that are commands, what they came to, and the document made of both.
//!
//! ```text
//! experiments.toml ─► command --json ─► recorded/NAME.json ─► tables and plots in report.md ─► one page, PDF
//!                     quick --json   ─► agrees with what is recorded?
//! ```

pub mod agreement;
pub mod document;
pub mod page;
pub mod record;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// All experiments of a report, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiments {
    pub experiment: Vec<Experiment>,
}

/// A command of ours whose result the report shows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Of its record: letters, digits and `-`.
    pub name: String,
    /// What follows `remora`, without `--json`; `{report}` is the report's folder, `{scratch}` one that is removed.
    pub command: String,
    /// The same on a part of the worlds, in seconds.
    pub quick: Option<String>,
    /// Policies that the others are compared with; of an evaluation.
    #[serde(default)]
    pub over: Vec<String>,
}

impl Experiments {
    /// Reads `experiments.toml`.
    ///
    /// # Errors
    /// When it cannot be read, or says what it must not.
    pub fn read(folder: &Path) -> Result<Experiments> {
        let path = folder.join("experiments.toml");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; --from is the folder of a report, docs/report of the repository",
                path.display()
            )
        })?;
        let all: Experiments =
            toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        for (index, Experiment { name, .. }) in all.experiment.iter().enumerate() {
            if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
                bail!(
                    "{}: experiment[{index}].name: is {name:?}, want letters, digits and -",
                    path.display()
                );
            }
            if all.experiment[..index].iter().any(|other| other.name == *name) {
                bail!("{}: experiment[{index}].name: {name:?} is there twice", path.display());
            }
        }
        Ok(all)
    }

    /// These experiments, or all of them.
    ///
    /// # Errors
    /// When one is not there.
    pub fn only(&self, names: &[String]) -> Result<Vec<&Experiment>> {
        let known = || self.experiment.iter().map(|experiment| experiment.name.as_str());
        if let Some(unknown) = names.iter().find(|name| !known().any(|known| known == *name)) {
            bail!("there is no experiment {unknown:?}; known are {}", known().collect::<Vec<_>>().join(", "));
        }
        Ok(self.experiment.iter().filter(|of| names.is_empty() || names.contains(&of.name)).collect())
    }
}
