//! What `remora serve` can be told, by flags and in a file: one structure for both, and flags win.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::error::ErrorKind;
use serde::Deserialize;

use crate::appcore::apps;
use crate::appcore::executor::kubernetes::{self, Jobs};
use crate::appcore::executor::process::Processes;
use crate::appcore::executor::simulated::Simulated;
use crate::logs::Format;
use crate::service::{DAY_MS, Limits, Rules, TlsFiles};
use crate::storage::{Keep, Options, Role};

/// Flags; the keys of the file are the same words.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:50051].
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Who decides: a heuristic's name, `pretrained`, or a checkpoint's path [default: pretrained].
    #[arg(long)]
    pub policy: Option<String>,
    /// The dial of requests that do not set it: weight of data moved against response time, 0 to 1 [default: 0.5].
    #[arg(long, value_parser = crate::commands::alpha)]
    pub alpha: Option<f64>,
    /// Scenario, built in or a file, whose cluster is registered from the start.
    #[arg(long)]
    pub scenario: Option<String>,
    /// Seed of policies that draw and of what the scenario leaves to chance [default: 0].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder for what survives a restart: journal, policies, settings, tokens, audit log. Nothing does without it.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// PostgreSQL, as postgres://user:password@host/database, in place of SQLite in the data folder.
    #[arg(long, value_name = "URL", env = "REMORA_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Bucket of an S3-compatible store for large files, as s3://bucket/prefix, in place of the data folder; AWS_* say
    /// where it is and who we are.
    #[arg(long, value_name = "URL", env = "REMORA_BLOBS")]
    pub blobs: Option<String>,
    /// Days that the journal is kept beyond what a restart needs, to explain decisions and to learn from them; 0 keeps
    /// it for ever [default: 90].
    #[arg(long, value_name = "DAYS")]
    pub keep_days: Option<u32>,
    /// Run applications: commands of whoever may register them, on this machine [default: true with --data, unless
    /// other machines could call without saying who they are].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub apps: Option<bool>,
    /// Cluster over whose nodes they are placed [default: apps, which is this machine].
    #[arg(long, value_name = "CLUSTER")]
    pub apps_cluster: Option<String>,
    /// Seconds that pass for simulated nodes in one of ours, 0.001 to 1000000 [default: 1].
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub apps_speed: Option<f64>,
    /// Demand a token of every caller. Where no administrator could come in, a token for one is printed on stderr.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub auth: Option<bool>,
    /// Certificate of the service with those between it and an authority, PEM. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of clients, PEM: only who has a certificate from them may connect. What holders may do without a
    /// token is said in the configuration, under [[clients]].
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Listen where other machines can reach it, without encryption or without asking who calls.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// Address of the Control Panel, /metrics, /healthz and /readyz over HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// What a proxy puts before the panel's paths, such as /remora, and takes away again.
    #[arg(long, value_name = "PATH", value_parser = prefix)]
    pub http_prefix: Option<String>,
    /// Most requests under way [default: 10000].
    #[arg(long, value_name = "NUMBER")]
    pub max_in_flight: Option<NonZeroU32>,
    /// Most requests under way of one caller, or of one address where nobody says who they are [default: 1000].
    #[arg(long, value_name = "NUMBER")]
    pub max_in_flight_per_caller: Option<NonZeroU32>,
    /// Most requests of one caller per second [default: 100000].
    #[arg(long, value_name = "NUMBER")]
    pub max_per_second_per_caller: Option<NonZeroU32>,
    /// Show the training runs below this folder; may be given several times.
    #[arg(long, value_name = "FOLDER")]
    pub runs: Vec<PathBuf>,
    /// Address of a TensorBoard over these folders, to which the panel leads.
    #[arg(long, value_name = "URL", value_parser = web_address)]
    pub tensorboard: Option<String>,
    /// How log lines look [default: text].
    #[arg(long)]
    pub log_format: Option<Format>,
    /// What holders of certificates may do.
    #[arg(skip)]
    pub clients: Vec<Client>,
    /// Where jobs run as Jobs of Kubernetes.
    #[arg(skip)]
    pub kubernetes_jobs: Option<kubernetes::Settings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The certificate's common name, or else its first alternative name.
    name: String,
    role: ClientRole,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientRole {
    Viewer,
    Orchestrator,
    Author,
    Operator,
    Admin,
}

