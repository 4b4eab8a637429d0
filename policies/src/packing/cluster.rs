//! Nodes with GPUs that pods share, and what fits on them.

/// A whole GPU, thousandths.
pub const WHOLE_GPU: u32 = 1000;
/// Most GPUs that a node can have.
pub const MAX_GPUS: usize = 8;

/// A set of GPU models, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Models(u64);

impl Models {
    /// No model: a node without GPUs.
    pub const NONE: Models = Models(0);
    /// Whatever there is: a pod that does not care.
    pub const ANY: Models = Models(u64::MAX);
    /// How many models can be told apart.
    pub const MOST: usize = u64::BITS as usize;

    /// The model of a number below [`Models::MOST`], alone.
    pub fn one(number: usize) -> Models {
        assert!(number < Models::MOST, "model {number} of at most {}", Models::MOST);
        Models(1 << number)
    }

    /// The models of both sets.
    pub fn and(self, other: Models) -> Models {
        Models(self.0 | other.0)
    }

    /// Whether the sets have a model in common.
    pub fn meets(self, other: Models) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// MiB.
    pub memory_mib: u32,
    /// Of each GPU, thousandths: a whole one where there are several, 0 where there is none.
    pub gpu_millis: u32,
    /// How many, all on one node.
    pub gpus: u32,
    /// Models that will do.
    pub models: Models,
}

impl Pod {
    /// Thousandths of a GPU altogether.
    pub fn gpu_demand(&self) -> u32 {
        self.gpus * self.gpu_millis
    }

    /// Whether it takes a part of a GPU, so that others may have the rest.
    pub fn shares_gpu(&self) -> bool {
        self.gpus == 1 && self.gpu_millis < WHOLE_GPU
    }

    /// How large its request for GPUs is, as a set of one: bit 0 for a part of a GPU, bit n for n whole ones.
    pub fn size(&self) -> u16 {
        match self.gpus {
            0 => 0,
            1 if self.gpu_millis < WHOLE_GPU => 1,
            gpus => 1 << gpus,
        }
    }
}

/// What a node has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// MiB.
    pub memory_mib: u32,
    /// The model of its GPUs, or none.
    pub model: Models,
    /// Which sizes of request it has taken in, of [`Pod::size`].
    pub sizes: u16,
    gpus: usize,
    /// Thousandths of each GPU; those that it does not have stay 0.
    free: [u32; MAX_GPUS],
}

impl Node {
    /// A node on which nothing runs, with so many GPUs, [`MAX_GPUS`] at most.
    pub fn new(cpu_millis: u32, memory_mib: u32, model: Models, gpus: usize) -> Node {
        let mut free = [0; MAX_GPUS];
        free[..gpus].fill(WHOLE_GPU);
        Node { cpu_millis, memory_mib, model, sizes: 0, gpus, free }
    }

    /// Thousandths left of each of its GPUs.
    pub fn gpus(&self) -> &[u32] {
        &self.free[..self.gpus]
    }

    /// Thousandths left of all its GPUs.
    pub fn gpu_millis(&self) -> u32 {
        self.free.iter().sum()
    }

    /// How many of its GPUs nobody uses.
    pub fn idle_gpus(&self) -> usize {
        self.gpus().iter().filter(|free| **free == WHOLE_GPU).count()
    }

    /// Whether a pod's requests are free on it.
    pub fn fits(&self, pod: &Pod) -> bool {
        self.cpu_millis >= pod.cpu_millis && self.memory_mib >= pod.memory_mib && self.fits_gpus(pod)
    }

    fn fits_gpus(&self, pod: &Pod) -> bool {
        let with_room = || self.free.iter().filter(|free| **free >= pod.gpu_millis).count();
        pod.gpus == 0 || (pod.models.meets(self.model) && with_room() >= pod.gpus as usize)
    }

    /// The GPU with least room of those on which a pod's part fits, the first of equals.
    pub fn tightest_gpu(&self, pod: &Pod) -> Option<usize> {
        let with_room = (0..self.gpus).filter(|gpu| self.free[*gpu] >= pod.gpu_millis);
        with_room.min_by_key(|gpu| self.free[*gpu])
    }

    /// GPUs on which a pod's part fits, but for those with as much left as one before: they come to the same.
    pub fn distinct_gpus(&self, pod: &Pod) -> impl Iterator<Item = usize> {
        let (gpus, asked) = (self.gpus(), pod.gpu_millis);
        (0..gpus.len()).filter(move |gpu| gpus[*gpu] >= asked && !gpus[..*gpu].contains(&gpus[*gpu]))
    }

    /// Takes in a pod that fits; one that shares a GPU gets `gpu`, others the first idle ones.
    ///
    /// # Panics
    /// If it does not fit there.
    pub fn bind(&mut self, pod: &Pod, gpu: usize) {
        assert!(self.fits(pod), "{pod:?} does not fit on {self:?}");
        self.cpu_millis -= pod.cpu_millis;
        self.memory_mib -= pod.memory_mib;
        self.sizes |= pod.size();
        if pod.shares_gpu() {
            let left = self.free[gpu].checked_sub(pod.gpu_millis);
            self.free[gpu] = left.expect("a packer names a GPU with room");
        } else {
            let with_room = self.free.iter_mut().filter(|free| **free >= pod.gpu_millis);
            with_room.take(pod.gpus as usize).for_each(|free| *free -= pod.gpu_millis);
        }
    }
}
