//! What objects cannot say, from the key `remora.toml` of a ConfigMap: the network, data, execution times.

use std::collections::BTreeMap;

use remora_proto::v1 as wire;
use serde::Deserialize;

use super::annotation;

/// The document; whatever is left out has the stated default.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Mean response time of a task under the scheduler in use so far, seconds: what time is measured in.
    pub reference_response_s: f64,
    /// Mean price-weighted bytes that it moved per task: what data is measured in.
    pub reference_moved_bytes: f64,
    /// Nodes of one zone fetch layers and data from each other.
    pub peers: bool,
    /// Mean execution time where nothing is known, seconds.
    pub execution_s: f64,
    /// The same for pods that run until they are deleted.
    pub service_execution_s: f64,
    /// Mean time to start a container where nothing is known, seconds.
    pub startup_s: f64,
    /// Size of an image that no node has reported, a quantity of bytes.
    pub image_size: String,
    /// Size of a dataset that nothing is said of, a quantity of bytes.
    pub dataset_size: String,
    /// From a node to the switch of its zone, unless the node is named in `nodes`.
    pub node_link: Link,
    /// From a zone's switch to its region's, or to the backbone where there are no regions.
    pub zone_link: Link,
    /// From a region's switch to the backbone.
    pub region_link: Link,
    /// From the registry to the backbone.
    pub registry_link: Link,
    pub nodes: BTreeMap<String, Link>,
    pub zones: BTreeMap<String, Link>,
    pub regions: BTreeMap<String, Link>,
    pub datasets: BTreeMap<String, Dataset>,
    pub images: BTreeMap<String, Image>,
    pub kinds: BTreeMap<String, Kind>,
    pub devices: BTreeMap<String, Device>,
}

/// A link; what is left out is that of an ordinary local one.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Towards the backbone, megabits per second.
    pub up_mbps: f64,
    /// From the backbone, megabits per second.
    pub down_mbps: f64,
    /// One way, milliseconds.
    pub latency_ms: f64,
    /// What a byte over it counts as.
    pub price: f64,
    /// It leaves a site.
    pub wan: bool,
    /// Both directions share the capacity.
    pub shared: bool,
}

impl Default for Link {
    fn default() -> Link {
        Link { up_mbps: 1000.0, down_mbps: 1000.0, latency_ms: 0.5, price: 1.0, wan: false, shared: false }
    }
}

impl Link {
    fn wide(mbps: f64, latency_ms: f64) -> Link {
        Link { up_mbps: mbps, down_mbps: mbps, latency_ms, price: 4.0, wan: true, shared: false }
    }

    /// On the wire, between these two.
    pub fn between(&self, outer: &str, inner: &str) -> wire::Link {
        wire::Link {
            outer: outer.to_owned(),
            inner: inner.to_owned(),
            up_bytes_per_s: self.up_mbps * 125_000.0,
            down_bytes_per_s: self.down_mbps * 125_000.0,
            latency_s: Some(self.latency_ms / 1000.0),
            price: Some(self.price),
            wan: self.wan,
            shared: self.shared,
        }
    }

