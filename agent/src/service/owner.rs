//! The one owner of all clusters and policies. Everybody else has a [`Handle`] and sends it a command;
//! commands are carried out one after the other: at once where the owner is free, or by the task that carries out what
//! waits.

mod deciding;
mod handle;
mod serving;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use remora_env::Time;
use remora_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Clock;
use super::books::{Books, Chooser};
use super::convert::{Field, Registration};
use super::feed::{Entry, Event, Feed};
use super::messages::{Answer, Summary};
use super::policies::Policies;
use super::refusal::Refusal;
use super::restart::Before;
use super::scribe::{Durable, Scribe};
use super::serving::Serving;
use crate::storage::Storage;

use handle::Desk;
pub(super) use handle::{
    By, Command, Explained, Handle, PlaceReply, PolicyCommand, Prepared, Reply, Served, Snapshot, Told,
};

/// Most clusters at a time.
const MAX_CLUSTERS: usize = 1000;
/// Commands that may wait; beyond that they are refused.
const WAITING: usize = 1024;
/// Most commands that are carried out before anybody is told where tasks were placed: connections then wake once for
/// all answers, which go out together.
const TOGETHER: usize = 16;
/// How often decisions without an outcome are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Events of a cluster after which it is kept as it stands.
const KEPT_EVERY: u32 = 10_000;

struct Owner {
    clock: Clock,
    chooser: Chooser,
    clusters: BTreeMap<String, Held>,
    /// How policies serve clusters that have no setting of their own, and those that have.
    serving: Serving,
    servings: BTreeMap<String, Serving>,
    /// Of the last event.
    version: u64,
    /// Who writes down what happens; nobody where nothing is to survive.
    scribe: Option<Scribe>,
    storage: Option<Arc<Storage>>,
}

/// Where a task was placed, and who wants to know.
struct Placed {
    answer: Result<Arc<Answer>, Refusal>,
    reply: Reply<Arc<Answer>>,
}

impl Placed {
    fn tell(self) {
        drop(self.reply.send(self.answer));
    }
}

/// A cluster, and what happens to it.
struct Held {
    books: Books,
    feed: Feed,
    /// Events since it was kept as it stood.
    since_kept: u32,
}

impl Held {
    /// From after a version on.
    fn new(books: Books, version: u64) -> Held {
        Held { books, feed: Feed::new(version), since_kept: 0 }
    }
}

/// Starts the owner with what there was before; it ends when the last handle is gone.
pub(super) fn start(
    policies: Policies,
    before: Before,
    storage: Option<Arc<Storage>>,
    clock: Clock,
) -> (Handle, JoinHandle<()>) {
    let Before { clusters, serving, servings, version } = before;
    let (sender, mut commands) = mpsc::channel(WAITING);
    let run = format!("{:x}", Clock::run());
    let chooser = Chooser::new(policies, run);
    let owner = Owner {
        clock,
        chooser,
        clusters: clusters.into_iter().map(|(id, books)| (id, Held::new(books, version))).collect(),
        serving,
        servings,
        version,
        scribe: storage.as_ref().map(|storage| Scribe::start(storage.recorder())),
        storage,
    };
    let desk = Arc::new(Desk { owner: Mutex::new(owner), waiting: AtomicUsize::new(0) });
    let handle = Handle::new(sender, Arc::downgrade(&desk));
    let task = tokio::spawn(async move {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut together = Vec::with_capacity(TOGETHER);
        let mut placed = Vec::with_capacity(TOGETHER);
        loop {
            let count = tokio::select! {
                count = commands.recv_many(&mut together, TOGETHER) => match count {
                    0 => break,
                    count => count,
                },
                _ = tick.tick() => 0,
            };
            // Whoever had it before left it broken.
            let Ok(mut owner) = desk.owner.lock() else { break };
            if count == 0 {
                owner.tick();
            }
            placed.extend(together.drain(..).filter_map(|command| owner.handle(command)));
            drop(owner);
            desk.waiting.fetch_sub(count, Ordering::AcqRel);
            placed.drain(..).for_each(Placed::tell);
        }
    });
    (handle, task)
}

impl Owner {
    /// Whoever asked may have gone: then there is nobody to tell. Who asked for a place is still to be told.
    fn handle(&mut self, command: Command) -> Option<Placed> {
        match command {
            Command::Register(registration, request, reply) => {
                drop(reply.send(self.register(*registration, request)));
            }
            Command::List(reply) => {
                let told = |held: &Held| Summary { version: held.feed.version(), ..held.books.summary() };
                drop(reply.send(self.clusters.values().map(told).collect()))
            }
            Command::Get(id, live, reply) => drop(reply.send(self.get(&id, live))),
            Command::Remove(id, reply) => drop(reply.send(self.remove(&id))),
            Command::Update(update, request, reply) => drop(reply.send(self.update(&update, request))),
            Command::Watch(id, after, reply) => drop(reply.send(self.watch(&id, after))),
            // A decision that nobody hears of would never end.
            Command::Place(_, _, reply) if reply.is_closed() => {}
            Command::Place(order, request, reply) => {
                return Some(Placed { answer: self.place(&order, request), reply });
            }
            Command::Report(report, request, reply) => drop(reply.send(self.report(&report, request))),
            Command::Explain(cluster, id, reply) => drop(reply.send(self.explain(&cluster, &id))),
            Command::Dispute(dispute, actor, reply) => drop(reply.send(self.dispute(dispute, actor))),
            Command::Savings(cluster, begin_ms, reply) => {
                drop(reply.send(self.savings(&cluster, begin_ms)));
            }
            Command::Flush(reply) => drop(reply.send(Ok(((), self.flushed())))),
            Command::Policies(command) => self.policies(command),
        }
        None
    }

