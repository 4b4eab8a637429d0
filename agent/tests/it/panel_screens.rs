//! Screens of the Control Panel beyond its core: training runs, data and archive, settings, the map of clusters.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use remora_agent::commands::quickstart::application;
use remora_agent::service::Config;
use remora_agent::storage::Role;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::admin_service_client::AdminServiceClient;
use remora_proto::v1::app_service_client::AppServiceClient;
use remora_proto::v1::training_service_client::TrainingServiceClient;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::access::{Guarded, bearer, with};
use crate::evaluated::says;
use crate::panel::{Answer, Client, guarded, open, sign_in};
use crate::server::{Server, outcome, request, small_cluster, small_task};

/// A line of metrics as a trainer writes it.
fn line(iteration: u64, cost: Option<f64>) -> String {
    let validation = cost.map_or_else(String::new, |cost| {
        format!(r#","validation":{{"cost":{cost},"by_alpha":[{cost},{cost},{cost},{cost},0.5]}}"#)
    });
    format!(
        r#"{{"iteration":{iteration},"phase":"improve","decisions":{},"exploring_cost":1.25,"policy_loss":-0.5,"entropy":0.7,"kl":0.01,"clip_fraction":0.1,"gradient_norm":1.0{validation}}}"#,
        iteration * 100
    ) + "\n"
}

/// A folder as of a run, with these metrics and this status.
fn run_folder(folder: &Path, metrics: &str, status: Option<&str>) {
    std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
    std::fs::write(folder.join("config.toml"), "seed = 7\nscenarios = [\"urban-sensing\"]\n").unwrap();
    std::fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
    if let Some(state) = status {
        let text = format!(
            r#"{{"state":"{state}","reason":"","at_ms":1,"iteration":2,"progress":0.25,"decisions_per_s":1234.0,"left_s":600.0}}"#
        );
        std::fs::write(folder.join("status.json"), text).unwrap();
    }
}

/// A service that shows the runs below a folder, which a TensorBoard shows too, or not.
async fn showing(runs: &Path, tensorboard: &str) -> (Server, Client) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config {
        http: Some(http),
        runs: vec![runs.to_owned()],
        tensorboard: tensorboard.to_owned(),
        clusters: vec![small_cluster()],
        ..Config::new(by_name("greedy-completion", 0).unwrap())
    };
    (Server::start(config).await, client)
}

async fn training(server: &Server) -> TrainingServiceClient<tonic::transport::Channel> {
    TrainingServiceClient::new(server.channel().await)
}

async fn listed(server: &Server) -> Vec<wire::TrainingRun> {
    let request = wire::ListTrainingRunsRequest::default();
    training(server).await.list_runs(request).await.unwrap().into_inner().runs
}

