//! Who calls, and what they may.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::{Value, json};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use super::Clock;
use super::refusal::Refusal;
use crate::storage::{Error, NewToken, Role, Storage, Token, Who};

/// Who writes the audit entry of a call that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noted {
    /// Nobody: it changes nothing that lasts, or comes too often.
    Never,
    Here,
    /// Storage, together with the change.
    Stored,
}

/// A method of the service, and who may call it.
#[derive(Debug)]
pub struct Method {
    /// As HTTP/2 names it.
    pub path: &'static str,
    /// The least role; everybody may where there is none, known or not.
    pub least: Option<Role>,
    noted: Noted,
}

const fn method(path: &'static str, least: Role, noted: Noted) -> Method {
    Method { path, least: Some(least), noted }
}

const fn open(path: &'static str) -> Method {
    Method { path, least: None, noted: Noted::Never }
}

/// Every method that can be called, by path. What is not here is not answered.
pub static METHODS: [Method; 60] = [
    method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Viewer, Noted::Never),
    // Load balancers ask, and have no token.
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    method("/remora.v1.AdminService/Audit", Role::Admin, Noted::Here),
    method("/remora.v1.AdminService/CreateToken", Role::Admin, Noted::Stored),
    method("/remora.v1.AdminService/ListTokens", Role::Admin, Noted::Here),
    method("/remora.v1.AdminService/RevokeToken", Role::Admin, Noted::Stored),
    method("/remora.v1.AdminService/Settings", Role::Admin, Noted::Here),
    method("/remora.v1.AppService/Archive", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/CancelRun", Role::Author, Noted::Here),
    method("/remora.v1.AppService/Command", Role::Author, Noted::Here),
    method("/remora.v1.AppService/CommandTrigger", Role::Author, Noted::Here),
    method("/remora.v1.AppService/Execute", Role::Orchestrator, Noted::Never),
    method("/remora.v1.AppService/ExportRun", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/Get", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/GetArtifact", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/GetRun", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/List", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/ListRuns", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/ListTransitions", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/ListTriggers", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/ListVersions", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/Notify", Role::Orchestrator, Noted::Never),
    method("/remora.v1.AppService/Register", Role::Author, Noted::Here),
    method("/remora.v1.AppService/RepeatRun", Role::Author, Noted::Here),
    method("/remora.v1.AppService/ReportMetric", Role::Orchestrator, Noted::Never),
    method("/remora.v1.AppService/RollBackVersion", Role::Operator, Noted::Here),
    method("/remora.v1.AppService/RunLog", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/SetVersionAlias", Role::Operator, Noted::Here),
    method("/remora.v1.AppService/VersionHistory", Role::Viewer, Noted::Never),
    method("/remora.v1.AppService/WatchApps", Role::Viewer, Noted::Never),
    method("/remora.v1.ClusterService/ExportTrace", Role::Operator, Noted::Here),
    method("/remora.v1.ClusterService/Follow", Role::Orchestrator, Noted::Never),
    method("/remora.v1.ClusterService/Get", Role::Viewer, Noted::Never),
    method("/remora.v1.ClusterService/List", Role::Viewer, Noted::Never),
    method("/remora.v1.ClusterService/Register", Role::Operator, Noted::Here),
    method("/remora.v1.ClusterService/Remove", Role::Operator, Noted::Here),
    method("/remora.v1.ClusterService/Update", Role::Orchestrator, Noted::Never),
    method("/remora.v1.ClusterService/Watch", Role::Viewer, Noted::Never),
    method("/remora.v1.PlacementService/Dispute", Role::Author, Noted::Here),
    method("/remora.v1.PlacementService/Explain", Role::Viewer, Noted::Never),
    method("/remora.v1.PlacementService/Place", Role::Orchestrator, Noted::Never),
    method("/remora.v1.PlacementService/PlaceBatch", Role::Orchestrator, Noted::Never),
    method("/remora.v1.PlacementService/PlaceStream", Role::Orchestrator, Noted::Never),
    method("/remora.v1.PlacementService/ReportOutcome", Role::Orchestrator, Noted::Never),
    method("/remora.v1.PolicyService/Compare", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/Get", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/GetEvaluation", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/GetServing", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/History", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/List", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/Preview", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/RollBack", Role::Operator, Noted::Stored),
    method("/remora.v1.PolicyService/Savings", Role::Viewer, Noted::Never),
    method("/remora.v1.PolicyService/SetAlias", Role::Operator, Noted::Stored),
    method("/remora.v1.PolicyService/SetServing", Role::Operator, Noted::Stored),
    method("/remora.v1.PolicyService/Upload", Role::Operator, Noted::Stored),
    method("/remora.v1.TrainingService/GetFile", Role::Viewer, Noted::Never),
    method("/remora.v1.TrainingService/GetRun", Role::Viewer, Noted::Never),
    method("/remora.v1.TrainingService/ListRuns", Role::Viewer, Noted::Never),
];

impl Method {
    /// As the audit log and metrics name it: the path without its slash.
    pub fn name(&self) -> &'static str {
        &self.path[1..]
    }
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Whom its certificate names, where one was asked for and checked.
    pub name: Option<Arc<str>>,
}

/// Who calls. Doors find it among the extensions of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: Arc<str>,
    pub role: Role,
}

impl Caller {
    /// Whoever calls a service without authentication.
    pub fn local() -> Caller {
        Caller { name: "local".into(), role: Role::Admin }
    }

    /// Who called with these extensions.
    pub fn of(extensions: &tonic::Extensions) -> Caller {
        extensions.get().cloned().unwrap_or_else(Caller::local)
    }

    pub fn who(&self, clock: &Clock) -> Who {
        Who { at_ms: clock.now_ms(), actor: self.name.to_string(), role: Some(self.role) }
    }
}

/// What a call was about, for the audit log: doors put it among the extensions of their answer.
#[derive(Clone, Debug)]
pub struct Subject(pub String);

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Whether callers have to say who they are.
    pub authenticate: bool,
    /// What holders of certificates may do, by the name in it.
    pub clients: BTreeMap<String, Role>,
}

