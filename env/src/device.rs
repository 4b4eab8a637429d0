//! Device kinds of edge clusters, with what their makers and measurements say of them.

use crate::power::Power;

/// Instruction set of a node; an image has a size for each that it supports.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit Arm.
    Arm64,
    /// 32-bit Arm (Raspberry Pi 3 with its 32-bit system).
    Arm,
}

impl Arch {
    pub const ALL: [Arch; 3] = [Arch::Amd64, Arch::Arm64, Arch::Arm];

    /// As files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
            Arch::Arm => "arm",
        }
    }
}

/// What a node of a kind has unless the scenario says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    pub kind: &'static str,
    pub arch: Arch,
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    /// Accelerator model and count.
    pub accelerator: Option<(&'static str, u32)>,
    /// Starting a container whose image is present, in seconds.
    pub startup_s: f64,
    /// Labels that heuristics read.
    pub labels: &'static [(&'static str, &'static str)],
    /// By CPU load; accelerators are counted as loaded like the CPU.
    pub power: Power,
    /// Dollars for a gigabyte of requested memory, held for a second while executing.
    pub usd_per_gb_s: f64,
}

const KIB: u64 = 1024;
const GIB: u64 = 1024 * 1024 * 1024;
const GB: u64 = 1_000_000_000;

/// Label that tells edge from cloud, in Skippy's spelling.
pub const LOCALITY: &str = "locality.skippy.io/type";
/// Label of nodes that hold data and run no tasks, in Skippy's spelling.
pub const STORAGE: &str = "data.skippy.io/storage";

const EDGE: &[(&str, &str)] = &[(LOCALITY, "edge")];
const CLOUD: &[(&str, &str)] = &[(LOCALITY, "cloud")];
const EDGE_CUDA: &[(&str, &str)] = &[
    (LOCALITY, "edge"),
    ("capability.skippy.io/nvidia-cuda", "10"),
    ("capability.skippy.io/nvidia-gpu", ""),
];

/// AWS Lambda's price of a GB-second, which Skippy's evaluation charges for cloud nodes.
const LAMBDA_USD_PER_GB_S: f64 = 0.000_016_666_7;

// Measured at every tenth of the load.

/// Raspberry Pi 3 B (Kaup, Gottschling, Hausheer: PowerPi, LCN 2014; as tabulated by COSCO).
const RPI3_W: Power = Power([0.45, 0.78, 0.9, 1.03, 1.65, 1.66, 1.69, 1.71, 1.72, 1.74, 1.75]);
/// IBM x3350, 4 cores (SPECpower_ssj2008, 2008-04-08).
const FOUR_CORES_W: Power = Power([71.0, 77.9, 83.4, 89.2, 95.6, 102.0, 108.0, 114.0, 119.0, 123.0, 126.0]);
/// Huawei RH2288H V2, 8 cores (SPECpower_ssj2008, 2014-04-08).
const EIGHT_CORES_W: Power = Power([68.7, 78.3, 84.0, 88.4, 92.5, 97.3, 104.0, 111.0, 121.0, 131.0, 137.0]);
/// IBM x3650 M2, two Xeon X5570 (SPECpower_ssj2008, 2014-10-23).
const TWO_XEONS_W: Power =
    Power([81.4, 110.0, 125.0, 139.0, 153.0, 167.0, 182.0, 199.0, 214.0, 229.0, 244.0]);

const fn edge(kind: &'static str, arch: Arch, cores: u32, memory_bytes: u64, disk_gb: u64) -> Device {
    Device {
        kind,
        arch,
        cpu_millis: cores * 1000,
        memory_bytes,
        disk_bytes: disk_gb * GB,
        accelerator: None,
        startup_s: 8.1,
        labels: EDGE,
        power: Power([0.0; 11]),
        usd_per_gb_s: 0.0,
    }
}

/// A board with a CUDA accelerator of its own.
const fn jetson(kind: &'static str, model: &'static str, cores: u32, memory_bytes: u64) -> Device {
    Device {
        accelerator: Some((model, 1)),
        startup_s: 2.16,
        labels: EDGE_CUDA,
        ..edge(kind, Arch::Arm64, cores, memory_bytes, 32)
    }
}

/// A short-depth server of 16 cores and 128 GB with one card that draws from 10 W to `card_w`.
const fn card_server(kind: &'static str, model: &'static str, card_w: f64) -> Device {
    Device {
        accelerator: Some((model, 1)),
        startup_s: 2.15,
        labels: EDGE_CUDA,
        power: EIGHT_CORES_W.and(Power::between(10.0, card_w)),
        ..edge(kind, Arch::Amd64, 16, 128 * GB, 960)
    }
}