#[tokio::test(flavor = "multi_thread")]
async fn training_runs_are_told_as_they_are_whatever_their_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let metrics: String = (1..=1200).map(|at| line(at, (at % 10 == 0).then_some(0.9))).collect();
    run_folder(&runs.join("long"), &metrics, Some("ended"));
    run_folder(&runs.join("deep/er"), &line(1, None), Some("running"));
    run_folder(&runs.join("old"), "", None);
    let damaged =
        format!("{}{{\"iteration\":\n\0\u{fffd}garbage\n{}{{\"half", line(1, Some(1.5)), line(2, None));
    run_folder(&runs.join("damaged"), &damaged, Some("failed"));
    std::fs::write(runs.join("damaged/config.toml"), "= no TOML").unwrap();
    std::fs::write(runs.join("damaged/evaluation.json"), "{").unwrap();
    // A trainer at work holds the lock of its folder.
    run_folder(&runs.join("live"), &line(1, Some(1.1)), Some("running"));
    let lock = std::fs::File::create(runs.join("live/lock")).unwrap();
    lock.lock().unwrap();
    let (server, client) = showing(&runs, "").await;

    let all = listed(&server).await;
    let told: Vec<_> = all.iter().map(|run| (run.id.as_str(), run.status.as_str())).collect();
    assert_eq!(told[0], ("runs/live", "running"));
    for expected in [
        ("runs/long", "ended"),
        ("runs/deep/er", "stopped"),
        ("runs/old", "stopped"),
        ("runs/damaged", "failed"),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    let of = |id: &str| all.iter().find(|run| run.id == id).unwrap();
    assert_eq!((of("runs/live").left_s, of("runs/live").decisions_per_s), (Some(600.0), Some(1234.0)));
    assert_eq!(of("runs/long").left_s, None);
    assert_eq!((of("runs/long").seed, of("runs/long").best_cost), (7, Some(0.9)));
    assert_eq!((of("runs/damaged").damaged_lines, of("runs/damaged").best_cost), (2, Some(1.5)));
    assert_eq!(of("runs/damaged").reason, "config.toml is damaged");

    // At most so many points, and the last is the last iteration.
    let request = wire::GetTrainingRunRequest { id: "runs/long".to_owned(), points: None };
    let got = training(&server).await.get_run(request).await.unwrap().into_inner();
    assert_eq!((got.curve.len(), got.iterations_per_point), (400, 3));
    let last = got.curve.last().unwrap();
    assert_eq!((last.iteration, last.cost, last.by_alpha.len()), (1200, Some(0.9), 5));
    assert!((last.exploring_cost - 1.25).abs() < 1e-12);

    for (path, expected) in [
        ("/training", "tensorboard --logdir"),
        ("/training?q=deep", "runs/deep/er"),
        ("/training?q=nothing-of-the-kind", "No run is called so"),
        ("/training/runs/long", "<svg"),
        ("/training/runs/live", "10 min left"),
        ("/training/runs/damaged", "2 lines of metrics.jsonl are damaged"),
        ("/training/runs/old", "It has not ended an iteration yet"),
    ] {
        let page = client.get(path).await;
        assert_eq!(page.code, 200, "{path}: {}", page.body);
        assert!(page.body.contains(expected), "{path} lacks {expected:?}: {}", page.body);
        nothing_inline(path, &page);
    }
    // A chart says in words what it shows, and is there as numbers.
    let page = client.get("/training/runs/long").await.body;
    assert!(page.contains("all α 0.900 at iteration 1200") && page.contains("The curves as numbers"));
    // What is written meanwhile shows at once.
    std::fs::write(runs.join("live/metrics.jsonl"), line(1, Some(1.1)) + &line(2, Some(0.8))).unwrap();
    assert!(client.get("/training/runs/live").await.body.contains("0.800"));
    drop(lock);
    assert!(listed(&server).await.iter().all(|run| run.status != "running"));
    server.stop().await;
}

