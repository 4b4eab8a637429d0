//! The manifests say what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use remora_agent::kubernetes::configuration::{Extender, Tls, document, yaml};
use remora_agent::kubernetes::facts::Settings;
use serde_json::{Value, json};

use super::double::Double;
use super::scheduler::used_rights;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// What is deployed, by kind and name.
type Objects = BTreeMap<(String, String), Value>;

/// Every object of every file of the scheduler.
fn manifests() -> Objects {
    manifests_in("kubernetes")
}

fn manifests_in(folder: &str) -> Objects {
    let mut objects = BTreeMap::new();
    for file in std::fs::read_dir(deploy().join(folder)).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(path.extension().unwrap(), "yaml", "{}", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("\n---\n") {
            let object: Value =
                serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let kind = object["kind"].as_str().unwrap().to_owned();
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            assert!(objects.insert((kind, name), object).is_none());
        }
    }
    objects
}

fn of<'a>(objects: &'a Objects, kind: &str) -> &'a Value {
    let mut all = objects.iter().filter(|((of, _), _)| of == kind);
    let found = all.next().unwrap_or_else(|| panic!("no {kind}")).1;
    assert!(all.next().is_none(), "two of {kind}");
    found
}

#[test]
fn names_agree() {
    let objects = manifests();
    let resources = of(&objects, "Kustomization")["resources"].as_array().unwrap().clone();
    let mut listed: Vec<_> = resources.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    listed.push("kustomization.yaml".to_owned());
    listed.sort();
    let mut files: Vec<_> = std::fs::read_dir(deploy().join("kubernetes"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(listed, files);

    let namespace = &of(&objects, "Namespace")["metadata"]["name"];
    let global = ["Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "Kustomization"];
    for ((kind, name), object) in &objects {
        if !global.contains(&kind.as_str()) {
            assert_eq!(&object["metadata"]["namespace"], namespace, "{kind} {name}");
        }
    }
    let deployment = of(&objects, "Deployment");
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &of(&objects, "Service")["spec"]["selector"],
        &of(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &of(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!(pod["spec"]["serviceAccountName"], of(&objects, "ServiceAccount")["metadata"]["name"]);
    assert_eq!(pod["spec"]["priorityClassName"], of(&objects, "PriorityClass")["metadata"]["name"]);
    for kind in ["Role", "ClusterRole"] {
        let binding = of(&objects, &format!("{kind}Binding"));
        assert_eq!(binding["roleRef"]["name"], of(&objects, kind)["metadata"]["name"]);
        assert_eq!(binding["subjects"][0]["name"], pod["spec"]["serviceAccountName"]);
    }
    let map = of(&objects, "ConfigMap");
    let arguments: Vec<_> = pod["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a.as_str().unwrap())
        .collect();
    let named = format!(
        "--config-map={}/{}",
        map["metadata"]["namespace"].as_str().unwrap(),
        map["metadata"]["name"].as_str().unwrap()
    );
    assert!(arguments.contains(&named.as_str()), "{arguments:?}");
    Settings::parse(map["data"]["remora.toml"].as_str().unwrap()).unwrap();
}

#[test]
fn nothing_runs_with_more_rights_than_it_needs() {
    let objects = manifests();
    let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    for amounts in ["requests", "limits"] {
        assert!(
            container["resources"][amounts]["cpu"].is_string()
                && container["resources"][amounts]["memory"].is_string()
        );
    }
    let unit = std::fs::read_to_string(deploy().join("remora.service")).unwrap();
    for line in ["NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes", "CapabilityBoundingSet="] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    let container = std::fs::read_to_string(deploy().join("Containerfile")).unwrap();
    assert!(container.lines().any(|line| line == "USER 65532:65532"));
    // The tool chain of the image is that of the repository.
    let channel = std::fs::read_to_string(deploy().join("../../rust-toolchain.toml")).unwrap();
    let version =
        channel.lines().find_map(|line| line.strip_prefix("channel = \"")).unwrap().trim_end_matches('"');
    let short: Vec<_> = version.split('.').take(2).collect();
    assert!(container.contains(&format!("rust:{}", short.join("."))), "{version}");
}

/// Group, resource and verb of all that roles of these kinds allow.
fn allowed(objects: &Objects, kinds: &[&str]) -> BTreeSet<(String, String, String)> {
    let mut allowed = BTreeSet::new();
    for kind in kinds {
        for rule in of(objects, kind)["rules"].as_array().unwrap() {
            let list = |key: &str| {
                rule[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item.as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            for (group, resource) in list("apiGroups")
                .iter()
                .flat_map(|g| list("resources").into_iter().map(move |r| (g.clone(), r)))
            {
                for verb in list("verbs") {
                    assert!(![&group, &resource, &verb].iter().any(|word| word.contains('*')));
                    allowed.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    allowed
}

/// What the scheduler asks of an API server in a life with everything in it is what the roles allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_allow_what_the_scheduler_does_and_nothing_else() {
    let double = Double::start().await;
    let used = tokio::time::timeout(Duration::from_secs(60), used_rights(&double)).await.unwrap();
    assert_eq!(used, allowed(&manifests(), &["ClusterRole", "Role"]));
}

/// The same of a service that runs jobs, which has a role in one namespace alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_jobs_allows_what_they_need_and_nothing_else() {
    let objects = manifests_in("kubernetes-jobs");
    let used = tokio::time::timeout(Duration::from_secs(60), super::jobs::used_rights()).await.unwrap();
    assert_eq!(used, allowed(&objects, &["Role"]));
    assert!(!objects.keys().any(|(kind, _)| kind.starts_with("Cluster")));
    let resources = of(&objects, "Kustomization")["resources"].as_array().unwrap();
    assert_eq!(resources.len() + 1, std::fs::read_dir(deploy().join("kubernetes-jobs")).unwrap().count());
    let namespace = &of(&manifests(), "Namespace")["metadata"]["name"].clone();
    for ((kind, name), object) in objects.iter().filter(|((kind, _), _)| kind != "Kustomization") {
        assert_eq!(&object["metadata"]["namespace"], namespace, "{kind} {name}");
    }
    let binding = of(&objects, "RoleBinding");
    assert_eq!(binding["roleRef"]["name"], of(&objects, "Role")["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], of(&objects, "ServiceAccount")["metadata"]["name"]);
    // The example of the configuration names what is there.
    let claim = &of(&objects, "PersistentVolumeClaim")["metadata"]["name"];
    let example = std::fs::read_to_string(deploy().join("remora.toml")).unwrap();
    assert!(
        example.contains(&format!("#: claim = {claim}"))
            && example.contains(&format!("#: namespace = {namespace}"))
    );
}

fn extender() -> Extender {
    Extender {
        url: "http://127.0.0.1:8080/".to_owned(),
        cached: true,
        choose: false,
        http_timeout_s: 2.0,
        weight: 5,
        ignorable: true,
        bind: false,
        preempt: false,
        kubeconfig: None,
        tls: Tls::default(),
    }
}

#[test]
fn the_configuration_is_yaml_that_says_the_same() {
    let tls = Tls { ca_file: Some("/etc/ca: #1.pem".to_owned()), ..Tls::default() };
    let secure = Extender {
        url: "https://remora:8443".to_owned(),
        bind: true,
        preempt: true,
        tls,
        kubeconfig: Some("k".to_owned()),
        ..extender()
    };
    for options in [extender(), secure] {
        let document = document(&options).unwrap();
        let text = yaml(&document);
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, document, "{text}");
    }
    let plain = document(&extender()).unwrap();
    assert_eq!(
        yaml(&plain),
        "\
apiVersion: \"kubescheduler.config.k8s.io/v1\"
extenders:
- enableHTTPS: false
  httpTimeout: \"2000ms\"
  ignorable: true
  nodeCacheCapable: true
  prioritizeVerb: \"prioritize\"
  urlPrefix: \"http://127.0.0.1:8080/kubernetes\"
  weight: 5
kind: \"KubeSchedulerConfiguration\"
"
    );
    for (wrong, problem) in [
        (Extender { url: "remora".to_owned(), ..extender() }, "--url remora is no address"),
        (Extender { url: "https://remora".to_owned(), ..extender() }, "--ca-file is needed"),
        (
            Extender { http_timeout_s: f64::NAN, ..extender() },
            "--http-timeout is NaN, want 0.001 to 3600 seconds",
        ),
    ] {
        assert!(document(&wrong).unwrap_err().contains(problem));
    }
}

#[test]
fn the_command_prints_it() {
    let remora = |arguments: &[&str]| {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_remora"))
            .args(["kubernetes", "config"])
            .args(arguments)
            .output();
        let run = run.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (run.status.code().unwrap(), text(run.stdout), text(run.stderr))
    };
    let (code, printed, _) = remora(&["--cached", "--required", "--weight", "3", "--http-timeout", "0.5"]);
    let read: Value = serde_saphyr::from_str(&printed).unwrap();
    let extender = &read["extenders"][0];
    assert_eq!((code, &extender["ignorable"], &extender["weight"]), (0, &json!(false), &json!(3)));
    assert_eq!((&extender["httpTimeout"], &extender["nodeCacheCapable"]), (&json!("500ms"), &json!(true)));
    let (code, _, problem) = remora(&["--url", "https://remora"]);
    assert_eq!(code, 2);
    assert!(problem.contains("--ca-file is needed"), "{problem}");
    assert_eq!(remora(&["--cached", "--full"]).0, 2);
    let (_, printed, _) = remora(&["--cached", "--choose"]);
    let read: Value = serde_saphyr::from_str(&printed).unwrap();
    let extender = &read["extenders"][0];
    assert_eq!(extender["filterVerb"], "choose");
    assert!(extender.get("prioritizeVerb").is_none() && extender.get("weight").is_none(), "{printed}");
    assert_eq!(remora(&["--choose", "--weight", "3"]).0, 2);
}
