//! What can run and what it reads: images, datasets, and the tasks themselves.

use std::collections::BTreeMap;

use statrs::function::erf::{erf, erf_inv};

use crate::device::Arch;
use crate::scenario::ExecutionFile;
use crate::topology::NodeId;

pub type ImageId = u32;
pub type LayerId = u32;
pub type DatasetId = u32;
/// Index of a task kind in [`Catalogue::kinds`].
pub type KindId = u32;

/// A container image: for each architecture the layers that make it up, none where it cannot run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub name: String,
    /// Layers for each of [`Arch::ALL`], in that order.
    pub layers: [Vec<LayerId>; 3],
}

impl Image {
    /// Layers of the variant for an architecture; none where it does not exist.
    pub fn layers(&self, arch: Arch) -> &[LayerId] {
        &self.layers[arch as usize]
    }
}

/// A blob that images share by identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub name: String,
    pub bytes: u64,
}

/// Data that tasks read or write.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub name: String,
    pub bytes: u64,
    /// Nodes that keep it for good; new versions are stored on the first. None: it stays where the
    /// task that writes it ran.
    pub homes: Vec<NodeId>,
}

/// How long a task runs on a device kind when it has the CPU it asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExecutionTime {
    distribution: Distribution,
    /// Mean, seconds.
    pub mean_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Constant,
    Exponential,
    /// `loc_s + scale_s · e^(shape · z)`, truncated to `min_s..=max_s`, as the faas-sim measurements
    /// are published.
    LogNormal {
        shape: f64,
        loc_s: f64,
        scale_s: f64,
        min_s: f64,
        max_s: f64,
    },
}

impl ExecutionTime {
    /// A time that does not vary.
    pub fn constant(seconds: f64) -> ExecutionTime {
        ExecutionTime { distribution: Distribution::Constant, mean_s: seconds }
    }

    /// Exponentially distributed.
    pub fn exponential(mean_s: f64) -> ExecutionTime {
        ExecutionTime { distribution: Distribution::Exponential, mean_s }
    }

    /// The log-normal `loc + scale·e^(shape·z)` truncated to `[min_s, max_s]`. Its mean is the
    /// average of 256 equally likely quantiles.
    pub fn log_normal(shape: f64, loc_s: f64, scale_s: f64, min_s: f64, max_s: f64) -> ExecutionTime {
        let distribution = Distribution::LogNormal { shape, loc_s, scale_s, min_s, max_s };
        let mut time = ExecutionTime { distribution, mean_s: 0.0 };
        time.mean_s = (0..256).map(|i| time.quantile((f64::from(i) + 0.5) / 256.0)).sum::<f64>() / 256.0;
        time
    }

    /// As a scenario file says it, `factor` times as long.
    pub(crate) fn to_file(self, factor: f64) -> ExecutionFile {
        match self.distribution {
            Distribution::Constant => ExecutionFile::Constant { seconds: self.mean_s * factor },
            Distribution::Exponential => ExecutionFile::Exponential { mean_s: self.mean_s * factor },
            Distribution::LogNormal { shape, loc_s, scale_s, min_s, max_s } => ExecutionFile::LogNormal {
                shape,
                loc_s: loc_s * factor,
                scale_s: scale_s * factor,
                min_s: min_s * factor,
                max_s: max_s * factor,
            },
        }
    }

    /// The time that a share `u` in (0, 1) of executions stays under.
    pub fn quantile(&self, u: f64) -> f64 {
        match self.distribution {
            Distribution::Constant => self.mean_s,
            Distribution::Exponential => -self.mean_s * (-u).ln_1p(),
            Distribution::LogNormal { shape, loc_s, scale_s, min_s, max_s } => {
                let below = |t: f64| {
                    if t > loc_s { normal_below(((t - loc_s) / scale_s).ln() / shape) } else { 0.0 }
                };
                let (low, high) = (below(min_s), below(max_s));
                let z = normal_quantile(low + u * (high - low));
                (loc_s + scale_s * (shape * z).exp()).clamp(min_s, max_s)
            }
        }
    }
}

/// Share of a standard normal distribution below `z`.
fn normal_below(z: f64) -> f64 {
    0.5 * (1.0 + erf(z / std::f64::consts::SQRT_2))
}

/// What a share `u` in (0, 1) of a standard normal distribution is below.
pub(crate) fn normal_quantile(u: f64) -> f64 {
    std::f64::consts::SQRT_2 * erf_inv(2.0 * u - 1.0)
}

