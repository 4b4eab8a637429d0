//! The edge cluster on which traces are replayed that were recorded on one without a network.

use std::collections::BTreeMap;

use super::ImportError;
use crate::device::{self, STORAGE};
use crate::scenario::{LinkFile, NodesFile, RegistryFile, SiteFile, TopologyFile};

/// Sites of nodes alike behind uplinks; a store for what is read and a registry on the backbone. All
/// of it is assumption.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeOptions {
    pub sites: u32,
    pub nodes_per_site: u32,
    /// Built-in device kind of the nodes.
    pub kind: String,
    /// Capacity of each site's uplink in both directions, Mbit/s.
    pub uplink_mbps: f64,
    /// One-way delay of the uplink, milliseconds.
    pub uplink_latency_ms: f64,
    /// What a byte over the uplink counts as in data moved.
    pub uplink_price: f64,
}

impl Default for EdgeOptions {
    /// Four sites of four Intel NUCs, each site with a fibre uplink.
    fn default() -> EdgeOptions {
        EdgeOptions {
            sites: 4,
            nodes_per_site: 4,
            kind: "nuc".to_owned(),
            uplink_mbps: 250.0,
            uplink_latency_ms: 10.0,
            uplink_price: 4.0,
        }
    }
}

/// Node that keeps what tasks read and write in the end.
pub(super) const STORE: &str = "store";
/// Network within a site and of the store, Mbit/s and ms. Our assumption.
const LAN_MBPS: f64 = 1000.0;
const LAN_LATENCY_MS: f64 = 0.5;

/// The error that an option is not what is wanted.
pub(super) fn wrong_option(name: &'static str, value: f64, wanted: impl Into<String>) -> ImportError {
    ImportError::Option { name, value: value.to_string(), wanted: wanted.into() }
}

/// A number of an option within a range.
pub(super) fn within(name: &'static str, value: f64, least: f64, most: f64) -> Result<(), ImportError> {
    let holds = (least..=most).contains(&value);
    holds
        .then_some(())
        .ok_or_else(|| wrong_option(name, value, format!("want a number from {least} to {most}")))
}

impl EdgeOptions {
    pub(super) fn check(&self) -> Result<(), ImportError> {
        within("sites", f64::from(self.sites), 1.0, 1000.0)?;
        within("nodes_per_site", f64::from(self.nodes_per_site), 1.0, 1000.0)?;
        within("uplink_mbps", self.uplink_mbps, 1e-6, 1e6)?;
        within("uplink_latency_ms", self.uplink_latency_ms, 0.0, 1e6)?;
        within("uplink_price", self.uplink_price, 0.0, 1e6)?;
        if device::device(&self.kind).is_none() {
            let kinds: Vec<_> = device::DEVICES.iter().map(|device| device.kind).collect();
            let wanted = format!("want one of {}", kinds.join(", "));
            return Err(ImportError::Option { name: "kind", value: self.kind.clone(), wanted });
        }
        Ok(())
    }

    pub(super) fn note(&self) -> String {
        format!(
            "assumed, as the trace has no edge cluster: {} sites, {} nodes of kind {} on each, {} Mbit/s, {} ms and \
             price {} to each site, {LAN_MBPS} Mbit/s and {LAN_LATENCY_MS} ms within",
            self.sites,
            self.nodes_per_site,
            self.kind,
            self.uplink_mbps,
            self.uplink_latency_ms,
            self.uplink_price
        )
    }

    /// The cluster, with a store of so many gigabytes.
    pub(super) fn topology(&self, store_gb: f64) -> TopologyFile {
        let lan = LinkFile { up_mbps: LAN_MBPS, latency_ms: LAN_LATENCY_MS, ..LinkFile::default() };
        let node = |name: &str, kind: &str, count| NodesFile {
            name: name.to_owned(),
            count,
            kind: kind.to_owned(),
            link: lan.clone(),
            ..NodesFile::default()
        };
        let store = NodesFile {
            disk_gb: Some(store_gb.ceil().max(1.0)),
            labels: BTreeMap::from([(STORAGE.to_owned(), String::new())]),
            ..node(STORE, "server", 1)
        };
        let uplink = LinkFile {
            up_mbps: self.uplink_mbps,
            latency_ms: self.uplink_latency_ms,
            price: self.uplink_price,
            wan: true,
            ..LinkFile::default()
        };
        TopologyFile {
            registries: vec![RegistryFile { name: "registry".to_owned(), site: None, link: lan.clone() }],
            nodes: vec![store],
            sites: vec![SiteFile {
                name: "site".to_owned(),
                count: self.sites,
                uplink,
                nodes: vec![node("node", &self.kind, self.nodes_per_site)],
                sites: Vec::new(),
            }],
            ..TopologyFile::default()
        }
    }
}
