//! A job as an object of Kubernetes.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use k8s_openapi::api::batch::v1::Job as Object;
use serde_json::json;

use super::super::process::GRACE;
use super::{Job, Settings};
use crate::appcore::folder;
use crate::appcore::run::Run;

/// Labels of Jobs and pods.
pub const RUN: &str = "remora.dev/run";
const APP: &str = "remora.dev/app";
const ATTEMPT: &str = "remora.dev/attempt";
/// The pod's only container.
pub const CONTAINER: &str = "run";
/// Whose jobs are those of a service that runs as root: nobody in particular, as in our own image.
const NOBODY: u32 = 65532;
/// Seconds after which Kubernetes itself forgets a Job that has ended.
const FORGOTTEN_S: u32 = 3600;

/// A run's attempt as a name that a host may have: names of runs end with a dot and a number.
pub fn name(run: &Run) -> String {
    format!("{}-{}", run.id.replace('.', "-"), run.attempt)
}

/// # Errors
/// What is wrong with the job.
pub fn of(job: &Job, settings: &Settings) -> Result<Object, String> {
    let image = job.image.as_ref().ok_or("image: is missing, and nodes of Kubernetes run images alone")?;
    let volume = settings.path.canonicalize();
    let volume =
        volume.map_err(|error| format!("kubernetes-jobs.path: {}: {error}", settings.path.display()))?;
    let folder = job.folder.canonicalize();
    let folder = folder.map_err(|error| format!("folder {}: {error}", job.folder.display()))?;
    let within = folder.strip_prefix(&volume).map_err(|_| {
        let (path, folder) = (settings.path.display(), folder.display());
        format!("kubernetes-jobs.path: is {path}, want a folder that holds {folder}")
    })?;
    let (user, group) = owner(&folder).map_err(|error| format!("folder {}: {error}", folder.display()))?;
    let labels = json!({
        "app.kubernetes.io/managed-by": "remora",
        APP: job.run.app,
        RUN: job.run.id,
        ATTEMPT: job.run.attempt.to_string(),
    });
    let home = [("HOME".to_owned(), folder.to_string_lossy().into_owned())];
    let told = home.iter().chain(&job.environment);
    let environment: Vec<_> = told.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let memory = format!("{}Mi", job.limits.memory_mib);
    let container = json!({
        "name": CONTAINER,
        "image": image,
        "command": job.command,
        "workingDir": folder,
        "env": environment,
        "resources": {
            "requests": { "cpu": format!("{}m", job.limits.cpu_millis), "memory": memory },
            "limits": { "memory": memory },
        },
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        "volumeMounts": [{ "name": "folder", "mountPath": folder, "subPath": within }],
    });
    // By its name and through the scheduler, which waits for room; a node named outright would refuse what it lacks.
    let node = json!({ "key": "metadata.name", "operator": "In", "values": [job.node] });
    let on = json!({ "nodeSelectorTerms": [{ "matchFields": [node] }] });
    let pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE.as_secs(),
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": on } },
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": user,
            "runAsGroup": group,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container],
        "volumes": [{ "name": "folder", "persistentVolumeClaim": { "claimName": settings.claim } }],
    });
    let object = json!({
        "metadata": { "name": name(&job.run), "labels": labels },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": job.limits.timeout_s.ceil().max(1.0) as i64,
            "ttlSecondsAfterFinished": FORGOTTEN_S,
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    serde_json::from_value(object).map_err(|error| format!("its Job: {error}"))
}

/// As whom it runs, so that it can write its folder: the service's own user and group. What a service that runs as root
/// made, it gives away.
fn owner(folder: &Path) -> std::io::Result<(u32, u32)> {
    let told = folder.metadata()?;
    if told.uid() != 0 {
        return Ok((told.uid(), told.gid()));
    }
    for path in folder::all(folder)? {
        lchown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok((NOBODY, NOBODY))
}