/// Resources set aside for a task from its admission to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Share of each, in thousandths.
    pub accelerator_millis: u32,
    /// Models that will do; empty for any.
    pub accelerator_models: Vec<String>,
}

/// What tasks of one sort have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    pub name: String,
    pub requests: Requests,
    /// CPU that it really uses while executing, in millicores; above the node's capacity all its
    /// tasks slow down together.
    pub cpu_use_millis: u32,
    /// `(device kind, time)`; a device kind that is missing cannot run it.
    pub execution: Vec<(String, ExecutionTime)>,
    /// For device kinds not in `execution`.
    pub execution_elsewhere: Option<ExecutionTime>,
    /// Node labels that it would like, `(key, value)`; a heuristic's hint, not a constraint.
    pub prefers: Vec<(String, String)>,
    /// Node labels without which it cannot run, `(key, value)`.
    pub demands: Vec<(String, String)>,
    /// Seconds from arrival after which its result is late.
    pub deadline_s: Option<f64>,
    /// Of the tasks that wait on a node, those with the highest go first.
    pub priority: i32,
}

impl Kind {
    /// Execution time on a device kind, if it can run there.
    pub fn execution_on(&self, device: &str) -> Option<&ExecutionTime> {
        self.execution
            .iter()
            .find(|(kind, _)| kind == device)
            .map(|(_, time)| time)
            .or(self.execution_elsewhere.as_ref())
    }
}

/// One unit of work to place.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub kind: KindId,
    pub image: Option<ImageId>,
    pub inputs: Vec<DatasetId>,
    /// A new version of each of these is stored at its home when the task ends.
    pub outputs: Vec<DatasetId>,
}

/// Each name with its number in the list.
pub fn numbered<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, u32> {
    names.enumerate().map(|(index, name)| (name.clone(), index as u32)).collect()
}

/// Everything that can run, with what it reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    pub images: Vec<Image>,
    pub layers: Vec<Layer>,
    pub datasets: Vec<Dataset>,
    pub kinds: Vec<Kind>,
}

impl Catalogue {
    /// The kind of a task.
    pub fn kind(&self, task: &Task) -> &Kind {
        &self.kinds[task.kind as usize]
    }

    /// Names of layers, made unique: where they are told by name, layers of one name are one.
    pub fn layer_names(&self) -> Vec<String> {
        let mut seen = BTreeMap::new();
        let names = self.layers.iter().map(|layer| {
            let before = seen.entry(&layer.name).or_insert(0);
            *before += 1;
            if *before == 1 { layer.name.clone() } else { format!("{}#{before}", layer.name) }
        });
        names.collect()
    }

    /// Bytes of an image on an architecture; `None` where it does not exist.
    pub fn image_bytes(&self, image: ImageId, arch: Arch) -> Option<u64> {
        let layers = self.images[image as usize].layers(arch);
        (!layers.is_empty()).then(|| layers.iter().map(|&layer| self.layers[layer as usize].bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::ExecutionTime;

    /// Means published beside the distributions (faas-sim, `exec_times_fgcs`), seconds.
    #[test]
    fn truncated_means_are_the_published_ones() {
        let cases = [
            (
                0.314_497_808_571_089_44,
                0.369_096_283_549_971_53,
                0.415_832_202_839_813_15,
                0.584,
                1.142,
                0.7994,
            ),
            (
                0.095_518_982_782_915_2,
                140.380_732_542_976_77,
                20.579_943_343_596_7,
                156.256,
                166.702,
                161.0396,
            ),
            (2.148_861_851_180_003, 0.540_285_300_786_695_7, 1.422_846_600_303_037, 0.542, 11.505, 2.5344),
            (4.521_620_371_690_464, 0.479_999_992_959_189_4, 5.330_858_840_267_918_5, 0.48, 10.882, 2.0828),
            (
                0.205_060_233_114_890_27,
                -20.283_277_542_855_338,
                73.254_124_350_482_07,
                23.89,
                108.743,
                54.5748,
            ),
        ];
        for (shape, loc, scale, min, max, mean) in cases {
            let time = ExecutionTime::log_normal(shape, loc, scale, min, max);
            assert!((time.mean_s / mean - 1.0).abs() < 0.01, "{} for {mean}", time.mean_s);
        }
    }
}
