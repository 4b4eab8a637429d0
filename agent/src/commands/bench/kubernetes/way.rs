//! Who schedules, and whom they ask.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::super::serve::{Process, program};
use crate::commands::print;
use crate::kubernetes::configuration::{self, Extender, Tls};
use crate::kubernetes::control_plane::ControlPlane;
use crate::testbed::web::{self, Json};

/// Tries, a fifth of a second apart, until an extender advises.
const PATIENCE: u32 = 300;

/// Who schedules.
#[derive(Clone, Debug)]
pub enum Way {
    /// Kubernetes' scheduler alone.
    Alone,
    /// With an extender that answers at once, asked for scores only or to filter too.
    AtOnce { filter: bool },
    /// With somebody else's, asked to filter and for scores.
    Beside(String),
    /// With our scores.
    Advised,
    /// With our choice.
    Chosen,
    /// Our scheduler.
    Ours,
}

/// An extender, in a process of its own or somebody else's.
#[derive(Debug)]
pub struct Running {
    process: Option<Process>,
    /// Where it listens, without scheme and path.
    address: String,
}

impl Way {
    /// All of them, with another extender at this address if there is one.
    pub fn all(beside: Option<&str>) -> Vec<Way> {
        let mut all = vec![Way::Alone, Way::AtOnce { filter: true }, Way::AtOnce { filter: false }];
        all.extend(beside.map(|url| Way::Beside(url.to_owned())));
        all.extend([Way::Advised, Way::Chosen, Way::Ours]);
        all
    }

    pub fn name(&self) -> &'static str {
        match self {
            Way::Alone => "kube-scheduler",
            Way::AtOnce { filter: true } => "+ filter and scores at once",
            Way::AtOnce { filter: false } => "+ scores at once",
            Way::Beside(_) => "+ the other's filter and scores",
            Way::Advised => "+ remora's scores",
            Way::Chosen => "+ remora's choice",
            Way::Ours => "remora's scheduler",
        }
    }

    /// What pods write as `spec.schedulerName`.
    pub fn scheduler_name(&self) -> &'static str {
        if matches!(self, Way::Ours) { "remora" } else { "default-scheduler" }
    }

    /// Whom it asks, once it advises on this node.
    ///
    /// # Errors
    /// That it does not.
    pub async fn extender(&self, plane: &ControlPlane, policy: &str, node: &str) -> Result<Option<Running>> {
        let address = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        match self {
            Way::Alone | Way::Ours => Ok(None),
            Way::Beside(url) => Ok(Some(Running { process: None, address: address(url) })),
            Way::AtOnce { .. } => {
                let process = Process::start(&["bench", "kubernetes", "--at-once"]).await?;
                Ok(Some(Running { address: process.address.clone(), process: Some(process) }))
            }
            Way::Advised | Way::Chosen => {
                let mut command = ours(plane, policy)?;
                command.args(["--listen", "127.0.0.1:0"]);
                let process = Process::wait(command).await?;
                let running = Running { address: address(&process.address), process: Some(process) };
                running.advises_on(node).await?;
                Ok(Some(running))
            }
        }
    }

    /// Starts to schedule.
    ///
    /// # Errors
    /// That it cannot be started.
    pub fn scheduler(&self, plane: &ControlPlane, extender: Option<&Running>, policy: &str) -> Result<Child> {
        if matches!(self, Way::Ours) {
            return ours(plane, policy)?.stdout(Stdio::null()).spawn().context("cannot start our scheduler");
        }
        let Some(extender) = extender else { return plane.scheduler(configuration::alone()) };
        let mut document = configuration::document(&Extender {
            url: format!("http://{}", extender.address),
            cached: true,
            choose: matches!(self, Way::Chosen),
            http_timeout_s: 5.0,
            weight: 5,
            ignorable: false,
            bind: false,
            preempt: false,
            kubeconfig: None,
            tls: Tls::default(),
        })
        .map_err(anyhow::Error::msg)?;
        if matches!(self, Way::AtOnce { filter: true } | Way::Beside(_)) {
            document["extenders"][0]["filterVerb"] = "filter".into();
        }
        plane.scheduler(document)
    }
}

/// Our scheduler, for pods of its name.
fn ours(plane: &ControlPlane, policy: &str) -> Result<Command> {
    let mut command = program(&["kubernetes", "scheduler", "--policy", policy, "--json"])?;
    command.env("KUBECONFIG", &plane.kubeconfig);
    Ok(command)
}

impl Running {
    async fn advises_on(&self, node: &str) -> Result<()> {
        let pod = json!({ "metadata": { "name": "p", "namespace": "default" } });
        let question = json!({ "Pod": pod, "NodeNames": [node] });
        for _ in 0..PATIENCE {
            let scores: Option<Value> = web::ask(&self.address, "/kubernetes/prioritize", &question).await?;
            if scores.is_some_and(|scores| scores[0]["Score"].as_i64() > Some(0)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the extender does not know {node}")
    }

    /// CPU seconds so far, if it is ours.
    ///
    /// # Errors
    /// That it ended.
    pub fn cpu_s(&self) -> Result<f64> {
        self.process.as_ref().map_or(Ok(0.0), Process::cpu_s)
    }

    /// How often it had no advice so far, if it counts that.
    ///
    /// # Errors
    /// That it does not answer.
    pub async fn without_advice(&self) -> Result<u64> {
        let request = web::request(Method::GET, "/kubernetes/metrics", Body::empty());
        let answer = web::send(web::connect(&self.address).await?, request).await?;
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let counts = text.lines().filter(|line| line.starts_with("remora_extender_without_advice_total{"));
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

/// An extender to which all nodes are the same.
pub async fn answer_at_once() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    print(json!({ "listen": listener.local_addr()?.to_string() }))?;
    let filter =
        async |Json(mut question): Json<Value>| Json(json!({ "NodeNames": question["NodeNames"].take() }));
    let prioritize = async |Json(question): Json<Value>| {
        let names = question["NodeNames"].as_array().into_iter().flatten();
        Json(names.map(|name| json!({ "Host": name, "Score": 0 })).collect::<Value>())
    };
    let routes = Router::new()
        .route("/kubernetes/filter", post(filter))
        .route("/kubernetes/prioritize", post(prioritize));
    axum::serve(listener, routes).await.context("the extender ended")
}