    fn tick(&mut self) {
        let ids: Vec<String> = self.clusters.keys().cloned().collect();
        for id in ids {
            // It is there: nothing else removes it in between.
            drop(self.books("cluster_id", &id));
        }
    }

    /// Now, as clusters count it.
    fn now(&self) -> Time {
        self.clock.now()
    }

    /// A cluster's books, as of now.
    fn books(&mut self, field: &'static str, id: &str) -> Result<&mut Books, Refusal> {
        let now = self.now();
        let Some(Held { books, .. }) = self.clusters.get_mut(id) else {
            let known = self.clusters.keys().map(String::as_str);
            return Err(Refusal::UnknownCluster(Field::root(field).unknown("cluster", id, known)));
        };
        books.set_time(now);
        for decision in books.expire() {
            tracing::warn!(cluster = id, decision, "no outcome was reported in time; what it held is free");
            self.noted(id, Event::Expired(decision));
        }
        Ok(&mut self.held(id).books)
    }

    /// A cluster that is known to be there.
    fn held(&mut self, id: &str) -> &mut Held {
        self.clusters.get_mut(id).expect("only a cluster that is there is asked for")
    }

    /// Something happened to a cluster that is there.
    fn happened(&mut self, cluster: &str, event: Event) -> Arc<Entry> {
        self.version += 1;
        let at_ms = self.clock.now_ms();
        let entry = Arc::new(Entry { version: self.version, at_ms, cluster: cluster.into(), event });
        self.held(cluster).feed.push(Arc::clone(&entry));
        entry
    }

    /// Something happened that is to be written down some time soon.
    fn noted(&mut self, cluster: &str, event: Event) {
        let entry = self.happened(cluster, event);
        if let Some(scribe) = &self.scribe {
            scribe.note(entry);
        }
        self.keep(cluster);
    }

    /// Something happened that must not be told before it is durable.
    fn committed(&mut self, cluster: &str, event: Event) -> Option<Durable> {
        let entry = self.happened(cluster, event);
        let durable = self.scribe.as_ref().map(|scribe| scribe.commit(entry));
        self.keep(cluster);
        durable
    }

    /// Now and then a cluster is kept as it stands: a restart goes on from there.
    fn keep(&mut self, cluster: &str) {
        let (Some(scribe), Some(held)) = (&self.scribe, self.clusters.get_mut(cluster)) else { return };
        held.since_kept += 1;
        if held.since_kept >= KEPT_EVERY {
            held.since_kept = 0;
            scribe.keep(cluster.to_owned(), self.clock.now_ms(), held.books.kept());
        }
    }

    /// Whether what changes something may begin.
    fn ready(&self) -> Result<(), Refusal> {
        self.scribe.as_ref().map_or(Ok(()), Scribe::ready)
    }

    fn serving_of(&self, cluster: &str) -> &Serving {
        self.servings.get(cluster).unwrap_or(&self.serving)
    }

    fn register(
        &mut self,
        registration: Registration,
        request: Arc<wire::RegisterClusterRequest>,
    ) -> Result<((Summary, bool), Option<Durable>), Refusal> {
        self.ready()?;
        let id = registration.id.clone();
        let replaced = self.clusters.contains_key(&id);
        if !replaced && self.clusters.len() >= MAX_CLUSTERS {
            return Err(Refusal::Full(format!(
                "there are {MAX_CLUSTERS} clusters already; remove one first"
            )));
        }
        let mut books = Books::new(registration);
        books.check();
        let summary = books.summary();
        match self.clusters.get_mut(&id) {
            Some(held) => {
                books.saved = std::mem::take(&mut held.books.saved);
                (held.books, held.since_kept) = (books, 0);
            }
            None => drop(self.clusters.insert(id.clone(), Held::new(books, self.version))),
        }
        let durable = self.committed(&id, Event::Registered(request, summary.clone()));
        tracing::info!(cluster = summary.id, nodes = summary.nodes, replaced, "cluster registered");
        Ok(((summary, replaced), durable))
    }

    fn get(&mut self, id: &str, live: bool) -> Result<Snapshot, Refusal> {
        let books = self.books("id", id)?;
        let portrait = Box::new(if live { books.seen() } else { books.portrait() });
        Ok(Snapshot { portrait, version: self.held(id).feed.version() })
    }

    fn remove(&mut self, id: &str) -> Result<((), Option<Durable>), Refusal> {
        self.ready()?;
        self.books("id", id)?;
        let durable = self.committed(id, Event::Removed);
        self.clusters.remove(id);
        self.servings.remove(id);
        tracing::info!(cluster = id, "cluster removed");
        Ok(((), durable))
    }

    fn watch(&mut self, id: &str, after: Option<u64>) -> Result<super::feed::Watch, Refusal> {
        self.books("cluster_id", id)?;
        self.held(id).feed.watch(after)
    }
}
