//! Policies: which there are, which roles they have, how far they are trusted.

use remora_proto::v1 as wire;
use remora_proto::v1::policy_service_server::PolicyService;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::Door;
use crate::service::DAY_MS;
use crate::service::access::Caller;
use crate::service::convert::{self, Field, Invalid};
use crate::service::owner::{By, Command, PolicyCommand, Reply, Told};
use crate::service::policies::{About, Alias, Change, Evaluation};
use crate::service::preview;
use crate::service::refusal::Refusal;
use crate::service::restart::SERVING;
use crate::service::savings;
use crate::storage::Who;

/// Largest checkpoint, bytes.
const MAX_CHECKPOINT: usize = 64 << 20;
const MAX_LIMIT: i64 = 1000;
const LIMIT: u64 = 100;
/// Decisions that a preview takes up unless told otherwise.
const PREVIEWED: u64 = 200;

/// Who changes something, who has to say why.
fn by(caller: &Caller, reason: &str) -> Result<By, Invalid> {
    Ok(By { actor: caller.name.to_string(), reason: convert::reason_given(reason)?.to_owned() })
}

impl Door {
    pub(super) async fn ask_policies<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> PolicyCommand,
    ) -> Result<T, Refusal> {
        self.owner.ask(|reply| Command::Policies(command(reply))).await
    }

    /// Changes an alias: first it is written down, then it holds.
    pub(super) async fn enact(
        &self,
        who: &Who,
        propose: impl FnOnce(Reply<Change>) -> PolicyCommand,
    ) -> Result<wire::AliasChange, Refusal> {
        let _turn = self.changing.lock().await;
        let change = self.ask_policies(propose).await?;
        if let Some(storage) = &self.storage {
            let Change { alias, policy, reason, .. } = &change;
            storage.set_alias(alias.name(), policy.as_deref(), reason, who).await?;
        }
        self.ask_policies(|reply| PolicyCommand::Enact(change.clone(), reply)).await?;
        Ok(convert::change(change))
    }

    /// Takes a checkpoint in, perhaps with what it came to.
    pub(super) async fn take_in(
        &self,
        bytes: Vec<u8>,
        about: About,
        evaluation: Option<Evaluation>,
        who: &Who,
    ) -> Result<Told, Refusal> {
        let (kept, name, note) = (bytes.clone(), about.name.clone(), about.note.clone());
        let evaluated = evaluation.as_ref().map(|evaluation| evaluation.evaluated.clone());
        let upload = |reply| PolicyCommand::Upload(bytes, about, evaluation, reply);
        let told = self.ask_policies(upload).await?;
        if let Some(storage) = &self.storage {
            storage.upload_policy(&name, kept, &note, who).await?;
            if let Some(evaluated) = &evaluated {
                storage.set_evaluation(&told.id, evaluated, who).await?;
            }
        }
        Ok(told)
    }
}

#[tonic::async_trait]
impl PolicyService for Door {
    async fn list(
        &self,
        _: Request<wire::ListPoliciesRequest>,
    ) -> Result<Response<wire::ListPoliciesResponse>, Status> {
        let policies = self.ask_policies(PolicyCommand::List).await?;
        let policies = policies.into_iter().map(convert::policy).collect();
        Ok(Response::new(wire::ListPoliciesResponse { policies }))
    }

