//! Simulated time: an integer, so that ordering and arithmetic are exact.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// No file may speak of a longer time, in seconds: about three years. Whatever recurs, such as a link
/// that follows a recording, is played all along.
pub const MOST_S: f64 = 1e8;

/// A moment, in nanoseconds since the episode (or the service) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    pub const ZERO: Time = Time(0);

    /// The moment `seconds` after zero; negative and NaN count as zero, too large saturates.
    pub fn from_s(seconds: f64) -> Time {
        // `as` saturates, which is what is wanted at both ends.
        Time((seconds * 1e9).ceil() as u64)
    }

    /// The moment that [`Time::as_s`] told: `seconds` after zero, to the nearest nanosecond.
    pub fn recorded(seconds: f64) -> Time {
        Time((seconds * 1e9).round() as u64)
    }

    pub fn as_s(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This moment plus a duration in seconds, rounded up so that a wait is never cut short.
    pub fn after_s(self, seconds: f64) -> Time {
        self + Time::from_s(seconds)
    }

    /// This moment `seconds` later, or earlier where they are negative, to the nearest nanosecond.
    pub fn shifted_s(self, seconds: f64) -> Time {
        let shift = Time::recorded(seconds.abs());
        if seconds < 0.0 { self - shift } else { self + shift }
    }

    /// Seconds from another moment to this one; negative when the other is later.
    pub fn signed_s_since(self, other: Time) -> f64 {
        self.since_s(other) - other.since_s(self)
    }

    /// Of something that was to take `span` and to end at this moment: when it is expected to end, as it looks
    /// at `now`. What is late is expected to be so for as long again, but no longer than it was to take.
    pub fn expected_from(self, now: Time, span: Time) -> Time {
        let late = now - self;
        if late > Time::ZERO { now + late.min(span) } else { self }
    }

    /// Seconds from `earlier` to this moment; zero when `earlier` is later.
    pub fn since_s(self, earlier: Time) -> f64 {
        (self - earlier).as_s()
    }
}

impl Add for Time {
    type Output = Time;
    fn add(self, other: Time) -> Time {
        Time(self.0.saturating_add(other.0))
    }
}

impl Sub for Time {
    type Output = Time;
    fn sub(self, other: Time) -> Time {
        Time(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.as_s())
    }
}
