//! Jobs as Jobs of Kubernetes, over a double of the API server; the test is the rest of the control plane.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use remora_agent::appcore::executor::kubernetes::{Jobs, Settings};
use remora_agent::appcore::executor::{Executor, Exit, Job, OUTPUT, Stop};
use remora_agent::appcore::run::{LOG, Usage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::double::{Double, JOB_NAME};
use crate::appcore_process::shell;

const NAME: &str = "app-1-1";
const POD: &str = "app-1-1-x7";

struct Place {
    double: Double,
    jobs: Jobs,
    folder: TempDir,
    stop: watch::Sender<Option<Stop>>,
}

impl Place {
    async fn new() -> Place {
        let (double, folder) = (Double::start().await, TempDir::new().unwrap());
        let path = folder.path().to_owned();
        let settings = Settings { namespace: "remora".to_owned(), claim: "remora-apps".to_owned(), path };
        let jobs = Jobs::new(double.client(), settings).looking_every(Duration::from_millis(20));
        Place { double, jobs, folder, stop: watch::Sender::new(None) }
    }

    /// A job in a folder of its own within the volume.
    fn job(&self) -> Job {
        let mut job = shell(&self.folder, "tr a-z A-Z < input/request > output/response");
        job.folder = job.folder.join("runs/app.1");
        fs::create_dir_all(job.folder.join(OUTPUT)).unwrap();
        job.image = Some("registry.example/tools:1".to_owned());
        job.environment = vec![("REMORA_APP".to_owned(), "app".to_owned())];
        job
    }

    fn begin(&self, job: &Job) -> tokio::task::JoinHandle<(Exit, Usage)> {
        let (jobs, job, stop) = (self.jobs.clone(), job.clone(), self.stop.subscribe());
        tokio::spawn(async move { jobs.run(&job, stop).await })
    }

    /// Begins it, and waits until there is its Job.
    async fn made(&self, job: &Job) -> tokio::task::JoinHandle<(Exit, Usage)> {
        let running = self.begin(job);
        self.double.until("a Job", |double| double.get("jobs", &key(NAME)).is_some()).await;
        running
    }

    /// Its pod is in this state.
    fn pod(&self, status: Value, log: &str) {
        let metadata = json!({ "name": POD, "namespace": "remora", "labels": { JOB_NAME: NAME } });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [] },
            "status": status, "log": log,
        });
        self.double.put("pods", pod);
    }

    fn condition(&self, kind: &str, reason: &str) {
        let condition = json!({ "type": kind, "status": "True", "reason": reason, "message": "so it is" });
        self.double.change("jobs", &key(NAME), |job| job["status"] = json!({ "conditions": [condition] }));
    }
}

fn key(name: &str) -> String {
    format!("remora/{name}")
}

/// A pod whose container is in this state.
fn container(state: Value) -> Value {
    json!({ "phase": "Running", "containerStatuses": [{
        "name": "run", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state,
    }] })
}

