//! An API server in this process, as far as a scheduler can tell: lists and watches with resource
//! versions, field selectors and bookmarks; bindings as the real one treats them, which checks neither
//! node nor room; leases that notice who was quicker; and trouble on request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// The label of a Job's pods.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// What happened to an object: its version, its resource, it before and after.
type Change = (u64, String, Option<Value>, Option<Value>);

#[derive(Default)]
struct Store {
    version: u64,
    /// By resource and `namespace/name`.
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Change>,
    /// Versions before this are not remembered.
    compacted: u64,
    /// What the next bindings are answered with.
    trouble: VecDeque<u16>,
    bindings: Vec<(String, String)>,
    refused: Vec<u16>,
    watches: usize,
    rights: BTreeSet<(String, String, String)>,
    /// What was asked to be deleted, and how.
    deleted: Vec<(String, Value)>,
}

#[derive(Clone)]
pub struct Double {
    store: Arc<Mutex<Store>>,
    /// Version, and how often watches were cut.
    news: watch::Sender<(u64, u64)>,
    pub address: SocketAddr,
}

impl Double {
    pub async fn start() -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let double = Double { store: Arc::default(), news: watch::Sender::new((0, 0)), address };
        let routes = axum::Router::new().fallback(serve).with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        double
    }

    pub fn client(&self) -> kube::Client {
        let uri = format!("http://{}", self.address).parse().unwrap();
        kube::Client::try_from(kube::Config::new(uri)).unwrap()
    }

    fn write(&self, resource: &str, key: &str, new: Option<Value>) -> Option<Value> {
        let mut store = self.store.lock().unwrap();
        let stored = store.write(resource, key, new);
        let version = store.version;
        drop(store);
        self.news.send_modify(|news| news.0 = version);
        stored
    }

    pub fn put(&self, resource: &str, object: Value) {
        let key = key(&object);
        self.write(resource, &key, Some(object));
    }

    pub fn add_pods(&self, pods: impl IntoIterator<Item = Value>) {
        pods.into_iter().for_each(|pod| self.put("pods", pod));
    }

    pub fn add_nodes(&self, nodes: impl IntoIterator<Item = Value>) {
        nodes.into_iter().for_each(|node| self.put("nodes", node));
    }

    /// Deletes it; what waited for nothing else goes too.
    pub fn delete(&self, resource: &str, key: &str) {
        self.write(resource, key, None);
        for job in self.all("jobs").iter().filter(|job| job["metadata"]["deletionTimestamp"].is_string()) {
            if self.pods_of(job).is_empty() {
                self.write("jobs", &self::key(job), None);
            }
        }
    }

    /// A Job waits for its pods, which end in their own time, unless it is to leave them behind.
    fn delete_as_asked(&self, resource: &str, key: &str, how: &Value) {
        let object = self.get(resource, key).unwrap();
        let pods = if resource == "jobs" { self.pods_of(&object) } else { Vec::new() };
        let now =
            |object: &mut Value| object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        for pod in &pods {
            self.change("pods", &self::key(pod), now);
        }
        if how["propagationPolicy"] == "Foreground" && !pods.is_empty() {
            self.change(resource, key, now);
        } else {
            self.delete(resource, key);
        }
    }

    fn pods_of(&self, job: &Value) -> Vec<Value> {
        let of = |pod: &Value| pod["metadata"]["labels"][JOB_NAME] == job["metadata"]["name"];
        self.all("pods").into_iter().filter(of).collect()
    }

    pub fn change(&self, resource: &str, key: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(resource, key).unwrap();
        change(&mut object);
        self.write(resource, key, Some(object));
    }

    pub fn get(&self, resource: &str, key: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(&(resource.to_owned(), key.to_owned())).cloned()
    }

    pub fn all(&self, resource: &str) -> Vec<Value> {
        let store = self.store.lock().unwrap();
        store.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object.clone()).collect()
    }

    /// The node of each pod that has one.
    pub fn placed(&self) -> BTreeMap<String, String> {
        let of = |pod: &Value| Some((key(pod), pod["spec"]["nodeName"].as_str()?.to_owned()));
        self.all("pods").iter().filter_map(of).collect()
    }

    /// Texts of the events of one pod with this reason.
    pub fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let events = self.all("events").into_iter();
        let of = events.filter(|event| event["regarding"]["name"] == pod && event["reason"] == reason);
        of.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
    }

    /// Bindings that were made, in order.
    pub fn bindings(&self) -> Vec<(String, String)> {
        self.store.lock().unwrap().bindings.clone()
    }

    /// Statuses of bindings that were not made.
    pub fn refused(&self) -> Vec<u16> {
        self.store.lock().unwrap().refused.clone()
    }

    pub fn watches(&self) -> usize {
        self.store.lock().unwrap().watches
    }

    /// Group, resource and verb of everything that was asked.
    pub fn rights(&self) -> BTreeSet<(String, String, String)> {
        self.store.lock().unwrap().rights.clone()
    }

    /// Resource and name of what was deleted, and with which options.
    pub fn deleted(&self) -> Vec<(String, Value)> {
        self.store.lock().unwrap().deleted.clone()
    }

    /// The next bindings are answered with these statuses.
    pub fn trouble(&self, statuses: impl IntoIterator<Item = u16>) {
        self.store.lock().unwrap().trouble.extend(statuses);
    }

    /// Ends all watches; with `forget`, they cannot go on from where they were.
    pub fn cut(&self, forget: bool) {
        let mut store = self.store.lock().unwrap();
        if forget {
            store.version += 1;
            store.compacted = store.version;
        }
        drop(store);
        self.news.send_modify(|news| news.1 += 1);
    }

    /// Waits until it holds, for a minute at most.
    pub async fn until(&self, what: &str, holds: impl Fn(&Double) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} did not come to pass; placed: {:?}, events: {:?}", self.placed(), self.all("events"));
    }
}

