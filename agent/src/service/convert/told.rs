//! What the service tells of decisions, events and policies.

use remora_proto::v1 as wire;
use wire::cluster_event::Event as WireEvent;

use super::kept::ms;
use super::{Field, Invalid, alternative, answer, candidate, summary};
use crate::evaluation::{Evaluated, Outcome};
use crate::service::books::Made;
use crate::service::feed::{Entry, Event};
use crate::service::owner::{Explained, Served, Told};
use crate::service::policies::{About, Alias, Change, Evaluation};
use crate::service::serving::{Autonomy, Serving, is_heuristic};

/// What happened, on the wire.
pub fn event(entry: &Entry) -> wire::ClusterEvent {
    let event = match &entry.event {
        Event::Registered(_, counts) => WireEvent::Registered(summary(counts)),
        Event::Updated(update) => WireEvent::Updated((**update).clone()),
        Event::Decided(made) => WireEvent::Decided(receipt(&entry.cluster, made)),
        Event::Ended(outcome) => WireEvent::Ended((**outcome).clone()),
        Event::Expired(decision) => WireEvent::ExpiredDecisionId(decision.clone()),
        Event::Disputed(disputed) => WireEvent::Disputed((**disputed).clone()),
        Event::Removed => WireEvent::Removed(true),
    };
    wire::ClusterEvent { version: entry.version as i64, at_ms: entry.at_ms, event: Some(event) }
}

/// A decision as it was made.
pub fn receipt(cluster: &str, made: &Made) -> wire::Receipt {
    let Made { at, request, answer: given } = made;
    let other = |other: &Option<_>| other.as_ref().map(|other| alternative(given, other));
    let mut response = answer(given);
    if response.candidates.is_empty() {
        response.candidates.push(candidate(given, &given.chosen));
    }
    wire::Receipt {
        cluster_id: cluster.to_owned(),
        request: Some(wire::PlaceRequest { alpha: Some(given.alpha), ..(**request).clone() }),
        response: Some(response),
        at_ms: ms(*at),
        shadow: other(&given.shadow),
        fallback: other(&given.heuristic),
        outcome: None,
        ended_at_ms: 0,
        predicted_cost: given.cost,
        actual_cost: None,
        kube_default: other(&given.kube_default),
        disputed: None,
    }
}

/// A decision with what became of it.
pub fn explained(cluster: &str, explained: &Explained) -> wire::Receipt {
    let disputed = explained.disputed.as_deref().cloned();
    let receipt = wire::Receipt { disputed, ..receipt(cluster, &explained.made) };
    let actual_cost = explained.actual_cost;
    match &explained.outcome {
        Some((outcome, at)) => {
            wire::Receipt { outcome: Some((**outcome).clone()), ended_at_ms: ms(*at), actual_cost, ..receipt }
        }
        None => receipt,
    }
}

/// A policy on the wire.
pub fn policy(told: Told) -> wire::Policy {
    let learned = !is_heuristic(&told.id);
    let About { name, bytes, uploaded_at_ms, uploaded_by, note, metadata } = told.about.unwrap_or_default();
    wire::Policy {
        name: if name.is_empty() { told.id.clone() } else { name },
        id: told.id,
        learned,
        aliases: told.aliases.iter().map(|alias| alias.name().to_owned()).collect(),
        bytes: bytes as i64,
        uploaded_at_ms,
        uploaded_by,
        note,
        metadata,
        evaluated: told.evaluated,
    }
}

/// What a policy came to, on the wire.
pub fn evaluation(hash: String, evaluated: &Evaluated) -> wire::PolicyEvaluation {
    let Evaluated { called, results, actor, at_ms } = evaluated;
    wire::PolicyEvaluation {
        policy: hash,
        called: called.clone(),
        results: results.iter().map(result).collect(),
        actor: actor.clone(),
        at_ms: *at_ms,
    }
}

/// One result of an evaluation.
pub fn result(outcome: &Outcome) -> wire::TrainingResult {
    let Outcome { scenario, policy, alpha, cost, data_moved_gb, response_mean_s, worlds } = outcome.clone();
    let worlds = worlds as i64;
    wire::TrainingResult { scenario, policy, alpha, cost, data_moved_gb, response_mean_s, worlds }
}

/// Most results of an evaluation.
const MOST_RESULTS: usize = 10_000;

