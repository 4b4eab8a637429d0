//! Objects as facts.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use remora_agent::kubernetes::book::Book;
use remora_agent::kubernetes::core::Core;
use remora_agent::kubernetes::facts::{NodeFacts, PodFacts, Settings, quantity};
use remora_agent::service::{Config, Door, convert};
use remora_env::Time;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use serde_json::{Value, json};
use wire::change::Change;

use super::{node, pod};

fn node_facts(object: Value) -> NodeFacts {
    NodeFacts::of(&serde_json::from_value::<Node>(object).unwrap())
}

fn pod_facts(object: Value) -> PodFacts {
    PodFacts::of(&serde_json::from_value::<Pod>(object).unwrap())
}

#[test]
fn a_node_is_read() {
    let mut object = node("jetson", "3920m", "7.5Gi", "hall");
    object["metadata"]["labels"]["kubernetes.io/arch"] = json!("arm64");
    object["metadata"]["labels"]["nvidia.com/gpu.product"] = json!("xavier-nx");
    object["metadata"]["labels"]["locality.skippy.io/type"] = json!("edge");
    object["metadata"]["annotations"] = json!({
        "remora.dev/device-kind": "jetson-nx", "remora.dev/startup-seconds": "0.5", "remora.dev/datasets": "video=2Gi, labels",
    });
    object["status"]["allocatable"]["nvidia.com/gpu"] = json!("1");
    object["status"]["images"] =
        json!([{ "names": ["docker.io/library/busybox:latest", "x@sha256:1"], "sizeBytes": 4000 }]);
    let facts = node_facts(object);
    assert!(facts.ready && facts.warnings.is_empty(), "{:?}", facts.warnings);
    let told = facts.wire(9.0).unwrap();
    assert_eq!((told.kind.as_str(), told.arch.as_str(), told.cpu_millis), ("jetson-nx", "arm64", 3920));
    assert_eq!(
        (told.memory_bytes, told.disk_bytes, told.startup_s),
        (8_053_063_680, Some(107_374_182_400), Some(0.5))
    );
    let accelerator = told.accelerator.unwrap();
    assert_eq!((accelerator.model.as_str(), accelerator.count), ("xavier-nx", 1));
    assert_eq!(told.labels.len(), 1);
    assert!(facts.images.contains("docker.io/library/busybox:latest"));
    assert_eq!(facts.datasets[0].bytes, Some(2_147_483_648));
    let mut strange = node("ibm", "1", "1Gi", "hall");
    strange["metadata"]["labels"]["kubernetes.io/arch"] = json!("s390x");
    let strange = node_facts(strange);
    assert!(strange.wire(1.0).is_none() && strange.warnings[0].contains("s390x"));
}

/// Requests as the documentation of sidecars and init containers counts them.
#[test]
fn requests_are_summed_as_kubernetes_does() {
    let mut object = pod("p", "500m", "100Mi");
    let container = |cpu: &str, always: bool| {
        let mut container = json!({ "name": "i", "resources": { "requests": { "cpu": cpu } } });
        if always {
            container["restartPolicy"] = json!("Always");
        }
        container
    };
    object["spec"]["containers"][0]["resources"]["limits"] = json!({ "nvidia.com/gpu": "2", "cpu": "4" });
    let cpu = |object: &Value| pod_facts(object.clone()).requests.cpu_millis;
    assert_eq!(cpu(&object), 500);
    assert_eq!(pod_facts(object.clone()).requests.extended["nvidia.com/gpu"], 2);
    object["spec"]["initContainers"] = json!([container("2", false)]);
    assert_eq!(cpu(&object), 2000);
    object["spec"]["initContainers"] = json!([container("300m", true), container("400m", false)]);
    assert_eq!(cpu(&object), 800);
    object["spec"]["initContainers"] = json!([container("300m", true), container("1", false)]);
    assert_eq!(cpu(&object), 1300);
    object["spec"]["overhead"] = json!({ "cpu": "50m" });
    assert_eq!(cpu(&object), 1350);
    object["spec"]["resources"] = json!({ "requests": { "cpu": "3" } });
    assert_eq!(cpu(&object), 3050);
}