    async fn get(&self, request: Request<wire::GetPolicyRequest>) -> Result<Response<wire::Policy>, Status> {
        let name = Field::root("policy").name(&request.into_inner().policy).map_err(Refusal::from)?;
        let told = self.ask_policies(|reply| PolicyCommand::Get(name, reply)).await?;
        Ok(Response::new(convert::policy(told)))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadPolicyRequest>>,
    ) -> Result<Response<wire::Policy>, Status> {
        let caller = Caller::of(request.extensions());
        let mut pieces = request.into_inner();
        let (mut bytes, mut about, mut came_to) = (Vec::new(), None, None);
        while let Some(piece) = pieces.next().await {
            let wire::UploadPolicyRequest { name, note, chunk, evaluation } = piece?;
            if about.is_none() {
                let name = Field::root("name").name(&name).map_err(Refusal::from)?;
                Field::root("note").text(&note).map_err(Refusal::from)?;
                let at_ms = self.clock.now_ms();
                let handed_in = (&*caller.name, at_ms);
                let evaluated = |given| {
                    convert::evaluated(Field::root("evaluation"), given, handed_in).map_err(Refusal::from)
                };
                came_to = evaluation.as_ref().map(evaluated).transpose()?;
                about = Some(About {
                    name,
                    note,
                    uploaded_at_ms: at_ms,
                    uploaded_by: caller.name.to_string(),
                    ..About::default()
                });
            }
            bytes.extend_from_slice(&chunk);
            let count = Field::root("chunk").count(bytes.len(), 0..=MAX_CHECKPOINT);
            count.map_err(|invalid| Refusal::Full(invalid.0))?;
        }
        let about =
            about.ok_or_else(|| Refusal::from(Field::root("name").refuse("is missing, want a name")))?;
        let told = self.take_in(bytes, about, came_to, &caller.who(&self.clock)).await?;
        Ok(Response::new(convert::policy(told)))
    }

    async fn get_evaluation(
        &self,
        request: Request<wire::GetEvaluationRequest>,
    ) -> Result<Response<wire::PolicyEvaluation>, Status> {
        let name = Field::root("policy").name(&request.into_inner().policy).map_err(Refusal::from)?;
        let (hash, evaluated) = self.ask_policies(|reply| PolicyCommand::Evaluation(name, reply)).await?;
        Ok(Response::new(convert::evaluation(hash, &evaluated)))
    }

    async fn set_alias(
        &self,
        request: Request<wire::SetAliasRequest>,
    ) -> Result<Response<wire::AliasChange>, Status> {
        let caller = Caller::of(request.extensions());
        let wire::SetAliasRequest { alias, policy, reason, expected } = request.into_inner();
        let alias = convert::alias(Field::root("alias"), &alias).map_err(Refusal::from)?;
        let by = by(&caller, &reason).map_err(Refusal::from)?;
        let change = |reply| PolicyCommand::SetAlias { alias, policy, expected, by, reply };
        Ok(Response::new(self.enact(&caller.who(&self.clock), change).await?))
    }

    async fn roll_back(
        &self,
        request: Request<wire::RollBackRequest>,
    ) -> Result<Response<wire::AliasChange>, Status> {
        let caller = Caller::of(request.extensions());
        let wire::RollBackRequest { alias, reason } = request.into_inner();
        let alias = convert::alias(Field::root("alias"), &alias).map_err(Refusal::from)?;
        let by = by(&caller, &reason).map_err(Refusal::from)?;
        let change = |reply| PolicyCommand::RollBack { alias, by, reply };
        Ok(Response::new(self.enact(&caller.who(&self.clock), change).await?))
    }

    async fn history(
        &self,
        request: Request<wire::AliasHistoryRequest>,
    ) -> Result<Response<wire::AliasHistoryResponse>, Status> {
        let wire::AliasHistoryRequest { alias, at_ms, limit } = request.into_inner();
        let alias = match alias.as_str() {
            "" => None,
            name => Some(convert::alias(Field::root("alias"), name).map_err(Refusal::from)?),
        };
        let limit = limit.map(|limit| Field::root("limit").whole(limit, 1..=MAX_LIMIT)).transpose();
        let limit = limit.map_err(Refusal::from)?.unwrap_or(LIMIT) as usize;
        let wanted = |change: &Change| {
            alias.is_none_or(|alias| alias == change.alias) && at_ms.is_none_or(|at| change.at_ms <= at)
        };
        let changes = self.ask_policies(PolicyCommand::History).await?;
        let changes = changes.into_iter().rev().filter(wanted).take(limit).map(convert::change).collect();
        Ok(Response::new(wire::AliasHistoryResponse { changes }))
    }

    async fn get_serving(
        &self,
        request: Request<wire::GetServingRequest>,
    ) -> Result<Response<wire::Serving>, Status> {
        let cluster = request.into_inner().cluster_id;
        let id = cluster.clone();
        let served = self.ask_policies(|reply| PolicyCommand::Serving(id, reply)).await?;
        Ok(Response::new(convert::served(cluster, served)))
    }

