//! AppCore's own words as messages.

use std::collections::BTreeMap;

use remora_proto::v1 as wire;

use crate::appcore::core::{Alias, App, Definition, TriggerState, Version};
use crate::appcore::manifest::Keep;
use crate::appcore::rows::Row;
use crate::appcore::run::{Blob, Run};
use crate::storage::{AppAliasRow, ArchivedApp, FireRow, TransitionRow};

/// An application as it stands; its manifest only where it is told whole.
pub fn app(name: &str, app: &App, whole: bool) -> wire::App {
    let aliases = app.aliases.iter().map(|(alias, number)| (alias.name().to_owned(), i64::from(*number)));
    wire::App {
        name: name.to_owned(),
        state: app.state.name().to_owned(),
        since_ms: app.since_ms,
        about: app.manifest().about.clone(),
        aliases: aliases.collect(),
        waiting: app.waiting() as i64,
        executing: app.executing() as i64,
        learning_run: app.learning_run().unwrap_or_default().to_owned(),
        calls_waiting: app.calls_waiting() as i64,
        failures: i64::from(app.failures),
        retry_ms: app.retry_ms,
        triggers: triggers(name, app),
        manifest: if whole { toml::to_string(app.manifest()).unwrap_or_default() } else { String::new() },
        unchanged: false,
    }
}

pub fn triggers(name: &str, app: &App) -> Vec<wire::Trigger> {
    app.triggers.values().map(|state| trigger(name, app, state)).collect()
}

fn trigger(name: &str, app: &App, state: &TriggerState) -> wire::Trigger {
    let (skipped_ms, skipped) = state.skipped.clone().unzip();
    wire::Trigger {
        app: name.to_owned(),
        name: state.trigger.name.clone(),
        spec: serde_json::to_string(&state.trigger).unwrap_or_default(),
        paused: state.paused,
        next_ms: app.next_fire_ms(&state.trigger.name),
        fired_ms: state.fired_ms,
        skipped_ms,
        skipped: skipped.unwrap_or_default(),
        items: state.items as i64,
        bytes: state.bytes as i64,
    }
}

fn artifacts(blobs: &[Blob]) -> Vec<wire::Artifact> {
    let artifact = |blob: &Blob| wire::Artifact {
        name: blob.name.clone(),
        hash: blob.hash.clone(),
        bytes: blob.bytes as i64,
    };
    blobs.iter().map(artifact).collect()
}

pub fn run(run: &Run) -> wire::Run {
    wire::Run {
        id: run.id.clone(),
        app: run.app.clone(),
        kind: run.kind.name().to_owned(),
        status: run.status.name().to_owned(),
        version: i64::from(run.version),
        cause: run.cause.clone(),
        actor: run.actor.clone(),
        request_id: run.request.clone().unwrap_or_default(),
        seed: run.seed,
        inputs: artifacts(&run.inputs),
        outputs: artifacts(&run.outputs),
        attempt: i64::from(run.attempt),
        queued_ms: run.queued_ms,
        started_ms: run.started_ms,
        ended_ms: run.ended_ms,
        node: run.node.clone().unwrap_or_default(),
        decision_id: run.decision.clone().unwrap_or_default(),
        exit: run.exit,
        reason: run.reason.clone().unwrap_or_default(),
        cpu_s: run.usage.cpu_s,
        memory_bytes: run.usage.memory_bytes as i64,
        output_bytes: run.usage.output_bytes as i64,
        repeats: run.again.clone().unwrap_or_default(),
    }
}

pub fn version(
    version: &Version,
    aliases: &BTreeMap<Alias, u32>,
    definitions: &BTreeMap<u32, Definition>,
) -> wire::Version {
    let definition = definitions.get(&version.definition);
    let code = definition.and_then(|definition| definition.code.as_ref());
    let parameters = definition.and_then(|it| serde_json::to_string(&it.manifest.parameters).ok());
    let held = aliases.iter().filter(|(_, number)| **number == version.number);
    let verdict = version.verdict.as_ref().map(|verdict| wire::Verdict {
        passed: verdict.passed,
        metric: verdict.metric.clone(),
        samples: verdict.samples as i64,
        candidate: verdict.candidate,
        champion: verdict.champion,
        reason: verdict.reason.clone(),
    });
    wire::Version {
        number: i64::from(version.number),
        model: version.model.as_ref().map_or_else(String::new, |model| model.hash.clone()),
        definition: i64::from(version.definition),
        code: code.map_or_else(String::new, |code| code.hash.clone()),
        run: version.run.clone().unwrap_or_default(),
        at_ms: version.at_ms,
        actor: version.actor.clone(),
        verdict,
        aliases: held.map(|(alias, _)| alias.name().to_owned()).collect(),
        parameters: parameters.unwrap_or_default(),
    }
}

pub fn fire(row: FireRow) -> wire::Fire {
    let FireRow { app, at_ms, trigger, actor, skipped, .. } = row;
    wire::Fire { app, trigger, at_ms, actor, skipped: skipped.unwrap_or_default() }
}

pub fn transition(row: TransitionRow) -> wire::Transition {
    let TransitionRow { app, number, at_ms, from, to, cause, actor, reason } = row;
    wire::Transition { app, number, at_ms, from, to, cause, actor, reason }
}

pub fn alias_change(row: AppAliasRow) -> wire::VersionAliasChange {
    let AppAliasRow { alias, version, at_ms, actor, reason, .. } = row;
    wire::VersionAliasChange { alias, version, at_ms, actor, reason }
}

/// What those who watch are told of; nothing of rows that say nothing new.
pub fn event(row: &Row) -> Option<wire::AppEvent> {
    use wire::app_event::Event;
    let (name, event) = match row {
        Row::Transition { app, number, at_ms, from, to, cause, actor, reason } => {
            let told = wire::Transition {
                app: app.clone(),
                number: *number as i64,
                at_ms: *at_ms,
                from: from.name().to_owned(),
                to: to.name().to_owned(),
                cause: cause.name().to_owned(),
                actor: actor.clone(),
                reason: reason.clone(),
            };
            (app, Event::Transition(told))
        }
        Row::Run(told) => (&told.app, Event::Run(run(told))),
        Row::Version { app, version: told } => {
            (app, Event::Version(version(told, &BTreeMap::new(), &BTreeMap::new())))
        }
        Row::Fired { app, at_ms, trigger, actor, skipped, .. } => {
            let told = wire::Fire {
                app: app.clone(),
                trigger: trigger.clone(),
                at_ms: *at_ms,
                actor: actor.clone(),
                skipped: skipped.clone().unwrap_or_default(),
            };
            (app, Event::Fire(told))
        }
        Row::Alias { app, at_ms, alias, version, actor, reason, .. } => {
            let change = wire::VersionAliasChange {
                alias: alias.name().to_owned(),
                version: version.map(i64::from),
                at_ms: *at_ms,
                actor: actor.clone(),
                reason: reason.clone(),
            };
            (app, Event::Alias(wire::AliasEvent { change: Some(change) }))
        }
        Row::App { .. } | Row::Definition { .. } | Row::Trigger { .. } | Row::Notice { .. } => return None,
    };
    Some(wire::AppEvent { app: name.clone(), event: Some(event) })
}

/// What is kept of an application, and what its app.toml says of that.
pub fn archived(app: ArchivedApp, keep: Keep) -> wire::ArchivedApp {
    wire::ArchivedApp {
        app: app.app,
        runs: app.runs,
        artifacts: app.artifacts,
        bytes: app.bytes,
        keep_runs: keep.runs.map(i64::from),
        keep_days: keep.days.map(i64::from),
    }
}
