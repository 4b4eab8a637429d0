//! The narrowest link between one vertex and node after node.

use crate::topology::{Direction, NodeId, Topology, VertexId};

/// Answers for the nodes of a site, one after the other, at the cost of one walk.
#[derive(Debug)]
pub struct Bottleneck<'a> {
    topology: &'a Topology,
    root: VertexId,
    direction: Direction,
    /// The switch of the last node, and the narrowest link beyond it.
    beyond: Option<(VertexId, Option<f64>)>,
}

impl<'a> Bottleneck<'a> {
    /// For data that flows from (or to) `root`.
    pub fn new(topology: &'a Topology, root: VertexId, direction: Direction) -> Bottleneck<'a> {
        Bottleneck { topology, root, direction, beyond: None }
    }

    /// Nominal capacity of the narrowest link on the way between the root and a node, bytes per second;
    /// infinite on the root itself, `None` where there is no way.
    #[inline]
    pub fn bytes_per_s(&mut self, node: NodeId) -> Option<f64> {
        if node == self.root {
            return Some(f64::INFINITY);
        }
        let Some((switch, channel, _)) = self.topology.hop(node, self.direction) else {
            return self.walk(node);
        };
        let beyond = match self.beyond {
            Some((known, beyond)) if known == switch => beyond,
            _ => {
                let beyond = self.walk(switch);
                self.beyond = Some((switch, beyond));
                beyond
            }
        };
        beyond.map(|beyond| beyond.min(self.topology.channels()[channel as usize].capacity_bytes_per_s))
    }

    fn walk(&self, vertex: VertexId) -> Option<f64> {
        self.topology.path(self.root, vertex, self.direction).map(|path| path.bytes_per_s)
    }
}
