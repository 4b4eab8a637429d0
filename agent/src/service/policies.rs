//! The policies that can decide, and the roles that they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_policies::checkpoint::Checkpoint;
use remora_policies::{HEURISTICS, Learned, Policy, by_name};

use super::convert::Field;
use super::refusal::Refusal;

/// A role that one policy has, or one version of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alias {
    /// Decides; of an application, answers requests.
    Champion,
    /// Decides a share; of an application, is to be, or was last, judged.
    Candidate,
    /// Decides silently; of an application nothing depends on it.
    Shadow,
}

impl Alias {
    pub const ALL: [Alias; 3] = [Alias::Champion, Alias::Candidate, Alias::Shadow];

    pub fn name(self) -> &'static str {
        match self {
            Alias::Champion => "champion",
            Alias::Candidate => "candidate",
            Alias::Shadow => "shadow",
        }
    }

    pub fn named(name: &str) -> Option<Alias> {
        Alias::ALL.into_iter().find(|alias| alias.name() == name)
    }
}

/// Who got a role from whom.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    pub alias: Alias,
    /// Ids; none for nobody.
    pub policy: Option<String>,
    pub before: Option<String>,
    pub reason: String,
    pub actor: String,
    pub at_ms: i64,
}

/// What is known of a checkpoint beside its contents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    pub name: String,
    pub bytes: usize,
    pub uploaded_at_ms: i64,
    pub uploaded_by: String,
    pub note: String,
    pub metadata: BTreeMap<String, String>,
}

/// A policy that can decide.
struct Loaded {
    id: Arc<str>,
    policy: Box<dyn Policy>,
}

/// All policies and roles.
pub struct Policies {
    seed: u64,
    loaded: BTreeMap<String, Loaded>,
    /// Checkpoints by id.
    checkpoints: BTreeMap<String, About>,
    roles: BTreeMap<Alias, String>,
    pub history: Vec<Change>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Policies {
    /// The heuristics, the shipped checkpoint, and a champion.
    pub fn new(champion: Box<dyn Policy>, seed: u64) -> Policies {
        let id = champion.name().to_owned();
        let mut policies = Policies {
            seed,
            loaded: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            roles: BTreeMap::from([(Alias::Champion, id.clone())]),
            history: Vec::new(),
        };
        policies.loaded.insert(id.clone(), Loaded { id: id.into(), policy: champion });
        policies
    }

    /// Takes a checkpoint in; returns its id.
    pub fn add(&mut self, bytes: &[u8], about: About) -> Result<String, Refusal> {
        let wrong = |error: &dyn std::fmt::Display| Refusal::from(Field::root("chunk").refuse(error));
        let checkpoint = Checkpoint::from_bytes(bytes).map_err(|error| wrong(&error))?;
        let network = checkpoint.network(&burn::tensor::Device::flex()).map_err(|error| wrong(&error))?;
        let id = checkpoint.id();
        let policy = Box::new(Learned::from_network(&id, network));
        self.loaded.insert(id.clone(), Loaded { id: id.as_str().into(), policy });
        let about = About { bytes: bytes.len(), metadata: metadata(&checkpoint), ..about };
        self.checkpoints.entry(id.clone()).or_insert(about);
        Ok(id)
    }

    /// Ids of all, heuristics first.
    pub fn ids(&self) -> Vec<String> {
        let heuristics = HEURISTICS.iter().map(|heuristic| heuristic.name.to_owned());
        let mut ids: Vec<String> = heuristics.collect();
        let others = self.loaded.keys().chain(self.checkpoints.keys());
        for id in others {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Of those that draw.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn about(&self, id: &str) -> Option<&About> {
        self.checkpoints.get(id)
    }

    pub fn aliases(&self, id: &str) -> impl Iterator<Item = Alias> {
        self.roles.iter().filter(move |(_, who)| *who == id).map(|(alias, _)| *alias)
    }

    pub fn role(&self, alias: Alias) -> Option<&str> {
        self.roles.get(&alias).map(String::as_str)
    }

    /// The id behind an id, a name or an alias; what is a heuristic is made ready.
    pub fn find(&mut self, at: Field<'_>, name: &str) -> Result<String, Refusal> {
        let named = |(_, about): &(&String, &About)| about.name == name;
        let known = Alias::named(name).and_then(|alias| self.roles.get(&alias)).cloned();
        let known = known.or_else(|| self.loaded.contains_key(name).then(|| name.to_owned()));
        // Of several uploads of one name the last.
        let newest = |known: &mut dyn Iterator<Item = (&String, &About)>| {
            known.max_by_key(|(_, about)| about.uploaded_at_ms).map(|(id, _)| id.clone())
        };
        if let Some(id) = known.or_else(|| newest(&mut self.checkpoints.iter().filter(named))) {
            return Ok(id);
        }
        let heuristic = HEURISTICS.iter().any(|heuristic| heuristic.name == name) || name == "pretrained";
        let made = if heuristic { by_name(name, self.seed).ok() } else { None };
        let Some(policy) = made else {
            let ids = self.ids();
            return Err(Refusal::UnknownPolicy(at.unknown("policy", name, ids.iter().map(String::as_str))));
        };
        let id = policy.name().to_owned();
        self.loaded.entry(id.clone()).or_insert_with(|| Loaded { id: id.as_str().into(), policy });
        Ok(id)
    }

    /// Gives a role to a policy that was found, or to nobody.
    pub fn set(&mut self, change: Change) {
        match &change.policy {
            Some(id) => drop(self.roles.insert(change.alias, id.clone())),
            None => drop(self.roles.remove(&change.alias)),
        }
        self.history.push(change);
    }

    /// Who had a role before who has it now, by its last change that was not undone.
    pub fn before(&self, alias: Alias) -> Option<&Change> {
        self.history.iter().rev().find(|change| change.alias == alias)
    }

    /// The policy of an id. A heuristic may be needed that nobody has asked for yet, such as the fallback.
    pub fn get(&mut self, id: &str) -> Option<(Arc<str>, &mut dyn Policy)> {
        if !self.loaded.contains_key(id) {
            self.find(Field::root("policy"), id).ok()?;
        }
        self.loaded.get_mut(id).map(|loaded| (Arc::clone(&loaded.id), &mut *loaded.policy as &mut dyn Policy))
    }
}

/// What a checkpoint says of its making.
fn metadata(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let about = &checkpoint.about;
    let entries = [
        ("revision", about.revision.clone()),
        ("seed", about.seed.to_string()),
        ("iterations", about.iterations.to_string()),
        ("training", about.training.to_string()),
        ("evaluation", about.evaluation.to_string()),
    ];
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}
