//! The narrowest link between one vertex and node after node.

use crate::topology::{Direction, NodeId, Topology, VertexId};

/// Answers at nominal capacities, in a tree of links at the cost of a few hops.
#[derive(Debug)]
pub struct Bottleneck<'a> {
    topology: &'a Topology,
    root: VertexId,
    direction: Direction,
    /// The way from `root` up the tree, with the narrowest link so far: ways to others leave it somewhere.
    up: [(VertexId, f64); DEEPEST],
    height: usize,
}

/// Trees that are deeper are walked from end to end for each node.
const DEEPEST: usize = 6;

impl<'a> Bottleneck<'a> {
    /// For data that flows from (or to) `root`.
    pub fn new(topology: &'a Topology, root: VertexId, direction: Direction) -> Bottleneck<'a> {
        let mut way =
            Bottleneck { topology, root, direction, up: [(root, f64::INFINITY); DEEPEST], height: 0 };
        let opposite = if direction == Direction::From { Direction::To } else { Direction::From };
        let mut at = (root, f64::INFINITY);
        while way.height < DEEPEST {
            way.up[way.height] = at;
            way.height += 1;
            let Some((next, capacity)) = topology.climb_from(at.0, opposite) else { return way };
            at = (next, at.1.min(capacity));
        }
        way.height = 0;
        way
    }

    /// Nominal capacity of the narrowest link on the way between the root and a node, bytes per second;
    /// infinite on the root itself, `None` where there is no way.
    #[inline]
    pub fn bytes_per_s(&self, node: NodeId) -> Option<f64> {
        let mut at = (node, f64::INFINITY);
        for _ in 0..DEEPEST {
            if let Some((_, beyond)) = self.up[..self.height].iter().find(|(vertex, _)| *vertex == at.0) {
                return Some(at.1.min(*beyond));
            }
            let Some((next, capacity)) = self.topology.climb_from(at.0, self.direction) else { break };
            at = (next, at.1.min(capacity));
        }
        self.topology.path(self.root, node, self.direction).map(|path| path.bytes_per_s)
    }
}
