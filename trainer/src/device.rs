//! Where gradients are computed.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// What computes the gradients; episodes are always played by the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor, by Burn's fastest back end for networks of this size.
    #[default]
    Cpu,
    /// Any GPU with Vulkan, Metal or DirectX; built with `--features wgpu`.
    Wgpu,
    /// An NVIDIA GPU; built with `--features cuda`.
    Cuda,
}

impl Accelerator {
    /// All, with their names.
    pub const ALL: [(&str, Accelerator); 3] =
        [("cpu", Accelerator::Cpu), ("wgpu", Accelerator::Wgpu), ("cuda", Accelerator::Cuda)];

    /// As the command line and files spell it.
    pub fn name(self) -> &'static str {
        let named = Accelerator::ALL.iter().find(|(_, device)| *device == self);
        named.expect("all of them have a name").0
    }

    /// Burn's name for it; `None` where this build was made without it.
    pub fn device(self) -> Option<Device> {
        match self {
            Accelerator::Cpu => Some(Device::flex()),
            #[cfg(feature = "wgpu")]
            Accelerator::Wgpu => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Accelerator::Cuda => Some(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "a build with all features reaches every arm above")]
            _ => None,
        }
    }
}
