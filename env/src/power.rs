//! What a node draws.

/// Watts at 0, 10, …, 100 % CPU load; in between the line from one to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Power(pub [f64; 11]);

impl Power {
    /// In proportion to the load.
    pub const fn between(idle_w: f64, busy_w: f64) -> Power {
        let mut watts = [0.0; 11];
        let mut tenth = 0;
        while tenth < watts.len() {
            watts[tenth] = idle_w + (busy_w - idle_w) * tenth as f64 / 10.0;
            tenth += 1;
        }
        Power(watts)
    }

    /// This and another part of the same machine, loaded alike.
    pub const fn and(mut self, other: Power) -> Power {
        let mut tenth = 0;
        while tenth < self.0.len() {
            self.0[tenth] += other.0[tenth];
            tenth += 1;
        }
        self
    }

    /// Watts at a CPU load from 0 to 1.
    pub fn watts(&self, load: f64) -> f64 {
        let position = load.clamp(0.0, 1.0) * 10.0;
        let below = (position as usize).min(9);
        self.0[below] + (self.0[below + 1] - self.0[below]) * (position - below as f64)
    }
}
