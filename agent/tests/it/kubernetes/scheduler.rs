//! The real scheduler over the double.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use remora_agent::kubernetes::core::Core;
use remora_agent::kubernetes::facts::{NodeFacts, PodFacts};
use remora_agent::kubernetes::scheduler::state::{Effect, Happening, News, Seen, State};
use remora_agent::kubernetes::scheduler::{self, Config, lease};
use remora_agent::service::{self, Door};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::Request;
use wire::change::Change;
use wire::cluster_event::Event;
use wire::cluster_service_server::ClusterService;
use wire::placement_service_server::PlacementService;

use super::double::Double;
use super::{node, pod};

struct Scheduler {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
    core: Door,
}

async fn start(double: &Double, config: Config) -> Scheduler {
    let policy = by_name("greedy-completion", 0).unwrap();
    let core = Door::start(service::Config::new(policy)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let shared: Arc<dyn Core> = Arc::new(core.clone());
    let done = tokio::spawn(scheduler::run(double.client(), shared, config, scheduler::hearing(), shutdown));
    Scheduler { stop, done, core }
}

impl Scheduler {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.done).await.unwrap().unwrap();
    }
}

/// No node has more pods than fit.
fn nothing_is_overcommitted(double: &Double, cpu_millis: i64, of_node: i64) {
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for node in double.placed().into_values() {
        *used.entry(node).or_default() += cpu_millis;
    }
    assert!(used.values().all(|&used| used <= of_node), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pods_get_a_place_and_no_node_too_many() {
    let double = Double::start().await;
    double.add_nodes((0..5).map(|n| node(&format!("node-{n}"), "4", "8Gi", &format!("zone-{}", n % 2))));
    double.add_pods((0..40).map(|n| pod(&format!("pod-{n}"), "500m", "64Mi")));
    // Somebody else's pod is there already, and one more of ours than fits.
    let mut other = pod("other", "500m", "64Mi");
    other["spec"]["schedulerName"] = json!("default-scheduler");
    other["spec"]["nodeName"] = json!("node-0");
    double.put("pods", other);
    let scheduler = start(&double, Config::default()).await;
    double.until("39 placed pods", |double| double.bindings().len() == 39).await;
    double
        .until("the last is told", |double| {
            double.all("events").iter().any(|event| event["reason"] == "FailedScheduling")
        })
        .await;
    nothing_is_overcommitted(&double, 500, 4000);
    let told = double.all("events");
    let failed: Vec<_> = told.iter().filter(|event| event["reason"] == "FailedScheduling").collect();
    assert_eq!(failed[0]["note"], "0/5 nodes are available: 5 Insufficient cpu.");
    let (name, node) = double.bindings()[0].clone();
    let name = name.strip_prefix("default/").unwrap().to_owned();
    double.until("the event", |double| !double.events(&name, "Scheduled").is_empty()).await;
    let text = format!("Successfully assigned default/{name} to {node}");
    assert_eq!(double.events(&name, "Scheduled"), [text]);
    // When one ends, the last has room at once; the core hears of the end.
    let first = double.bindings()[0].0.clone();
    double.change("pods", &first, |pod| {
        pod["status"] = json!({ "phase": "Succeeded", "containerStatuses": [{
            "name": "c", "image": "busybox", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 0, "finishedAt": "2026-01-01T00:00:30Z" } },
        }] });
    });
    double.until("the last pod", |double| double.bindings().len() == 40).await;
    nothing_is_overcommitted(&double, 500, 4500);
    let known = scheduler.core.get("kubernetes".to_owned()).await.unwrap();
    let placed: usize = known.facts.unwrap().nodes.iter().map(|node| node.placed.len()).sum();
    assert_eq!(placed, 40, "39 of ours and the other's");
    assert!(double.refused().is_empty());
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_scheduler_takes_over() {
    let double = Double::start().await;
    double.add_nodes([node("node-0", "64", "64Gi", "zone-0")]);
    let lease = |identity: &str| lease::Config {
        duration: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(700),
        period: Duration::from_millis(100),
        ..lease::Config::new("default", "remora-scheduler", identity)
    };
    let config = |identity: &str| Config { lease: Some(lease(identity)), ..Config::default() };
    let first = start(&double, config("first")).await;
    double.add_pods([pod("one", "100m", "64Mi")]);
    double.until("a pod by the first", |double| double.bindings().len() == 1).await;
    let second = start(&double, config("second")).await;
    double.add_pods((0..5).map(|n| pod(&format!("two-{n}"), "100m", "64Mi")));
    double.until("pods by the first", |double| double.bindings().len() == 6).await;
    let holder = |double: &Double| {
        let lease = double.get("leases", "default/remora-scheduler").unwrap();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(holder(&double), "first");
    // It dies without a word: only when the lease runs out may the second work.
    first.done.abort();
    let died = Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    double.change("leases", "default/remora-scheduler", |lease| {
        lease["spec"]["holderIdentity"] = json!("dead")
    });
    double.add_pods([pod("three", "100m", "64Mi")]);
    double.until("a pod by the second", |double| double.bindings().len() == 7).await;
    assert!(died.elapsed() >= Duration::from_millis(950), "{:?}", died.elapsed());
    assert_eq!(holder(&double), "second");
    // One that is stopped gives it back.
    second.stop().await;
    assert_eq!(holder(&double), "");
    assert!(double.refused().is_empty(), "both bound at once: {:?}", double.refused());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_cut_heal() {
    let double = Double::start().await;
    double.add_nodes([node("node-0", "4", "8Gi", "zone-0")]);
    let scheduler = start(&double, Config::default()).await;
    double.add_pods([pod("before", "1", "64Mi")]);
    double.until("the first pod", |double| double.bindings().len() == 1).await;
    double.cut(false);
    double.add_pods([pod("after", "1", "64Mi")]);
    double.until("the second pod", |double| double.bindings().len() == 2).await;
    // What happened meanwhile cannot be told any more: a pod and a node are gone, a node came.
    double.cut(true);
    double.delete("pods", "default/before");
    double.delete("nodes", "node-0");
    double.add_nodes([node("node-1", "4", "8Gi", "zone-0")]);
    // Three watches from the start, after the first cut, refused because too old, and anew.
    double.until("all watches", |double| double.watches() >= 12).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    double.add_pods((0..4).map(|n| pod(&format!("late-{n}"), "1", "64Mi")));
    double.until("all pods", |double| double.bindings().len() == 6).await;
    let late = double.bindings().split_off(2);
    assert!(late.iter().all(|(_, node)| node == "node-1"), "{late:?}");
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_that_fail_are_tried_again() {
    let double = Double::start().await;
    double.add_nodes([node("node-0", "4", "8Gi", "zone-0"), node("node-1", "4", "8Gi", "zone-0")]);
    double.trouble([409, 500, 429, 503]);
    let scheduler = start(&double, Config::default()).await;
    double.add_pods((0..8).map(|n| pod(&format!("pod-{n}"), "1", "64Mi")));
    double.until("all pods", |double| double.bindings().len() == 8).await;
    nothing_is_overcommitted(&double, 1000, 4000);
    let mut refused = double.refused();
    refused.sort_unstable();
    assert_eq!(refused, [409, 429, 500, 503]);
    let failed = double.all("events").into_iter().filter(|event| event["reason"] == "FailedScheduling");
    assert!(failed.into_iter().all(|event| event["note"].as_str().unwrap().starts_with("binding failed: ")));
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_nothing_fits_is_told_and_placed_when_a_node_comes() {
    let double = Double::start().await;
    let mut tainted = node("tainted", "16", "64Gi", "zone-0");
    tainted["spec"]["taints"] = json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }]);
    let mut cordoned = node("cordoned", "16", "64Gi", "zone-0");
    cordoned["spec"]["unschedulable"] = json!(true);
    double.add_nodes([tainted, cordoned, node("small", "1", "64Gi", "zone-0")]);
    let scheduler = start(&double, Config::default()).await;
    let mut large = pod("large", "8", "1Gi");
    large["metadata"]["annotations"] = json!({ "remora.dev/alpha": "much", "remora.dev/kind": "big" });
    double.add_pods([large]);
    double.until("the event", |double| !double.events("large", "FailedScheduling").is_empty()).await;
    assert_eq!(
        double.events("large", "FailedScheduling"),
        ["0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}, \
          1 node(s) were unschedulable."]
    );
    let ignored = double.events("large", "IgnoredAnnotation");
    assert_eq!(ignored, ["annotation remora.dev/alpha: \"much\" is no number, want 0 to 1; it is ignored"]);
    // A pod that is held back or deleted is nobody's to place.
    let mut gated = pod("gated", "1m", "1Mi");
    gated["spec"]["schedulingGates"] = json!([{ "name": "wait" }]);
    double.add_pods([gated, pod("gone", "8", "1Gi")]);
    double.until("the other", |double| !double.events("gone", "FailedScheduling").is_empty()).await;
    double.delete("pods", "default/gone");
    let before = Instant::now();
    double.add_nodes([node("big", "32", "64Gi", "zone-1")]);
    double.until("the pod", |double| double.placed().contains_key("default/large")).await;
    assert_eq!(double.placed()["default/large"], "big");
    assert!(before.elapsed() < Duration::from_millis(900), "at once: {:?}", before.elapsed());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(double.bindings().len(), 1);
    double.change("pods", "default/gated", |pod| pod["spec"]["schedulingGates"] = json!([]));
    double.until("the gated pod", |double| double.bindings().len() == 2).await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_where_their_data_is() {
    let double = Double::start().await;
    double.add_nodes((0..6).map(|n| node(&format!("node-{n}"), "64", "64Gi", &format!("zone-{}", n / 2))));
    double.put(
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "remora", "namespace": "remora" },
            "data": { "remora.toml": "
            zone_link = { up_mbps = 50, down_mbps = 50, price = 4, wan = true }
            [datasets.video]
            size = '5Gi'
            homes = ['node-3']
        " },
        }),
    );
    let map = Some(("remora".to_owned(), "remora".to_owned()));
    let scheduler = start(&double, Config { config_map: map, ..Config::default() }).await;
    let reads = |name: &str| {
        let mut reads = pod(name, "1", "64Mi");
        reads["metadata"]["annotations"] = json!({ "remora.dev/inputs": "video" });
        reads
    };
    double.add_pods((0..3).map(|n| reads(&format!("pod-{n}"))));
    double.until("the pods", |double| double.bindings().len() == 3).await;
    assert!(double.placed().values().all(|node| node == "node-3"), "{:?}", double.placed());
    // The data moves: new settings count at once.
    double.change("configmaps", "remora/remora", |map| {
        map["data"]["remora.toml"] = json!("[datasets.video]\nsize = '5Gi'\nhomes = ['node-5']");
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    double.add_pods([reads("last")]);
    double.until("the last pod", |double| double.bindings().len() == 4).await;
    assert_eq!(double.placed()["default/last"], "node-5");
    scheduler.stop().await;
}

/// What the core knows, once this holds.
async fn known(
    core: &Door,
    holds: impl Fn(&wire::Cluster, &[wire::NodeFacts]) -> bool,
) -> Vec<wire::NodeFacts> {
    for _ in 0..500 {
        let told = core.get("kubernetes".to_owned()).await.unwrap();
        let (cluster, facts) = (told.cluster.unwrap(), told.facts.unwrap().nodes);
        if holds(&cluster, &facts) {
            return facts;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to pass; the core knows {:?}", core.get("kubernetes".to_owned()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_change_and_go_and_the_core_forgets_nothing() {
    let double = Double::start().await;
    double.add_nodes(["node-0", "node-1"].map(|name| node(name, "4", "8Gi", "zone-0")));
    let scheduler = start(&double, Config::default()).await;
    double.add_pods([pod("first", "1", "64Mi")]);
    double.until("the pod", |double| double.bindings().len() == 1).await;
    let home = double.bindings()[0].1.clone();
    let core = &scheduler.core;
    let placed_on = |facts: &[wire::NodeFacts], name: &str| {
        let on = facts.iter().filter(|node| node.node == name).flat_map(|node| &node.placed);
        on.map(|placed| placed.decision_id.clone()).collect::<Vec<_>>()
    };
    let decided =
        placed_on(&known(core, |_, facts| placed_on(facts, &home).len() == 1).await, &home).remove(0);
    let watch = wire::WatchClusterRequest { cluster_id: "kubernetes".to_owned(), after: None };
    let mut events = ClusterService::watch(core, Request::new(watch)).await.unwrap().into_inner();

    // A node grows, and another comes in a zone that nobody has heard of.
    double.change("nodes", &home, |node| node["status"]["allocatable"]["cpu"] = json!("8"));
    double.add_nodes([node("node-2", "4", "8Gi", "zone-1")]);
    let grown = |cluster: &wire::Cluster| {
        cluster.nodes.len() == 3
            && cluster.nodes.iter().any(|node| node.name == home && node.cpu_millis == 8000)
    };
    let facts = known(core, |cluster, _| grown(cluster)).await;
    assert_eq!(placed_on(&facts, &home), std::slice::from_ref(&decided));
    // It goes with somebody's pod, and comes back with it.
    let mut other = pod("other", "500m", "64Mi");
    other["spec"]["schedulerName"] = json!("default-scheduler");
    other["spec"]["nodeName"] = json!("node-2");
    double.put("pods", other);
    known(core, |_, facts| placed_on(facts, "node-2").len() == 1).await;
    let back = double.get("nodes", "node-2").unwrap();
    double.delete("nodes", "node-2");
    known(core, |cluster, _| cluster.nodes.len() == 2).await;
    double.put("nodes", back);
    let facts = known(core, |_, facts| placed_on(facts, "node-2").len() == 1).await;
    assert_eq!(placed_on(&facts, &home), std::slice::from_ref(&decided));

    // All of it were changes, and the first decision's receipt is there.
    let mut updates = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
        let event = event.unwrap().event.unwrap();
        assert!(matches!(event, Event::Updated(_)), "{event:?}");
        updates += 1;
    }
    assert!(updates >= 4, "{updates}");
    let asked = wire::ExplainRequest { cluster_id: "kubernetes".to_owned(), decision_id: decided };
    let receipt = PlacementService::explain(core, Request::new(asked)).await.unwrap().into_inner();
    assert_eq!(receipt.response.unwrap().node, home);
    scheduler.stop().await;
}

fn node_facts() -> Box<NodeFacts> {
    Box::new(NodeFacts::of(&serde_json::from_value(node("a", "4", "8Gi", "z")).unwrap()))
}

fn pod_facts(object: &Value) -> Box<PodFacts> {
    Box::new(PodFacts::of(&serde_json::from_value(object.clone()).unwrap()))
}

/// What the extender chose for pods of others is a decision like ours, if they come to be there.
#[test]
fn choices_for_others_are_kept_until_they_are_seen() {
    let (mut state, now) = (State::new("k", 8), Instant::now());
    let hear = |state: &mut State, happening| state.handle(now, Timestamp::UNIX_EPOCH, happening);
    hear(&mut state, Happening::Node(Seen::Is(node_facts())));
    assert!(matches!(state.news(), Some(News::Anew(_))));
    let chosen = |uid: &str, decision_id: &str| {
        let [uid, node, decision_id] = [uid, "a", decision_id].map(str::to_owned);
        Happening::Chosen { uid, node, decision_id }
    };
    let on = |uid: &str, node: &str| {
        let mut theirs = pod(uid, "100m", "64Mi");
        theirs["metadata"]["uid"] = json!(uid);
        theirs["spec"]["nodeName"] = json!(node);
        theirs
    };
    let ended = |state: &mut State| -> Vec<(String, bool)> {
        let report = |effect| match effect {
            Effect::Report(report) => Some((report.decision_id, report.failed)),
            _ => None,
        };
        state.effects().into_iter().filter_map(report).collect()
    };
    let failed = |id: &str| vec![(id.to_owned(), true)];
    hear(&mut state, chosen("1", "once"));
    hear(&mut state, chosen("1", "again"));
    assert_eq!(ended(&mut state), failed("once"), "who asks again did not take the first");
    // It is where it was chosen to be, and ends there.
    let mut theirs = on("1", "a");
    hear(&mut state, Happening::Other(Seen::Is(pod_facts(&theirs))));
    assert!(state.news().is_none(), "the core knows of it");
    theirs["status"] = json!({ "phase": "Succeeded" });
    hear(&mut state, Happening::Other(Seen::Is(pod_facts(&theirs))));
    assert_eq!(ended(&mut state), [("again".to_owned(), false)]);
    // Elsewhere it is somebody else's decision.
    hear(&mut state, chosen("2", "other"));
    hear(&mut state, Happening::Other(Seen::Is(pod_facts(&on("2", "elsewhere")))));
    assert_eq!(ended(&mut state), failed("other"));
    // One that is seen before it is heard of is known already, and one that never comes holds nothing for long.
    hear(&mut state, Happening::Other(Seen::Is(pod_facts(&on("3", "a")))));
    assert!(matches!(state.news(), Some(News::Changes(_))));
    hear(&mut state, chosen("3", "late"));
    hear(&mut state, chosen("4", "never"));
    state.let_go(now);
    assert_eq!(ended(&mut state), failed("late"));
    state.let_go(now + Duration::from_secs(61));
    assert_eq!(ended(&mut state), failed("never"));
}

/// What the scheduler has to tell, without a core.
#[test]
fn what_the_core_hears_is_what_changed() {
    let (mut state, now) = (State::new("k", 8), Instant::now());
    let mut ours = pod("p", "1", "64Mi");
    ours["metadata"]["uid"] = json!("7");
    let hear = |state: &mut State, happenings: Vec<Happening>| {
        happenings.into_iter().for_each(|happening| state.handle(now, Timestamp::UNIX_EPOCH, happening));
    };
    let begin = vec![
        Happening::Settings(Box::default()),
        Happening::Node(Seen::Start),
        Happening::Node(Seen::Is(node_facts())),
        Happening::Node(Seen::End),
        Happening::Own(Seen::Start),
        Happening::Own(Seen::Is(pod_facts(&ours))),
        Happening::Own(Seen::End),
        Happening::Other(Seen::Start),
        Happening::Other(Seen::End),
    ];
    hear(&mut state, begin);
    assert!(state.is_ready());
    let ask = state.next(now).unwrap();
    assert!(matches!(state.news(), Some(News::Anew(_))) && state.news().is_none());
    let (node, decision_id) = ("a".to_owned(), "d".to_owned());
    let answer = wire::PlaceResponse { node, decision_id, ..wire::PlaceResponse::default() };
    state.decided(now, &ask.uid, Ok(answer));
    state.confirm();
    assert!(state.news().is_none(), "nobody has seen it there yet");
    ours["spec"]["nodeName"] = json!("a");
    hear(&mut state, vec![Happening::Own(Seen::Is(pod_facts(&ours)))]);
    state.confirm();
    let changes = |news| match news {
        Some(News::Changes(changes)) => changes,
        other => panic!("{other:?}"),
    };
    assert_eq!(changes(state.news()), [Change::ConfirmedDecisionId("d".to_owned())]);
    state.confirm();
    assert!(state.news().is_none(), "once is enough");

    // A cluster is never without a node: it leaves when another comes, or it comes back.
    hear(&mut state, vec![Happening::Node(Seen::Gone(node_facts()))]);
    assert!(state.news().is_none());
    hear(&mut state, vec![Happening::Node(Seen::Is(node_facts()))]);
    let told = changes(state.news());
    let [Change::NodeLeft(left), Change::NodeEntered(_), Change::Placed(placed)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((left.as_str(), placed.node.as_str()), ("a", "a"));
    // Under an id of its own: the one before has ended.
    assert_eq!(placed.task.as_ref().unwrap().decision_id, "7/1");
    // A core that did not take it hears everything, the pod after the cluster.
    state.not_heard();
    assert!(matches!(state.news(), Some(News::Anew(_))));
    assert!(matches!(&changes(state.news())[..], [Change::Placed(_)]));
}

/// Not a benchmark, but far above the rate of Kubernetes' scheduler with an extender: 87 pods/s on 1,000
/// nodes. Without optimisation and beside other tests, half of that is demanded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_take_hundreds_of_pods_in_seconds() {
    // Others can be measured by hand.
    let nodes = std::env::var("REMORA_NODES").map_or(1000, |nodes| nodes.parse().unwrap());
    let double = Double::start().await;
    double
        .add_nodes((0..nodes).map(|n| node(&format!("node-{n}"), "32", "64Gi", &format!("zone-{}", n % 20))));
    let pods = 300;
    double.add_pods((0..pods).map(|n| pod(&format!("pod-{n}"), "100m", "64Mi")));
    let started = Instant::now();
    let scheduler = start(&double, Config::default()).await;
    double.until("the first pod", |double| !double.bindings().is_empty()).await;
    let first = Instant::now();
    double.until("all pods", |double| double.bindings().len() == pods).await;
    let rate = pods as f64 / first.elapsed().as_secs_f64();
    eprintln!("{rate:.0} pods/s on {nodes} nodes; first after {:?}", first - started);
    assert!(rate > 40.0, "{rate:.0} pods/s");
    scheduler.stop().await;
}

/// What a scheduler asks of the API server when it does all that it can do.
pub async fn used_rights(double: &Double) -> std::collections::BTreeSet<(String, String, String)> {
    double.add_nodes([node("node-0", "4", "8Gi", "zone-0")]);
    double.put(
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "remora", "namespace": "remora" },
            "data": { "remora.toml": "" },
        }),
    );
    let lease = lease::Config {
        period: Duration::from_millis(50),
        ..lease::Config::new("remora", "remora-scheduler", "me")
    };
    let config_map = Some(("remora".to_owned(), "remora".to_owned()));
    let scheduler = start(double, Config { lease: Some(lease), config_map, ..Config::default() }).await;
    double.add_pods([pod("one", "1", "1Gi"), pod("large", "100", "1Gi")]);
    double.until("a binding", |double| double.bindings().len() == 1).await;
    double.until("its event", |double| !double.events("one", "Scheduled").is_empty()).await;
    scheduler.stop().await;
    double.rights()
}