fn key(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

impl Store {
    fn write(&mut self, resource: &str, key: &str, new: Option<Value>) -> Option<Value> {
        self.version += 1;
        let at = (resource.to_owned(), key.to_owned());
        let before = self.objects.get(&at).cloned();
        let new = new.map(|mut object| {
            let metadata = &mut object["metadata"];
            metadata["resourceVersion"] = json!(self.version.to_string());
            if metadata["uid"].is_null() {
                metadata["uid"] = json!(format!("uid-{}", self.version));
                metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            object
        });
        match new.clone() {
            Some(object) => drop(self.objects.insert(at, object)),
            None => drop(self.objects.remove(&at)),
        }
        self.log.push((self.version, resource.to_owned(), before, new.clone()));
        new
    }

    fn bind(&mut self, key: &str, binding: &Value) -> (u16, &'static str) {
        if let Some(status) = self.trouble.pop_front() {
            return (status, "trouble on request");
        }
        let Some(mut pod) = self.objects.get(&("pods".to_owned(), key.to_owned())).cloned() else {
            return (404, "pods not found");
        };
        let Some(node) = binding["target"]["name"].as_str().filter(|name| !name.is_empty()) else {
            return (500, "target.name is required");
        };
        if !binding["metadata"]["uid"].is_null() && binding["metadata"]["uid"] != pod["metadata"]["uid"] {
            return (409, "uid mismatch");
        }
        if pod["spec"]["nodeName"].is_string() {
            return (409, "pod is already assigned to a node");
        }
        pod["spec"]["nodeName"] = json!(node);
        self.write("pods", key, Some(pod));
        self.bindings.push((key.to_owned(), node.to_owned()));
        (201, "")
    }
}

fn status(code: u16, message: &str) -> Response<Body> {
    let result = if code < 300 { "Success" } else { "Failure" };
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "",
    };
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": result, "message": message,
        "reason": reason, "code": code });
    answer(code, &body)
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let code = StatusCode::from_u16(code).unwrap();
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

