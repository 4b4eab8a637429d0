//! What the service runs with, told without secrets: what was fixed when it was started, and what is so now.

use std::net::SocketAddr;

use super::{Config, DAY_MS, Door};
use crate::commands::bytes;
use crate::storage::{Keep, Role, Size};

/// Something that holds, and what changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub subject: &'static str,
    pub name: &'static str,
    /// For people.
    pub value: String,
    /// A flag of `remora serve` or a command; empty where nothing does.
    pub by: &'static str,
}

fn setting(subject: &'static str, name: &'static str, value: impl ToString, by: &'static str) -> Setting {
    Setting { subject, name, value: value.to_string(), by }
}

/// What holds from the start to the end.
pub fn fixed(config: &Config, listen: Option<SocketAddr>) -> Vec<Setting> {
    let mut all = listening(config, listen);
    all.extend(access(config));
    let limits = &config.limits;
    all.extend([
        setting("placing", "policy at the start", config.called(), "--policy"),
        setting("placing", "dial α of requests that do not set it", config.alpha, "--alpha"),
        setting("placing", "seed", config.seed, "--seed"),
        setting("limits", "requests under way", limits.in_flight, "--max-in-flight"),
        setting("limits", "of one caller", limits.caller_in_flight, "--max-in-flight-per-caller"),
        setting(
            "limits",
            "of one caller per second",
            limits.caller_per_second,
            "--max-per-second-per-caller",
        ),
    ]);
    all.extend(storage(config));
    all.extend(applications(config));
    let runs: Vec<_> = config.runs.iter().map(|folder| folder.display().to_string()).collect();
    all.push(setting("training", "folders with training runs", or_none(&runs), "--runs"));
    let tensorboard = if config.tensorboard.is_empty() { "none" } else { &config.tensorboard };
    all.push(setting("training", "TensorBoard over them", tensorboard, "--tensorboard"));
    all
}

fn nodes(number: usize) -> String {
    format!("{number} node{}", if number == 1 { "" } else { "s" })
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn listening(config: &Config, listen: Option<SocketAddr>) -> Vec<Setting> {
    let off = || "off".to_owned();
    let http = config.http.as_ref().and_then(|http| http.local_addr().ok());
    let told = |address: Option<SocketAddr>| address.map_or_else(off, |address| address.to_string());
    let tls = config.tls.as_ref();
    let prefix = if config.http_prefix.is_empty() { "/" } else { &config.http_prefix };
    vec![
        setting("listening", "gRPC", told(listen), "--listen"),
        setting("listening", "Control Panel, metrics and health", told(http), "--http"),
        setting("listening", "path of the panel", prefix, "--http-prefix"),
        setting(
            "listening",
            "encryption: certificate",
            tls.map_or_else(off, |tls| tls.cert.display().to_string()),
            "--tls-cert",
        ),
        setting(
            "listening",
            "encryption: key",
            tls.map_or_else(off, |tls| tls.key.display().to_string()),
            "--tls-key",
        ),
        setting(
            "listening",
            "authorities of clients",
            tls.and_then(|tls| tls.client_ca.as_ref()).map_or_else(off, |ca| ca.display().to_string()),
            "--tls-client-ca",
        ),
    ]
}

fn access(config: &Config) -> Vec<Setting> {
    let asks = if config.rules.authenticate {
        "everybody says who they are"
    } else {
        "whoever reaches it may do everything"
    };
    let holder = |(name, role): (&String, &Role)| format!("{name} ({role})");
    let holders: Vec<_> = config.rules.clients.iter().map(holder).collect();
    vec![
        setting("access", "who may call", asks, "--auth"),
        setting("access", "holders of certificates", or_none(&holders), "[[clients]]"),
    ]
}

fn storage(config: &Config) -> Vec<Setting> {
    let Some(storage) = &config.storage else {
        return vec![
            setting("storage", "data folder", "none: nothing survives the service", "--data"),
            setting("storage", "database", "none", "--database"),
            setting("storage", "large files", "none", "--blobs"),
            setting("storage", "the journal is kept", "no", "--keep-days"),
        ];
    };
    let place = storage.place();
    let kept = match config.keep {
        Keep::Forever => "for ever".to_owned(),
        Keep::Millis(ms) => format!("{} days", ms / DAY_MS),
    };
    vec![
        setting("storage", "data folder", place.folder.display(), "--data"),
        setting("storage", "database", place.database, "--database"),
        setting("storage", "large files", place.blobs, "--blobs"),
        setting("storage", "the journal is kept", kept, "--keep-days"),
        setting("version", "database schema", place.schema, ""),
    ]
}

fn applications(config: &Config) -> Vec<Setting> {
    let Some(apps) = &config.apps else {
        return vec![setting("applications", "run here", "no", "--apps")];
    };
    let jobs = if apps.jobs.is_some() { "yes" } else { "no" };
    vec![
        setting("applications", "run here", format!("yes, in {}", apps.folder.display()), "--apps"),
        setting("applications", "placed over the nodes of", &apps.cluster, "--apps-cluster"),
        setting("applications", "simulated seconds in one of ours", apps.simulated.speed, "--apps-speed"),
        setting("applications", "as Jobs of Kubernetes", jobs, "[kubernetes-jobs]"),
    ]
}

impl Door {
    /// All settings, by subject.
    pub(super) async fn settings(&self) -> Vec<Setting> {
        let mut all = vec![setting("version", "remora", env!("CARGO_PKG_VERSION"), "")];
        all.extend(self.fixed.iter().cloned());
        let clusters = self.owner.list().await.unwrap_or_default();
        let clusters: Vec<_> =
            clusters.iter().map(|told| format!("{} ({})", told.id, nodes(told.nodes))).collect();
        let by = "remora cluster register";
        all.push(setting("placing", "clusters", or_none(&clusters), by));
        if let Some(storage) = &self.storage {
            let Size { files, bytes: size, more } = storage.size().await;
            let more = if more { "more than " } else { "" };
            let told = format!("{more}{} in {files} files", bytes(size as f64));
            all.push(setting("storage", "size of the data folder", told, "[keep] in app.toml"));
        }
        let order =
            ["listening", "access", "placing", "limits", "storage", "applications", "training", "version"];
        all.sort_by_key(|setting| order.iter().position(|subject| *subject == setting.subject));
        all
    }
}