/// An evaluation that is handed in.
pub fn evaluated(
    at: Field<'_>,
    given: &wire::PolicyEvaluation,
    (actor, at_ms): (&str, i64),
) -> Result<Evaluation, Invalid> {
    let hash = at.field("policy").name(&given.policy)?;
    let called = at.field("called").name(&given.called)?;
    at.field("results").count(given.results.len(), 1..=MOST_RESULTS)?;
    let mut results = Vec::with_capacity(given.results.len());
    for (index, told) in given.results.iter().enumerate() {
        let at = at.item("results", index);
        let figure = |name, value: f64| at.field(name).number(value, 0.0..=1e18);
        results.push(Outcome {
            scenario: at.field("scenario").name(&told.scenario)?,
            policy: at.field("policy").name(&told.policy)?,
            alpha: at.field("alpha").number(told.alpha, 0.0..=1.0)?,
            cost: figure("cost", told.cost)?,
            data_moved_gb: figure("data_moved_gb", told.data_moved_gb)?,
            response_mean_s: figure("response_mean_s", told.response_mean_s)?,
            worlds: at.field("worlds").whole(told.worlds, 1..=i64::MAX)?,
        });
    }
    if !results.iter().any(|result| result.policy == called) {
        let names = results.iter().map(|result| result.policy.as_str());
        return Err(at.field("called").unknown("policy of the results", &called, names));
    }
    Ok(Evaluation { hash, evaluated: Evaluated { called, results, actor: actor.to_owned(), at_ms } })
}

/// The alias of a name.
pub fn alias(at: Field<'_>, name: &str) -> Result<Alias, Invalid> {
    let names = Alias::ALL.map(Alias::name);
    Alias::named(name).ok_or_else(|| at.unknown("alias", name, names.into_iter()))
}

/// A change of an alias on the wire.
pub fn change(change: Change) -> wire::AliasChange {
    wire::AliasChange {
        alias: change.alias.name().to_owned(),
        policy: change.policy.unwrap_or_default(),
        before: change.before.unwrap_or_default(),
        reason: change.reason,
        actor: change.actor,
        at_ms: change.at_ms,
    }
}

const LEVELS: [(Autonomy, wire::Autonomy); 4] = [
    (Autonomy::Off, wire::Autonomy::Off),
    (Autonomy::Advise, wire::Autonomy::Advise),
    (Autonomy::Share, wire::Autonomy::Share),
    (Autonomy::Act, wire::Autonomy::Act),
];

/// How a cluster is served, on the wire.
pub fn served(cluster: String, Served { serving, regret }: Served) -> wire::Serving {
    let autonomy = LEVELS.iter().find(|(own, _)| *own == serving.autonomy);
    wire::Serving {
        cluster_id: cluster,
        autonomy: autonomy.map_or(wire::Autonomy::Unspecified, |(_, wire)| *wire).into(),
        share: Some(serving.share),
        candidate_share: Some(serving.candidate_share),
        shadow_share: Some(serving.shadow_share),
        fallback: serving.fallback,
        regret_budget: Some(serving.regret_budget),
        alpha: Some(serving.alpha),
        regret: regret.0,
        regret_of: regret.1 as i64,
        expire_after: Some(serving.expire_after),
    }
}

/// What is to change in how a cluster is served.
pub fn amend(wire: &wire::Serving) -> Result<impl FnOnce(&mut Serving) + Send + 'static, Invalid> {
    let at = Field::root("serving");
    let autonomy = match wire.autonomy {
        0 => None,
        number => {
            let known = LEVELS.iter().find(|(_, wire)| *wire as i32 == number).map(|(own, _)| *own);
            let problem = format_args!("is {number}, want OFF, ADVISE, SHARE or ACT");
            Some(known.ok_or_else(|| at.field("autonomy").refuse(problem))?)
        }
    };
    let number = |name, value: Option<f64>, range| value.map(|x| at.field(name).number(x, range)).transpose();
    let share = number("share", wire.share, 0.0..=1.0)?;
    let candidate_share = number("candidate_share", wire.candidate_share, 0.0..=1.0)?;
    let shadow_share = number("shadow_share", wire.shadow_share, 0.0..=1.0)?;
    let regret_budget = number("regret_budget", wire.regret_budget, 0.0..=1000.0)?;
    let alpha = number("alpha", wire.alpha, 0.0..=1.0)?;
    let expire_after = number("expire_after", wire.expire_after, 1.0..=1000.0)?;
    let fallback = match wire.fallback.as_str() {
        "" => None,
        name if is_heuristic(name) => Some(name.to_owned()),
        name => return Err(at.field("fallback").refuse(format_args!("{name:?} is no heuristic"))),
    };
    Ok(move |serving: &mut Serving| {
        serving.autonomy = autonomy.unwrap_or(serving.autonomy);
        serving.share = share.unwrap_or(serving.share);
        serving.candidate_share = candidate_share.unwrap_or(serving.candidate_share);
        serving.shadow_share = shadow_share.unwrap_or(serving.shadow_share);
        serving.regret_budget = regret_budget.unwrap_or(serving.regret_budget);
        serving.alpha = alpha.unwrap_or(serving.alpha);
        serving.expire_after = expire_after.unwrap_or(serving.expire_after);
        if let Some(fallback) = fallback {
            serving.fallback = fallback;
        }
    })
}
