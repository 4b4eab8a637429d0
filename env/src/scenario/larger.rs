//! The same scenario with more nodes: what a policy does on a cluster that has grown.

use super::{HomeFile, NodesFile, Scenario, ScenarioError, ScenarioFile, SiteFile};

impl Scenario {
    /// The same scenario with so many nodes, and so much more to do for them. There are more of each outermost site, as many
    /// as there is room for, and at last a part of one; without sites, more of the nodes. As many times as there are
    /// nodes, there are instances of each stream, datasets of families of several, and `tasks` unless given, so that
    /// they take as long to arrive. What there is one of stays one: the backbone's nodes, a dataset that everybody reads.
    ///
    /// # Errors
    /// Fewer nodes than there are, more than a scenario may have, or arrivals from a recorded trace, which do not grow.
    pub fn larger(&self, nodes: u32, tasks: Option<u32>) -> Result<Scenario, ScenarioError> {
        let invalid = |problems| ScenarioError::Invalid { origin: self.name().to_owned(), problems };
        let (backbone, within) = count(&self.file);
        let before = backbone + within;
        if u64::from(nodes) < before {
            return Err(invalid(vec![format!(
                "nodes is {nodes}, want the {before} that there are, or more"
            )]));
        }
        if self.trace.is_some() {
            let why = "it follows a recorded trace: what arrives would not grow with the cluster";
            return Err(invalid(vec![why.to_owned()]));
        }
        let mut scenario = self.clone();
        let file = &mut scenario.file;
        file.name = format!("{}-{nodes}", file.name);
        file.summary = format!("{} (grown from {before} to {nodes} nodes)", file.summary);
        let renamed = grow(file, u64::from(nodes), backbone);
        for (name, now) in renamed {
            rename(file, &name, &now);
        }
        grow_load(file, f64::from(nodes) / before as f64, tasks);
        match crate::accept::problems(&scenario) {
            problems if problems.is_empty() => Ok(scenario),
            problems => Err(invalid(problems)),
        }
    }
}

/// Nodes on the backbone, and in sites.
fn count(file: &ScenarioFile) -> (u64, u64) {
    let backbone = file.topology.nodes.iter().map(|group| u64::from(group.count)).sum();
    (backbone, file.topology.sites.iter().map(all).sum())
}

/// Nodes of all sites alike.
fn all(site: &SiteFile) -> u64 {
    u64::from(site.count) * each(site)
}

/// Nodes of one of them.
fn each(site: &SiteFile) -> u64 {
    let own: u64 = site.nodes.iter().map(|group| u64::from(group.count)).sum();
    own + site.sites.iter().map(all).sum::<u64>()
}

/// Grows sites, or nodes where there are no sites; what was the only one of its name is then called otherwise: before, now.
fn grow(file: &mut ScenarioFile, nodes: u64, backbone: u64) -> Vec<(String, String)> {
    let topology = &mut file.topology;
    let mut renamed = Vec::new();
    let mut grown = |name: &str, count: &mut u32, times: u64, more: u64| {
        let now = u64::from(*count) * times + more;
        if *count == 1 && now > 1 {
            renamed.push((name.to_owned(), format!("{name}-0")));
        }
        *count = now as u32;
    };
    let within: u64 = topology.sites.iter().map(all).sum();
    if within == 0 {
        let (times, mut left) = (nodes / backbone, nodes % backbone);
        for group in &mut topology.nodes {
            let more = left.min(u64::from(group.count));
            left -= more;
            grown(&group.name, &mut group.count, times, more);
        }
        return renamed;
    }
    let (times, mut left) = ((nodes - backbone) / within, (nodes - backbone) % within);
    let mut part = None;
    for site in &mut topology.sites {
        let one = each(site);
        let more = left.checked_div(one).unwrap_or(0).min(u64::from(site.count));
        left -= more * one;
        // All that is left from here on is less than one of these.
        if more < u64::from(site.count) && one > 0 && part.is_none() {
            part = Some(site.clone());
        }
        grown(&site.name, &mut site.count, times, more);
    }
    topology.sites.extend(part.filter(|_| left > 0).map(|site| part_of(&site, left)));
    renamed
}

/// One site with the first nodes of it.
fn part_of(site: &SiteFile, mut nodes: u64) -> SiteFile {
    let mut part = SiteFile { name: format!("{}-part", site.name), count: 1, ..site.clone() };
    for NodesFile { count, .. } in &mut part.nodes {
        *count = u64::from(*count).min(nodes) as u32;
        nodes -= u64::from(*count);
    }
    part.nodes.retain(|group| group.count > 0);
    let mut inner = Vec::new();
    for mut site in part.sites {
        let one = each(&site);
        let whole = nodes.checked_div(one).unwrap_or(0).min(u64::from(site.count));
        nodes -= whole * one;
        let rest = (whole < u64::from(site.count) && nodes > 0).then(|| part_of(&site, nodes));
        nodes = if rest.is_some() { 0 } else { nodes };
        site.count = whole as u32;
        inner.extend(Some(site).filter(|site| site.count > 0).into_iter().chain(rest));
    }
    part.sites = inner;
    part
}

/// What names a node or a site by its path names the first of them.
fn rename(file: &mut ScenarioFile, before: &str, now: &str) {
    let rename = |path: &mut String| {
        let (first, rest) = path.split_once('/').map_or((path.as_str(), None), |(a, b)| (a, Some(b)));
        if first == before {
            *path = rest.map_or_else(|| now.to_owned(), |rest| format!("{now}/{rest}"));
        }
    };
    file.topology.registries.iter_mut().filter_map(|registry| registry.site.as_mut()).for_each(rename);
    for dataset in &mut file.catalogue.datasets {
        if let HomeFile::Nodes(names) = &mut dataset.home {
            names.iter_mut().for_each(rename);
        }
    }
}

fn grow_load(file: &mut ScenarioFile, times: f64, tasks: Option<u32>) {
    let grown = |count: u32| (f64::from(count) * times).round() as u32;
    file.workload.streams.iter_mut().for_each(|stream| stream.instances = grown(stream.instances));
    file.catalogue.datasets.iter_mut().filter(|family| family.count > 1).for_each(|family| {
        family.count = grown(family.count);
    });
    file.workload.tasks = tasks.or(file.workload.tasks.map(grown));
}