fn terminated(code: i32, reason: &str) -> Value {
    container(json!({ "terminated": { "exitCode": code, "reason": reason } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_where_it_was_placed_with_no_more_rights_than_it_needs() {
    let place = Place::new().await;
    let job = place.job();
    let running = place.made(&job).await;
    let object = place.double.get("jobs", &key(NAME)).unwrap();
    let spec = &object["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["activeDeadlineSeconds"]), (&json!(0), &json!(60)));
    assert!(spec["ttlSecondsAfterFinished"].is_number());
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(labels, &object["metadata"]["labels"]);
    let told = ["remora.dev/app", "remora.dev/run", "remora.dev/attempt"].map(|label| &labels[label]);
    assert_eq!(told, [&json!("app"), &json!("app.1"), &json!("1")]);
    let pod = &spec["template"]["spec"];
    assert_eq!(
        (&pod["restartPolicy"], &pod["automountServiceAccountToken"]),
        (&json!("Never"), &json!(false))
    );
    let affinity = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let on = json!({ "key": "metadata.name", "operator": "In", "values": ["here"] });
    assert_eq!(affinity["nodeSelectorTerms"][0]["matchFields"], json!([on]));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_ne!(pod["securityContext"]["runAsUser"], 0);
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/tools:1");
    assert_eq!(container["command"], json!(job.command));
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    let requests = json!({ "cpu": "500m", "memory": "512Mi" });
    assert_eq!(container["resources"], json!({ "requests": requests, "limits": { "memory": "512Mi" } }));
    assert!(container["env"].as_array().unwrap().contains(&json!({ "name": "REMORA_APP", "value": "app" })));
    // It sees its own folder of the volume, under the same name.
    let mount = &container["volumeMounts"][0];
    assert_eq!((&mount["mountPath"], &mount["subPath"]), (&json!(job.folder), &json!("runs/app.1")));
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "remora-apps");

    place.pod(self::container(json!({ "running": {} })), "begun\n");
    place.double.until("a log", |_| job.folder.join(LOG).exists()).await;
    fs::write(job.folder.join(OUTPUT).join("response"), "HELLO").unwrap();
    place.pod(terminated(0, "Completed"), "begun\n");
    let (exit, usage) = running.await.unwrap();
    assert_eq!((exit, usage.output_bytes), (Exit::Code(0), 11));
    assert_eq!(fs::read_to_string(job.folder.join(LOG)).unwrap(), "begun\n");
    assert!(place.double.all("jobs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_apart() {
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "the node was low on memory" });
    let broken = |why: &str| Exit::Broken(why.to_owned());
    let waiting =
        container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }));
    let mut put_out = terminated(137, "Error");
    put_out["conditions"] =
        json!([{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }]);
    let pods = [
        (terminated(3, "Error"), Exit::Code(3)),
        (terminated(137, "OOMKilled"), Exit::Memory),
        (evicted, broken("its pod was put out: Evicted: the node was low on memory")),
        (waiting, broken("its pod cannot start: ImagePullBackOff: no such image")),
        (put_out, broken("its pod was put out: PreemptionByScheduler")),
    ];
    for (status, expected) in pods {
        let place = Place::new().await;
        let running = place.made(&place.job()).await;
        place.pod(status, "");
        assert_eq!(running.await.unwrap().0, expected);
        assert!(place.double.get("jobs", &key(NAME)).is_none(), "{expected:?}");
    }
    let conditions = [
        ("FailureTarget", "DeadlineExceeded", Exit::TimedOut),
        ("Failed", "BackoffLimitExceeded", broken("its Job failed: BackoffLimitExceeded: so it is")),
    ];
    for (kind, reason, expected) in conditions {
        let place = Place::new().await;
        let running = place.made(&place.job()).await;
        place.condition(kind, reason);
        assert_eq!(running.await.unwrap().0, expected);
        assert!(place.double.all("jobs").is_empty(), "{expected:?}");
    }
    let place = Place::new().await;
    let running = place.made(&place.job()).await;
    place.double.delete("jobs", &key(NAME));
    assert_eq!(running.await.unwrap().0, broken("somebody else deleted its Job"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_too_much_is_ended() {
    let place = Place::new().await;
    let mut job = place.job();
    job.limits.output_mib = 1;
    let running = place.made(&job).await;
    place.pod(container(json!({ "running": {} })), "");
    fs::write(job.folder.join(OUTPUT).join("much"), vec![0; (1 << 20) + 1]).unwrap();
    assert_eq!(running.await.unwrap().0, Exit::Output);
    assert!(place.double.all("pods").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_as_it_is_told() {
    let place = Place::new().await;
    for how in [Stop::Save, Stop::Now] {
        let running = place.made(&place.job()).await;
        place.pod(container(json!({ "running": {} })), "");
        place.stop.send_replace(Some(how.clone()));
        if how == Stop::Save {
            // Its pod has time to save its state, and nobody says that it has stopped before it has.
            let deleting = |double: &Double| !double.deleted().is_empty();
            place.double.until("its end", deleting).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!running.is_finished());
            place.double.delete("pods", &key(POD));
        }
        assert_eq!(running.await.unwrap().0, Exit::Stopped);
        assert!(place.double.all("jobs").is_empty() && place.double.all("pods").is_empty());
        place.stop.send_replace(None);
    }
    let told = place.double.deleted();
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["jobs/app-1-1", "jobs/app-1-1", "pods/app-1-1-x7"]);
    assert!(told[..2].iter().all(|(_, how)| how["propagationPolicy"] == "Foreground"), "{told:?}");
    assert_eq!(told[2].1["gracePeriodSeconds"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_finds_the_same_job() {
    let place = Place::new().await;
    let first = place.made(&place.job()).await;
    let uid = place.double.get("jobs", &key(NAME)).unwrap()["metadata"]["uid"].clone();
    first.abort();
    let second = place.begin(&place.job());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.double.get("jobs", &key(NAME)).unwrap()["metadata"]["uid"], uid);
    place.pod(terminated(0, "Completed"), "");
    assert_eq!(second.await.unwrap().0, Exit::Code(0));
    assert_eq!(place.double.deleted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_service_left_is_deleted() {
    let place = Place::new().await;
    let job = |name: &str, run: &str| {
        let metadata = json!({ "name": name, "namespace": "remora", "labels": { "remora.dev/run": run } });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata })
    };
    place.double.put("jobs", job("app-1-1", "app.1"));
    place.double.put("jobs", job("app-1-2", "app.1"));
    place.double.put("jobs", job("app-2-1", "app.2"));
    place.jobs.reap(Path::new("/var/lib/remora/apps/runs/app.1")).await;
    let left: Vec<_> = place.double.all("jobs").iter().map(|job| job["metadata"]["name"].clone()).collect();
    assert_eq!(left, ["app-2-1"]);
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let place = Place::new().await;
    let (_stop, stop) = watch::channel(None);
    let job = place.job();
    let without = Job { image: None, ..job.clone() };
    let elsewhere = TempDir::new().unwrap();
    let outside = Job { folder: elsewhere.path().to_owned(), ..job.clone() };
    for (job, why) in [(without, "image: is missing"), (outside, "kubernetes-jobs.path: is ")] {
        match place.jobs.run(&job, stop.clone()).await.0 {
            Exit::Broken(told) => assert!(told.starts_with(why), "{told}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(place.double.all("jobs").is_empty());
    // Who is stopped already does not begin.
    place.stop.send_replace(Some(Stop::Now));
    assert_eq!(place.begin(&job).await.unwrap().0, Exit::Stopped);
}

/// What a life with everything in it asks of an API server.
pub async fn used_rights() -> BTreeSet<(String, String, String)> {
    let place = Place::new().await;
    let running = place.made(&place.job()).await;
    place.pod(container(json!({ "running": {} })), "said\n");
    let log = place.job().folder.join(LOG);
    place.double.until("a log", |_| log.exists()).await;
    place.stop.send(Some(Stop::Now)).unwrap();
    running.await.unwrap();
    place.jobs.reap(&place.job().folder).await;
    place.double.rights()
}
