//! How often tasks arrived of late.

use super::Cluster;
use crate::catalogue::{ImageId, Task};
use crate::time::Time;

/// Recent arrivals of one sort: a count that decays by half every five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    count: f64,
    at: Time,
}

const RATE_HALF_LIFE_S: f64 = 300.0;

impl Rate {
    fn from_per_s(per_s: f64, now: Time) -> Rate {
        Rate { count: per_s * RATE_HALF_LIFE_S / std::f64::consts::LN_2, at: now }
    }

    fn add(&mut self, now: Time) {
        self.count = self.decayed(now) + 1.0;
        self.at = now;
    }

    fn decayed(&self, now: Time) -> f64 {
        self.count * (-now.since_s(self.at) / RATE_HALF_LIFE_S).exp2()
    }

    /// Arrivals per second, estimated from the decayed count.
    pub fn per_s(&self, now: Time) -> f64 {
        self.decayed(now) * std::f64::consts::LN_2 / RATE_HALF_LIFE_S
    }
}

impl Cluster {
    /// Notes that a task arrived, for the rates.
    pub fn note_arrival(&mut self, task: &Task) {
        let now = self.now;
        self.total_rate.add(now);
        if let Some(image) = task.image {
            self.image_rate[image as usize].add(now);
        }
    }

    /// Sets the recent arrivals per second of tasks that run this image, as an orchestrator reports
    /// them.
    pub fn set_image_rate_per_s(&mut self, image: ImageId, per_s: f64) {
        self.image_rate[image as usize] = Rate::from_per_s(per_s, self.now);
    }

    /// Sets the recent arrivals per second of all tasks.
    pub fn set_total_rate_per_s(&mut self, per_s: f64) {
        self.total_rate = Rate::from_per_s(per_s, self.now);
    }

    /// Recent arrivals per second of tasks that run this image.
    pub fn image_rate_per_s(&self, image: ImageId) -> f64 {
        self.image_rate[image as usize].per_s(self.now)
    }

    /// Recent arrivals per second of all tasks.
    pub fn total_rate_per_s(&self) -> f64 {
        self.total_rate.per_s(self.now)
    }
}
