//! The gRPC door of AppCore: check, tell or ask the owner, answer.

mod streams;
mod told;

pub(crate) use streams::pieces;

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_proto::v1 as wire;
use remora_proto::v1::app_service_server::AppService;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::apps::Apps;
use super::core::{Alias, By, Input, Refused, good_name};
use super::folder;
use super::manifest::{Keep, Manifest};
use super::own::NAME;
use super::owner::{Denied, Done};
use super::run::{Blob, REQUEST, Run, RunKind};
use crate::service::access::{Caller, Subject};
use crate::service::convert::{self, Field};
use crate::service::refusal::Refusal;
use crate::storage::{self, Role, RunFilter, random};

/// Largest app.toml, code archive, request and notice, bytes.
const MANIFEST_BYTES: usize = 256 << 10;
pub const CODE_BYTES: usize = 128 << 20;
pub const INPUT_BYTES: usize = 16 << 20;
const MOST_FILES: usize = 1000;

/// AppCore as gRPC sees it; nothing where the service keeps no data.
#[derive(Clone, Debug)]
pub struct AppDoor(pub Option<Arc<Apps>>);

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let told = refused.to_string();
        match refused {
            Refused::Invalid(_) => Status::invalid_argument(told),
            Refused::Unknown(_) => Status::not_found(told),
            Refused::State(_) => Status::failed_precondition(told),
            Refused::Full(_) => Status::resource_exhausted(told),
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Status {
        match denied {
            Denied::Refused(refused) => refused.into(),
            Denied::Busy => Status::resource_exhausted(denied.to_string()),
            Denied::Stopping => Status::unavailable(denied.to_string()),
            Denied::Storage(error) => kept(error),
        }
    }
}

/// What storage says, for whoever asked.
fn kept(error: storage::Error) -> Status {
    match error {
        storage::Error::Unknown(told) => Status::not_found(told),
        error => Refusal::from(error).into(),
    }
}

/// Something said about why, which may be left out.
fn reason(text: &str) -> Result<&str, Status> {
    Field::root("reason").text(text).map_err(Refusal::from)?;
    Ok(text.trim())
}

/// Something said about why, which must be there.
fn good_reason(text: &str) -> Result<&str, Status> {
    Ok(convert::reason_given(text).map_err(Refusal::from)?.trim())
}

fn by(request_extensions: &tonic::Extensions, reason: &str) -> By {
    By::new(Caller::of(request_extensions).name.to_string(), reason)
}

/// An answer, and what it is about for the audit log.
fn about<T>(subject: &str, answer: T) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(Subject(subject.to_owned()));
    response
}

/// How many are wanted at most, from 1 to 1000, where that is said.
fn within(name: &'static str, value: Option<i64>) -> Result<Option<i64>, Status> {
    if let Some(value) = value {
        Field::root(name).whole(value, 1..=1000).map_err(Refusal::from)?;
    }
    Ok(value)
}

/// A name to filter by; empty for none.
fn filter(name: String) -> Option<String> {
    Some(name).filter(|name| !name.is_empty())
}

impl AppDoor {
    fn apps(&self) -> Result<&Arc<Apps>, Status> {
        let why = "applications need a service that keeps data: start it with --data FOLDER";
        self.0.as_ref().ok_or_else(|| Status::failed_precondition(why))
    }

    async fn app(&self, name: String, whole: bool) -> Result<wire::App, Status> {
        let told = self
            .apps()?
            .handle
            .ask(move |core| core.app(&name).map(|app| told::app(&name, app, whole)))
            .await?;
        Ok(told?)
    }

    /// Has an input taken, and answers with the application as it is then.
    async fn done(&self, name: &str, input: Input) -> Result<Response<wire::App>, Status> {
        let Done { known, .. } = self.apps()?.handle.tell(input).await?;
        let app = self.app(name.to_owned(), true).await?;
        Ok(about(name, wire::App { unchanged: known, ..app }))
    }

