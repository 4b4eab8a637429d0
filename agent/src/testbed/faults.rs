//! What is broken on purpose, and when.

use std::fmt;
use std::str::FromStr;

use remora_env::World;

/// One fault: what, when, and for how long. Seconds of the testbed since the first task could arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub what: What,
    pub at_s: f64,
    pub for_s: f64,
    /// Of its capacity the link has this share left.
    pub share: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The process of a node, or of a registry, is killed, and started again after that time.
    Node(String),
    /// The uplink of a site, or the link of a node or registry, is cut or degraded, and healed.
    Link(String),
    /// The service is killed, and started again.
    Server,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Node(name) => write!(f, "node {name} killed")?,
            What::Link(name) if self.share > 0.0 => write!(f, "link {name} degraded to {}", self.share)?,
            What::Link(name) => write!(f, "link {name} cut")?,
            What::Server => f.write_str("server killed")?,
        }
        write!(f, " at {} s for {} s", self.at_s, self.for_s)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let want = || {
            format!(
                "{text:?} is no fault, want node:NAME@AT+FOR, link:NAME@AT+FOR[*SHARE] or server@AT+FOR, in seconds"
            )
        };
        let (what, when) = text.rsplit_once('@').ok_or_else(want)?;
        let (at, span) = when.split_once('+').ok_or_else(want)?;
        let (span, share) = span.split_once('*').map_or((span, None), |(span, share)| (span, Some(share)));
        let seconds =
            |text: &str| text.parse::<f64>().ok().filter(|s| (0.0..=1e6).contains(s)).ok_or_else(want);
        let what = match what.split_once(':') {
            Some(("node", name)) => What::Node(name.to_owned()),
            Some(("link", name)) => What::Link(name.to_owned()),
            None if what == "server" => What::Server,
            _ => return Err(want()),
        };
        if share.is_some() && !matches!(what, What::Link(_)) {
            return Err(format!("{text:?}: only a link can be degraded to a share"));
        }
        let share = share.map_or(Ok(0.0), seconds)?;
        if share > 1.0 {
            return Err(format!("{text:?}: the share is {share}, want 0 to 1"));
        }
        Ok(Fault { what, at_s: seconds(at)?, for_s: seconds(span)?, share })
    }
}

impl What {
    /// The vertex or link that it is about; `None` for the server.
    ///
    /// # Errors
    /// Where the world has none of that name; says what it has.
    pub fn target(&self, world: &World) -> Result<Option<usize>, String> {
        let topology = &world.topology;
        let (sort, name, found) = match self {
            What::Server => return Ok(None),
            What::Node(name) => (
                "node",
                name,
                topology.leaves().find(|&v| topology.vertex_name(v) == name).map(|v| v as usize),
            ),
            What::Link(name) => {
                ("link", name, topology.links.iter().position(|link| topology.vertex_name(link.from) == name))
            }
        };
        found.map(Some).ok_or_else(|| {
            let known: Vec<_> = match sort {
                "node" => topology.leaves().map(|v| topology.vertex_name(v)).collect(),
                _ => topology.links.iter().map(|link| topology.vertex_name(link.from)).collect(),
            };
            format!("{} has no {sort} {name:?}, want one of {}", world.name, known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, What};

    #[test]
    fn faults_are_read_and_wrong_ones_are_refused() {
        let read = |text: &str| text.parse::<Fault>();
        let killed = Fault { what: What::Node("shop/nuc".to_owned()), at_s: 2.5, for_s: 10.0, share: 0.0 };
        assert_eq!(read("node:shop/nuc@2.5+10"), Ok(killed));
        assert_eq!(read("link:shop@1+2*0.25").unwrap().share, 0.25);
        assert_eq!(read("server@1+2").unwrap().what, What::Server);
        for wrong in [
            "shop",
            "node:shop",
            "node:shop@1",
            "link:shop@-1+2",
            "server@1+2*0.5",
            "link:a@1+2*3",
            "x:a@1+2",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