impl Settings {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Settings> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let settings: Settings = toml::from_str(&text)
            .map_err(|error| anyhow!("{}: {error}{}", path.display(), hint(error.message())))?;
        if let Some(Err(problem)) = settings.http_prefix.as_deref().map(prefix) {
            return Err(anyhow!("{}: http-prefix: {problem}", path.display()));
        }
        if let Some(Err(problem)) = settings.tensorboard.as_deref().map(web_address) {
            return Err(anyhow!("{}: tensorboard: {problem}", path.display()));
        }
        if let Some(alpha) = settings.alpha.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
            return Err(anyhow!("{}: alpha: is {alpha}, want 0 to 1", path.display()));
        }
        if let Some(wrong) = settings.apps_speed.filter(|speed| !is_speed(*speed)) {
            return Err(anyhow!("{}: apps-speed: is {wrong}, want 0.001 to 1000000", path.display()));
        }
        Ok(settings)
    }

    /// These, and from others what is not said here.
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            listen: self.listen.or(other.listen),
            policy: self.policy.or(other.policy),
            alpha: self.alpha.or(other.alpha),
            scenario: self.scenario.or(other.scenario),
            seed: self.seed.or(other.seed),
            data: self.data.or(other.data),
            database: self.database.or(other.database),
            blobs: self.blobs.or(other.blobs),
            keep_days: self.keep_days.or(other.keep_days),
            apps: self.apps.or(other.apps),
            apps_cluster: self.apps_cluster.or(other.apps_cluster),
            apps_speed: self.apps_speed.or(other.apps_speed),
            auth: self.auth.or(other.auth),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            insecure: self.insecure.or(other.insecure),
            http: self.http.or(other.http),
            http_prefix: self.http_prefix.or(other.http_prefix),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            max_in_flight_per_caller: self.max_in_flight_per_caller.or(other.max_in_flight_per_caller),
            max_per_second_per_caller: self.max_per_second_per_caller.or(other.max_per_second_per_caller),
            runs: if self.runs.is_empty() { other.runs } else { self.runs },
            tensorboard: self.tensorboard.or(other.tensorboard),
            log_format: self.log_format.or(other.log_format),
            clients: [self.clients, other.clients].concat(),
            kubernetes_jobs: self.kubernetes_jobs.or(other.kubernetes_jobs),
        }
    }

    pub fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50051)))
    }

    /// Where things are kept; nothing where nothing is.
    pub fn storage(&self) -> Result<Option<Options>> {
        let Some(folder) = &self.data else {
            let without = [("--database", &self.database), ("--blobs", &self.blobs)];
            return match without.into_iter().find(|(_, url)| url.is_some()) {
                Some((flag, _)) => {
                    Err(usage(format!("{flag} wants --data FOLDER too: what is not there is kept in it")))
                }
                None => Ok(None),
            };
        };
        let (database_url, blobs_url) = (self.database.clone(), self.blobs.clone());
        Ok(Some(Options { database_url, blobs_url, ..Options::new(folder) }))
    }

    /// How long the journal is kept.
    pub fn keep(&self) -> Keep {
        match self.keep_days.unwrap_or(90) {
            0 => Keep::Forever,
            days => Keep::Millis(i64::from(days) * DAY_MS),
        }
    }

    /// How applications are run, if they are.
    pub async fn apps(&self) -> Result<Option<apps::Options>> {
        let guarded = self.rules().authenticate || self.listen().ip().is_loopback();
        let Some(data) = self.data.as_ref().filter(|_| self.apps.unwrap_or(guarded)) else {
            return match self.apps {
                Some(true) => {
                    Err(usage("--apps wants --data FOLDER too: what they do is kept there".to_owned()))
                }
                _ => Ok(None),
            };
        };
        let usual = apps::Options::new(data.join("apps"), Processes::new());
        let cluster = self.apps_cluster.clone().unwrap_or(usual.cluster);
        let jobs = match self.kubernetes_jobs.clone() {
            Some(settings) => Some(jobs(settings, &usual.folder).await?),
            None => None,
        };
        let simulated = Simulated { speed: self.apps_speed.unwrap_or(usual.simulated.speed) };
        Ok(Some(apps::Options { cluster, simulated, jobs, ..usual }))
    }

    pub fn tls(&self) -> Result<Option<TlsFiles>> {
        let client_ca = self.tls_client_ca.clone();
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca })),
            (None, None) if client_ca.is_none() => Ok(None),
            _ => Err(usage("encryption wants both --tls-cert and --tls-key".to_owned())),
        }
    }

    /// Who may call. A certificate says who calls as well as a token does.
    pub fn rules(&self) -> Rules {
        let role = |client: &Client| match client.role {
            ClientRole::Viewer => Role::Viewer,
            ClientRole::Orchestrator => Role::Orchestrator,
            ClientRole::Author => Role::Author,
            ClientRole::Operator => Role::Operator,
            ClientRole::Admin => Role::Admin,
        };
        let clients: BTreeMap<_, _> =
            self.clients.iter().map(|client| (client.name.clone(), role(client))).collect();
        Rules { authenticate: self.auth.unwrap_or(false) || self.tls_client_ca.is_some(), clients }
    }

    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            in_flight: self.max_in_flight.map_or(usual.in_flight, NonZeroU32::get),
            caller_in_flight: self.max_in_flight_per_caller.map_or(usual.caller_in_flight, NonZeroU32::get),
            caller_per_second: self.max_per_second_per_caller.unwrap_or(usual.caller_per_second),
        }
    }

    /// Refuses what other machines could reach in the open.
    pub fn check(&self) -> Result<()> {
        let guarded = self.tls_cert.is_some() && self.rules().authenticate;
        if guarded || self.insecure.unwrap_or(false) {
            return Ok(());
        }
        for (flag, address) in [("listen", Some(self.listen())), ("http", self.http)] {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                return Err(usage(format!(
                    "--{flag} {address} can be reached by other machines: give --tls-cert, --tls-key and --auth, \
                     listen on 127.0.0.1, or add --insecure in a network you trust"
                )));
            }
        }
        Ok(())
    }
}

