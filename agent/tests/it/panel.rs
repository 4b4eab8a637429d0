//! The Control Panel without a browser: pages, sessions, forms, and what must not get through.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use remora_agent::appcore::apps;
use remora_agent::appcore::executor::process::Processes;
use remora_agent::panel::{ACTIONS, FirstLink};
use remora_agent::service::{Clock, Config, Limits, METHODS};
use remora_agent::storage::{Options, Role, Storage};
use remora_env::Time;
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use remora_proto::v1::policy_service_client::PolicyServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use crate::access::{Guarded, NOW_MS, bearer, tester, with};
use crate::server::{Server, outcome, request, small_cluster, small_task};

/// An answer of the panel.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// What a form of this page has to bring along.
    fn csrf(&self) -> String {
        let (_, after) = self.body.split_once("name=\"csrf\" value=\"").expect("the page has a form");
        after.split('"').next().unwrap().to_owned()
    }
}

/// Somebody who looks at the panel.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { address, headers: Vec::new() }
    }

    fn with(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let told = |wanted: &str| self.headers.iter().any(|(name, _)| name == wanted);
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !told("host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if method == "POST" && !told("content-type") {
            head += "content-type: application/x-www-form-urlencoded\r\n";
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer { code: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    async fn act(&self, method: &str, fields: &[(&str, &str)]) -> Answer {
        let encoded: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        self.send("POST", &format!("/act/{method}"), &encoded.join("&")).await
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A service with applications, and nobody who has to say who they are.
pub async fn open(folder: &Path) -> (Server, Client) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config {
        storage: Some(Arc::new(Storage::open(Options::new(folder)).await.unwrap())),
        apps: Some(apps::Options::new(
            folder.join("apps"),
            Processes::supervised_by(env!("CARGO_BIN_EXE_remora")),
        )),
        clusters: vec![small_cluster()],
        http: Some(http),
        ..Config::new(by_name("greedy-completion", 0).unwrap())
    };
    (Server::start(config).await, client)
}

/// In a name as many other programs would run.
const SCRIPT: &str = "<script>alert(1)</script>";

const APP: &str = r#"
name = "shout"
about = "<script>alert(1)</script>"
[execute]
command = ["sh", "-c", "echo '<script>alert(1)</script>'; tr a-z A-Z < $REMORA_INPUT/request > $REMORA_OUTPUT/response"]
[[trigger]]
name = "daily"
run = "execute"
on.schedule = { cron = "0 7 * * *" }
"#;

async fn fill(server: &Server) -> (String, String) {
    let mut client = AppServiceClient::new(server.channel().await);
    let first = wire::RegisterAppRequest { manifest: APP.to_owned(), ..wire::RegisterAppRequest::default() };
    client.register(tokio_stream::iter([first])).await.unwrap();
    let enable = wire::CommandAppRequest {
        name: "shout".to_owned(),
        command: wire::AppCommand::Enable.into(),
        reason: SCRIPT.to_owned(),
    };
    client.command(enable).await.unwrap();
    let ask = wire::ExecuteRequest {
        app: "shout".to_owned(),
        input: b"hello".to_vec(),
        ..wire::ExecuteRequest::default()
    };
    let mut steps = client.execute(ask).await.unwrap().into_inner();
    let mut run = String::new();
    while let Some(step) = steps.next().await {
        run = step.unwrap().run.unwrap().id;
    }
    let mut placements = server.placements().await;
    let decision = placements.place(request(small_task())).await.unwrap().into_inner().decision_id;
    let failed = wire::ReportOutcomeRequest { failed: true, reason: SCRIPT.to_owned(), ..outcome(&decision) };
    placements.report_outcome(failed).await.unwrap();
    (run, decision)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_what_is_there_and_runs_nothing_that_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let (run, decision) = fill(&server).await;
    let pages = [
        ("/", "awake.executing"),
        ("/", "Saved in the last 24 hours"),
        ("/apps", "shout"),
        ("/apps/shout", "What moved it"),
        ("/runs", run.as_str()),
        (&format!("/runs/{run}"), "Read and written"),
        ("/placements", "small"),
        ("/placements/small", "desk"),
        (&format!("/placements/small/{decision}"), "What was chosen from"),
        ("/policies", "greedy-completion"),
        ("/policies/preview?policy=random", "Had it decided"),
        ("/triggers", "daily"),
        ("/audit", "remora.v1.AppService/Register"),
        ("/access", "without --auth"),
    ];
    let mut actions = BTreeSet::new();
    for (path, expected) in pages {
        let answer = client.get(path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(expected), "{path} lacks {expected:?}: {}", answer.body);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!answer.body.contains(SCRIPT), "{path} shows a script as one");
        // The policy lets nothing inline pass, so nothing inline is there.
        let scripts = answer.body.matches("<script").count();
        assert_eq!(scripts, answer.body.matches("<script src=\"assets/panel.js\"").count(), "{path}");
        assert!(!answer.body.contains(" style=") && !answer.body.contains(" onclick="), "{path}");
        assert!(
            !answer.body.contains("http://") && !answer.body.contains("https://"),
            "{path} leads elsewhere"
        );
        let forms = answer.body.split("action=\"act/").skip(1);
        actions.extend(forms.map(|form| form.split('"').next().unwrap().to_owned()));
    }
    assert!(client.get(&format!("/runs/{run}/files/response")).await.body.ends_with("HELLO"));
    // Whatever a form does is a method of a service.
    for action in ACTIONS {
        assert!(METHODS.iter().any(|method| method.path == format!("/remora.v1.{action}")), "{action}");
    }
    let known: BTreeSet<_> = ACTIONS.into_iter().map(str::to_owned).collect();
    assert!(actions.is_subset(&known), "{actions:?}");
    assert_eq!(client.get("/nowhere").await.code, 404);
    assert_eq!(client.get("/apps/nobody").await.code, 404);
    assert_eq!(client.get("/runs/nobody.1").await.code, 404);
    for asset in ["panel.css", "panel.js"] {
        assert_eq!(client.get(&format!("/assets/{asset}")).await.code, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_do_what_they_say_and_only_for_this_page() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    fill(&server).await;
    let csrf = client.get("/apps/shout").await.csrf();
    let fields = [("csrf", csrf.as_str()), ("app", "shout"), ("input", "again"), ("back", "apps/shout")];
    let done = client.act("AppService/Execute", &fields).await;
    assert_eq!(done.code, 303);
    assert!(done.header("location").unwrap().starts_with("/apps/shout?told=run%20shout.2"), "{done:?}");
    // Another site's page, a form without its word, a way to another site, a method that is no action.
    let wrong = [("csrf", "0"), ("app", "shout")];
    assert_eq!(client.act("AppService/Execute", &wrong).await.code, 403);
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        assert_eq!(client.with(name, value).act("AppService/Execute", &fields).await.code, 403);
    }
    let elsewhere = [("csrf", csrf.as_str()), ("app", "shout"), ("input", "x"), ("back", "//evil.example")];
    let done = client.act("AppService/Execute", &elsewhere).await;
    assert!(done.header("location").unwrap().starts_with("/?told="), "{done:?}");
    assert_eq!(client.act("ClusterService/Remove", &[("csrf", &csrf), ("id", "small")]).await.code, 404);
    // What the service refuses is told.
    let retire = [("csrf", csrf.as_str()), ("name", "shout"), ("command", "5"), ("reason", "")];
    let refused = client.act("AppService/Command", &retire).await;
    assert_eq!(refused.code, 400);
    assert!(refused.body.contains("reason: is empty"), "{}", refused.body);
    let alias = [("csrf", csrf.as_str()), ("alias", "shadow"), ("policy", "random"), ("reason", "to see")];
    assert_eq!(client.act("PolicyService/SetAlias", &alias).await.code, 303);
    assert!(client.get("/policies").await.body.contains("to see"));
    // A name that somebody's DNS leads here is not ours.
    assert_eq!(client.with("host", "evil.example:80").get("/").await.code, 403);
    server.stop().await;
}

/// A form with files, as browsers send it.
fn with_files(csrf: &str, files: &[(&str, &str)]) -> String {
    let field = format!("--edge\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{csrf}\r\n");
    let file = |(name, content): &(&str, &str)| {
        format!(
            "--edge\r\ncontent-disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n{content}\r\n"
        )
    };
    let files: String = files.iter().map(file).collect();
    format!("{field}{files}--edge--\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_comes_with_a_form() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let csrf = client.get("/apps").await.csrf();
    let sending = client.with("content-type", "multipart/form-data; boundary=edge");
    let send = async |files: &[(&str, &str)]| {
        sending.send("POST", "/act/AppService/Register", &with_files(&csrf, files)).await
    };
    let manifest = "name = \"told\"\nfiles = [\"told.sh\"]\n[execute]\ncommand = [\"./told.sh\"]\n";
    let script = "#!/bin/sh\necho told > $REMORA_OUTPUT/response\n";
    for (files, expected) in [
        (&[("told.sh", script)][..], "app.toml is not among them"),
        (&[("app.toml", manifest)], "told.sh was not chosen"),
        (&[("app.toml", "name = \"told\"")], "execute: is missing"),
        (&[("app.toml", manifest), ("../told.sh", script)], "is no name of a file"),
        (&[("all.tar", "nothing")], "the archive"),
    ] {
        let refused = send(files).await;
        assert_eq!(refused.code, 400, "{expected}");
        assert!(refused.body.contains(expected), "{expected}: {}", refused.body);
    }
    let done = send(&[("app.toml", manifest), ("told.sh", script)]).await;
    assert_eq!(done.code, 303, "{}", done.body);
    assert!(done.header("location").unwrap().starts_with("/apps/told?told="), "{done:?}");
    let enable = [("csrf", csrf.as_str()), ("name", "told"), ("command", "1"), ("back", "/\\evil.example")];
    let done = client.act("AppService/Command", &enable).await;
    assert!(done.header("location").unwrap().starts_with("/?told="), "{done:?}");
    // Scripts that say who runs them are programs.
    let ask = wire::ExecuteRequest { app: "told".to_owned(), ..wire::ExecuteRequest::default() };
    let mut apps = AppServiceClient::new(server.channel().await);
    let mut steps = apps.execute(ask).await.unwrap().into_inner();
    let mut answer = None;
    while let Some(step) = steps.next().await {
        answer = step.unwrap().response;
    }
    assert_eq!(answer.as_deref(), Some("told\n".as_bytes()));
    // What is too large is heard out, and refused.
    let large = "0".repeat(22 << 20);
    let refused = client.act("AppService/Notify", &[("csrf", &csrf), ("app", "told")]).await;
    assert_eq!(refused.code, 400);
    let body = with_files(&csrf, &[("large", &large)]);
    let refused = sending.send("POST", "/act/AppService/Notify", &body).await;
    assert_eq!(refused.code, 413);
    assert!(refused.body.contains("20 MiB"), "{}", refused.body);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_compressed_for_those_who_can_read_that() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let plain = client.get("/policies").await;
    assert_eq!(plain.header("content-encoding"), None);
    for refuses in ["identity", "gzip;q=0", "br"] {
        let answer = client.with("accept-encoding", refuses).get("/policies").await;
        assert_eq!(answer.header("content-encoding"), None, "{refuses}");
    }
    let small = client.with("accept-encoding", "br, gzip").get("/policies").await;
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert_eq!(small.header("vary"), Some("accept-encoding"));
    let length = |answer: &Answer| answer.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(4 * length(&small) < length(&plain), "{} of {}", length(&small), length(&plain));
    assert!(small.header("content-security-policy").is_some());
    server.stop().await;
}

pub async fn guarded(first: Option<&str>) -> (Guarded, Client) {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let first = first.map(|token| FirstLink::new(token.to_owned()));
    let guarded = Guarded::with(|config| {
        config.http = Some(http);
        config.first_link = first;
    });
    (guarded.await, client)
}

/// The cookie of somebody who signed in.
pub async fn sign_in(client: &Client, token: &str) -> Client {
    let answer = client.send("POST", "/sign-in", &format!("token={}", escaped(token))).await;
    assert_eq!(answer.code, 303, "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    for word in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    client.with("cookie", cookie.split(';').next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_signed_in_sees_and_only_who_may_acts() {
    let (guarded, client) = guarded(None).await;
    let sent = client.get("/").await;
    assert_eq!((sent.code, sent.header("location")), (303, Some("/sign-in")));
    assert!(client.get("/sign-in").await.body.contains("type=\"password\""));
    assert_eq!(client.send("POST", "/sign-in", "token=rmr_wrong_wrong").await.code, 403);
    assert_eq!(client.with("cookie", "remora_session=0123").get("/").await.code, 303);

    let (viewer, operator) = (guarded.token(Role::Viewer).await, guarded.token(Role::Operator).await);
    let admin = guarded.token(Role::Admin).await;
    let sees = sign_in(&client, &viewer.secret).await;
    let page = sees.get("/policies").await;
    assert_eq!(page.code, 200);
    assert!(!page.body.contains("act/PolicyService"), "a viewer is offered nothing to change");
    assert_eq!(sees.get("/audit").await.code, 403);
    let acts = sign_in(&client, &operator.secret).await;
    let csrf = acts.get("/policies").await.csrf();
    let fields = |csrf: &str| {
        [
            ("csrf", csrf.to_owned()),
            ("alias", "shadow".to_owned()),
            ("policy", "random".to_owned()),
            ("reason", "to see".to_owned()),
        ]
    };
    let send = async |client: &Client, csrf: &str| {
        let fields = fields(csrf);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.act("PolicyService/SetAlias", &fields).await.code
    };
    // Another's word does not help a viewer, nor does it belong to their session.
    assert_eq!(send(&sees, &csrf).await, 403);
    assert_eq!(send(&acts, &csrf).await, 303);
    let looks = sign_in(&client, &admin.secret).await;
    let audit = looks.get("/audit").await;
    assert!(audit.body.contains("alias.set") && audit.body.contains("operator"), "{}", audit.body);
    // So is what was tried in vain.
    assert!(
        audit.body.contains("PolicyService/SetAlias") && audit.body.contains("refused"),
        "{}",
        audit.body
    );
    // A token that is revoked takes its sessions along; who signs out is out.
    guarded.storage.revoke_token(&viewer.token.id, &tester()).await.unwrap();
    assert_eq!(sees.get("/").await.code, 303);
    assert_eq!(acts.send("POST", "/sign-out", "").await.code, 303);
    assert_eq!(acts.get("/").await.code, 303);
    // Guessing is slowed down.
    let mut slowed = false;
    for _ in 0..15 {
        slowed |= client.send("POST", "/sign-in", "token=rmr_guess_guess").await.code == 429;
    }
    assert!(slowed);
    guarded.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_link_signs_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(Storage::open(Options::new(folder.path())).await.unwrap());
    let token = storage.create_token("first", Role::Admin, None, &tester()).await.unwrap();
    let link = FirstLink::new(token.secret);
    let code = link.code.clone();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let config = Config {
        storage: Some(storage),
        rules: remora_agent::service::Rules { authenticate: true, ..Default::default() },
        http: Some(http),
        first_link: Some(link),
        ..Config::new(by_name("greedy-completion", 0).unwrap())
    };
    let server = Server::start(config).await;
    assert!(client.get("/sign-in?code=wrong").await.body.contains("used already"));
    let signed = client.get(&format!("/sign-in?code={code}")).await;
    let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(client.with("cookie", &cookie).get("/access").await.code, 200);
    assert!(client.get(&format!("/sign-in?code={code}")).await.body.contains("used already"));
    server.stop().await;
}

/// A button that undoes what was just done: its method and its fields.
fn undo(page: &Answer) -> (String, Vec<(String, String)>) {
    let (_, told) = page.body.split_once("<div class=\"told\"").expect("something was told");
    let (form, _) = told.split_once("</form>").expect("it can be undone");
    let (_, form) = form.split_once("action=\"act/").unwrap();
    let method = form.split('"').next().unwrap().to_owned();
    let inputs = form.split("<input type=\"hidden\" name=\"").skip(1);
    let field = |input: &str| {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        (name.to_owned(), rest.split('"').next().unwrap().to_owned())
    };
    (method, inputs.map(field).collect())
}

/// Does something, looks at where that leads, and undoes it there.
async fn do_and_undo(client: &Client, method: &str, fields: &[(&str, &str)]) -> Answer {
    let done = client.act(method, fields).await;
    assert_eq!(done.code, 303, "{method}: {}", done.body);
    let page = client.get(done.header("location").unwrap()).await;
    let (method, fields) = undo(&page);
    let reason = &fields.iter().find(|(name, _)| name == "reason").unwrap().1;
    assert!(reason.starts_with("undo of: "), "{fields:?}");
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let undone = client.act(&method, &fields).await;
    assert_eq!(undone.code, 303, "{method}: {}", undone.body);
    client.get(undone.header("location").unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_an_inverse_can_be_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let (_, decision) = fill(&server).await;
    let csrf = client.get("/policies").await.csrf();
    let csrf = ("csrf", csrf.as_str());
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let champion = async |policies: &mut PolicyServiceClient<Channel>| {
        let get = wire::GetPolicyRequest { policy: "champion".to_owned() };
        policies.get(get).await.unwrap().into_inner().id
    };
    let give =
        [csrf, ("alias", "champion"), ("policy", "random"), ("reason", "to see"), ("back", "policies")];
    do_and_undo(&client, "PolicyService/SetAlias", &give).await;
    assert_eq!(champion(&mut policies).await, "greedy-completion");
    let history = policies.history(wire::AliasHistoryRequest::default()).await.unwrap().into_inner().changes;
    assert_eq!(history[0].reason, "undo of: champion is random");
    assert_eq!((history[0].policy.as_str(), history.len()), ("greedy-completion", 2));
    let roll = [csrf, ("alias", "champion"), ("reason", "to see"), ("back", "policies")];
    do_and_undo(&client, "PolicyService/RollBack", &roll).await;
    assert_eq!(champion(&mut policies).await, "greedy-completion");
    // A role that nobody had is nobody's again.
    let shadow = [csrf, ("alias", "shadow"), ("policy", "random"), ("reason", "to see")];
    do_and_undo(&client, "PolicyService/SetAlias", &shadow).await;
    let told = policies.get(wire::GetPolicyRequest { policy: "random".to_owned() }).await.unwrap();
    assert!(told.into_inner().aliases.is_empty());
    client.act("PolicyService/SetAlias", &shadow).await;
    let nobody = [csrf, ("alias", "shadow"), ("policy", ""), ("reason", "to see")];
    let done = client.act("PolicyService/SetAlias", &nobody).await;
    assert!(done.header("location").unwrap().ends_with("told=shadow%20is%20nobody"), "{done:?}");
    let serving = async |policies: &mut PolicyServiceClient<Channel>| {
        let of = wire::GetServingRequest { cluster_id: "small".to_owned() };
        policies.get_serving(of).await.unwrap().into_inner()
    };
    let before = serving(&mut policies).await;
    let off = [csrf, ("cluster_id", "small"), ("autonomy", "1"), ("alpha", "0.1"), ("reason", "to see")];
    do_and_undo(&client, "PolicyService/SetServing", &off).await;
    assert_eq!(serving(&mut policies).await, before);
    let pause = [csrf, ("app", "shout"), ("trigger", "daily"), ("command", "2"), ("back", "triggers")];
    let page = do_and_undo(&client, "AppService/CommandTrigger", &pause).await;
    assert!(!page.body.contains("data-word=\"paused\""), "{}", page.body);
    let sleep = [csrf, ("name", "shout"), ("command", "3"), ("back", "apps/shout")];
    do_and_undo(&client, "AppService/Command", &sleep).await;
    let back = format!("placements/small/{decision}");
    let wrong =
        [csrf, ("cluster_id", "small"), ("decision_id", &decision), ("reason", SCRIPT), ("back", &back)];
    let done = client.act("PlacementService/Dispute", &wrong).await;
    let page = client.get(done.header("location").unwrap()).await;
    assert!(page.body.contains("data-word=\"disputed\"") && !page.body.contains(SCRIPT), "{}", page.body);
    assert!(client.get("/placements/small").await.body.contains("data-word=\"disputed\""));
    let page = do_and_undo(&client, "PlacementService/Dispute", &wrong).await;
    assert!(!page.body.contains("data-word=\"disputed\""), "{}", page.body);
    // Nobody else's, and nothing that a link makes up.
    let made_up = client.get("/policies?undo=PolicyService&told=done").await;
    assert!(made_up.body.contains("done") && !made_up.body.contains(">Undo<"));
    // What ends for good has no inverse.
    let retire = [csrf, ("name", "shout"), ("command", "5"), ("reason", "it was a test")];
    let done = client.act("AppService/Command", &retire).await;
    assert!(!done.header("location").unwrap().contains("undo="), "{done:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_previewed() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let nothing = client.get("/policies/preview?policy=random").await;
    assert!(nothing.body.contains("no decision about cluster"), "{}", nothing.body);
    let mut placements = server.placements().await;
    for _ in 0..20 {
        placements.place(request(small_task())).await.unwrap();
    }
    assert!(client.get("/policies").await.body.contains("policies/preview?policy=kube-default"));
    let page = client.get("/policies/preview?policy=random&cluster=small&last=15").await;
    assert_eq!(page.code, 200, "{}", page.body);
    for told in ["of 15 (", "All of them were rebuilt exactly.", "Node now", "act/PolicyService/SetAlias"] {
        assert!(page.body.contains(told), "no {told:?} in {}", page.body);
    }
    assert!(page.body.contains("random"));
    let same = client.get("/policies/preview?policy=champion&last=15").await;
    assert!(same.body.contains("0 of 15 (0 %)"), "{}", same.body);
    // What the service refuses has the code of its refusal, on pages and forms alike.
    assert_eq!(client.get("/policies/preview?policy=nobody").await.code, 404);
    assert_eq!(client.get("/policies/preview?policy=random&last=0").await.code, 400);
    let overview = client.get("/").await.body;
    assert!(overview.contains("Expected at the moment of each decision, not measured"), "{overview}");
    let csrf = client.get("/policies").await.csrf();
    let late = [
        ("csrf", csrf.as_str()),
        ("alias", "champion"),
        ("policy", "skippy"),
        ("expected", "random"),
        ("reason", "x"),
    ];
    assert_eq!(client.act("PolicyService/SetAlias", &late).await.code, 409);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_called_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = open(folder.path()).await;
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let piece = wire::UploadPolicyRequest {
        evaluation: None,
        name: "mine".to_owned(),
        note: String::new(),
        chunk: remora_policies::Checkpoint::pretrained().unwrap().to_bytes(),
    };
    let id = policies.upload(tokio_stream::iter([piece])).await.unwrap().into_inner().id;
    let alias = wire::SetAliasRequest {
        alias: "champion".to_owned(),
        policy: id.clone(),
        reason: "to see".to_owned(),
        expected: None,
    };
    policies.set_alias(alias).await.unwrap();
    let placed = server.placements().await.place(request(small_task())).await.unwrap().into_inner();
    for path in ["/placements/small", &format!("/placements/small/{}", placed.decision_id), "/policies"] {
        let page = client.get(path).await.body;
        let told = format!("<span title=\"{id}\">mine</span> <code class=\"faint\">{}</code>", &id[..8]);
        assert!(page.contains(&told), "{path} lacks {told}: {page}");
        assert!(page.contains("data-word=\"champion\""), "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_run_applications_and_do_not_say_who_decides() {
    let folder = tempfile::tempdir().unwrap();
    let options = apps::Options::new(
        folder.path().join("apps"),
        Processes::supervised_by(env!("CARGO_BIN_EXE_remora")),
    );
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let guarded = Guarded::with(|config| (config.http, config.apps) = (Some(http), Some(options))).await;
    let author = guarded.token(Role::Author).await;
    let mut channel = AppServiceClient::new(guarded.server.channel().await);
    let register = |manifest: &str| {
        let manifest = manifest.to_owned();
        let first = wire::RegisterAppRequest { manifest, ..wire::RegisterAppRequest::default() };
        with(tokio_stream::iter([first]), &bearer(&author))
    };
    channel.register(register(APP)).await.unwrap();
    // Its gate would say who places tasks.
    let own = remora_agent::appcore::own::manifest(None, None, Some(1)).unwrap();
    let status = channel.register(register(&toml::to_string(&own).unwrap())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(status.message(), "remora-policy places tasks: only operators register it");
    let page = sign_in(&client, &author.secret).await;
    let body = page.get("/apps/shout").await.body;
    assert!(body.contains("act/AppService/Command") && !body.contains("act/AppService/SetVersionAlias"));
    assert!(!page.get("/policies").await.body.contains("act/PolicyService"));
    let csrf = page.get("/apps/shout").await.csrf();
    let enable = [("csrf", csrf.as_str()), ("name", "shout"), ("command", "1")];
    assert_eq!(page.act("AppService/Command", &enable).await.code, 303);
    let promote = [("csrf", csrf.as_str()), ("app", "shout"), ("alias", "champion"), ("version", "1")];
    assert_eq!(page.act("AppService/SetVersionAlias", &promote).await.code, 403);
    let alias = [("csrf", csrf.as_str()), ("alias", "shadow"), ("policy", "random"), ("reason", "to see")];
    assert_eq!(page.act("PolicyService/SetAlias", &alias).await.code, 403);
    guarded.stop().await;
}

/// Waits until a page is there again.
async fn comes_back(client: &Client) {
    for _ in 0..600 {
        if client.get("/policies").await.code == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_asks_for_no_more_than_other_callers() {
    let caller_per_second = NonZeroU32::new(20).unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(http.local_addr().unwrap());
    let guarded = Guarded::with(|config| {
        config.http = Some(http);
        config.limits = Limits { caller_per_second, caller_in_flight: 2, ..Limits::default() };
    })
    .await;
    let (viewer, admin) = (guarded.token(Role::Viewer).await, guarded.token(Role::Admin).await);
    let (viewer, admin) = (sign_in(&client, &viewer.secret).await, sign_in(&client, &admin.secret).await);
    let mut refused = None;
    for _ in 0..10_000 {
        let answer = viewer.get("/policies").await;
        if answer.code != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("so many a second are more than twenty");
    assert_eq!(refused.code, 429, "{}", refused.body);
    assert!(refused.body.contains("one caller may send 20 requests per second"), "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Which is nobody else's trouble, and passes.
    assert_eq!(admin.get("/policies").await.code, 200);
    comes_back(&viewer).await;

    // Somebody who listens has a request under way for as long as they do.
    let listens = async || {
        let mut stream = TcpStream::connect(viewer.address).await.unwrap();
        let cookie = &viewer.headers[0].1;
        let head = format!("GET /live HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", viewer.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut code = [0; 12];
        stream.read_exact(&mut code).await.unwrap();
        (String::from_utf8_lossy(&code).into_owned(), stream)
    };
    let mut streams = Vec::new();
    while streams.len() < 2 {
        let (told, stream) = listens().await;
        // The rate may not have come back whole.
        match told.as_str() {
            "HTTP/1.1 200" => streams.push(stream),
            "HTTP/1.1 429" => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}"),
        }
    }
    let refused = async || {
        let answer = viewer.get("/policies").await;
        (answer.code, answer.body)
    };
    let (code, body) = refused().await;
    assert_eq!(code, 429, "{body}");
    drop(streams);
    comes_back(&viewer).await;
    guarded.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end() {
    const HOUR: u64 = 3_600_000_000_000;
    let now = Arc::new(AtomicU64::new(NOW_MS as u64 * 1_000_000));
    let (told, http) = (now.clone(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let client = Client::new(http.local_addr().unwrap());
    let guarded = Guarded::with(|config| {
        config.http = Some(http);
        config.clock = Clock::new(move || Time(told.load(Ordering::SeqCst)));
    })
    .await;
    let viewer = guarded.token(Role::Viewer).await;
    let pass = |hours: f64| now.fetch_add((hours * HOUR as f64) as u64, Ordering::SeqCst);
    // Two hours without a request.
    let sees = sign_in(&client, &viewer.secret).await;
    pass(1.9);
    assert_eq!(sees.get("/").await.code, 200);
    pass(2.1);
    assert_eq!(sees.get("/").await.code, 303);
    // Twelve in all.
    let sees = sign_in(&client, &viewer.secret).await;
    for _ in 0..8 {
        pass(1.4);
        assert_eq!(sees.get("/").await.code, 200);
    }
    pass(1.4);
    assert_eq!(sees.get("/").await.code, 303);
    assert_eq!(sees.get("/live").await.code, 204);
    guarded.stop().await;
}
