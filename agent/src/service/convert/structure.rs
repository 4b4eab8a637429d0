//! Changes of what a cluster is made of, carried out in its registration.

use remora_proto::v1 as wire;
use wire::change::Change;

use super::changes::kind;
use super::{Field, Invalid};

/// Whether some change is to what the cluster is made of.
pub fn restructures(changes: &[wire::Change]) -> bool {
    let structural = |change: &wire::Change| {
        matches!(
            change.change,
            Some(
                Change::NodeEntered(_)
                    | Change::NodeLeft(_)
                    | Change::SwitchEntered(_)
                    | Change::Image(_)
                    | Change::Dataset(_)
                    | Change::TaskKind(_)
            )
        )
    };
    changes.iter().any(structural)
}

/// Changes what a cluster is made of in its registration. What its links carry, which is told by their places, is
/// left out of that. Returns the ids of the decisions whose node left.
pub fn restructure(
    registration: &mut wire::RegisterClusterRequest,
    changes: &[wire::Change],
) -> Result<Vec<String>, Invalid> {
    let cluster = registration.cluster.get_or_insert_default();
    let facts = registration.facts.get_or_insert_default();
    facts.links.clear();
    facts.link_estimates.clear();
    let mut lost = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let at = Field::item_of_root("changes", index);
        match kind(change, at)? {
            Change::NodeEntered(entered) => enter(at.field("node_entered"), entered, cluster)?,
            Change::NodeLeft(name) => lost.extend(leave(at.field("node_left"), &name, cluster, facts)?),
            Change::SwitchEntered(entered) => switch(at.field("switch_entered"), entered, cluster)?,
            Change::Image(image) => replace(&mut cluster.images, image, |image| &image.name),
            Change::Dataset(dataset) => {
                // It is at its homes, which may be others than those that had it.
                facts.datasets.retain(|facts| facts.dataset != dataset.name);
                replace(&mut cluster.datasets, dataset, |dataset| &dataset.name);
            }
            Change::TaskKind(kind) => replace(&mut cluster.task_kinds, kind, |kind| &kind.name),
            _ => {}
        }
    }
    Ok(lost)
}

/// Puts something in the place of what has its name, or at the end.
fn replace<T>(list: &mut Vec<T>, new: T, name: impl Fn(&T) -> &String) {
    match list.iter().position(|old| name(old) == name(&new)) {
        Some(index) => list[index] = new,
        None => list.push(new),
    }
}

/// Enters a node with its links, or replaces it.
fn enter(at: Field<'_>, entered: wire::NodeEntered, cluster: &mut wire::Cluster) -> Result<(), Invalid> {
    let wire::NodeEntered { node, links, .. } = entered;
    let node = at.field("node").given(&node)?.clone();
    unused(at.field("node").field("name"), &node.name, cluster.registries.iter().chain(&cluster.switches))?;
    for (index, link) in links.iter().enumerate() {
        if link.outer != node.name && link.inner != node.name {
            let wire::Link { outer, inner, .. } = link;
            let problem = format_args!("is between {outer:?} and {inner:?}, want {:?} at one end", node.name);
            return Err(at.item("links", index).refuse(problem));
        }
    }
    relink(&mut cluster.links, &node.name, links);
    replace(&mut cluster.nodes, node, |node| &node.name);
    Ok(())
}

/// Enters a switch with its uplink, or replaces that.
fn switch(at: Field<'_>, entered: wire::SwitchEntered, cluster: &mut wire::Cluster) -> Result<(), Invalid> {
    let wire::SwitchEntered { name, link } = entered;
    let name = at.field("name").name(&name)?;
    let nodes = cluster.nodes.iter().map(|node| &node.name);
    unused(at.field("name"), &name, cluster.registries.iter().chain(nodes))?;
    let link = at.field("link").given(&link)?.clone();
    if link.outer != name {
        let problem = format_args!("is {:?}, want the switch itself, {name:?}", link.outer);
        return Err(at.field("link").field("outer").refuse(problem));
    }
    relink(&mut cluster.links, &name, vec![link]);
    if !cluster.switches.contains(&name) {
        cluster.switches.push(name);
    }
    Ok(())
}

/// Names are unique among nodes, registries and switches together.
fn unused<'a>(
    at: Field<'_>,
    name: &str,
    mut others: impl Iterator<Item = &'a String>,
) -> Result<(), Invalid> {
    match others.any(|other| other == name) {
        true => Err(at.refuse(format_args!("{name:?} is used twice"))),
        false => Ok(()),
    }
}

/// Puts links in the place of those whose outer end this is and of those between the same ends.
fn relink(links: &mut Vec<wire::Link>, name: &str, mut new: Vec<wire::Link>) {
    links.retain_mut(|link| {
        let same = |new: &wire::Link| (&new.outer, &new.inner) == (&link.outer, &link.inner);
        match new.iter().position(same) {
            Some(index) => {
                *link = new.remove(index);
                true
            }
            None => link.outer != name,
        }
    });
    links.append(&mut new);
}

/// Takes a node with its links and all that is known of it out of a registration.
fn leave(
    at: Field<'_>,
    name: &str,
    cluster: &mut wire::Cluster,
    facts: &mut wire::Facts,
) -> Result<Vec<String>, Invalid> {
    let Some(index) = cluster.nodes.iter().position(|node| node.name == name) else {
        return Err(at.unknown("node", name, cluster.nodes.iter().map(|node| node.name.as_str())));
    };
    cluster.nodes.remove(index);
    cluster.links.retain(|link| link.outer != name && link.inner != name);
    for dataset in &mut cluster.datasets {
        dataset.homes.retain(|home| home != name);
    }
    for dataset in &mut facts.datasets {
        dataset.holders.retain(|holder| holder != name);
    }
    facts.datasets.retain(|dataset| !dataset.holders.is_empty());
    let gone = facts.nodes.iter().position(|facts| facts.node == name).map(|index| facts.nodes.remove(index));
    let placed = gone.into_iter().flat_map(|facts| facts.placed);
    Ok(placed.map(|placed| placed.decision_id).filter(|id| !id.is_empty()).collect())
}
