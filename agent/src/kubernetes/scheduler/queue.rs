//! Pods that wait for a place: by priority, then by age; those that failed after a while.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Highest priority first, then oldest first.
type Rank = (Reverse<i32>, Option<Timestamp>, String);

/// Who is next.
#[derive(Debug, Default)]
pub struct Queue {
    ready: BTreeSet<Rank>,
    resting: BTreeSet<(Instant, String)>,
    pods: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    rank: Rank,
    attempts: u32,
    until: Option<Instant>,
}

impl Queue {
    /// Ready from now on.
    pub fn enter(&mut self, uid: &str, priority: i32, created: Option<Timestamp>) {
        let attempts = self.pods.get(uid).map_or(0, |place| place.attempts);
        self.leave(uid);
        let rank = (Reverse(priority), created, uid.to_owned());
        self.ready.insert(rank.clone());
        self.pods.insert(uid.to_owned(), Place { rank, attempts, until: None });
    }

    /// Gone from the queue; what it failed is forgotten.
    pub fn leave(&mut self, uid: &str) {
        if let Some(place) = self.pods.remove(uid) {
            self.ready.remove(&place.rank);
            if let Some(until) = place.until {
                self.resting.remove(&(until, uid.to_owned()));
            }
        }
    }

    /// It failed: it rests for 1 s, then 2, 4, 8, and 10 from then on.
    pub fn rest(&mut self, uid: &str, priority: i32, created: Option<Timestamp>, now: Instant) {
        self.enter(uid, priority, created);
        let Some(place) = self.pods.get_mut(uid) else { return };
        let backoff = FIRST_BACKOFF.saturating_mul(1 << place.attempts.min(10)).min(LONGEST_BACKOFF);
        place.attempts += 1;
        place.until = Some(now + backoff);
        self.ready.remove(&place.rank);
        self.resting.insert((now + backoff, uid.to_owned()));
    }

    /// Its rest is over.
    pub fn wake(&mut self, uid: &str) {
        let Some(place) = self.pods.get_mut(uid) else { return };
        if let Some(until) = place.until.take() {
            self.resting.remove(&(until, uid.to_owned()));
            self.ready.insert(place.rank.clone());
        }
    }

    pub fn rests(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|place| place.until.is_some())
    }

    /// Those that rest.
    pub fn resting(&self) -> impl Iterator<Item = &String> {
        self.resting.iter().map(|(_, uid)| uid)
    }

    /// Who is next; it stays in the queue, at the end of a rest, until it leaves.
    pub fn first(&mut self, now: Instant) -> Option<String> {
        while let Some((_, uid)) = self.resting.first().filter(|(until, _)| *until <= now).cloned() {
            self.wake(&uid);
        }
        self.ready.first().map(|(.., uid)| uid.clone())
    }

    /// When the next rest ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use std::time::{Duration, Instant};

    #[test]
    fn priority_goes_first_and_failures_rest() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.enter("low", 0, None);
        queue.enter("high", 7, None);
        assert_eq!(queue.first(start).as_deref(), Some("high"));
        let mut now = start;
        for rest in [1, 2, 4, 8, 10, 10] {
            queue.rest("high", 7, None, now);
            assert_eq!(queue.first(now).as_deref(), Some("low"));
            assert_eq!(queue.next_end(), Some(now + Duration::from_secs(rest)));
            now += Duration::from_secs(rest);
            assert_eq!(queue.first(now).as_deref(), Some("high"));
        }
        queue.rest("high", 7, None, now);
        queue.wake("high");
        assert_eq!(queue.first(now).as_deref(), Some("high"));
        queue.leave("high");
        queue.leave("low");
        assert_eq!((queue.first(now), queue.len(), queue.next_end()), (None, 0, None));
    }
}