    async fn run(&self, id: &str) -> Result<Run, Status> {
        let run = self.apps()?.handle.run(id).await?;
        run.ok_or_else(|| Status::not_found(format!("no run is called {id:?}")))
    }

    /// Registers an application, of whom these extensions say who asks.
    ///
    /// # Errors
    /// What is wrong with app.toml or the archive, all of it; or it is retired.
    pub async fn take_in(
        &self,
        extensions: &tonic::Extensions,
        text: &str,
        why: &str,
        code: Vec<u8>,
    ) -> Result<Response<wire::App>, Status> {
        if text.len() > MANIFEST_BYTES {
            return Err(Status::invalid_argument(format!(
                "manifest: is larger than {} KiB",
                MANIFEST_BYTES >> 10
            )));
        }
        let manifest = Manifest::read(text).map_err(|wrong| Status::invalid_argument(wrong.to_string()))?;
        let by = by(extensions, reason(why)?);
        let name = manifest.name.clone();
        // Its gate says who decides.
        if name == NAME && Caller::of(extensions).role < Role::Operator {
            return Err(Status::permission_denied(format!(
                "{name} places tasks: only operators register it"
            )));
        }
        let code = self.keep_code(code).await?;
        self.done(&name, Input::Register { manifest: Box::new(manifest), code, by }).await
    }

    async fn keep_code(&self, code: Vec<u8>) -> Result<Option<Blob>, Status> {
        if code.is_empty() {
            return Ok(None);
        }
        let checked = tokio::task::spawn_blocking(move || folder::check_archive(&code).map(|()| code)).await;
        let code = checked
            .map_err(|_| Status::internal("the archive could not be read"))?
            .map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
        self.apps()?.handle.keep("code.tar", code).await.map(Some).map_err(kept)
    }
}

