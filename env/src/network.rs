//! Transfers that share links: a fluid model in which every flow gets its max-min fair share.
//!
//! When a flow starts or ends, only the flows that share a link with it, directly or through
//! others, can change: rates are computed anew for that connected component by progressive
//! filling (Bertsekas and Gallager, *Data Networks*, section 6.5.2) and the rest is left alone.

use crate::time::Time;
use crate::topology::ChannelId;

/// Index of a flow; reused after the flow ended, told apart by its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    pub slot: u32,
    pub generation: u32,
}

#[derive(Clone, Debug, Default)]
struct Flow {
    generation: u32,
    live: bool,
    channels: Vec<ChannelId>,
    bytes: u64,
    /// Bytes still to go at `settled`.
    remaining: f64,
    rate: f64,
    settled: Time,
    /// Counts changes of rate: an announced end is valid while it has not changed.
    epoch: u32,
    /// Scratch of the filling: its number, and whether the rate is final.
    mark: u64,
    frozen: bool,
    new_rate: f64,
}

#[derive(Clone, Debug, Default)]
struct ChannelState {
    capacity: f64,
    flows: Vec<u32>,
    /// Scratch of the filling.
    mark: u64,
    residual: f64,
    unfrozen: u32,
}

/// An announced end of a flow; void if the flow's rate has changed since.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    pub flow: FlowId,
    pub epoch: u32,
    pub at: Time,
}

/// All flows under way.
///
/// Of every connected component only the end that comes first is announced: whatever happens before
/// it re-shares the component and announces anew.
#[derive(Clone, Debug, Default)]
pub struct Network {
    flows: Vec<Flow>,
    free: Vec<u32>,
    channels: Vec<ChannelState>,
    mark: u64,
    component: Component,
    /// Flows to be re-shared, one of each affected component at least.
    touched: Vec<u32>,
    /// Bytes of flows that ended, for the books.
    pub delivered_bytes: u64,
}

/// Scratch: the flows and channels of one connected component.
#[derive(Clone, Debug, Default)]
struct Component {
    flows: Vec<u32>,
    channels: Vec<ChannelId>,
}

impl Network {
    /// A network of idle channels with these capacities, in bytes per second.
    pub fn new(capacities: impl Iterator<Item = f64>) -> Network {
        let channels =
            capacities.map(|capacity| ChannelState { capacity, ..ChannelState::default() }).collect();
        Network { channels, ..Network::default() }
    }

