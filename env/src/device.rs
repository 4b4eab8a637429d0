//! Device kinds of edge clusters, with what their makers and measurements say of them.

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

/// The built-in kinds.
///
/// Cores, memory and architecture: the `ether` device presets used by faas-sim. Start-up times:
/// means of the published container start distributions with the image present (faas-sim,
/// `startup_fgcs`); kinds that were not measured take the nearest measured one. Disks: the usual
/// card or drive of the kind, an assumption of ours.
pub const DEVICES: &[Device] = &[
    Device {
        kind: "cloud-vm",
        arch: Arch::Amd64,
        cpu_millis: 4000,
        memory_bytes: 8_167_784 * KIB,
        disk_bytes: 100 * GB,
        accelerator: None,
        startup_s: 6.8,
        labels: CLOUD,
    },
    Device {
        kind: "server",
        arch: Arch::Amd64,
        cpu_millis: 88_000,
        memory_bytes: 188 * GB,
        disk_bytes: 1000 * GB,
        accelerator: None,
        startup_s: 2.1,
        labels: CLOUD,
    },
    Device {
        kind: "nuc",
        arch: Arch::Amd64,
        cpu_millis: 4000,
        memory_bytes: 16 * GIB,
        disk_bytes: 250 * GB,
        accelerator: None,
        startup_s: 2.15,
        labels: EDGE,
    },
    Device {
        kind: "tx2",
        arch: Arch::Arm64,
        cpu_millis: 4000,
        memory_bytes: 8_047_252 * KIB,
        disk_bytes: 32 * GB,
        accelerator: Some(("tegra-x2", 1)),
        startup_s: 2.16,
        labels: EDGE_CUDA,
    },
    Device {
        kind: "nano",
        arch: Arch::Arm64,
        cpu_millis: 4000,
        memory_bytes: 4_047_252 * KIB,
        disk_bytes: 32 * GB,
        accelerator: Some(("tegra-x1", 1)),
        startup_s: 2.16,
        labels: EDGE_CUDA,
    },
    Device {
        kind: "nx",
        arch: Arch::Arm64,
        cpu_millis: 6000,
        memory_bytes: 8 * GB,
        disk_bytes: 32 * GB,
        accelerator: Some(("xavier-nx", 1)),
        startup_s: 2.16,
        labels: EDGE_CUDA,
    },
    Device {
        kind: "coral",
        arch: Arch::Arm64,
        cpu_millis: 4000,
        memory_bytes: GB,
        disk_bytes: 16 * GB,
        accelerator: Some(("edge-tpu", 1)),
        startup_s: 8.1,
        labels: EDGE,
    },
    Device {
        kind: "rockpi",
        arch: Arch::Arm64,
        cpu_millis: 6000,
        memory_bytes: 4 * GB,
        disk_bytes: 32 * GB,
        accelerator: None,
        startup_s: 8.1,
        labels: EDGE,
    },
    Device {
        kind: "rpi4",
        arch: Arch::Arm,
        cpu_millis: 4000,
        memory_bytes: GB,
        disk_bytes: 32 * GB,
        accelerator: None,
        startup_s: 8.1,
        labels: EDGE,
    },
    Device {
        kind: "rpi3",
        arch: Arch::Arm,
        cpu_millis: 4000,
        memory_bytes: 999_036 * KIB,
        disk_bytes: 16 * GB,
        accelerator: None,
        startup_s: 8.1,
        labels: EDGE,
    },
];

/// The built-in kind of that name.
pub fn device(kind: &str) -> Option<&'static Device> {
    DEVICES.iter().find(|device| device.kind == kind)
}
