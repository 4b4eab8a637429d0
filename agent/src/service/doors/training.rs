//! Training runs. Folders are read beside the requests that are being answered.

use std::sync::Arc;

use remora_proto::v1 as wire;
use remora_proto::v1::training_service_server::TrainingService;
use remora_trainer::run::Validation;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::appcore::door::pieces;
use crate::service::convert::{self, Field};
use crate::service::refusal::Refusal;
use crate::training::{self, FILES, Learnt, MOST_POINTS, Point, Run, Runs};

/// Runs of an answer.
const MOST: i64 = 200;
const USUAL: i64 = 50;

/// The runs that the service knows of; nothing where it was told of no folder.
#[derive(Clone, Debug)]
pub struct TrainingDoor {
    pub runs: Option<Arc<Runs>>,
    /// Where a TensorBoard shows them; empty for none.
    pub tensorboard: Arc<str>,
}

impl TrainingDoor {
    /// Has folders read.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Runs) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let why = "the service was told of no folder with training runs: start it with --runs FOLDER";
        let runs = self.runs.clone().ok_or_else(|| Status::failed_precondition(why))?;
        let read = tokio::task::spawn_blocking(move || read(&runs)).await;
        read.map_err(|_| Status::internal("the folders could not be read"))
    }
}

impl TrainingDoor {
    /// Changes whenever a run does; of no folders, never.
    pub async fn mark(&self) -> Vec<(String, i64, bool)> {
        if self.runs.is_none() { Vec::new() } else { self.read(Runs::mark).await.unwrap_or_default() }
    }
}

fn within(
    name: &'static str,
    value: Option<i64>,
    usual: i64,
    least: i64,
    most: i64,
) -> Result<usize, Status> {
    let checked = Field::root(name).whole(value.unwrap_or(usual), least..=most);
    Ok(checked.map_err(Refusal::from)? as usize)
}

#[tonic::async_trait]
impl TrainingService for TrainingDoor {
    type GetFileStream = ReceiverStream<Result<wire::ArtifactChunk, Status>>;

    async fn list_runs(
        &self,
        request: Request<wire::ListTrainingRunsRequest>,
    ) -> Result<Response<wire::ListTrainingRunsResponse>, Status> {
        let wire::ListTrainingRunsRequest { matching, skip, limit } = request.into_inner();
        let limit = within("limit", limit, USUAL, 1, MOST)?;
        let skip = within("skip", Some(skip), 0, 0, i64::MAX)?;
        let tensorboard = self.tensorboard.to_string();
        let answer = self.read(move |runs| {
            let found = runs.list(&matching);
            wire::ListTrainingRunsResponse {
                total: found.len() as i64,
                runs: found.iter().skip(skip).take(limit).map(run).collect(),
                folders: runs.folders().map(|folder| folder.display().to_string()).collect(),
                tensorboard,
            }
        });
        answer.await.map(Response::new)
    }

    async fn get_run(
        &self,
        request: Request<wire::GetTrainingRunRequest>,
    ) -> Result<Response<wire::GetTrainingRunResponse>, Status> {
        let wire::GetTrainingRunRequest { id, points } = request.into_inner();
        let points = within("points", points, MOST_POINTS as i64, 2, MOST_POINTS as i64)?;
        let wanted = id.clone();
        let learnt = self.read(move |runs| runs.learnt(&wanted, points)).await?;
        let learnt = learnt.ok_or_else(|| Status::not_found(format!("no training run is called {id:?}")))?;
        let Learnt { run: of, curve, every, results } = &learnt;
        Ok(Response::new(wire::GetTrainingRunResponse {
            run: Some(run(of)),
            curve: curve.iter().map(point).collect(),
            iterations_per_point: *every as i64,
            results: results.iter().map(convert::result).collect(),
            tensorboard: self.tensorboard.to_string(),
        }))
    }

    async fn get_file(
        &self,
        request: Request<wire::GetTrainingFileRequest>,
    ) -> Result<Response<Self::GetFileStream>, Status> {
        let wire::GetTrainingFileRequest { id, name } = request.into_inner();
        if !FILES.contains(&name.as_str()) {
            let told = format!("name: is {name:?}, want one of {}", FILES.join(", "));
            return Err(Status::invalid_argument(told));
        }
        let told = format!("there is no {name} of a training run {id:?}");
        let bytes = self.read(move |runs| runs.file(&id, &name)).await?;
        Ok(Response::new(pieces(bytes.ok_or_else(|| Status::not_found(told))?)))
    }
}

fn run(run: &Run) -> wire::TrainingRun {
    let (figures, note) = (&run.figures, run.note.as_ref());
    let running = note.filter(|_| run.status == "running");
    wire::TrainingRun {
        id: run.id.clone(),
        folder: run.folder.display().to_string(),
        status: run.status.to_owned(),
        reason: run.reason.clone(),
        scenarios: run.scenarios.clone(),
        seed: run.seed,
        wrote_ms: run.wrote_ms,
        iteration: figures.iteration as i64,
        decisions: figures.decisions as i64,
        progress: note.map(|note| note.progress),
        decisions_per_s: note.map(|note| note.decisions_per_s).filter(|speed| *speed > 0.0),
        left_s: running.and_then(|note| note.left_s),
        best_cost: run.best(),
        last_cost: run.last().map(|last| last.cost),
        by_alpha: run.last().map(by_alpha).unwrap_or_default(),
        files: run.files.iter().map(|&name| name.to_owned()).collect(),
        damaged_lines: figures.damaged as i64,
    }
}

fn by_alpha(validation: &Validation) -> Vec<wire::CostAtAlpha> {
    training::by_alpha(validation).map(|(alpha, cost)| wire::CostAtAlpha { alpha, cost }).collect()
}

fn point(point: &Point) -> wire::TrainingPoint {
    let phase = serde_json::to_value(point.last.phase).ok();
    wire::TrainingPoint {
        iteration: point.last.iteration as i64,
        decisions: point.last.decisions as i64,
        phase: phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or_default().to_owned(),
        exploring_cost: point.exploring_cost,
        policy_loss: point.policy_loss,
        value_loss: point.value_loss,
        entropy: point.entropy,
        kl: point.kl,
        gradient_norm: point.gradient_norm,
        cost: point.validation.as_ref().map(|validation| validation.cost),
        by_alpha: point.validation.as_ref().map(by_alpha).unwrap_or_default(),
    }
}