    /// Starts a flow of `bytes` over `channels`, at least one and each once; the ends to expect now
    /// are appended to `ends`.
    pub fn start(&mut self, now: Time, bytes: u64, channels: &[ChannelId], ends: &mut Vec<End>) -> FlowId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flows.push(Flow::default());
            self.flows.len() as u32 - 1
        });
        for &channel in channels {
            self.channels[channel as usize].flows.push(slot);
        }
        let flow = &mut self.flows[slot as usize];
        flow.live = true;
        flow.channels.clear();
        flow.channels.extend_from_slice(channels);
        flow.bytes = bytes;
        flow.remaining = bytes as f64;
        flow.rate = 0.0;
        flow.settled = now;
        let id = FlowId { slot, generation: flow.generation };
        self.touched.push(slot);
        self.share_again(now, ends);
        id
    }

    /// Ends a flow if the announcement still holds. Returns its bytes; the ends to expect now are
    /// appended to `ends`.
    pub fn finish(&mut self, end: End, ends: &mut Vec<End>) -> Option<u64> {
        let flow = &self.flows[end.flow.slot as usize];
        if !flow.live || flow.generation != end.flow.generation || flow.epoch != end.epoch {
            return None;
        }
        let bytes = flow.bytes;
        self.delivered_bytes += bytes;
        self.remove(end.flow.slot);
        self.share_again(end.at, ends);
        Some(bytes)
    }

    /// Ends a live flow before its time; the ends to expect now are appended to `ends`.
    pub fn cancel(&mut self, now: Time, flow: FlowId, ends: &mut Vec<End>) {
        if self.rate(flow).is_some() {
            self.remove(flow.slot);
            self.share_again(now, ends);
        }
    }

    /// Changes what a channel can carry, bytes per second; 0 stops its flows. The ends to expect now
    /// are appended to `ends`.
    pub fn set_capacity(&mut self, now: Time, channel: ChannelId, capacity: f64, ends: &mut Vec<End>) {
        let state = &mut self.channels[channel as usize];
        state.capacity = capacity;
        self.touched.extend(state.flows.first());
        self.share_again(now, ends);
    }

    /// Rate of a live flow, bytes per second.
    pub fn rate(&self, flow: FlowId) -> Option<f64> {
        let state = self.flows.get(flow.slot as usize)?;
        (state.live && state.generation == flow.generation).then_some(state.rate)
    }

    /// Live flows over a channel.
    pub fn flows_over(&self, channel: ChannelId) -> impl Iterator<Item = FlowId> {
        let slots = self.channels[channel as usize].flows.iter();
        slots.map(|&slot| FlowId { slot, generation: self.flows[slot as usize].generation })
    }

    /// Number of flows under way.
    pub fn live_flows(&self) -> usize {
        self.flows.iter().filter(|flow| flow.live).count()
    }

    /// Takes a flow off its channels; those that shared one with it are touched.
    fn remove(&mut self, slot: u32) {
        let flow = &mut self.flows[slot as usize];
        flow.live = false;
        flow.generation += 1;
        flow.epoch += 1;
        for &channel in &flow.channels {
            let flows = &mut self.channels[channel as usize].flows;
            let at =
                flows.iter().position(|&other| other == slot).expect("a live flow is listed on its channels");
            flows.swap_remove(at);
            self.touched.extend(flows.first());
        }
        self.free.push(slot);
    }

    /// Shares the components of all touched flows anew.
    fn share_again(&mut self, now: Time, ends: &mut Vec<End>) {
        self.mark += 1;
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            if self.flows[slot as usize].mark != self.mark {
                self.collect_component(slot);
                self.fill();
                ends.extend(self.apply(now));
            }
        }
        self.touched = touched;
    }

    /// Gathers the flows and channels connected with flow `slot`.
    fn collect_component(&mut self, slot: u32) {
        let mark = self.mark;
        let Component { flows, channels } = &mut self.component;
        flows.clear();
        channels.clear();
        flows.push(slot);
        self.flows[slot as usize].mark = mark;
        let mut next = 0;
        while next < flows.len() {
            let flow = flows[next] as usize;
            next += 1;
            for index in 0..self.flows[flow].channels.len() {
                let channel = self.flows[flow].channels[index];
                let state = &mut self.channels[channel as usize];
                if state.mark == mark {
                    continue;
                }
                state.mark = mark;
                channels.push(channel);
                for &other in &state.flows {
                    if self.flows[other as usize].mark != mark {
                        self.flows[other as usize].mark = mark;
                        flows.push(other);
                    }
                }
            }
        }
    }

    /// Progressive filling: raise all rates together; when a channel is full its flows are final.
    fn fill(&mut self) {
        for &flow in &self.component.flows {
            self.flows[flow as usize].frozen = false;
        }
        for &channel in &self.component.channels {
            let state = &mut self.channels[channel as usize];
            state.residual = state.capacity;
            state.unfrozen = state.flows.len() as u32;
        }
        let mut left = self.component.flows.len();
        // Channels whose flows are all final are put aside, at the end.
        let mut open = self.component.channels.len();
        while left > 0 {
            let (share, at) = self.tightest(&mut open);
            let channel = self.component.channels[at] as usize;
            for index in 0..self.channels[channel].flows.len() {
                let flow = self.channels[channel].flows[index] as usize;
                if self.flows[flow].frozen {
                    continue;
                }
                self.flows[flow].frozen = true;
                self.flows[flow].new_rate = share;
                left -= 1;
                for &crossed in &self.flows[flow].channels {
                    let state = &mut self.channels[crossed as usize];
                    state.residual -= share;
                    state.unfrozen -= 1;
                }
            }
        }
    }

    /// Of the first `open` channels of the component the one that fills first: the fair share there,
    /// and its place.
    fn tightest(&mut self, open: &mut usize) -> (f64, usize) {
        let mut best = (f64::INFINITY, ChannelId::MAX, 0);
        let mut at = 0;
        while at < *open {
            let channel = self.component.channels[at];
            let state = &self.channels[channel as usize];
            if state.unfrozen == 0 {
                *open -= 1;
                self.component.channels.swap(at, *open);
                continue;
            }
            let share = state.residual.max(0.0) / f64::from(state.unfrozen);
            // Of equals the one with the lowest number, in whatever order they come.
            if (share, channel) < (best.0, best.1) {
                best = (share, channel, at);
            }
            at += 1;
        }
        (best.0, best.2)
    }

    /// Settles the flows whose rate changed; returns the first end in the component, if one is in
    /// sight.
    fn apply(&mut self, now: Time) -> Option<End> {
        let mut first: Option<End> = None;
        for &slot in &self.component.flows {
            let flow = &mut self.flows[slot as usize];
            if flow.new_rate != flow.rate {
                flow.remaining = (flow.remaining - flow.rate * now.since_s(flow.settled)).max(0.0);
                flow.settled = now;
                flow.rate = flow.new_rate;
                flow.epoch += 1;
            }
            if flow.rate == 0.0 {
                continue;
            }
            let at = flow.settled.after_s(flow.remaining / flow.rate);
            let id = FlowId { slot, generation: flow.generation };
            let key = |at: Time, slot: u32| (at, slot);
            if first.is_none_or(|end| key(at, slot) < key(end.at, end.flow.slot)) {
                first = Some(End { flow: id, epoch: flow.epoch, at });
            }
        }
        first
    }

    /// Checks that no channel carries more than it can.
    ///
    /// # Panics
    /// When one does: a bug of this module.
    pub fn check(&self) {
        for (index, channel) in self.channels.iter().enumerate() {
            let carried: f64 = channel.flows.iter().map(|&flow| self.flows[flow as usize].rate).sum();
            assert!(
                carried <= channel.capacity * (1.0 + 1e-9),
                "channel {index}: {carried} of {}",
                channel.capacity
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Network;
    use crate::time::Time;

    fn rates(capacities: &[f64], routes: &[&[u32]]) -> Vec<f64> {
        let mut network = Network::new(capacities.iter().copied());
        let mut ends = Vec::new();
        let flows: Vec<_> =
            routes.iter().map(|route| network.start(Time::ZERO, 1000, route, &mut ends)).collect();
        network.check();
        flows.iter().map(|&flow| network.rate(flow).unwrap()).collect()
    }

    #[test]
    fn flows_on_one_link_get_equal_shares() {
        for k in 1..=20_usize {
            let shares = rates(&[120.0], &vec![&[0_u32][..]; k]);
            assert!(shares.iter().all(|share| (share - 120.0 / k as f64).abs() < 1e-9), "{shares:?}");
        }
    }

    /// Three links of 10, 4 and 8: A crosses all, B the first, C the second, D the third. Link 1 is
    /// the first to fill (A and C get 2 each); link 2 then leaves D 6 and link 0 leaves B 8.
    #[test]
    fn hand_worked_example() {
        assert_eq!(rates(&[10.0, 4.0, 8.0], &[&[0, 1, 2], &[0], &[1], &[2]]), [2.0, 8.0, 2.0, 6.0]);
    }

    #[test]
    fn a_flow_that_ends_gives_its_share_back() {
        let mut network = Network::new([100.0].into_iter());
        let mut ends = Vec::new();
        network.start(Time::ZERO, 100, &[0], &mut ends);
        let long = network.start(Time::ZERO, 200, &[0], &mut ends);
        // 50 B/s each: the short one ends at 2 s, the long one has 100 bytes left at 100 B/s.
        let first = ends.iter().rfind(|end| end.flow != long).copied().unwrap();
        assert_eq!(first.at, Time::from_s(2.0));
        ends.clear();
        assert_eq!(network.finish(first, &mut ends), Some(100));
        assert_eq!(ends[0].at, Time::from_s(3.0));
        assert_eq!(network.finish(ends[0], &mut Vec::new()), Some(200));
        assert_eq!((network.live_flows(), network.delivered_bytes), (0, 300));
    }
}