fn nothing_inline(path: &str, page: &Answer) {
    assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "{path}");
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{path} leads elsewhere");
    assert_eq!(page.body.matches("<script").count(), 1, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_leads_out_of_the_folder_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    run_folder(&runs.join("first"), &line(1, None), None);
    run_folder(&folder.path().join("outside"), &line(1, None), None);
    std::fs::write(folder.path().join("secret"), "do not tell").unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside"), runs.join("linked")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), runs.join("first/report.html")).unwrap();
    let (server, client) = showing(&runs, "").await;
    let ids: Vec<_> = listed(&server).await.into_iter().map(|run| run.id).collect();
    assert_eq!(ids, ["runs/first"]);

    let mut training = training(&server).await;
    let mut get = async |id: &str, name: &str| {
        let request = wire::GetTrainingFileRequest { id: id.to_owned(), name: name.to_owned() };
        let mut pieces = training.get_file(request).await?.into_inner();
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            whole.extend(piece?.chunk);
        }
        Ok::<_, tonic::Status>(String::from_utf8(whole).unwrap())
    };
    assert!(get("runs/first", "config.toml").await.unwrap().starts_with("seed = 7"));
    let cases = [
        ("runs/first", "../../secret", Code::InvalidArgument),
        ("runs/first", "status.json", Code::InvalidArgument),
        ("runs/first", "report.html", Code::NotFound),
        ("runs/../outside", "config.toml", Code::NotFound),
        ("runs/linked", "config.toml", Code::NotFound),
        ("", "config.toml", Code::NotFound),
    ];
    for (id, name, code) in cases {
        assert_eq!(get(id, name).await.unwrap_err().code(), code, "{id} {name}");
    }
    for path in [
        "/training/runs/../../outside",
        "/training/runs/%2e%2e/outside",
        "/training/runs/first/files/%2e%2e%2f%2e%2e%2fsecret",
    ] {
        let answer = client.get(path).await;
        assert!(matches!(answer.code, 400 | 404), "{path}: {}", answer.code);
        assert!(!answer.body.contains("do not tell"), "{path}");
    }
    let file = client.get("/training/runs/first/files/metrics.jsonl").await;
    assert_eq!(
        (file.code, file.header("content-disposition")),
        (200, Some("attachment; filename=\"metrics.jsonl\""))
    );
    server.stop().await;

    // A service that was told of no folder says so.
    let server = Server::with_small_cluster().await;
    let status = TrainingServiceClient::new(server.channel().await)
        .list_runs(wire::ListTrainingRunsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("--runs FOLDER"), "{}", status.message());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_shows_links_at_work_nodes_and_where_things_are() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let before = client.get("/").await.body;
    assert!(before.contains("clusters/small/nodes/desk"), "{before}");
    // What is placed pulls its image over the link of its node.
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let links = until(&client, "/clusters/small/links", |page| page.contains("wire some")).await;
    assert!(links.contains("registry"), "{links}");
    let node = until(&client, "/clusters/small/nodes/desk", |page| page.contains(&placed.decision_id)).await;
    for expected in ["What it is fetching", "layer", "video", "for good", "why here"] {
        assert!(node.contains(expected), "{expected}: {node}");
    }
    let live = wire::GetClusterRequest { id: "small".to_owned(), live: true };
    let facts = server.clusters().await.get(live).await.unwrap().into_inner().facts.unwrap();
    assert!(facts.links.iter().any(|link| link.up_transfers + link.down_transfers > 0), "{facts:?}");
    let still = wire::GetClusterRequest { id: "small".to_owned(), live: false };
    let facts = server.clusters().await.get(still).await.unwrap().into_inner().facts.unwrap();
    assert!(facts.links.is_empty(), "what follows from decisions is no part of a registration");

    server.placements().await.report_outcome(outcome(&placed.decision_id)).await.unwrap();
    let pulled = |page: &str| {
        let row = page.split("</tr>").find(|row| row.contains("<td>vision</td>"));
        row.is_some_and(|row| row.contains("nodes/desk"))
    };
    let data = until(&client, "/data/small", pulled).await;
    for expected in ["video", "labels", "vision", "(home)"] {
        assert!(data.contains(expected), "{expected}: {data}");
    }
    assert!(client.get("/data").await.body.contains("data/small"));
    let found = client.get("/clusters/small?q=rpi").await.body;
    assert!(found.contains("board") && !found.contains("nodes/cloud"), "{found}");
    assert_eq!(client.get("/clusters/nobody").await.code, 404);
    assert_eq!(client.get("/clusters/small/nodes/nobody").await.code, 404);
    assert_eq!(client.get("/data/small?page=99999999999999999999").await.code, 200);
    for path in [
        "/",
        "/clusters/small",
        "/clusters/small/links",
        "/clusters/small/nodes/desk",
        "/data",
        "/data/small",
    ] {
        nothing_inline(path, &client.get(path).await);
    }
    server.stop().await;
}