#[test]
fn a_pod_is_read_and_what_is_wrong_is_named() {
    let mut object = pod("p", "1", "1Gi");
    object["metadata"]["labels"]["capability.skippy.io/nvidia-gpu"] = json!("");
    object["metadata"]["labels"]["data.skippy.io/receives-from-storage"] = json!("bucket");
    object["metadata"]["annotations"] = json!({
        "remora.dev/kind": "detect", "remora.dev/inputs": "video, labels = 3Mi", "remora.dev/outputs": "a=12Q",
        "remora.dev/execution-seconds": "nuc=4, *=9", "remora.dev/alpha": "0.25", "remora.dev/deadline-seconds": "-1",
    });
    let facts = pod_facts(object);
    assert_eq!((facts.work.kind.as_str(), facts.alpha), ("detect", Some(0.25)));
    let inputs: Vec<_> = facts.work.inputs.iter().map(|named| named.name.as_str()).collect();
    assert_eq!(inputs, ["video", "labels", "bucket"]);
    assert_eq!(facts.work.execution.unwrap().elsewhere, Some(9.0));
    assert_eq!(facts.work.prefers.len(), 1);
    assert_eq!(
        facts.warnings,
        [
            "annotation remora.dev/outputs: \"12Q\" is no quantity, want one like 100m, 1.5Gi or 2e3; it is ignored",
            "annotation remora.dev/deadline-seconds: is -1, want 0.001 to 1000000000; it is ignored",
        ]
    );
}

