//! The policies that can decide, and the roles that they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use remora_policies::checkpoint::Checkpoint;
use remora_policies::{HEURISTICS, Learned, Policy, by_name};

use super::convert::Field;
use super::refusal::Refusal;
use crate::evaluation::Evaluated;

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
    /// All of them, who decides first.
    pub const ALL: [Alias; 3] = [Alias::Champion, Alias::Candidate, Alias::Shadow];

    /// As the wire and people call it.
    pub fn name(self) -> &'static str {
        match self {
            Alias::Champion => "champion",
            Alias::Candidate => "candidate",
            Alias::Shadow => "shadow",
        }
    }

    /// The role of that name.
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

/// What a checkpoint came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Of the checkpoint that was played.
    pub hash: String,
    pub evaluated: Evaluated,
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
    /// What policies came to, by id.
    evaluated: BTreeMap<String, Arc<Evaluated>>,
    roles: BTreeMap<Alias, String>,
    pub history: Vec<Change>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Policies {
    /// The heuristics, the shipped checkpoint, and a champion; `called` is its name, where that is not its id.
    pub fn new(champion: Box<dyn Policy>, called: Option<String>, seed: u64) -> Policies {
        let id = champion.name().to_owned();
        let about = |name| (id.clone(), About { name, ..About::default() });
        let mut policies = Policies {
            seed,
            loaded: BTreeMap::new(),
            checkpoints: called.filter(|called| *called != id).map(about).into_iter().collect(),
            evaluated: BTreeMap::new(),
            roles: BTreeMap::from([(Alias::Champion, id.clone())]),
            history: Vec::new(),
        };
        policies.loaded.insert(id.clone(), Loaded { id: id.into(), policy: champion });
        policies
    }

    /// Takes a checkpoint in, perhaps with what it came to; returns its id, 16 hexadecimal digits.
    ///
    /// # Errors
    /// When the bytes are no checkpoint that this version reads, or the evaluation is of another one.
    pub fn add(
        &mut self,
        bytes: &[u8],
        about: About,
        evaluation: Option<Evaluation>,
    ) -> Result<String, Refusal> {
        let wrong = |error: &dyn std::fmt::Display| Refusal::from(Field::root("chunk").refuse(error));
        let checkpoint = Checkpoint::from_bytes(bytes).map_err(|error| wrong(&error))?;
        let id = checkpoint.id();
        let policy = Learned::new(&id, &checkpoint).map_err(|error| wrong(&error))?;
        if let Some(Evaluation { hash, evaluated }) = evaluation {
            if hash != id {
                let problem = format_args!("is {hash:?}, but what is uploaded is {id:?}: evaluate that one");
                return Err(Field::root("evaluation").field("policy").refuse(problem).into());
            }
            self.evaluate(id.clone(), evaluated);
        }
        self.loaded.insert(id.clone(), Loaded { id: id.as_str().into(), policy: Box::new(policy) });
        let known = self.checkpoints.get(&id);
        // The first upload counts; what was only given a name was not uploaded.
        if known.is_none_or(|known| known.bytes == 0) {
            let given = known.map(|known| known.name.clone()).filter(|_| about.name == id);
            let (name, metadata) = (given.unwrap_or(about.name), metadata(&checkpoint));
            let about = About { name, bytes: bytes.len(), metadata, ..about };
            self.checkpoints.insert(id.clone(), about);
        }
        Ok(id)
    }

    /// A policy came to this.
    pub fn evaluate(&mut self, id: String, evaluated: Evaluated) {
        self.evaluated.insert(id, Arc::new(evaluated));
    }

    /// What a policy came to, and the hash of its checkpoint; of the shipped one, what ships with it where nobody handed
    /// in something newer.
    pub fn evaluation(&self, id: &str) -> Option<(String, Arc<Evaluated>)> {
        let shipped = Evaluated::shipped().filter(|(hash, _)| id == hash || id == "pretrained");
        let hash = shipped.map_or(id, |(hash, _)| hash);
        let known = self.evaluated.get(hash).map(|evaluated| (hash.to_owned(), evaluated.clone()));
        known.or_else(|| shipped.cloned())
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

    /// What is known of a checkpoint, by its id; nothing of heuristics and the shipped one.
    pub fn about(&self, id: &str) -> Option<&About> {
        self.checkpoints.get(id)
    }

    /// The roles that a policy has, by its id.
    pub fn aliases(&self, id: &str) -> impl Iterator<Item = Alias> {
        self.roles.iter().filter(move |(_, who)| *who == id).map(|(alias, _)| *alias)
    }

    /// Id of the policy that has a role, if any has.
    pub fn role(&self, alias: Alias) -> Option<&str> {
        self.roles.get(&alias).map(String::as_str)
    }

    /// The id behind an id, a name or an alias; what is a heuristic is made ready.
    ///
    /// # Errors
    /// When no policy is called so; says which is called nearly so.
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
