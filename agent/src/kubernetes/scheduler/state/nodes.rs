//! Nodes that come, change and go, and the pods on them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Seen, Source, State};
use crate::kubernetes::facts::NodeFacts;

impl State {
    pub(super) fn node(&mut self, seen: Seen<NodeFacts>) {
        match seen {
            Seen::Start => drop(self.listing.insert(Source::Nodes, BTreeSet::new())),
            Seen::Is(facts) => {
                if let Some(listed) = self.listing.get_mut(&Source::Nodes) {
                    listed.insert(facts.name.clone());
                }
                self.node_is(Arc::new(*facts));
            }
            Seen::Gone(facts) => self.node_gone(&facts.name),
            Seen::End => {
                let listed = self.listing.remove(&Source::Nodes).unwrap_or_default();
                let gone: Vec<_> =
                    self.book.nodes().keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.node_gone(name));
                self.heard.insert(Source::Nodes);
            }
        }
    }

    fn node_is(&mut self, facts: Arc<NodeFacts>) {
        let name = facts.name.clone();
        let before = self.book.nodes().get(&name).cloned();
        let known = self.book.knows(&name);
        let changes = self.book.apply(Arc::clone(&facts));
        self.change(changes);
        match (known, self.book.knows(&name)) {
            // Pods may have been seen there before the node was.
            (false, true) => self.pods_on(&name).iter().for_each(|uid| self.place_there(uid, &name)),
            (true, false) => self.node_left(&name),
            _ => {}
        }
        let heartbeat = before.is_some_and(|before| {
            *before == NodeFacts { version: before.version.clone(), ..(*facts).clone() }
        });
        if !heartbeat {
            self.may_help(&name, "");
        }
    }

    fn node_gone(&mut self, name: &str) {
        let changes = self.book.remove(name);
        self.change(changes);
        self.node_left(name);
    }

    /// The core ends what is placed on a node that it does not know any more.
    fn node_left(&mut self, name: &str) {
        for uid in self.pods_on(name) {
            self.pods.get_mut(&uid).expect("it was just listed").decision_id.clear();
        }
    }

    fn pods_on(&self, node: &str) -> Vec<String> {
        let here = self.pods.iter().filter(|(_, entry)| entry.node() == Some(node));
        here.map(|(uid, _)| uid.clone()).collect()
    }
}
