//! Cron expressions in time zones.

use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// When a trigger fires, in local time. Where the clock skips an hour, what falls into it fires right after; where it
/// repeats one, it fires once.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// # Errors
    /// Which of the two is wrong, and why.
    pub fn read(cron: &str, zone: &str) -> Result<Schedule, String> {
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("zone: is {zone:?}, want a name such as Europe/Paris or UTC"))?;
        let cron = Cron::from_str(cron).map_err(|error| {
            format!("cron: is {cron:?}, want five fields such as \"30 2 * * *\": {error}")
        })?;
        Ok(Schedule { cron, zone })
    }

    /// The first time after this one, both milliseconds since 1970; nothing where there is none.
    pub fn next(&self, after_ms: i64) -> Option<i64> {
        let after: Zoned = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?.timestamp().as_millisecond();
        (next > after_ms).then_some(next)
    }
}