#[tonic::async_trait]
impl AppService for AppDoor {
    type ExecuteStream = ReceiverStream<Result<wire::ExecuteProgress, Status>>;
    type RunLogStream = ReceiverStream<Result<wire::RunLogChunk, Status>>;
    type GetArtifactStream = ReceiverStream<Result<wire::ArtifactChunk, Status>>;
    type WatchAppsStream = ReceiverStream<Result<wire::AppEvent, Status>>;
    type ExportRunStream = ReceiverStream<Result<wire::ArtifactChunk, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<wire::RegisterAppRequest>>,
    ) -> Result<Response<wire::App>, Status> {
        self.apps()?;
        let extensions = request.extensions().clone();
        let mut pieces = request.into_inner();
        let (mut code, mut first) = (Vec::new(), None);
        while let Some(piece) = pieces.next().await {
            let wire::RegisterAppRequest { manifest, reason, chunk } = piece?;
            first.get_or_insert((manifest, reason));
            code.extend_from_slice(&chunk);
            if code.len() > CODE_BYTES {
                let told = format!("chunk: more than {} MiB of code in all", CODE_BYTES >> 20);
                return Err(Status::resource_exhausted(told));
            }
        }
        let (text, why) = first.ok_or_else(|| Status::invalid_argument("manifest: is missing"))?;
        self.take_in(&extensions, &text, &why, code).await
    }

    async fn list(
        &self,
        _: Request<wire::ListAppsRequest>,
    ) -> Result<Response<wire::ListAppsResponse>, Status> {
        let list = self
            .apps()?
            .handle
            .ask(|core| core.apps().iter().map(|(name, app)| told::app(name, app, false)).collect());
        Ok(Response::new(wire::ListAppsResponse { apps: list.await? }))
    }

    async fn get(&self, request: Request<wire::GetAppRequest>) -> Result<Response<wire::App>, Status> {
        self.app(request.into_inner().name, true).await.map(Response::new)
    }

    async fn command(
        &self,
        request: Request<wire::CommandAppRequest>,
    ) -> Result<Response<wire::App>, Status> {
        let extensions = request.extensions().clone();
        let asked = request.into_inner();
        let command = asked.command();
        let why = match command {
            wire::AppCommand::Retire => good_reason(&asked.reason)?,
            _ => reason(&asked.reason)?,
        };
        let (app, by) = (asked.name.clone(), by(&extensions, why));
        let input = match command {
            wire::AppCommand::Enable => Input::Enable { app, by },
            wire::AppCommand::Wake => Input::Wake { app, by },
            wire::AppCommand::Sleep => Input::Sleep { app, by },
            wire::AppCommand::Release => Input::Release { app, by },
            wire::AppCommand::Retire => Input::Retire { app, by },
            wire::AppCommand::Unspecified => {
                return Err(Status::invalid_argument(
                    "command: is missing, want ENABLE, WAKE, SLEEP, RELEASE or RETIRE",
                ));
            }
        };
        self.done(&asked.name, input).await
    }

    async fn execute(
        &self,
        request: Request<wire::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let extensions = request.extensions().clone();
        let wire::ExecuteRequest { app, request_id, input } = request.into_inner();
        let apps = self.apps()?.clone();
        if input.len() > INPUT_BYTES {
            return Err(Status::invalid_argument(format!("input: is larger than {} MiB", INPUT_BYTES >> 20)));
        }
        let id = if request_id.is_empty() { random::<16>() } else { request_id };
        let feed = apps.handle.watch();
        let input = Some(apps.handle.keep(REQUEST, input).await.map_err(kept)?);
        let by = by(&extensions, "");
        let request = Input::Request { app: app.clone(), id, input, by };
        // In one turn: the state is that of before.
        let (state, done) = tokio::join!(streams::state(&apps, &app), apps.handle.tell(request));
        let done = done?;
        let run = done.run.ok_or_else(|| Status::internal("a request led to no run"))?;
        let asked = streams::Asked { app, run, known: done.known, state };
        Ok(Response::new(streams::execution(apps, feed, asked)))
    }

    async fn notify(
        &self,
        request: Request<wire::NotifyRequest>,
    ) -> Result<Response<wire::NotifyResponse>, Status> {
        let extensions = request.extensions().clone();
        let wire::NotifyRequest { app, key, items, bytes, files } = request.into_inner();
        let apps = self.apps()?;
        good_name("key", &key).map_err(Status::from)?;
        let items = items.unwrap_or(files.len().max(1) as i64);
        let items = Field::root("items").whole(items, 1..=1_000_000_000_000).map_err(Refusal::from)?;
        let sum: usize = files.iter().map(|file| file.content.len()).sum();
        if sum > INPUT_BYTES || files.len() > MOST_FILES {
            let told = format!("files: want at most {MOST_FILES}, {} MiB together", INPUT_BYTES >> 20);
            return Err(Status::invalid_argument(told));
        }
        let bytes = bytes.unwrap_or(sum as i64);
        let bytes =
            Field::root("bytes").whole(bytes, 0..=1_000_000_000_000_000_000).map_err(Refusal::from)?;
        // AppCore knows too; this spares writing files once more.
        if !files.is_empty() && apps.handle.storage().notice_known(&app, &key).await.map_err(kept)? {
            return Ok(Response::new(wire::NotifyResponse { already_known: true }));
        }
        let mut inputs = Vec::with_capacity(files.len());
        for (index, wire::DataFile { name, content }) in files.into_iter().enumerate() {
            folder::safe(&name)
                .map_err(|error| Status::invalid_argument(format!("files[{index}].name: {error}")))?;
            inputs.push(apps.handle.keep(name, content).await.map_err(kept)?);
        }
        let by = by(&extensions, "");
        let done = apps.handle.tell(Input::Notice { app, key, items, bytes, inputs, by }).await?;
        Ok(Response::new(wire::NotifyResponse { already_known: done.known }))
    }

    async fn report_metric(
        &self,
        request: Request<wire::ReportMetricRequest>,
    ) -> Result<Response<wire::ReportMetricResponse>, Status> {
        let by = by(request.extensions(), "");
        let wire::ReportMetricRequest { app, metric, value } = request.into_inner();
        self.apps()?.handle.tell(Input::Metric { app, metric, value, by }).await?;
        Ok(Response::new(wire::ReportMetricResponse {}))
    }

    async fn list_triggers(
        &self,
        request: Request<wire::ListTriggersRequest>,
    ) -> Result<Response<wire::ListTriggersResponse>, Status> {
        let wire::ListTriggersRequest { app, limit: fires, matching, skip, most } = request.into_inner();
        let (fires, app, apps) = (within("limit", fires)?, filter(app), self.apps()?);
        let most = within("most", most)?.map_or(usize::MAX, |most| most as usize);
        let skip = Field::root("skip").whole(skip, 0..=i64::MAX).map_err(Refusal::from)? as usize;
        let wanted = app.clone();
        let triggers = apps.handle.ask(move |core| {
            if let Some(name) = &wanted {
                core.app(name)?;
            }
            let of = |(name, _): &(&String, &Arc<super::core::App>)| {
                wanted.as_ref().is_none_or(|app| app == *name)
            };
            Ok(core.apps().iter().filter(of).flat_map(|(name, app)| told::triggers(name, app)).collect())
        });
        let triggers: Result<Vec<wire::Trigger>, Refused> = triggers.await?;
        let mut triggers = triggers?;
        let matching = matching.to_lowercase();
        triggers.retain(|trigger| trigger.app.contains(&matching) || trigger.name.contains(&matching));
        triggers.sort_by_key(|trigger| (trigger.next_ms.is_none(), trigger.next_ms));
        let total = triggers.len() as i64;
        let triggers = triggers.into_iter().skip(skip).take(most).collect();
        let fires = apps.handle.storage().fires(app.as_deref(), fires).await.map_err(kept)?;
        let fires = fires.into_iter().map(told::fire).collect();
        Ok(Response::new(wire::ListTriggersResponse { triggers, fires, total }))
    }

    async fn command_trigger(
        &self,
        request: Request<wire::CommandTriggerRequest>,
    ) -> Result<Response<wire::CommandTriggerResponse>, Status> {
        let extensions = request.extensions().clone();
        let asked = request.into_inner();
        let by = by(&extensions, reason(&asked.reason)?);
        let (app, trigger) = (asked.app.clone(), asked.trigger.clone());
        let time = |name: &'static str, at: Option<i64>| {
            at.ok_or_else(|| {
                Status::invalid_argument(format!("{name}: is missing, want milliseconds since 1970"))
            })
        };
        let input = match asked.command() {
            wire::TriggerCommand::Fire => Input::Fire { app, trigger, by },
            wire::TriggerCommand::Pause => Input::Pause { app, trigger, paused: true, by },
            wire::TriggerCommand::Resume => Input::Pause { app, trigger, paused: false, by },
            wire::TriggerCommand::Backfill => {
                let (from_ms, until_ms) =
                    (time("from_ms", asked.from_ms)?, time("until_ms", asked.until_ms)?);
                Input::Backfill { app, trigger, from_ms, until_ms, by }
            }
            wire::TriggerCommand::Unspecified => {
                return Err(Status::invalid_argument(
                    "command: is missing, want FIRE, PAUSE, RESUME or BACKFILL",
                ));
            }
        };
        let done = self.apps()?.handle.tell(input).await?;
        let (app, name) = (asked.app.clone(), asked.trigger.clone());
        let trigger = self.apps()?.handle.ask(move |core| {
            let told = core.apps().get(&app).map(|known| told::triggers(&app, known));
            told.into_iter().flatten().find(|trigger| trigger.name == name)
        });
        let answer = wire::CommandTriggerResponse {
            trigger: trigger.await?,
            skipped: done.skipped.unwrap_or_default(),
        };
        Ok(about(&format!("{}/{}", asked.app, asked.trigger), answer))
    }

    async fn list_runs(
        &self,
        request: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        let wire::ListRunsRequest { app, kind, status, before_ms, limit, matching } = request.into_inner();
        Field::root("matching").text(&matching).map_err(Refusal::from)?;
        let kind = match kind.as_str() {
            "" => None,
            name => Some(RunKind::named(name).ok_or_else(|| {
                Status::invalid_argument(format!("kind: is {name:?}, want execute, learn or evaluate"))
            })?),
        };
        let status = match status.as_str() {
            "" => None,
            name => Some(super::run::Status::named(name).ok_or_else(|| {
                let known = super::run::Status::ALL.map(super::run::Status::name).join(", ");
                Status::invalid_argument(format!("status: is {name:?}, want one of {known}"))
            })?),
        };
        let (app, matching) = (filter(app), filter(matching));
        let filter = RunFilter { app, kind, status, before_ms, limit: within("limit", limit)?, matching };
        let runs = self.apps()?.handle.storage().runs(&filter).await.map_err(kept)?;
        Ok(Response::new(wire::ListRunsResponse { runs: runs.iter().map(told::run).collect() }))
    }

    async fn get_run(&self, request: Request<wire::GetRunRequest>) -> Result<Response<wire::Run>, Status> {
        let run = self.run(&request.into_inner().id).await?;
        Ok(Response::new(told::run(&run)))
    }

    async fn run_log(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<Self::RunLogStream>, Status> {
        let run = self.run(&request.into_inner().id).await?;
        Ok(Response::new(streams::log(self.apps()?.clone(), run)))
    }

    async fn get_artifact(
        &self,
        request: Request<wire::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let wire::GetArtifactRequest { run, name } = request.into_inner();
        let run = self.run(&run).await?;
        let blob = run.outputs.iter().chain(&run.inputs).find(|blob| blob.name == name);
        let blob = blob.ok_or_else(|| {
            let known: Vec<_> =
                run.outputs.iter().chain(&run.inputs).map(|blob| blob.name.as_str()).collect();
            Status::not_found(format!(
                "run {} has nothing called {name:?}; it has {}",
                run.id,
                known.join(", ")
            ))
        })?;
        let bytes = self.apps()?.handle.storage().blob(&blob.hash).await.map_err(kept)?;
        Ok(Response::new(pieces(bytes)))
    }

    async fn cancel_run(
        &self,
        request: Request<wire::CancelRunRequest>,
    ) -> Result<Response<wire::Run>, Status> {
        let extensions = request.extensions().clone();
        let wire::CancelRunRequest { id, reason: why } = request.into_inner();
        let by = by(&extensions, reason(&why)?);
        self.run(&id).await?;
        self.apps()?.handle.tell(Input::Cancel { run: id.clone(), by }).await?;
        Ok(about(&id, told::run(&self.run(&id).await?)))
    }

    async fn repeat_run(
        &self,
        request: Request<wire::RepeatRunRequest>,
    ) -> Result<Response<wire::Run>, Status> {
        let extensions = request.extensions().clone();
        let wire::RepeatRunRequest { id, reason: why } = request.into_inner();
        let by = by(&extensions, reason(&why)?);
        let run = Box::new(self.run(&id).await?);
        let done = self.apps()?.handle.tell(Input::Again { run, by }).await?;
        let again = self.run(&done.run.unwrap_or_default()).await?;
        Ok(about(&id, told::run(&again)))
    }

    async fn list_versions(
        &self,
        request: Request<wire::ListVersionsRequest>,
    ) -> Result<Response<wire::ListVersionsResponse>, Status> {
        let wire::ListVersionsRequest { app, limit, number } = request.into_inner();
        let (most, apps) = (within("limit", limit)?, self.apps()?);
        if let Some(number) = number {
            Field::root("number").whole(number, 0..=i64::MAX).map_err(Refusal::from)?;
        }
        let name = app.clone();
        let now = apps.handle.ask(move |core| {
            let app = core.app(&name)?;
            Ok::<_, Refused>((app.aliases.clone(), app.definitions.clone()))
        });
        let (aliases, definitions) = now.await??;
        let versions = apps.handle.storage().versions(&app, number, most).await.map_err(kept)?;
        let told = |version| told::version(version, &aliases, &definitions);
        let versions = versions.iter().map(told).collect();
        Ok(Response::new(wire::ListVersionsResponse { versions }))
    }

    async fn set_version_alias(
        &self,
        request: Request<wire::SetVersionAliasRequest>,
    ) -> Result<Response<wire::App>, Status> {
        let extensions = request.extensions().clone();
        let wire::SetVersionAliasRequest { app, alias: name, version, reason: why } = request.into_inner();
        let by = by(&extensions, good_reason(&why)?);
        let alias = alias(&name)?;
        let version = version.map(|version| Field::root("version").whole32(version, 1..=i64::from(u32::MAX)));
        let version = version.transpose().map_err(Refusal::from)?;
        self.done(&app.clone(), Input::SetAlias { app, alias, version, by }).await
    }

    async fn roll_back_version(
        &self,
        request: Request<wire::RollBackVersionRequest>,
    ) -> Result<Response<wire::App>, Status> {
        let extensions = request.extensions().clone();
        let wire::RollBackVersionRequest { app, reason: why } = request.into_inner();
        let by = by(&extensions, good_reason(&why)?);
        self.done(&app.clone(), Input::RollBack { app, by }).await
    }

    async fn version_history(
        &self,
        request: Request<wire::VersionHistoryRequest>,
    ) -> Result<Response<wire::VersionHistoryResponse>, Status> {
        let wire::VersionHistoryRequest { app, alias: name, at_ms, limit } = request.into_inner();
        let alias = if name.is_empty() { None } else { Some(alias(&name)?) };
        self.app(app.clone(), false).await?;
        let limit = within("limit", limit)?;
        let changes = self.apps()?.handle.storage().app_aliases(&app, alias, at_ms, limit).await;
        let changes = changes.map_err(kept)?.into_iter().map(told::alias_change).collect();
        Ok(Response::new(wire::VersionHistoryResponse { changes }))
    }

    async fn list_transitions(
        &self,
        request: Request<wire::ListTransitionsRequest>,
    ) -> Result<Response<wire::ListTransitionsResponse>, Status> {
        let wire::ListTransitionsRequest { app, limit } = request.into_inner();
        let limit = within("limit", limit)?;
        let rows = self.apps()?.handle.storage().transitions(filter(app).as_deref(), limit).await;
        let transitions = rows.map_err(kept)?.into_iter().map(told::transition).collect();
        Ok(Response::new(wire::ListTransitionsResponse { transitions }))
    }

    async fn watch_apps(
        &self,
        request: Request<wire::WatchAppsRequest>,
    ) -> Result<Response<Self::WatchAppsStream>, Status> {
        let app = filter(request.into_inner().app);
        let apps = self.apps()?;
        let feed = apps.handle.watch();
        if let Some(name) = &app {
            self.app(name.clone(), false).await?;
        }
        Ok(Response::new(streams::events(feed, app)))
    }

    async fn archive(
        &self,
        _: Request<wire::ArchiveRequest>,
    ) -> Result<Response<wire::ArchiveResponse>, Status> {
        let apps = self.apps()?;
        let keeps = |core: &super::core::Core| -> BTreeMap<String, Keep> {
            core.apps().iter().map(|(name, app)| (name.clone(), app.manifest().keep)).collect()
        };
        let keeps = apps.handle.ask(keeps).await?;
        let archive = apps.handle.storage().archive().await.map_err(kept)?;
        let app = |app: storage::ArchivedApp| {
            let keep = keeps.get(&app.app).copied().unwrap_or_default();
            told::archived(app, keep)
        };
        let (files, bytes) = (archive.files, archive.bytes);
        let apps = archive.apps.into_iter().map(app).collect();
        Ok(Response::new(wire::ArchiveResponse { apps, files, bytes }))
    }

    async fn export_run(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<Self::ExportRunStream>, Status> {
        let run = self.run(&request.into_inner().id).await?;
        let bytes = streams::bundle(self.apps()?, &run).await?;
        Ok(Response::new(pieces(bytes)))
    }
}

fn alias(name: &str) -> Result<Alias, Status> {
    Ok(convert::alias(Field::root("alias"), name).map_err(Refusal::from)?)
}