    async fn set_serving(
        &self,
        request: Request<wire::SetServingRequest>,
    ) -> Result<Response<wire::Serving>, Status> {
        let caller = Caller::of(request.extensions());
        let wire::SetServingRequest { serving, reason } = request.into_inner();
        let at = Field::root("serving");
        let serving = at.given(&serving).map_err(Refusal::from)?;
        let amend = Box::new(convert::amend(serving).map_err(Refusal::from)?);
        let by = by(&caller, &reason).map_err(Refusal::from)?;
        let (cluster, id) = (serving.cluster_id.clone(), serving.cluster_id.clone());
        let _turn = self.changing.lock().await;
        let of = cluster.clone();
        let serving = self.ask_policies(|reply| PolicyCommand::Serve { cluster: of, amend, reply }).await?;
        if let Some(storage) = &self.storage {
            let value = serde_json::to_value(&serving).map_err(|error| Refusal::Broken(error.to_string()))?;
            let who = caller.who(&self.clock);
            let kept = storage.set_setting((&cluster, SERVING), Some(&value), &by.reason, &who).await;
            kept.map_err(Refusal::from)?;
        }
        let set = |reply| PolicyCommand::SetServing { cluster, serving, by, reply };
        let served = self.ask_policies(set).await?;
        Ok(Response::new(convert::served(id, served)))
    }

    async fn compare(
        &self,
        request: Request<wire::CompareRequest>,
    ) -> Result<Response<wire::CompareResponse>, Status> {
        let cluster = request.into_inner().cluster_id;
        let compared = self.ask_policies(|reply| PolicyCommand::Compare(cluster, reply)).await?;
        Ok(Response::new(compared))
    }

    async fn preview(
        &self,
        request: Request<wire::PreviewRequest>,
    ) -> Result<Response<wire::PreviewResponse>, Status> {
        let wire::PreviewRequest { policy, cluster_id, last, version } = request.into_inner();
        let version = version.map(|number| Field::root("version").whole(number, 1..=i64::MAX)).transpose();
        let version = version.map_err(Refusal::from)?;
        let policy = match version {
            None => Field::root("policy").name(&policy).map_err(Refusal::from)?,
            Some(_) if policy.is_empty() => Alias::Champion.name().to_owned(),
            Some(_) => {
                return Err(Refusal::from(
                    Field::root("policy").refuse("is there, and version too; want one"),
                )
                .into());
            }
        };
        let last = last.map(|last| Field::root("last").whole(last, 1..=MAX_LIMIT)).transpose();
        let last = last.map_err(Refusal::from)?.unwrap_or(PREVIEWED);
        let prepare = |reply| PolicyCommand::Prepare { policy, cluster: cluster_id, reply };
        let mut prepared = self.ask_policies(prepare).await?;
        let storage = self.storage.as_ref().ok_or_else(|| {
            Status::failed_precondition("the service records nothing; start it with --data FOLDER")
        })?;
        let _turn = self.previewing.lock().await;
        self.owner.ask_durably(Command::Flush).await?;
        let policy = match version {
            None => preview::fresh(storage, &prepared.policy, prepared.seed).await?,
            Some(number) => {
                let (id, policy) = preview::version(storage, number).await?;
                prepared.policy = id;
                policy
            }
        };
        Ok(Response::new(preview::preview(storage, prepared, policy, last as u32).await?))
    }

    async fn savings(
        &self,
        request: Request<wire::SavingsRequest>,
    ) -> Result<Response<wire::SavingsResponse>, Status> {
        let wire::SavingsRequest { cluster_id, since_ms } = request.into_inner();
        let since_ms = since_ms.map(|at| Field::root("since_ms").whole(at, 0..=i64::MAX)).transpose();
        let since_ms = since_ms.map_err(Refusal::from)?.map(|at| at as i64);
        let until_ms = self.clock.now_ms();
        let since_ms = savings::hour(since_ms.unwrap_or(until_ms - DAY_MS));
        let clusters = self.owner.ask(|reply| Command::Savings(cluster_id, since_ms, reply)).await?;
        let mut total = wire::Saved::default();
        clusters.iter().for_each(|saved| savings::add(&mut total, saved));
        Ok(Response::new(wire::SavingsResponse { since_ms, until_ms, total: Some(total), clusters }))
    }
}