impl Rules {
    /// # Errors
    /// When callers have to say who they are, and nobody could.
    pub fn check(&self, tokens: bool) -> anyhow::Result<()> {
        if self.authenticate && !tokens && self.clients.is_empty() {
            bail!(
                "authentication needs somebody who may come in: give --data FOLDER, where tokens are kept, or \
                 --tls-client-ca and [[clients]] in the configuration"
            );
        }
        Ok(())
    }
}

/// Makes a token for the first administrator, where nobody else could make one.
///
/// # Errors
/// When storage fails.
pub async fn first_token(rules: &Rules, storage: &Storage, now_ms: i64) -> Result<Option<NewToken>, Error> {
    let valid = |token: &Token| {
        let expired = token.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        token.role == Role::Admin && token.revoked_at_ms.is_none() && !expired
    };
    let known = rules.clients.values().any(|&role| role == Role::Admin);
    if !rules.authenticate || known || storage.tokens().iter().any(valid) {
        return Ok(None);
    }
    let who = Who { at_ms: now_ms, actor: "remora".to_owned(), role: None };
    storage.create_token("first administrator", Role::Admin, None, &who).await.map(Some)
}

/// Refusals that are noted one after the other before they are rationed.
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("is not 0");

/// The guard at the door.
#[derive(Debug)]
pub struct Access {
    rules: Rules,
    storage: Option<Arc<Storage>>,
    clock: Clock,
    /// Refusals go to the audit log once a second; those between are counted.
    ration: DefaultDirectRateLimiter,
    unnoted: AtomicU64,
}

