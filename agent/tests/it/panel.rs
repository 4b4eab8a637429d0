//! The Control Panel without a browser: pages, sessions, forms, and what must not get through.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use remora_agent::appcore::apps;
use remora_agent::appcore::executor::process::Processes;
use remora_agent::panel::{ACTIONS, FirstLink};
use remora_agent::service::{Config, METHODS};
use remora_agent::storage::{Options, Role, Storage};
use remora_policies::by_name;
use remora_proto::v1 as wire;
use remora_proto::v1::app_service_client::AppServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;

use crate::access::{Guarded, tester};
use crate::server::{Server, outcome, request, small_cluster, small_task};

/// An answer of the panel.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
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
struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        Client { address, headers: Vec::new() }
    }

    fn with(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = self.headers.iter().any(|(name, _)| name == "host");
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !host {
            head += &format!("host: {}\r\n", self.address);
        }
        if method == "POST" {
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

    async fn get(&self, path: &str) -> Answer {
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
async fn open(folder: &Path) -> (Server, Client) {
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
        ("/apps", "shout"),
        ("/apps/shout", "What moved it"),
        ("/runs", run.as_str()),
        (&format!("/runs/{run}"), "Read and written"),
        ("/placements", "small"),
        ("/placements/small", "desk"),
        (&format!("/placements/small/{decision}"), "What was chosen from"),
        ("/policies", "greedy-completion"),
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

async fn guarded(first: Option<&str>) -> (Guarded, Client) {
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
async fn sign_in(client: &Client, token: &str) -> Client {
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
