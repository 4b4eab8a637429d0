//! What people write on objects for Remora to read, and Skippy's labels.
//!
//! | on | annotation | says |
//! |---|---|---|
//! | pod | `remora.dev/kind` | name of its sort of task; otherwise the label `app.kubernetes.io/name` or `app`, or its owner |
//! | pod | `remora.dev/inputs`, `remora.dev/outputs` | datasets, `video, labels=3Mi`; a size counts where no configuration gives one |
//! | pod | `remora.dev/execution-seconds` | mean execution time, `12` or `nuc=4, rpi4=20, *=30` by device kind |
//! | pod | `remora.dev/alpha` | the dial for this pod, 0 (time) to 1 (data) |
//! | pod | `remora.dev/deadline-seconds` | seconds after its creation from which its result is late |
//! | node | `remora.dev/device-kind` (or label) | otherwise the label `node.kubernetes.io/instance-type`, or the architecture |
//! | node | `remora.dev/startup-seconds` | mean time to start a container |
//! | node | `remora.dev/datasets` | datasets that are kept on it, `video=500Mi, labels` |

use std::collections::BTreeMap;

use super::quantity;

pub const KIND: &str = "remora.dev/kind";
pub const INPUTS: &str = "remora.dev/inputs";
pub const OUTPUTS: &str = "remora.dev/outputs";
pub const EXECUTION: &str = "remora.dev/execution-seconds";
pub const ALPHA: &str = "remora.dev/alpha";
pub const DEADLINE: &str = "remora.dev/deadline-seconds";
pub const DEVICE_KIND: &str = "remora.dev/device-kind";
pub const STARTUP: &str = "remora.dev/startup-seconds";
pub const DATASETS: &str = "remora.dev/datasets";
/// Skippy's, with and without the part that Kubernetes does not accept in a label.
pub const SKIPPY_INPUT: [&str; 2] =
    ["data.skippy.io/receives-from-storage/path", "data.skippy.io/receives-from-storage"];
pub const SKIPPY_OUTPUT: [&str; 2] =
    ["data.skippy.io/sends-to-storage/path", "data.skippy.io/sends-to-storage"];
/// Skippy's mark of a node that keeps data: what has no home elsewhere is at home there.
pub const SKIPPY_STORAGE: &str = "data.skippy.io/storage-node";
pub const SKIPPY_CAPABILITY: &str = "capability.skippy.io";

/// Largest name on the wire, bytes.
pub const MAX_NAME: usize = 500;
/// Most datasets of one pod or node.
const MAX_LISTED: usize = 1000;

/// Annotations or labels of an object.
pub type Map = BTreeMap<String, String>;

/// A dataset as an annotation names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub bytes: Option<i64>,
}

/// Reads one annotation; where it is wrong, the warning names it and nothing is known.
pub fn read<T>(
    map: &Map,
    key: &str,
    warnings: &mut Vec<String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = map.get(key)?;
    parse(text.trim())
        .map_err(|problem| warnings.push(format!("annotation {key}: {problem}; it is ignored")))
        .ok()
}

/// A number from `least` to `most`.
pub fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let shown: String = text.chars().take(60).collect();
    let value: f64 = text.parse().map_err(|_| format!("{shown:?} is no number, want {least} to {most}"))?;
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("is {shown}, want {least} to {most}"))
    }
}

/// Seconds from 0 to 1e9.
pub fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1e9)
}

/// A name of 1 to 500 bytes.
pub fn name(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty, want a name".to_owned()),
        1..=MAX_NAME => Ok(text.to_owned()),
        long => Err(format!("has {long} bytes, want at most {MAX_NAME}")),
    }
}

/// `video=500Mi, labels`: datasets, each once.
pub fn datasets(text: &str) -> Result<Vec<Named>, String> {
    let mut list: Vec<Named> = Vec::new();
    for item in items(text) {
        let (label, size) = item.split_once('=').map_or((item, None), |(name, size)| (name, Some(size)));
        let named = name(label.trim())?;
        let bytes = size.map(|size| size_bytes(size.trim())).transpose()?;
        if !list.iter().any(|other| other.name == named) {
            list.push(Named { name: named, bytes });
        }
    }
    if list.len() > MAX_LISTED {
        return Err(format!("has {} datasets, want at most {MAX_LISTED}", list.len()));
    }
    Ok(list)
}

/// A size as a quantity, 0 to 1e15 bytes.
pub fn size_bytes(text: &str) -> Result<i64, String> {
    let bytes = quantity::whole(text)?;
    if (0..=1_000_000_000_000_000).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("size {text} is out of range, want 0 to 1e15"))
    }
}

/// Mean execution times, seconds, by device kind and everywhere else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    pub on: BTreeMap<String, f64>,
    pub elsewhere: Option<f64>,
}

/// `12`, or `nuc=4, rpi4=20, *=30`.
pub fn execution(text: &str) -> Result<Execution, String> {
    let mut execution = Execution::default();
    for item in items(text) {
        match item.split_once('=') {
            None => execution.elsewhere = Some(seconds(item)?),
            Some((device, time)) => {
                let time = seconds(time.trim())?;
                match device.trim() {
                    "*" => execution.elsewhere = Some(time),
                    device => drop(execution.on.insert(name(device)?, time)),
                }
            }
        }
    }
    if execution == Execution::default() {
        return Err("is empty, want seconds such as 12 or nuc=4, rpi4=20, *=30".to_owned());
    }
    Ok(execution)
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
