//! How much one caller may ask for, and all together. A request pays for two counters, a look into a table and one
//! atomic number: well under a microsecond.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;

/// What is granted at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests under way; a stream is one for as long as it lasts.
    pub in_flight: u32,
    /// The same for one caller.
    pub caller_in_flight: u32,
    /// Requests of one caller per second, on average over a second.
    pub caller_per_second: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Limits {
        let caller_per_second = NonZeroU32::new(100_000).expect("is not 0");
        Limits { in_flight: 10_000, caller_in_flight: 1000, caller_per_second }
    }
}

/// When to ask again where too many requests are under way.
const RETRY: Duration = Duration::from_millis(50);
/// Callers to remember; beyond that, those without a request under way are forgotten.
const CALLERS: usize = 10_000;

/// Whom a limit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Caller(Arc<str>),
    /// Where nobody says who they are.
    Address(Option<IpAddr>),
}

#[derive(Debug)]
struct Line {
    free: Arc<Semaphore>,
    rate: DefaultDirectRateLimiter,
}

#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    free: Arc<Semaphore>,
    lines: RwLock<HashMap<Who, Arc<Line>>>,
    clock: DefaultClock,
}

/// A place among the requests under way, free again when dropped.
#[derive(Debug)]
pub struct Place {
    _one: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Limiter {
    pub fn new(limits: Limits) -> Limiter {
        let free = Arc::new(Semaphore::new(limits.in_flight as usize));
        Limiter { limits, free, lines: RwLock::default(), clock: DefaultClock::default() }
    }

    /// Takes a place, if there is one.
    pub fn enter(&self, who: Who) -> Result<Place, Refusal> {
        let line = self.line(who);
        if let Err(not_until) = line.rate.check() {
            let after = not_until.wait_time_from(self.clock.now());
            let most = self.limits.caller_per_second;
            // A wait below a millisecond would read as none.
            return Err(Refusal::Limited(
                format!("one caller may send {most} requests per second"),
                after + Duration::from_millis(1),
            ));
        }
        let one = line.free.clone().try_acquire_owned().map_err(|_| {
            let most = self.limits.caller_in_flight;
            Refusal::Limited(format!("one caller may have {most} requests under way"), RETRY)
        })?;
        let all = self.free.clone().try_acquire_owned().map_err(|_| {
            let most = self.limits.in_flight;
            Refusal::Limited(format!("{most} requests are under way already"), RETRY)
        })?;
        Ok(Place { _one: one, _all: all })
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.limits.in_flight as usize - self.free.available_permits()
    }

    fn line(&self, who: Who) -> Arc<Line> {
        // A table is whole between its statements, so one that a panic left is too.
        if let Some(line) = self.lines.read().unwrap_or_else(PoisonError::into_inner).get(&who) {
            return line.clone();
        }
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let most = self.limits.caller_in_flight as usize;
        if lines.len() >= CALLERS {
            lines.retain(|_, line| line.free.available_permits() < most);
        }
        let line = || {
            let rate = RateLimiter::direct(Quota::per_second(self.limits.caller_per_second));
            Arc::new(Line { free: Arc::new(Semaphore::new(most)), rate })
        };
        lines.entry(who).or_insert_with(line).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    use super::{Limiter, Limits, Who};
    use crate::service::refusal::Refusal;

    fn caller(name: &str) -> Who {
        Who::Caller(name.into())
    }

    #[test]
    fn places_come_back_and_belong_to_one_caller() {
        let limiter = Limiter::new(Limits { in_flight: 3, caller_in_flight: 2, ..Limits::default() });
        let mut a = vec![limiter.enter(caller("a")).unwrap(), limiter.enter(caller("a")).unwrap()];
        let refused = limiter.enter(caller("a")).unwrap_err();
        assert!(refused.to_string().starts_with("one caller may have 2 requests under way"), "{refused}");
        let _b = limiter.enter(caller("b")).unwrap();
        let refused = limiter.enter(caller("c")).unwrap_err();
        assert!(refused.to_string().starts_with("3 requests are under way already"), "{refused}");
        assert_eq!(limiter.under_way(), 3);
        a.pop();
        assert!(limiter.enter(caller("a")).is_ok());
        assert_eq!(limiter.under_way(), 2);
    }

    #[test]
    fn a_rate_says_when_to_ask_again() {
        let caller_per_second = NonZeroU32::new(10).unwrap();
        let limiter = Limiter::new(Limits { caller_per_second, ..Limits::default() });
        let granted = (0..20).take_while(|_| limiter.enter(caller("a")).is_ok()).count();
        assert!((10..=12).contains(&granted), "{granted}");
        let Err(Refusal::Limited(_, after)) = limiter.enter(caller("a")) else { panic!("it was granted") };
        assert!(after > Duration::ZERO && after <= Duration::from_millis(102), "{after:?}");
        assert!(limiter.enter(caller("b")).is_ok());
        std::thread::sleep(after);
        assert!(limiter.enter(caller("a")).is_ok());
    }

    /// Far from what it costs (0.2 µs), so that a busy machine passes and a slow look-up does not.
    #[test]
    fn a_place_is_cheap() {
        let limiter = Limiter::new(Limits::default());
        for number in 0..1000 {
            drop(limiter.enter(Who::Caller(number.to_string().into())));
        }
        let who: Vec<_> = (0..1000).map(|number| Who::Caller(number.to_string().into())).collect();
        let started = Instant::now();
        for round in 0..50_000 {
            drop(limiter.enter(who[round % who.len()].clone()).unwrap());
        }
        let each = started.elapsed() / 50_000;
        eprintln!("a place costs {each:?}");
        assert!(each < Duration::from_micros(20), "{each:?}");
    }
}