/// A page, once it says what is waited for.
async fn until(client: &Client, path: &str, there: impl Fn(&str) -> bool) -> String {
    for _ in 0..480 {
        let page = client.get(path).await;
        if page.code == 200 && there(&page.body) {
            return page.body;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{path} never says it: {}", client.get(path).await.body)
}

const COPY: &str = r#"
name = "copy"
[execute]
command = ["sh", "-c", "cat $REMORA_INPUT/request > $REMORA_OUTPUT/response"]
[keep]
runs = 12
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_tells_what_is_kept_and_gives_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let empty = client.get("/archive").await.body;
    assert!(empty.contains("Nothing is kept here"), "{empty}");
    let mut apps = AppServiceClient::new(server.channel().await);
    let first = wire::RegisterAppRequest { manifest: COPY.to_owned(), ..wire::RegisterAppRequest::default() };
    apps.register(tokio_stream::iter([first])).await.unwrap();
    let command = wire::AppCommand::Enable.into();
    apps.command(wire::CommandAppRequest { name: "copy".to_owned(), command, reason: String::new() })
        .await
        .unwrap();
    for _ in 0..2 {
        let input = b"hello".to_vec();
        let ask = wire::ExecuteRequest { app: "copy".to_owned(), input, ..wire::ExecuteRequest::default() };
        let mut steps = apps.execute(ask).await.unwrap().into_inner();
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
    }
    // What both runs read and wrote is the same five bytes, which are kept once.
    let runs = apps.list_runs(wire::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    let all: Vec<_> = runs.iter().flat_map(|run| run.inputs.iter().chain(&run.outputs)).collect();
    let contents: BTreeMap<_, _> = all.iter().map(|it| (it.hash.clone(), it.bytes)).collect();
    let archive = apps.archive(wire::ArchiveRequest {}).await.unwrap().into_inner();
    assert_eq!((archive.files, archive.bytes), (contents.len() as i64, 5), "{archive:?}");
    let of = &archive.apps[0];
    let expected = ("copy", 2, all.len() as i64, 20);
    assert_eq!((of.app.as_str(), of.runs, of.artifacts, of.bytes), expected);
    assert_eq!((of.keep_runs, of.keep_days), (Some(12), None));
    let page = client.get("/archive").await.body;
    for expected in ["runs/copy.2/files/response", "the last 12 runs", "2cf24dba5fb0a30e"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(!client.get("/archive?q=nobody").await.body.contains("copy.2"));
    let bundle = client.get("/runs/copy.1/export").await;
    assert_eq!((bundle.code, bundle.header("content-type")), (200, Some("application/x-tar")));
    for file in ["run.json", "SHA256SUMS", "output/response"] {
        assert!(bundle.body.contains(file), "{file}");
    }
    assert_eq!(client.get("/runs/nobody.1/export").await.code, 404);
    nothing_inline("/archive", &client.get("/archive").await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_for_administrators_and_tell_no_secret() {
    let (guarded, client) = guarded(None).await;
    let (viewer, admin) = (guarded.token(Role::Viewer).await, guarded.token(Role::Admin).await);
    assert_eq!(sign_in(&client, &viewer.secret).await.get("/settings").await.code, 403);
    let looks = sign_in(&client, &admin.secret).await;
    let page = looks.get("/settings").await;
    assert_eq!(page.code, 200, "{}", page.body);
    for expected in [
        "--listen",
        "--auth",
        "everybody says who they are",
        "SQLite in the data folder",
        "small (3 nodes)",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(page.body.contains(expected), "{expected}: {}", page.body);
    }
    for token in [&viewer, &admin] {
        assert!(!page.body.contains(token.secret.rsplit('_').next().unwrap()));
    }
    assert!(looks.get("/").await.body.contains("href=\"settings\""));
    assert!(!sign_in(&client, &viewer.secret).await.get("/").await.body.contains("href=\"settings\""));
    let mut client = AdminServiceClient::new(guarded.server.channel().await);
    let refused = client.settings(with(wire::SettingsRequest {}, &bearer(&viewer))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let told = client.settings(with(wire::SettingsRequest {}, &bearer(&admin))).await.unwrap().into_inner();
    let value = |by: &str| told.settings.iter().find(|setting| setting.by == by).map(|it| it.value.as_str());
    assert_eq!(value("--policy"), Some("greedy-completion"));
    assert_eq!(value("--max-in-flight"), Some("10000"));
    assert_eq!(value("--tls-cert"), Some("off"));
    Guarded::stop(guarded).await;
}

/// However many look, a cluster is asked for once per change, and once a second at most.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_look_ask_for_a_cluster_once() {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config {
        clusters: vec![small_cluster()],
        http: Some(http),
        ..Config::new(by_name("greedy-completion", 0).unwrap())
    };
    let server = Server::start(config).await;
    let began = std::time::Instant::now();
    let looks: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.get("/").await }
            })
        })
        .collect();
    for look in looks {
        assert!(look.await.unwrap().body.contains("clusters/small/nodes/desk"));
    }
    let metrics = client.get("/metrics").await.body;
    let asked = metrics.lines().find_map(|line| line.strip_prefix("remora_panel_clusters_read_total "));
    let asked: u64 = asked.expect("it is counted").parse().unwrap();
    // Nothing changed, so one is enough; a slow machine may see seconds pass.
    assert!(asked >= 1 && asked <= 1 + began.elapsed().as_secs() / 30, "{asked} in {:?}", began.elapsed());
    server.stop().await;
}

