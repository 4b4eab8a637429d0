//! Measured functions: execution times per device kind, CPU in use, image sizes.
//!
//! Execution times are rows of `data/functions.csv`, truncated log-normals as
//! [`ExecutionTime::log_normal`] takes them:
//!
//! - the inference, training and data functions of faas-sim's `raith21` traces, and `preprocess`,
//!   `train` and `serve` of Skippy's evaluation (faas-sim, MIT; distributions as published);
//! - `mlperf-…`: SingleStream latencies of MLPerf Inference, edge, closed division (Apache-2.0), for
//!   each system of the latest of the rounds v0.7, v2.1 and v3.0 that has it. The median is the
//!   published one, the shape goes through the published 99th percentile, and the rest is cut off
//!   three shapes below and four above. 3D-UNet of v0.7 is another model and stays out.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::catalogue::ExecutionTime;
use crate::device::Arch;

/// A function that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Function {
    pub name: &'static str,
    /// CPU in use while it executes, thousandths of a core: mean over the devices measured (faas-sim's
    /// resource traces); of those without traces, an assumption of ours.
    pub cpu_use_millis: u32,
    /// Memory that it asks for, MiB: as in faas-sim's deployments, from an assumption of ours for
    /// those of MLPerf.
    pub memory_mib: u32,
    /// Size of its image, megabytes, for each architecture that it exists for: as published in
    /// faas-sim; that of the nearest function for those of MLPerf.
    pub image_mb: &'static [(Arch, f64)],
    /// Whether it runs on an accelerator.
    pub accelerated: bool,
}

use Arch::{Amd64, Arm, Arm64};

const fn function(
    name: &'static str,
    cpu_use_millis: u32,
    memory_mib: u32,
    image_mb: &'static [(Arch, f64)],
) -> Function {
    Function { name, cpu_use_millis, memory_mib, image_mb, accelerated: false }
}

const fn accelerated(
    name: &'static str,
    cpu_use_millis: u32,
    memory_mib: u32,
    image_mb: &'static [(Arch, f64)],
) -> Function {
    Function { name, cpu_use_millis, memory_mib, image_mb, accelerated: true }
}

const TENSORRT_MB: &[(Arch, f64)] = &[(Amd64, 2000.0), (Arm64, 1000.0)];

/// All of them.
pub const FUNCTIONS: &[Function] = &[
    function("fio", 364, 200, &[(Amd64, 24.0), (Arm64, 23.0), (Arm, 20.0)]),
    function("mobilenet-inference", 1555, 100, &[(Amd64, 180.0), (Arm64, 173.0), (Arm, 160.0)]),
    accelerated("mobilenet-inference-tpu", 1418, 100, &[(Arm64, 173.0)]),
    accelerated("mlperf-3d-unet", 1000, 2000, TENSORRT_MB),
    accelerated("mlperf-bert", 1000, 2000, TENSORRT_MB),
    accelerated("mlperf-resnet50", 1000, 1000, TENSORRT_MB),
    accelerated("mlperf-retinanet", 1000, 2000, TENSORRT_MB),
    accelerated("mlperf-rnnt", 1000, 2000, TENSORRT_MB),
    accelerated("mlperf-ssd-mobilenet", 1000, 1000, TENSORRT_MB),
    accelerated("mlperf-ssd-resnet34", 1000, 1000, TENSORRT_MB),
    function("preprocess", 1000, 100, &[(Amd64, 533.0), (Arm64, 540.0), (Arm, 466.0)]),
    function("python-pi", 1254, 100, &[(Amd64, 88.0), (Arm64, 62.0), (Arm, 55.0)]),
    function("resnet50-inference", 2344, 200, &[(Amd64, 2000.0), (Arm64, 840.0), (Arm, 700.0)]),
    accelerated("resnet50-inference-gpu", 1678, 1000, &[(Amd64, 2000.0), (Arm64, 1000.0)]),
    function("resnet50-preprocessing", 890, 200, &[(Amd64, 4100.0), (Arm64, 1910.0), (Arm, 1370.0)]),
    function("resnet50-training", 3512, 1000, &[(Amd64, 2000.0)]),
    accelerated("resnet50-training-gpu", 718, 1000, &[(Amd64, 2000.0), (Arm64, 1000.0)]),
    function("serve", 1000, 200, &[(Amd64, 590.0), (Arm64, 591.0), (Arm, 512.0)]),
    function("speech-inference", 966, 200, &[(Amd64, 108.0), (Arm64, 400.0), (Arm, 328.0)]),
    accelerated("speech-inference-gpu", 943, 500, &[(Amd64, 1600.0), (Arm64, 1300.0)]),
    accelerated("tf-gpu", 403, 500, &[(Amd64, 4100.0), (Arm64, 2240.0)]),
    function("train", 4000, 1024, &[(Amd64, 551.0), (Arm64, 594.0), (Arm, 519.0)]),
];

/// The function of that name.
pub fn named(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

impl Function {
    /// `(device kind, execution time)`, in the order of the kinds' names.
    pub fn execution(&self) -> impl Iterator<Item = (&'static str, ExecutionTime)> {
        let of = rows().iter().filter(|row| row.function == self.name);
        of.map(|row| (row.device.as_str(), row.time))
    }
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[serde(from = "Written")]
struct Row {
    function: String,
    device: String,
    time: ExecutionTime,
}

/// A row as it is written.
#[derive(Deserialize)]
struct Written {
    function: String,
    device: String,
    shape: f64,
    loc_s: f64,
    scale_s: f64,
    min_s: f64,
    max_s: f64,
}

impl From<Written> for Row {
    fn from(row: Written) -> Row {
        let time = ExecutionTime::log_normal(row.shape, row.loc_s, row.scale_s, row.min_s, row.max_s);
        Row { function: row.function, device: row.device, time }
    }
}

fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut reader = csv::Reader::from_reader(&include_bytes!("../data/functions.csv")[..]);
        let rows: Result<_, _> = reader.deserialize().collect();
        rows.expect("the embedded table is one of ours, and a test reads it")
    })
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, named, rows};
    use crate::device::device;

    #[test]
    fn every_row_is_of_a_known_function_and_device() {
        for row in rows() {
            assert!(named(&row.function).is_some() && device(&row.device).is_some(), "{row:?}");
            let (least_s, most_s) = (row.time.quantile(1e-12), row.time.quantile(1.0 - 1e-12));
            assert!((least_s..=most_s).contains(&row.time.mean_s) && least_s > 0.0, "{row:?}");
        }
        for function in FUNCTIONS {
            assert!(function.execution().count() > 0, "{}", function.name);
            for (kind, _) in function.execution() {
                let kind = device(kind).unwrap();
                assert!(
                    function.image_mb.iter().any(|(arch, _)| *arch == kind.arch),
                    "{} {}",
                    function.name,
                    kind.kind
                );
            }
        }
    }

    /// Means of the truncated distributions, as published beside them.
    #[test]
    fn means_are_the_published_ones() {
        for (function, device, mean_s) in [
            ("resnet50-inference", "coral", 2.1447),
            ("resnet50-preprocessing", "coral", 10.5138),
            ("mobilenet-inference-tpu", "coral", 0.5477),
            ("python-pi", "coral", 1.622),
            ("train", "nuc", 36.3301),
            ("serve", "cloud-vm", 2.5344),
        ] {
            let function = named(function).unwrap();
            let (_, time) = function.execution().find(|(kind, _)| *kind == device).unwrap();
            assert!(
                (time.mean_s / mean_s - 1.0).abs() < 0.01,
                "{} on {device}: {}",
                function.name,
                time.mean_s
            );
        }
    }
}
