//! What a policy came to beside others on worlds that training never saw, as it is kept with the policy.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use anyhow::{Result, anyhow, bail};
use remora_policies::Checkpoint;
use remora_trainer::evaluate::Row;
use remora_trainer::summary::{Evaluation, cases};
use serde::{Deserialize, Serialize};

use crate::report::record::Record;

/// What the shipped policy came to.
const RECORDED: &str = include_str!("../../docs/report/recorded/built-in.json");

/// What a policy came to on a scenario at a position of the dial: means over worlds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub scenario: String,
    pub policy: String,
    pub alpha: f64,
    /// Of kube-default's.
    pub cost: f64,
    /// Price-weighted.
    pub data_moved_gb: f64,
    pub response_mean_s: f64,
    pub worlds: u64,
}

/// An evaluation of one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// What it is called among the results.
    pub called: String,
    /// Of every policy that was played.
    pub results: Vec<Outcome>,
    /// Who handed it in, and when, milliseconds since 1970; nobody and 0 of what ships.
    pub actor: String,
    pub at_ms: i64,
}

/// Means over the worlds of each case.
pub fn outcomes(evaluation: &Evaluation) -> Vec<Outcome> {
    let of = |(scenario, policy, alpha): (&str, &str, f64)| {
        let mean = |figure: fn(&Row) -> f64| evaluation.mean(scenario, policy, alpha, figure);
        let same = |row: &&Row| row.scenario == scenario && row.policy == policy && row.alpha == alpha;
        Outcome {
            scenario: scenario.to_owned(),
            policy: policy.to_owned(),
            alpha,
            cost: mean(|row| row.cost),
            data_moved_gb: mean(|row| row.data_moved_gb),
            response_mean_s: mean(|row| row.response_mean_s),
            worlds: evaluation.rows.iter().filter(same).count() as u64,
        }
    };
    cases(&evaluation.rows).into_iter().map(of).collect()
}

impl Evaluated {
    /// What an evaluation says of the checkpoint with this hash.
    ///
    /// # Errors
    /// It is not among those that were played; the message names these.
    pub fn of(evaluation: &Evaluation, hash: &str) -> Result<Evaluated> {
        let Some((called, _)) = evaluation.checkpoints.iter().find(|(_, known)| *known == hash) else {
            let played: BTreeSet<_> = evaluation.rows.iter().map(|row| row.policy.as_str()).collect();
            if played.is_empty() {
                bail!("nothing was played in it");
            }
            let told = |name: &str| match evaluation.checkpoints.get(name) {
                Some(hash) => format!("{name} ({hash})"),
                None => name.to_owned(),
            };
            let played: Vec<_> = played.into_iter().map(told).collect();
            return Err(anyhow!(
                "it is not of the checkpoint {hash}, but of {}; evaluate this one with `remora evaluate --policy \
                 kube-default,greedy-marginal-tuned,CHECKPOINT --out FOLDER`",
                played.join(", ")
            ));
        };
        let results = outcomes(evaluation);
        Ok(Evaluated { called: called.clone(), results, actor: String::new(), at_ms: 0 })
    }

    /// What the shipped policy came to, with its hash; nothing where the record is of another.
    pub fn shipped() -> Option<&'static (String, Arc<Evaluated>)> {
        static SHIPPED: LazyLock<Option<(String, Arc<Evaluated>)>> = LazyLock::new(|| {
            let hash = Checkpoint::pretrained().ok()?.id();
            let record: Record = serde_json::from_str(RECORDED).ok()?;
            let called = record.checkpoints.into_iter().find(|(_, known)| *known == hash)?.0;
            let result = |means: crate::report::record::Means| Outcome {
                scenario: means.scenario,
                policy: means.policy,
                alpha: means.alpha,
                cost: means.cost,
                data_moved_gb: means.data_moved_gb,
                response_mean_s: means.response_mean_s,
                worlds: means.worlds as u64,
            };
            let results = record.means.into_iter().map(result).collect();
            Some((hash, Arc::new(Evaluated { called, results, actor: String::new(), at_ms: 0 })))
        });
        SHIPPED.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::{Evaluated, Evaluation};

    #[test]
    fn what_is_recorded_is_of_the_policy_that_ships() {
        let (hash, shipped) = Evaluated::shipped().expect(
            "docs/report/recorded/built-in.json is of another policy: `remora report --record --only built-in`",
        );
        assert_eq!((hash.len(), shipped.called.as_str()), (16, "pretrained"));
        let of = |policy: &str| shipped.results.iter().filter(|result| result.policy == policy).count();
        // Three scenarios at five positions of the dial.
        assert_eq!((of("pretrained"), of("kube-default")), (15, 15));
        assert!(shipped.results.iter().all(|result| result.worlds == 20 && result.response_mean_s > 0.0));
    }

    #[test]
    fn an_evaluation_is_of_those_that_were_played() {
        let row = r#"{"scenario":"a","policy":"best","alpha":0.5,"seed":0,"tasks":1,"data_moved_gb":2.0,"wan_gb":0.0,
            "response_mean_s":3.0,"response_p95_s":0.0,"response_p99_s":0.0,"deadline_miss":0.0,"energy_kj":0.0,
            "usd":0.0,"cost":0.5,"unplaceable":0,"failed":0,"retries":0,"decision_us":1.0}"#;
        let other = row.replace("2.0", "4.0").replace("\"seed\":0", "\"seed\":1");
        let text = format!(
            r#"{{"rows":[{row},{other}],"comparisons":[],"checkpoints":{{"best":"00ff00ff00ff00ff"}}}}"#
        );
        let mut evaluation: Evaluation = serde_json::from_str(&text).unwrap();
        let of = Evaluated::of(&evaluation, "00ff00ff00ff00ff").unwrap();
        assert_eq!((of.called.as_str(), of.results.len()), ("best", 1));
        let result = &of.results[0];
        assert_eq!((result.data_moved_gb, result.response_mean_s, result.worlds), (3.0, 3.0, 2));
        let refused = Evaluated::of(&evaluation, "1111111111111111").unwrap_err().to_string();
        assert!(refused.contains("but of best (00ff00ff00ff00ff);"), "{refused}");
        evaluation.rename("best", "trained");
        assert_eq!(Evaluated::of(&evaluation, "00ff00ff00ff00ff").unwrap().called, "trained");
    }
}