async fn serve(State(double): State<Double>, method: Method, uri: Uri, body: Bytes) -> Response<Body> {
    let parts: Vec<_> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    // api/v1 or apis/GROUP/VERSION.
    let rest = if parts.first() == Some(&"api") { &parts[2..] } else { &parts[3..] };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let query = uri.query().unwrap_or_default();
    let verb = match (&method, rest.len()) {
        (&Method::GET, 1) if query.contains("watch=") => "watch",
        (&Method::GET, 1) => "list",
        (&Method::GET, _) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::DELETE, _) => "delete",
        _ => "other",
    };
    let group = if parts.first() == Some(&"api") { "" } else { parts[1] };
    let subresource = rest.get(2).map(|sub| format!("/{sub}")).unwrap_or_default();
    let right = (group.to_owned(), format!("{}{subresource}", rest[0]), verb.to_owned());
    double.store.lock().unwrap().rights.insert(right);
    let at = |name: &str| namespace.map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let object = || serde_json::from_slice::<Value>(&body).unwrap();
    match (method, rest) {
        (Method::GET, [resource]) => {
            collection(&double, resource, namespace, uri.query().unwrap_or_default())
        }
        (Method::GET, [resource, name]) => match double.get(resource, &at(name)) {
            Some(object) => answer(200, &object),
            None => status(404, "not found"),
        },
        // What a pod says stands beside what the API server knows of it.
        (Method::GET, ["pods", name, "log"]) => match double.get("pods", &at(name)) {
            Some(pod) => Response::new(pod["log"].as_str().unwrap_or_default().to_owned().into()),
            None => status(404, "not found"),
        },
        (Method::DELETE, [resource, name]) => {
            let Some(object) = double.get(resource, &at(name)) else { return status(404, "not found") };
            let how = (format!("{resource}/{name}"), serde_json::from_slice(&body).unwrap_or_default());
            double.store.lock().unwrap().deleted.push(how);
            double.delete_as_asked(resource, &at(name), &serde_json::from_slice(&body).unwrap_or_default());
            answer(200, &object)
        }
        (Method::POST, ["pods", name, "binding"]) => {
            let (code, message) = {
                let mut store = double.store.lock().unwrap();
                let (code, message) = store.bind(&at(name), &object());
                if code != 201 {
                    store.refused.push(code);
                }
                let version = store.version;
                double.news.send_modify(|news| news.0 = version);
                (code, message)
            };
            status(code, message)
        }
        (Method::POST, [resource]) => {
            let mut object = object();
            object["metadata"]["namespace"] = json!(namespace);
            if double.get(resource, &key(&object)).is_some() {
                return status(409, "already exists");
            }
            let key = key(&object);
            answer(201, &double.write(resource, &key, Some(object)).unwrap())
        }
        (Method::PUT, [resource, name]) => {
            let object = object();
            let Some(before) = double.get(resource, &at(name)) else { return status(404, "not found") };
            if before["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return status(409, "the object has been modified");
            }
            answer(200, &double.write(resource, &at(name), Some(object)).unwrap())
        }
        (method, _) => panic!("the double does not know {method} {uri}"),
    }
}