/// A thousand nodes at forty sites, one of them large.
fn large_cluster() -> wire::RegisterClusterRequest {
    let mut request = small_cluster();
    let cluster = request.cluster.as_mut().unwrap();
    let (node, link) = (cluster.nodes[0].clone(), cluster.links[0].clone());
    for site in 0..40 {
        cluster.switches.push(format!("site-{site}"));
        let uplink = wire::Link { outer: format!("site-{site}"), wan: true, ..link.clone() };
        cluster.links.push(uplink);
        for place in 0..if site == 0 { 220 } else { 20 } {
            let name = format!("node-{site}-{place}");
            cluster.nodes.push(wire::Node { name: name.clone(), ..node.clone() });
            cluster.links.push(wire::Link { outer: name, inner: format!("site-{site}"), ..link.clone() });
        }
    }
    request
}

/// What a viewer costs is printed; what is asserted is that it is no question to the owner of the clusters.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_nodes_stay_quick_for_many_viewers() {
    const VIEWERS: usize = 40;
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config {
        clusters: vec![large_cluster()],
        http: Some(http),
        ..Config::new(by_name("least-loaded", 0).unwrap())
    };
    let server = Server::start(config).await;
    let first = client.get("/").await.body;
    let squares = first.matches("class=\"node ").count();
    // The large site is drawn as shares.
    assert!(first.contains("220 idle") && (700..900).contains(&squares), "{squares}");
    eprintln!("the overview of {} nodes has {} kB", 1000, first.len() / 1000);
    let (began, used) = (std::time::Instant::now(), cpu_time::ProcessTime::now());
    let mut looks = 0;
    while began.elapsed() < Duration::from_secs(3) {
        server.placements().await.place(request(small_task())).await.unwrap();
        let all: Vec<_> = (0..VIEWERS)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.get("/").await })
            })
            .collect();
        for look in all {
            assert_eq!(look.await.unwrap().code, 200);
            looks += 1;
        }
    }
    let each = used.elapsed().as_secs_f64() / f64::from(looks);
    eprintln!(
        "{looks} looks at a cluster that changes, {:.2} ms of CPU each, client included",
        1000.0 * each
    );
    let metrics = client.get("/metrics").await.body;
    let asked = metrics.lines().find_map(|line| line.strip_prefix("remora_panel_clusters_read_total "));
    let asked: u64 = asked.expect("it is counted").parse().unwrap();
    assert!(asked <= 2 + began.elapsed().as_secs(), "{asked} in {:?}", began.elapsed());
    let page = client.get("/clusters/small?q=site-0").await.body;
    assert!(page.contains("Page 1 of 3") && page.contains("node-0-7"), "{page}");
    server.stop().await;
}

/// What quickstart adds to its service: data comes, the example learns from it and its first version is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn the_applications_of_quickstart_come_alive() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let playing = tokio::spawn(application::play(server.address, 0));
    let page =
        until(&client, "/apps/sensor-anomaly", |page| page.contains("passed") || playing.is_finished()).await;
    assert!(!playing.is_finished(), "{:?}: {page}", playing.await);
    for expected in ["champion", "sensor-anomaly.1", "new-data"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(client.get("/apps/remora-policy").await.body.contains("nightly"));
    assert!(client.get("/triggers").await.body.contains("remora-policy"));
    playing.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn training_leads_to_a_tensorboard_that_the_service_was_told_of() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(&folder.path().join("first"), &line(1, None), None);
    let (server, client) = showing(folder.path(), "https://boards.example/edge?a=\"b").await;
    let run = &listed(&server).await[0].id;
    for path in ["/training", &format!("/training/{run}")] {
        let page = client.get(path).await.body;
        assert!(
            page.contains("href=\"https://boards.example/edge?a=&quot;b\" rel=\"noreferrer\""),
            "{path}: {page}"
        );
        assert!(!page.contains("--logdir"), "{path}: {page}");
    }
    server.stop().await;
}