#[test]
fn settings_are_strict() {
    for (text, problem) in [
        ("zone_lnik = {}", "zone_lnik"),
        ("execution_s = -1", "execution_s: is -1, want 0 to 1000000000"),
        ("image_size = 'big'", "image_size: \"big\" is no quantity"),
        ("[nodes.a]\nup_mbps = 0", "nodes.\"a\".up_mbps: is 0"),
        ("[kinds.a]", "kinds.\"a\": has no times, want execution_s or elsewhere_s"),
        ("[images.a]\narchs = ['x86']", "images.\"a\".archs: \"x86\" is unknown, want amd64, arm64 or arm"),
    ] {
        let error = Settings::parse(text).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
}

/// Whatever is told change by change is the same cluster as told at once, and the core takes both.
#[tokio::test]
async fn changes_lead_to_the_same_cluster_as_a_registration() {
    let settings = Settings::parse(
        "[images.busybox]\nlayers = [{ name = 'base', size = '1Mi' }, { name = 'app', size = '2Mi' }]",
    )
    .unwrap();
    let mut object = node("a", "4", "8Gi", "zone-0");
    object["metadata"]["annotations"] = json!({ "remora.dev/datasets": "video=2Gi" });
    object["status"]["images"] =
        json!([{ "names": ["docker.io/library/busybox:latest"], "sizeBytes": 4000 }]);
    let mut reads = pod("p", "1", "1Gi");
    reads["metadata"]["annotations"] = json!({ "remora.dev/inputs": "video,unheard" });
    let mut book = Book::new("k", settings.clone());
    book.apply(Arc::new(node_facts(node("b", "4", "8Gi", "zone-1"))));
    let core = Door::start(Config::new(by_name("greedy-completion", 0).unwrap())).await.unwrap();
    Core::register(&core, book.registration().unwrap()).await.unwrap();
    let mut changes = book.apply(Arc::new(node_facts(object)));
    let (task, learnt) = book.task(&pod_facts(reads));
    changes.extend(learnt);
    assert!(
        book.task(&pod_facts(pod("p", "1", "1Gi")))
            .1
            .iter()
            .all(|change| matches!(change, Change::TaskKind(_)))
    );
    changes.extend(book.remove("b"));
    Core::update(&core, "k", changes).await.unwrap();
    let told = Core::get(&core, "k").await.unwrap();
    let facts = told.facts.as_ref().unwrap();
    assert_eq!(facts.nodes.iter().find(|node| node.node == "a").unwrap().layers, ["app#amd64", "base#amd64"]);
    let cluster = told.cluster.as_ref().unwrap();
    let homes: Vec<_> = cluster.datasets.iter().map(|data| (data.name.as_str(), data.homes.len())).collect();
    assert_eq!(homes, [("video", 1), ("unheard", 0)]);
    assert_eq!(task.inputs, ["video", "unheard"]);
    let again = book.registration().unwrap();
    convert::registration(&again, Time(0)).unwrap();
    let (again, named) = (again.cluster.unwrap(), |kind: &wire::TaskKind| kind.name.clone());
    assert_eq!((&again.nodes, &again.images), (&cluster.nodes, &cluster.images));
    let mut kinds: Vec<_> = cluster.task_kinds.iter().map(named).collect();
    kinds.sort();
    assert_eq!(again.task_kinds.iter().map(named).collect::<Vec<_>>(), kinds);
}

/// Homes come and go with their nodes, whoever says that they are homes.
#[tokio::test]
async fn data_is_at_home_where_its_nodes_are() {
    let settings = Settings::parse("[datasets.declared]\nhomes = ['a', 'b']").unwrap();
    let mut keeps = node("b", "4", "8Gi", "zone-0");
    keeps["metadata"]["annotations"] = json!({ "remora.dev/datasets": "kept=2Gi" });
    let mut stores = node("c", "4", "8Gi", "zone-0");
    stores["metadata"]["labels"]["data.skippy.io/storage-node"] = json!("true");
    let mut reads = pod("p", "1", "1Gi");
    reads["metadata"]["annotations"] = json!({ "remora.dev/inputs": "unheard" });
    let mut book = Book::new("k", settings);
    book.apply(Arc::new(node_facts(node("a", "4", "8Gi", "zone-0"))));
    book.task(&pod_facts(reads));
    let core = Door::start(Config::new(by_name("greedy-completion", 0).unwrap())).await.unwrap();
    Core::register(&core, book.registration().unwrap()).await.unwrap();
    let homes = async |changes| {
        Core::update(&core, "k", changes).await.unwrap();
        let datasets = Core::get(&core, "k").await.unwrap().cluster.unwrap().datasets;
        datasets.into_iter().map(|data| format!("{} {}", data.name, data.homes.concat())).collect::<Vec<_>>()
    };
    assert_eq!(homes(Vec::new()).await, ["declared a", "unheard "]);
    let (b, c) = (Arc::new(node_facts(keeps)), Arc::new(node_facts(stores)));
    for _ in 0..2 {
        let told = homes(book.apply(Arc::clone(&b))).await;
        assert_eq!(told[..2], ["declared ab", "unheard "]);
        assert_eq!(told[2], "kept b");
        assert_eq!(homes(book.apply(Arc::clone(&c))).await, ["declared ab", "unheard c", "kept b"]);
        assert_eq!(homes(book.remove("b")).await, ["declared a", "unheard c", "kept c"]);
        assert_eq!(homes(book.remove("c")).await, ["declared a", "unheard ", "kept "]);
    }
}

/// Text that is nearly right, or not at all.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,6}",
        "[0-9.]{1,4}(m|Ki|Mi|Gi|e3|E|)",
        Just(String::new()),
        Just("video=5Mi, *=2".to_owned()),
        Just("a".repeat(600)),
    ]
}

