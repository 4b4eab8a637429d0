//! The configuration that makes Kubernetes' scheduler ask the extender.

use serde_json::{Map, Value, json};

/// How it is asked.
#[derive(Clone, Debug)]
pub struct Extender {
    /// Where it listens, without the path.
    pub url: String,
    /// Requests name nodes instead of describing them.
    pub cached: bool,
    /// The extender chooses the node; otherwise it scores them.
    pub choose: bool,
    pub http_timeout_s: f64,
    pub weight: i64,
    /// Pods are placed without it where it fails.
    pub ignorable: bool,
    pub bind: bool,
    pub preempt: bool,
    /// Of the scheduler.
    pub kubeconfig: Option<String>,
    pub tls: Tls,
}

/// Files on the scheduler's machine.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
}

/// A KubeSchedulerConfiguration.
///
/// # Errors
/// Which option is wrong and what would be right.
pub fn document(extender: &Extender) -> Result<Value, String> {
    let url = extender.url.trim_end_matches('/');
    let secure = url.starts_with("https://");
    if !secure && !url.starts_with("http://") {
        return Err(format!("--url {url} is no address, want one like http://127.0.0.1:8080"));
    }
    if !(0.001..=3600.0).contains(&extender.http_timeout_s) {
        return Err(format!("--http-timeout is {}, want 0.001 to 3600 seconds", extender.http_timeout_s));
    }
    // Without an authority Kubernetes' scheduler does not verify the certificate at all.
    if secure && extender.tls.ca_file.is_none() {
        return Err(
            "--url is https, so --ca-file is needed: without it the certificate is not verified".to_owned()
        );
    }
    let mut entry = json!({
        "urlPrefix": format!("{url}/kubernetes"),
        "enableHTTPS": secure,
        "httpTimeout": format!("{}ms", (extender.http_timeout_s * 1000.0).round()),
        "nodeCacheCapable": extender.cached,
        "ignorable": extender.ignorable,
    });
    // To filter without choosing would only cost time: Kubernetes has asked its own plugins already.
    if extender.choose {
        entry["filterVerb"] = "choose".into();
    } else {
        entry["prioritizeVerb"] = "prioritize".into();
        entry["weight"] = extender.weight.into();
    }
    let optional = [(extender.bind, "bindVerb", "bind"), (extender.preempt, "preemptVerb", "preempt")];
    for (_, key, verb) in optional.into_iter().filter(|(wanted, ..)| *wanted) {
        entry[key] = verb.into();
    }
    if secure {
        let files = [
            ("caFile", &extender.tls.ca_file),
            ("certFile", &extender.tls.cert_file),
            ("keyFile", &extender.tls.key_file),
        ];
        let files = files.into_iter().filter_map(|(key, file)| Some((key.to_owned(), file.clone()?.into())));
        entry["tlsConfig"] = Value::Object(files.collect::<Map<_, _>>());
    }
    let mut document = alone();
    document["extenders"] = json!([entry]);
    if let Some(kubeconfig) = &extender.kubeconfig {
        document["clientConnection"] = json!({ "kubeconfig": kubeconfig });
    }
    Ok(document)
}

/// A KubeSchedulerConfiguration without any extender.
pub fn alone() -> Value {
    json!({ "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration" })
}

/// The document as YAML: maps, lists and plain values, text in quotes as JSON has it.
pub fn yaml(document: &Value) -> String {
    let mut text = String::new();
    write(document, 0, &mut text);
    text
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let nested = matches!(value, Value::Object(map) if !map.is_empty())
                    || matches!(value, Value::Array(list) if !list.is_empty());
                if nested {
                    *text += &format!("{indent}{key}:\n");
                    write(value, depth + usize::from(value.is_object()), text);
                } else {
                    *text += &format!("{indent}{key}: {value}\n");
                }
            }
        }
        Value::Array(list) => {
            for item in list {
                let mut inner = String::new();
                write(item, depth + 1, &mut inner);
                // The first line of an item begins with its dash.
                *text += &format!("{indent}- {}", inner.trim_start());
            }
        }
        plain => *text += &format!("{indent}{plain}\n"),
    }
}