const SPEAKS: &str = r#"
name = "NAME"
[parameters]
loud = LOUD
[execute]
command = ["sh", "-c", "cat $REMORA_INPUT/request > $REMORA_OUTPUT/said; test $(cat $REMORA_INPUT/request) != wrong"]
awake = { idle_s = 1000 }
[[trigger]]
name = "first"
run = "execute"
on.schedule = { cron = "0 7 1 1 *" }
[[trigger]]
name = "soon"
run = "execute"
on.schedule = { cron = "* * * * *" }
[[trigger]]
name = "by-hand"
run = "execute"
on.manual = {}
"#;

async fn register(apps: &mut AppServiceClient<tonic::transport::Channel>, name: &str, loud: &str) {
    let manifest = SPEAKS.replace("NAME", name).replace("LOUD", loud);
    let first = wire::RegisterAppRequest { manifest, ..wire::RegisterAppRequest::default() };
    apps.register(tokio_stream::iter([first])).await.unwrap();
}

async fn ask(apps: &mut AppServiceClient<tonic::transport::Channel>, app: &str, input: &str) -> String {
    let (app, input) = (app.to_owned(), input.as_bytes().to_vec());
    let request = wire::ExecuteRequest { app, input, ..wire::ExecuteRequest::default() };
    let mut steps = apps.execute(request).await.unwrap().into_inner();
    let mut run = String::new();
    while let Some(step) = steps.next().await {
        run = step.unwrap().run.unwrap().id;
    }
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_found_wherever_they_are_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let mut apps = AppServiceClient::new(server.channel().await);
    register(&mut apps, "speaks", "1").await;
    let enable = |name: &str| wire::CommandAppRequest {
        name: name.to_owned(),
        command: wire::AppCommand::Enable.into(),
        reason: String::new(),
    };
    apps.command(enable("speaks")).await.unwrap();
    let (first, wrong) = (ask(&mut apps, "speaks", "hello").await, ask(&mut apps, "speaks", "wrong").await);
    // A new definition is a new version, with other parameters.
    register(&mut apps, "speaks", "2").await;
    let versions = wire::ListVersionsRequest { app: "speaks".to_owned(), limit: None, number: None };
    let versions = apps.list_versions(versions).await.unwrap().into_inner().versions;
    let newest = versions.iter().map(|version| version.number).max();
    let promote = wire::SetVersionAliasRequest {
        app: "speaks".to_owned(),
        alias: "champion".to_owned(),
        version: newest,
        reason: "it is newer".to_owned(),
    };
    apps.set_version_alias(promote).await.unwrap();
    let again = ask(&mut apps, "speaks", "hello").await;

    // Far more runs than fit a page, and those wanted are the oldest of them.
    let mut found = async |matching: &str, limit: i64| -> Vec<String> {
        let request = wire::ListRunsRequest {
            matching: matching.to_owned(),
            limit: Some(limit),
            ..wire::ListRunsRequest::default()
        };
        let runs = apps.list_runs(request).await.unwrap().into_inner().runs;
        runs.into_iter().map(|run| run.id).collect()
    };
    assert_eq!(found("FAILED", 1).await, [&*wrong]);
    assert_eq!(found("speaks.1", 100).await, [&*first]);
    assert_eq!(found("SAID", 1).await, [&*again]);
    // SHA-256 of hello, which two of them read and wrote.
    assert_eq!(found("2CF24DBA5FB0A30E", 100).await, [&*again, &*first]);
    // Nobody's, though it is the name of a field, and signs that databases give a meaning.
    for nobody in ["queued_ms", "%", "_", "'", "\"", "\\", "{"] {
        assert!(found(nobody, 100).await.is_empty(), "{nobody}");
    }
    let page = client.get("/runs?q=FAILED").await.body;
    assert!(page.contains(&wrong) && !page.contains(&format!("runs/{first}\"")), "{page}");
    assert!(client.get("/runs?q=nothing-of-the-kind").await.body.contains("No run mentions that"));
    let page = client.get("/archive?q=2cf24dba5f").await.body;
    assert!(page.contains(&format!("runs/{first}/files/said")), "{page}");
    assert!(!page.contains(&format!("runs/{wrong}/files/")), "{page}");
    assert!(client.get("/archive?app=speaks&q=hello-nobody").await.body.contains("archive?app=speaks"));

    // Beside the run before unless another is named.
    let page = client.get(&format!("/runs/{wrong}/compare")).await.body;
    for expected in
        ["What came of them", "<td>status</td><td>succeeded</td><td>failed</td>", "read request", &first]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let page = client.get(&format!("/runs/{again}/compare?with={first}")).await.body;
    for expected in
        ["The same came of both", "<td>parameter loud</td><td>1</td><td>2</td>", "data-word=\"differs\""]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(
        client.get(&format!("/runs/{first}/compare")).await.body.contains("There is no run of this kind")
    );
    assert_eq!(client.get(&format!("/runs/{first}/compare?with=nobody.1")).await.code, 404);
    nothing_inline("compare", &client.get(&format!("/runs/{again}/compare")).await);

    let server_address = server.address.to_string();
    let said = says(&["app", "diff", &first, &wrong, "--server", &server_address]).await;
    assert!(said.contains("status") && said.contains("read request") && !said.contains("kind"), "{said}");
    let said = says(&["app", "runs", "--matching", "failed", "--server", &server_address]).await;
    assert!(said.contains(&wrong) && !said.contains(&again), "{said}");
    let said = says(&["app", "archive", "--server", &server_address]).await;
    assert!(said.contains("speaks") && said.contains("all of it"), "{said}");
    let said = says(&["settings", "--server", &server_address]).await;
    assert!(said.contains("--http-prefix"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_come_in_pages_those_first_that_fire_next() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let mut apps = AppServiceClient::new(server.channel().await);
    for name in ["one", "two"] {
        register(&mut apps, name, "1").await;
        let command = wire::AppCommand::Enable.into();
        let enable = wire::CommandAppRequest { name: name.to_owned(), command, reason: String::new() };
        apps.command(enable).await.unwrap();
    }
    let mut listed = async |request: wire::ListTriggersRequest| {
        let answer = apps.list_triggers(request).await?.into_inner();
        let named = |trigger: &wire::Trigger| format!("{}/{}", trigger.app, trigger.name);
        Ok::<_, tonic::Status>((answer.triggers.iter().map(named).collect::<Vec<_>>(), answer.total))
    };
    let all = ["one/soon", "two/soon", "one/first", "two/first", "one/by-hand", "two/by-hand"];
    assert_eq!(
        listed(wire::ListTriggersRequest::default()).await.unwrap(),
        (all.map(str::to_owned).to_vec(), 6)
    );
    let page = |skip, most, matching: &str| wire::ListTriggersRequest {
        skip,
        most: Some(most),
        matching: matching.to_owned(),
        ..wire::ListTriggersRequest::default()
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(listed(page(2, 3, "")).await.unwrap(), (names(&all[2..5]), 6));
    assert_eq!(listed(page(6, 3, "")).await.unwrap(), (Vec::new(), 6));
    assert_eq!(
        listed(page(0, 3, "TWO")).await.unwrap(),
        (names(&["two/soon", "two/first", "two/by-hand"]), 3)
    );
    assert_eq!(listed(page(1, 1, "hand")).await.unwrap(), (names(&["two/by-hand"]), 2));
    let of_one = wire::ListTriggersRequest { app: "one".to_owned(), ..page(0, 1, "") };
    assert_eq!(listed(of_one).await.unwrap(), (names(&["one/soon"]), 3));
    for (wrong, told) in [(page(-1, 1, ""), "skip: is -1"), (page(0, 0, ""), "most: is 0")] {
        let status = listed(wrong).await.unwrap_err();
        assert!(status.message().contains(told), "{told}: {}", status.message());
    }
    let page = client.get("/triggers?q=two").await.body;
    assert!(page.contains("apps/two") && !page.contains("value=\"one\""), "{page}");
    assert!(client.get("/triggers?q=nobody").await.body.contains("No trigger is called so"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_disputed_with_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    let address = server.address.to_string();
    let mut dispute = vec!["dispute", "--cluster", "small", "--decision", &placed.decision_id];
    dispute.extend(["--reason", "it stands in the sun", "--server", &address]);
    let id = &placed.decision_id;
    assert_eq!(says(&dispute).await, format!("decision {id} is disputed\n"));
    assert!(client.get("/placements/small").await.body.contains("it stands in the sun"));
    dispute.push("--withdraw");
    assert_eq!(says(&dispute).await, format!("decision {id} is not disputed any more\n"));
    server.stop().await;
}