impl Access {
    pub fn new(rules: Rules, storage: Option<Arc<Storage>>, clock: Clock) -> Access {
        let ration = RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(BURST));
        Access { rules, storage, clock, ration, unnoted: AtomicU64::new(0) }
    }

    /// Whether callers have to say who they are.
    pub fn authenticates(&self) -> bool {
        self.rules.authenticate
    }

    /// Who calls, if they may do what wants this role.
    pub fn admit(&self, least: Role, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Denial> {
        let caller = self.identify(headers, peer).map_err(|refusal| Denial { refusal, caller: None })?;
        if caller.role >= least {
            return Ok(caller);
        }
        let Caller { name, role } = &caller;
        let refusal = Refusal::Forbidden(format!(
            "{name:?} has the role {role}, and this wants {least}; ask an administrator"
        ));
        Err(Denial { refusal, caller: Some(caller) })
    }

    /// A token says more than a certificate: it may be one program's of several on a machine.
    fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Refusal> {
        if !self.rules.authenticate {
            return Ok(Caller::local());
        }
        match (headers.get(AUTHORIZATION), &peer.name) {
            (Some(header), _) => self.holder(header.to_str().unwrap_or("")),
            (None, Some(name)) => match self.rules.clients.get(&**name) {
                Some(&role) => Ok(Caller { name: name.clone(), role }),
                None => Err(Refusal::Forbidden(format!(
                    "the certificate is {name:?}'s, who is not among [[clients]] of the service's configuration"
                ))),
            },
            (None, None) => {
                Err(Refusal::Unauthenticated("who calls? send `authorization: Bearer rmr_…`".to_owned()))
            }
        }
    }

    fn holder(&self, header: &str) -> Result<Caller, Refusal> {
        let scheme = "Bearer ";
        let shown = match header.split_at_checked(scheme.len()) {
            Some((begin, shown)) if begin.eq_ignore_ascii_case(scheme) => shown.trim(),
            _ => {
                let problem = "authorization: is no bearer token; want `Bearer rmr_…`";
                return Err(Refusal::Unauthenticated(problem.to_owned()));
            }
        };
        let Some(storage) = &self.storage else {
            let problem = "the service keeps no tokens; it would with --data FOLDER";
            return Err(Refusal::Unauthenticated(problem.to_owned()));
        };
        let token = storage.authenticate(shown, self.clock.now_ms());
        let token = token.map_err(|denied| Refusal::Unauthenticated(denied.to_string()))?;
        Ok(Caller { name: token.name.into(), role: token.role })
    }

    /// Puts a refusal into the audit log, unless there were many just now.
    pub async fn note_denial(&self, action: &str, denial: &Denial, peer: &Peer) {
        let actor = denial.caller.as_ref().map_or("unknown", |caller| &caller.name);
        let from = peer.address.map(|address| address.ip().to_string());
        tracing::debug!(action, actor, from, why = %denial.refusal, "refused");
        if self.ration.check().is_err() {
            self.unnoted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unnoted = self.unnoted.swap(0, Ordering::Relaxed);
        let details = json!({
            "why": denial.refusal.to_string(), "from": from, "certificate": peer.name.as_deref(), "unnoted_before": unnoted,
        });
        let role = denial.caller.as_ref().map(|caller| caller.role);
        let who = Who { at_ms: self.clock.now_ms(), actor: actor.to_owned(), role };
        self.note(&who, action, "", &details, false).await;
    }

    /// Puts a call that succeeded into the audit log, if it belongs there.
    pub async fn note_success(&self, method: &Method, caller: &Caller, subject: Option<&Subject>) {
        if method.noted == Noted::Here {
            let subject = subject.map_or("", |subject| &subject.0);
            self.note(&caller.who(&self.clock), method.name(), subject, &json!({}), true).await;
        }
    }

    async fn note(&self, who: &Who, action: &str, subject: &str, details: &Value, allowed: bool) {
        let Some(storage) = &self.storage else { return };
        let noted = tokio::time::timeout(PATIENCE, storage.audit(who, action, subject, details, allowed));
        match noted.await {
            Ok(Ok(_)) => {}
            // It happened, or did not, whatever the log says.
            Ok(Err(error)) => tracing::error!(action, actor = who.actor, %error, "not in the audit log"),
            Err(_) => tracing::error!(action, actor = who.actor, "not in the audit log: storage is too slow"),
        }
    }
}

/// How long an answer waits for its entry in the audit log.
const PATIENCE: Duration = Duration::from_secs(5);

/// A call that was not let in.
#[derive(Debug)]
pub struct Denial {
    pub refusal: Refusal,
    /// Where that is known.
    pub caller: Option<Caller>,
}
