//! Families of generated scenarios: what a policy that is to run anywhere learns on and is judged on.
//!
//! A member is a pure function of its family and number, and an ordinary scenario: `remora scenario
//! show train-family/17` prints it. What is drawn, and from what range (log-uniform unless it is a
//! count or a share):
//!
//! | | range |
//! |---|---|
//! | nodes | 8 to 200 |
//! | sites | a cloud, cloudlets with up to a third of the nodes, and 1 to 4 sorts of cells, 2 to 16 nodes each, some on a shared wireless medium |
//! | devices | [`USUAL`]: 1 to 3 kinds in a cell |
//! | uplinks of cells | 8 to 100 Mbit/s up, 20 to 250 down, 8 to 60 ms, some with jitter, price 1 to 8 |
//! | uplinks of cloudlets | 100 to 1000 Mbit/s, 2 to 15 ms, price 1 to 4 |
//! | functions | 3 to 6 of the measured ones that at least two nodes can run, with their measured times and images; half of the members have a chain of preparation, training and inference |
//! | data | 6 to 20 instances per function, of which a few are asked for more often, with sizes as in [`functions`] |
//! | images present at the start | 15 to 50 % |
//! | load | the busiest devices 10 to 90 % in use, or the uplinks, if work is spread as evenly as it can be; less where an episode would last under two minutes |
//! | tasks | 200 to 1000, in a third of the members 2000 |
//! | bursts | half of the members, four times the rate |
//! | faults | half of the members: crashes, links, stragglers, old telemetry, mobile nodes |
//!
//! The families draw from streams of their own, so no member is in two of them. Every second member
//! of the test family leaves these ranges, in one way each ([`Stretch`]): for a policy that was
//! trained on the train family nothing else says how far it carries.

mod draw;
mod topology;
mod workload;

use std::fmt;

use draw::Draw;
pub use workload::{Use, functions};

use crate::scenario::{FaultsFile, ScenarioFile};

/// Device kinds of all families.
pub const USUAL: [&str; 13] = [
    "rpi3",
    "rpi4",
    "rockpi",
    "coral",
    "nano",
    "tx2",
    "nx",
    "nuc",
    "agx-xavier",
    "xeon-cpu",
    "xeon-gpu",
    "t4-server",
    "l4-server",
];

/// A set of generated scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// To learn on.
    Train,
    /// To choose among policies and settings.
    Validation,
    /// To report on; never to choose by.
    Test,
}

/// How a member leaves the ranges of the train family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// 200 to 400 nodes.
    Large,
    /// A quarter of the bandwidth.
    Thin,
    /// Load 1.0 to 1.2: more than there is room for.
    Overloaded,
    /// Orin, Orin NX and A2 in place of the accelerators of the train family.
    Unseen,
}

impl Family {
    pub const ALL: [Family; 3] = [Family::Train, Family::Validation, Family::Test];

    /// As the command line and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Train => "train-family",
            Family::Validation => "validation-family",
            Family::Test => "test-family",
        }
    }

    /// The family of that name.
    pub fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The family and what follows the slash in a name such as `train-family/17`.
    pub fn of(name: &str) -> Option<(Family, &str)> {
        let (family, index) = name.split_once('/')?;
        Some((Family::named(family)?, index))
    }

    /// What its members are for.
    pub fn summary(self) -> &'static str {
        match self {
            Family::Train => "generated clusters and loads to learn on: every seed is another member",
            Family::Validation => "the same ranges, other draws: to choose among policies",
            Family::Test => {
                "other draws, every second one beyond the ranges: to report on, never to choose by"
            }
        }
    }

    /// How the member of that number leaves the usual ranges, if it does.
    pub fn stretch(self, index: u64) -> Option<Stretch> {
        if self != Family::Test || index.is_multiple_of(2) {
            return None;
        }
        let stretches = [Stretch::Large, Stretch::Thin, Stretch::Overloaded, Stretch::Unseen];
        Some(stretches[(index / 2 % 4) as usize])
    }

    /// The member of that number.
    pub fn member(self, index: u64) -> ScenarioFile {
        let stretch = self.stretch(index);
        let draw = &mut Draw::new(self, index);
        let mut topology = topology::draw(draw, stretch);
        let load = if stretch == Some(Stretch::Overloaded) {
            draw.uniform(1.0, 1.2)
        } else {
            draw.log_uniform(0.1, 0.9)
        };
        let (catalogue, workload, duration_s) = workload::draw(draw, &topology, load);
        let faults = if draw.chance(0.5) { faults(draw, duration_s) } else { FaultsFile::default() };
        if faults != FaultsFile::default() && draw.chance(0.3) {
            topology::set_moving(draw, &mut topology, duration_s);
        }
        let nodes = topology::census(&topology).iter().map(|group| group.nodes).sum::<u32>();
        let beyond = stretch.map_or(String::new(), |stretch| format!(", {stretch}"));
        ScenarioFile {
            name: format!("{}/{index}", self.name()),
            summary: format!("generated: {nodes} nodes at load {load:.2}{beyond}"),
            topology,
            catalogue,
            workload,
            faults,
        }
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stretch::Large => "larger than any to learn on",
            Stretch::Thin => "a quarter of the bandwidth",
            Stretch::Overloaded => "overloaded",
            Stretch::Unseen => "devices never seen in learning",
        })
    }
}

/// Faults that show within an episode of this length.
fn faults(draw: &mut Draw, duration_s: f64) -> FaultsFile {
    use crate::scenario::{CrashesFile, InterruptedFile, LinkFaultsFile, StragglersFile};
    let mut faults = FaultsFile::default();
    if draw.chance(0.5) {
        faults.crashes = Some(CrashesFile {
            mean_up_s: draw.log_uniform(0.5 * duration_s, 4.0 * duration_s),
            mean_down_s: draw.log_uniform(0.02 * duration_s, 0.1 * duration_s),
            kinds: Vec::new(),
        });
    }
    if draw.chance(0.5) {
        faults.links = Some(LinkFaultsFile {
            mean_up_s: draw.log_uniform(0.3 * duration_s, 2.0 * duration_s),
            mean_down_s: draw.log_uniform(0.02 * duration_s, 0.1 * duration_s),
            capacity: if draw.chance(0.3) { 0.0 } else { draw.uniform(0.1, 0.5) },
        });
        if draw.chance(0.3) {
            faults.transfers = InterruptedFile::Fail;
        }
    }
    if draw.chance(0.5) {
        faults.stragglers =
            Some(StragglersFile { share: draw.uniform(0.01, 0.1), slowdown: draw.log_uniform(2.0, 8.0) });
    }
    if draw.chance(0.5) {
        faults.telemetry_s = draw.log_uniform(1.0, 15.0);
    }
    faults
}