/// A path without a slash at its end.
fn prefix(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let bare = text.trim_end_matches('/');
    if plain && (bare.is_empty() || bare.starts_with('/')) && !text.contains("//") {
        Ok(bare.to_owned())
    } else {
        Err(format!("{text:?} is no path, want one such as /remora"))
    }
}

/// An address that a browser goes to.
fn web_address(text: &str) -> Result<String, String> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"'\\".contains(&byte));
    if plain && !host.is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no address, want one such as http://127.0.0.1:6006"))
}

/// What makes Jobs of Kubernetes, with the right of the pod that this runs in, or of a kubeconfig.
async fn jobs(settings: kubernetes::Settings, apps: &Path) -> Result<Jobs> {
    if !apps.starts_with(&settings.path) {
        let (path, apps) = (settings.path.display(), apps.display());
        return Err(anyhow!("kubernetes-jobs.path: is {path}, want a folder that holds {apps}"));
    }
    let client = kube::Client::try_default().await;
    let client = client.context("kubernetes-jobs: there is no way to an API server")?;
    Ok(Jobs::new(client, settings))
}

/// No job lasts for ever, nor no time at all.
fn is_speed(speed: f64) -> bool {
    (1e-3..=1e6).contains(&speed)
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| is_speed(*speed));
    speed.ok_or_else(|| format!("is {text}, want 0.001 to 1000000"))
}

pub fn usage(problem: String) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, problem + "\n").into()
}

/// What may have been meant: an error of the parser quotes what was wrong, then all that would be right.
fn hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next().unwrap_or_default();
    let near = quoted.map(|right| (strsim::jaro_winkler(wrong, right), right));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, right)) if likeness > 0.8 => format!("did you mean {right:?}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::Settings;
    use crate::service;

    const EXAMPLE: &str = super::super::EXAMPLE;

    #[test]
    fn the_example_has_every_key_and_is_right() {
        let lines = EXAMPLE.lines().map(|line| line.strip_prefix("#:").unwrap_or(line));
        let text: String = lines.map(|line| line.trim_start().to_owned() + "\n").collect();
        let settings: Settings = toml::from_str(&text).unwrap();
        assert_eq!(settings.clients.len(), 1, "{text}");
        assert!(settings.kubernetes_jobs.is_some_and(|jobs| jobs.path.is_absolute()), "{text}");
        let command = Settings::augment_args(clap::Command::new("serve"));
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{flag} = "))),
                "{flag} is not in {text}"
            );
        }
    }

    /// Those that only say what may be, or how the log looks, or what there is from the start; and those of applications,
    /// which do not run here.
    const UNTOLD: [&str; 5] = ["insecure", "log-format", "scenario", "apps-cluster", "apps-speed"];

    #[tokio::test]
    async fn the_service_tells_what_every_flag_came_to() {
        let config = service::Config::new(remora_policies::by_name("random", 0).unwrap());
        let told = service::fixed(&config, None);
        let command = Settings::augment_args(clap::Command::new("serve"));
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            let by = format!("--{flag}");
            let known = told.iter().any(|setting| setting.by == by);
            assert!(known != UNTOLD.contains(&flag), "{by} in {told:?}");
        }
    }

    #[test]
    fn only_addresses_of_pages_are_led_to() {
        for right in ["http://127.0.0.1:6006", "https://boards.example/runs/?a=b#c"] {
            assert_eq!(super::web_address(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "boards.example",
            "http://",
            "https:///path",
            "javascript:alert(1)",
            "http://a b",
            "http://a\"b",
        ] {
            assert!(super::web_address(wrong).unwrap_err().contains("want one such as"), "{wrong}");
        }
    }

    #[test]
    fn flags_win() {
        let flags = Settings { alpha: Some(0.1), ..Settings::default() };
        let file: Settings = toml::from_str("alpha = 0.9\nseed = 7").unwrap();
        let both = flags.or(file);
        assert_eq!((both.alpha, both.seed), (Some(0.1), Some(7)));
    }
}