/// An object with arbitrary text, numbers and gaps where people and machines write.
fn objects() -> impl Strategy<Value = (Value, Value)> {
    let t = || text().boxed();
    let node = (prop::collection::vec(t(), 12), any::<Option<bool>>(), any::<Option<i64>>()).prop_map(|(t, flag, number)| {
        json!({
            "metadata": { "name": t[0], "labels": { "kubernetes.io/arch": t[1], "topology.kubernetes.io/zone": t[2],
                "topology.kubernetes.io/region": t[3], &t[4]: t[5], "node.kubernetes.io/instance-type": t[1] },
                "annotations": { "remora.dev/startup-seconds": t[6], "remora.dev/datasets": t[7], "remora.dev/device-kind": t[8] } },
            "spec": { "unschedulable": flag, "taints": [{ "key": t[9], "effect": "NoSchedule" }] },
            "status": { "allocatable": { "cpu": t[10], "memory": t[11], "pods": t[6], "nvidia.com/gpu": t[5] },
                "images": [{ "names": [t[0], t[8]], "sizeBytes": number }, {}],
                "conditions": [{ "type": "Ready", "status": t[1] }] },
        })
    });
    let pod = (prop::collection::vec(t(), 14), any::<Option<i32>>()).prop_map(|(t, number)| {
        json!({
            "metadata": { "name": t[0], "namespace": t[1], "uid": t[2], "labels": { "app": t[3], "data.skippy.io/sends-to-storage": t[4] },
                "annotations": { "remora.dev/inputs": t[5], "remora.dev/outputs": t[6], "remora.dev/alpha": t[7],
                    "remora.dev/execution-seconds": t[8], "remora.dev/kind": t[9], "remora.dev/deadline-seconds": t[10] } },
            "spec": { "priority": number, "containers": [{ "name": t[0], "image": t[11], "resources": { "requests": { "cpu": t[12], &t[13]: t[12] } } },
                { "name": "b", "image": t[3], "ports": [{ "containerPort": number.unwrap_or(1), "hostPort": number }] }],
                "nodeSelector": { &t[3]: t[4] }, "tolerations": [{ "operator": t[5] }],
                "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": t[6], "operator": "Gt", "values": [t[7]] }] }, {} ] } } } },
        })
    });
    (node, pod)
}

proptest! {
    /// A quantity that Kubernetes could print is read as what it is.
    #[test]
    fn quantities_are_exact(amount in 0_i64..9_000_000, which in 0_usize..8) {
        let units = [("m", 1), ("", 1000), ("k", 1_000_000), ("Ki", 1_024_000), ("Mi", 1_048_576_000), ("M", 1_000_000_000),
            ("e2", 100_000), ("Gi", 1_073_741_824_000)];
        let (suffix, thousandths) = units[which];
        let exact = i128::from(amount) * thousandths;
        prop_assert_eq!(i128::from(quantity::millis(&format!("{amount}{suffix}")).unwrap()), exact.min(i128::from(i64::MAX)));
        let fraction = quantity::millis(&format!("{amount}.25{suffix}")).unwrap();
        prop_assert_eq!(i128::from(fraction), (exact + (thousandths + 3) / 4).min(i128::from(i64::MAX)));
        let positive = quantity::millis(&format!("{amount}{suffix}")).unwrap();
        prop_assert_eq!(quantity::millis(&format!("-{amount}{suffix}")).unwrap().saturating_neg(), positive);
    }

    #[test]
    fn any_text_is_a_quantity_or_refused(text in "\\PC{0,40}") {
        prop_assert_eq!(quantity::millis(&text).is_ok(), quantity::whole(&text).is_ok());
    }

    /// Whatever objects say, the core takes what becomes of them.
    #[test]
    fn objects_of_any_content_become_a_cluster((one, two) in objects(), (other, pod) in objects()) {
        let mut book = Book::new("any", Settings::default());
        for (index, mut object) in [one, other].into_iter().enumerate() {
            object["metadata"]["name"] = json!(format!("node-{index}"));
            book.apply(Arc::new(node_facts(object)));
        }
        for object in [two, pod] {
            book.task(&pod_facts(object));
        }
        if let Some(request) = book.registration() {
            convert::registration(&request, Time(0)).unwrap();
        }
    }

    /// JSON of any shape is refused or read, and nothing breaks.
    #[test]
    fn json_of_any_shape_does_no_harm(text in "\\PC{0,20}", depth in 0_usize..4, number in any::<f64>()) {
        let mut value = json!([text, number, null, { "name": text }]);
        for key in ["spec", "metadata", "status", "containers"].iter().take(depth) {
            value = json!({ *key: value });
        }
        if let Ok(node) = serde_json::from_value::<Node>(value.clone()) {
            NodeFacts::of(&node);
        }
        if let Ok(pod) = serde_json::from_value::<Pod>(value) {
            PodFacts::of(&pod);
        }
    }
}