/// The built-in kinds.
///
/// - Cores, memory and architecture of the first twelve: the `ether` device presets used by faas-sim,
///   and its `raith21` extension; of the Jetsons after them: NVIDIA's data sheets; of the servers with
///   a card, whose latencies MLPerf Inference has: an assumption of ours.
/// - Start-up times: means of the published container start distributions with the image present
///   (faas-sim, `startup_fgcs`); kinds that were not measured take the nearest measured one.
/// - Disks: the usual card or drive of the kind, an assumption of ours.
/// - Power: Raspberry Pi 3 and servers as measured (above); Raspberry Pi 4, Nano and TX2 between the
///   idle and full draw of Süzen, Duman and Şen (HORA 2020); Xavier and Orin between the least and the
///   most of the power modes in NVIDIA's data sheets; cards up to the board power there (L4 72 W, T4
///   70 W, A2 60 W, A30 165 W); Rock Pi, Coral and NUC are assumptions of ours.
/// - Dollars: [`LAMBDA_USD_PER_GB_S`] in the cloud, nothing at the edge.
pub const DEVICES: &[Device] = &[
    Device {
        startup_s: 6.8,
        labels: CLOUD,
        power: FOUR_CORES_W,
        usd_per_gb_s: LAMBDA_USD_PER_GB_S,
        ..edge("cloud-vm", Arch::Amd64, 4, 8_167_784 * KIB, 100)
    },
    Device {
        startup_s: 2.1,
        labels: CLOUD,
        power: TWO_XEONS_W,
        usd_per_gb_s: LAMBDA_USD_PER_GB_S,
        ..edge("server", Arch::Amd64, 88, 188 * GB, 1000)
    },
    Device {
        startup_s: 2.15,
        power: Power::between(6.0, 40.0),
        ..edge("nuc", Arch::Amd64, 4, 16 * GIB, 250)
    },
    Device { power: Power::between(7.5, 15.0), ..jetson("tx2", "tegra-x2", 4, 8_047_252 * KIB) },
    Device { power: Power::between(5.0, 10.0), ..jetson("nano", "tegra-x1", 4, 4_047_252 * KIB) },
    Device { power: Power::between(10.0, 20.0), ..jetson("nx", "xavier-nx", 6, 8 * GB) },
    Device {
        accelerator: Some(("edge-tpu", 1)),
        power: Power::between(2.5, 6.0),
        ..edge("coral", Arch::Arm64, 4, GB, 16)
    },
    Device { power: Power::between(3.0, 10.0), ..edge("rockpi", Arch::Arm64, 6, 4 * GB, 32) },
    Device { power: Power::between(2.56, 7.3), ..edge("rpi4", Arch::Arm, 4, GB, 32) },
    Device { power: RPI3_W, ..edge("rpi3", Arch::Arm, 4, 999_036 * KIB, 16) },
    Device { startup_s: 2.15, power: FOUR_CORES_W, ..edge("xeon-cpu", Arch::Amd64, 4, 8_167_784 * KIB, 100) },
    Device {
        accelerator: Some(("turing", 1)),
        startup_s: 2.15,
        labels: EDGE_CUDA,
        power: FOUR_CORES_W.and(Power::between(10.0, 160.0)),
        ..edge("xeon-gpu", Arch::Amd64, 4, 8_167_784 * KIB, 100)
    },
    Device { power: Power::between(10.0, 30.0), ..jetson("agx-xavier", "xavier", 8, 32 * GB) },
    Device { power: Power::between(15.0, 60.0), ..jetson("orin", "orin", 12, 64 * GB) },
    Device { power: Power::between(10.0, 25.0), ..jetson("orin-nx", "orin-nx", 8, 16 * GB) },
    card_server("l4-server", "l4", 72.0),
    card_server("t4-server", "t4", 70.0),
    card_server("a2-server", "a2", 60.0),
    card_server("a30-server", "a30", 165.0),
];

/// The built-in kind of that name.
pub fn device(kind: &str) -> Option<&'static Device> {
    DEVICES.iter().find(|device| device.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::DEVICES;

    #[test]
    fn kinds_are_unique_and_draw_more_under_load() {
        for (index, device) in DEVICES.iter().enumerate() {
            assert!(DEVICES[..index].iter().all(|other| other.kind != device.kind), "{}", device.kind);
            assert!(device.power.0.is_sorted() && device.power.watts(0.0) > 0.0, "{}", device.kind);
            let half = device.power.watts(0.55);
            assert!(half > device.power.0[5] && half < device.power.0[6], "{}", device.kind);
        }
    }
}