fn collection(double: &Double, resource: &str, namespace: Option<&str>, query: &str) -> Response<Body> {
    let parameter = |name: &str| {
        let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        let plain = [("%3D", "="), ("%2C", ","), ("%21", "!"), ("%2F", "/")];
        found.map(|(_, value)| {
            plain.iter().fold(value.to_owned(), |text, (coded, own)| text.replace(coded, own))
        })
    };
    let selector = parameter("fieldSelector").unwrap_or_default();
    let label = parameter("labelSelector");
    let labelled = move |object: &Value| {
        let Some((name, value)) = label.as_deref().and_then(|label| label.split_once('=')) else {
            return true;
        };
        object["metadata"]["labels"][name] == value
    };
    let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
    let matches = move |object: &Value| {
        let there = namespace.as_deref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
        there
            && labelled(object)
            && selector.split(',').filter(|term| !term.is_empty()).all(|term| selects(term, object))
    };
    if parameter("watch").is_some() {
        let since = parameter("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return stream(double.clone(), resource, since, matches);
    }
    let store = double.store.lock().unwrap();
    let of = store.objects.iter().filter(|((of, _), object)| *of == resource && matches(object));
    let items: Vec<_> = of.map(|(_, object)| object).collect();
    let version = store.version.to_string();
    answer(
        200,
        &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
    )
}

fn selects(term: &str, object: &Value) -> bool {
    let (path, value, equal) = match term.split_once("!=") {
        Some((path, value)) => (path, value, false),
        None => {
            let (path, value) = term.split_once('=').unwrap();
            (path, value, true)
        }
    };
    let found = path.split('.').fold(object, |at, part| &at[part]).as_str().unwrap_or_default();
    (found == value) == equal
}

fn stream(
    double: Double,
    resource: String,
    since: u64,
    matches: impl Fn(&Value) -> bool + Send + 'static,
) -> Response<Body> {
    let (sender, lines) = mpsc::channel::<Result<String, std::convert::Infallible>>(64);
    let mut news = double.news.subscribe();
    let cuts = news.borrow_and_update().1;
    double.store.lock().unwrap().watches += 1;
    tokio::spawn(async move {
        let mut seen = since;
        loop {
            let events: Vec<Value> = {
                let store = double.store.lock().unwrap();
                if seen < store.compacted {
                    let gone = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "too old resource version", "reason": "Expired", "code": 410 });
                    vec![json!({ "type": "ERROR", "object": gone })]
                } else {
                    // The log is in order of versions.
                    let from = store.log.partition_point(|change| change.0 <= seen);
                    let new = store.log[from..].iter().filter(|change| change.1 == resource);
                    let events = new.filter_map(|change| event(change, &matches)).collect();
                    seen = store.version;
                    events
                }
            };
            let over = events.first().is_some_and(|event| event["type"] == "ERROR");
            for event in events {
                if sender.send(Ok(format!("{event}\n"))).await.is_err() {
                    return;
                }
            }
            let timeout = tokio::time::timeout(Duration::from_millis(500), news.changed()).await;
            if over || news.borrow().1 != cuts {
                return;
            }
            if timeout.is_err() {
                let object = json!({ "kind": "Any", "apiVersion": "v1", "metadata": { "resourceVersion": seen.to_string() } });
                let bookmark = json!({ "type": "BOOKMARK", "object": bookmarked(&resource, object) });
                if sender.send(Ok(format!("{bookmark}\n"))).await.is_err() {
                    return;
                }
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(lines));
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn bookmarked(resource: &str, mut object: Value) -> Value {
    object["kind"] = json!(match resource {
        "pods" => "Pod",
        "nodes" => "Node",
        _ => "ConfigMap",
    });
    object
}

/// As a watch with a selector sees it: what stops matching is deleted.
fn event(change: &Change, matches: &impl Fn(&Value) -> bool) -> Option<Value> {
    let (version, _, before, after) = change;
    let before = before.as_ref().filter(|object| matches(object));
    let after = after.as_ref().filter(|object| matches(object));
    match (before, after) {
        (None, None) => None,
        (None, Some(new)) => Some(json!({ "type": "ADDED", "object": new })),
        (Some(_), Some(new)) => Some(json!({ "type": "MODIFIED", "object": new })),
        (Some(old), None) => {
            let mut old = old.clone();
            old["metadata"]["resourceVersion"] = json!(version.to_string());
            Some(json!({ "type": "DELETED", "object": old }))
        }
    }
}