    fn check(&self) -> Result<(), String> {
        for (field, value, range) in [
            ("up_mbps", self.up_mbps, 1e-5..=8e7),
            ("down_mbps", self.down_mbps, 1e-5..=8e7),
            ("latency_ms", self.latency_ms, 0.0..=3.6e6),
            ("price", self.price, 0.0..=1e6),
        ] {
            if !range.contains(&value) {
                return Err(format!("{field}: is {value}, want {} to {}", range.start(), range.end()));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Dataset {
    /// A quantity of bytes.
    pub size: Option<String>,
    /// Nodes that keep it for good, the first is where new versions are stored.
    pub homes: Vec<String>,
}

/// Sizes of an image where nodes do not report them, or its layers, which images may share.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// A quantity of bytes.
    pub size: Option<String>,
    /// Instruction sets that it exists for; all where this is empty.
    pub archs: Vec<String>,
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub name: String,
    /// A quantity of bytes.
    pub size: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Kind {
    /// Mean seconds by device kind.
    pub execution_s: BTreeMap<String, f64>,
    /// Mean seconds on all others; left out, it cannot run on those.
    pub elsewhere_s: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    pub startup_s: Option<f64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            reference_response_s: 20.0,
            reference_moved_bytes: 1e8,
            peers: false,
            execution_s: 10.0,
            service_execution_s: 3600.0,
            startup_s: 1.0,
            image_size: "200M".to_owned(),
            dataset_size: "10M".to_owned(),
            node_link: Link::default(),
            zone_link: Link::wide(1000.0, 5.0),
            region_link: Link::wide(10_000.0, 20.0),
            registry_link: Link { price: 1.0, ..Link::wide(10_000.0, 5.0) },
            nodes: BTreeMap::new(),
            zones: BTreeMap::new(),
            regions: BTreeMap::new(),
            datasets: BTreeMap::new(),
            images: BTreeMap::new(),
            kinds: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads and checks the document.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        for (field, value, least, most) in [
            ("reference_response_s", self.reference_response_s, 1e-9, 1e9),
            ("reference_moved_bytes", self.reference_moved_bytes, 1e-9, 1e18),
            ("execution_s", self.execution_s, 0.0, 1e9),
            ("service_execution_s", self.service_execution_s, 0.0, 1e9),
            ("startup_s", self.startup_s, 0.0, 1e6),
        ] {
            in_range(field, value, least, most)?;
        }
        size("image_size", &self.image_size)?;
        size("dataset_size", &self.dataset_size)?;
        for (field, link) in [
            ("node_link", &self.node_link),
            ("zone_link", &self.zone_link),
            ("region_link", &self.region_link),
            ("registry_link", &self.registry_link),
        ] {
            link.check().map_err(|problem| format!("{field}.{problem}"))?;
        }
        for (field, links) in [("nodes", &self.nodes), ("zones", &self.zones), ("regions", &self.regions)] {
            for (name, link) in links {
                link.check().map_err(|problem| format!("{field}.{name:?}.{problem}"))?;
            }
        }
        self.check_catalogue()
    }

    fn check_catalogue(&self) -> Result<(), String> {
        for (name, dataset) in &self.datasets {
            named("datasets", name)?;
            dataset.size.iter().try_for_each(|text| size(&format!("datasets.{name:?}.size"), text))?;
        }
        for (name, image) in &self.images {
            named("images", name)?;
            image.size.iter().try_for_each(|text| size(&format!("images.{name:?}.size"), text))?;
            for arch in &image.archs {
                if !super::ARCHS.contains(&arch.as_str()) {
                    return Err(format!(
                        "images.{name:?}.archs: {arch:?} is unknown, want amd64, arm64 or arm"
                    ));
                }
            }
            if image.layers.len() > 200 {
                return Err(format!("images.{name:?}.layers: has {}, want at most 200", image.layers.len()));
            }
            for layer in &image.layers {
                named(&format!("images.{name:?}.layers"), &layer.name)?;
                size(&format!("images.{name:?}.layers.{:?}.size", layer.name), &layer.size)?;
            }
        }
        for (name, kind) in &self.kinds {
            let times = kind.execution_s.values().chain(&kind.elsewhere_s);
            times.copied().try_for_each(|s| in_range(&format!("kinds.{name:?}"), s, 0.0, 1e9))?;
            if kind.execution_s.is_empty() && kind.elsewhere_s.is_none() {
                return Err(format!("kinds.{name:?}: has no times, want execution_s or elsewhere_s"));
            }
        }
        for (name, device) in &self.devices {
            let startup = device.startup_s.into_iter();
            startup
                .into_iter()
                .try_for_each(|s| in_range(&format!("devices.{name:?}.startup_s"), s, 0.0, 1e6))?;
        }
        Ok(())
    }
}

fn in_range(field: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{field}: is {value}, want {least} to {most}"))
    }
}

fn size(field: &str, text: &str) -> Result<(), String> {
    annotation::size_bytes(text).map(|_| ()).map_err(|problem| format!("{field}: {problem}"))
}

fn named(field: &str, name: &str) -> Result<(), String> {
    annotation::name(name).map(|_| ()).map_err(|problem| format!("{field}: a name {problem}"))
}
