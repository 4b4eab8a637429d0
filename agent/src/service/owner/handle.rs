//! Access to the owner.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use remora_env::Time;
use remora_proto::v1 as wire;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::Owner;
use crate::evaluation::Evaluated;
use crate::service::books::{Made, Portrait};
use crate::service::convert::{Registration, Update};
use crate::service::feed::Watch;
use crate::service::messages::{Answer, Dispute, Order, Report, Summary};
use crate::service::policies::{About, Alias, Change, Evaluation};
use crate::service::refusal::Refusal;
use crate::service::scribe::Durable;
use crate::service::serving::Serving;

pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
/// An answer that is not to be told before what it says is durable.
pub type Durably<T> = (T, Option<Durable>);
pub type PlaceReply = oneshot::Receiver<Result<Arc<Answer>, Refusal>>;

/// When to ask again where all places to wait are taken: by then most are free.
const RETRY: Duration = Duration::from_millis(50);

/// A cluster as it stood, and when.
#[derive(Debug)]
pub struct Snapshot {
    pub portrait: Box<Portrait>,
    pub version: u64,
}

/// A decision with what became of it.
#[derive(Debug)]
pub struct Explained {
    pub made: Made,
    pub outcome: Option<(Arc<wire::ReportOutcomeRequest>, Time)>,
    pub actual_cost: Option<f64>,
    pub disputed: Option<Arc<wire::Disputed>>,
}

/// A policy as it is told of.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub about: Option<About>,
    pub aliases: Vec<Alias>,
    /// It is known what it came to.
    pub evaluated: bool,
}

/// How policies serve a cluster, and how they do.
#[derive(Clone, Debug)]
pub struct Served {
    pub serving: Serving,
    /// Mean regret of the last decisions that ended, and of how many.
    pub regret: (f64, usize),
}

/// A policy, its seed where it draws, and a cluster, to be put together again.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub policy: String,
    pub seed: u64,
    pub cluster: String,
    pub serving: Serving,
}

/// What a change of serving sets; what it does not, stays.
pub type Amend = Box<dyn FnOnce(&mut Serving) + Send>;

/// Everything that can be asked of the owner.
pub enum Command {
    Register(Box<Registration>, Arc<wire::RegisterClusterRequest>, Reply<Durably<(Summary, bool)>>),
    List(oneshot::Sender<Vec<Summary>>),
    /// With what follows from our own decisions, or to be registered again.
    Get(String, bool, Reply<Snapshot>),
    Remove(String, Reply<Durably<()>>),
    Update(Update, Arc<wire::UpdateClusterRequest>, Reply<Durably<(u64, bool)>>),
    Watch(String, Option<u64>, Reply<Watch>),
    Place(Box<Order>, Arc<wire::PlaceRequest>, Reply<Arc<Answer>>),
    Report(Box<Report>, Arc<wire::ReportOutcomeRequest>, Reply<Durably<bool>>),
    Explain(String, String, Reply<Explained>),
    /// With who says so.
    Dispute(Dispute, String, Reply<Durably<Arc<wire::Disputed>>>),
    /// Of one cluster or of all: what was saved since an hour began, by cluster.
    Savings(String, i64, Reply<Vec<wire::Saved>>),
    /// Waits until all that happened so far is durable.
    Flush(Reply<Durably<()>>),
    Policies(PolicyCommand),
}

/// What can be asked about policies.
pub enum PolicyCommand {
    List(Reply<Vec<Told>>),
    Get(String, Reply<Told>),
    Upload(Vec<u8>, About, Option<Evaluation>, Reply<Told>),
    /// What a policy came to, with the hash of its checkpoint.
    Evaluation(String, Reply<(String, Arc<Evaluated>)>),
    /// What is to change; it holds when it is enacted.
    SetAlias {
        alias: Alias,
        policy: String,
        expected: Option<String>,
        by: By,
        reply: Reply<Change>,
    },
    RollBack {
        alias: Alias,
        by: By,
        reply: Reply<Change>,
    },
    Enact(Change, Reply<()>),
    History(Reply<Vec<Change>>),
    Serving(String, Reply<Served>),
    /// What is to hold; it does when it is set.
    Serve {
        cluster: String,
        amend: Amend,
        reply: Reply<Serving>,
    },
    SetServing {
        cluster: String,
        serving: Serving,
        by: By,
        reply: Reply<Served>,
    },
    Compare(String, Reply<wire::CompareResponse>),
    /// What a preview of a policy on a cluster goes by.
    Prepare {
        policy: String,
        cluster: String,
        reply: Reply<Prepared>,
    },
}

/// Who does something, and why.
#[derive(Clone, Debug)]
pub struct By {
    pub actor: String,
    pub reason: String,
}

/// Access to the owner.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    /// The task that carries out what waits keeps it alive as long as there is a handle.
    desk: Weak<Desk>,
}

/// Where commands are carried out, by one at a time.
pub(super) struct Desk {
    pub(super) owner: Mutex<Owner>,
    /// Commands that were sent and are not carried out yet.
    pub(super) waiting: AtomicUsize,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk {{ waiting: {:?} }}", self.waiting)
    }
}

impl Desk {
    /// Carries out a command if nobody is waiting and nobody is at it; otherwise it is given back.
    fn at_once(&self, command: Command) -> Option<Command> {
        let Ok(mut owner) = self.owner.try_lock() else { return Some(command) };
        // Nobody overtakes anybody: who sent something before counts as waiting until it is carried out.
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Some(command);
        }
        let placed = owner.handle(command);
        drop(owner);
        if let Some(placed) = placed {
            placed.tell();
        }
        None
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, desk: Weak<Desk>) -> Handle {
        Handle { commands, desk }
    }

    /// Waits for its turn, which is refused where too many do.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// Whose turn it is at once need not be handed from thread to thread, and back with the answer.
    fn send(&self, command: Command) -> Result<(), Refusal> {
        let desk = self.desk.upgrade().ok_or(Refusal::Stopping)?;
        let Some(command) = desk.at_once(command) else { return Ok(()) };
        desk.waiting.fetch_add(1, Ordering::AcqRel);
        self.commands.try_send(command).map_err(|error| {
            desk.waiting.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => Refusal::Busy(RETRY),
                TrySendError::Closed(_) => Refusal::Stopping,
            }
        })
    }

    /// Commands that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Waits for its turn, and until what was done is durable.
    pub async fn ask_durably<T>(
        &self,
        command: impl FnOnce(Reply<Durably<T>>) -> Command,
    ) -> Result<T, Refusal> {
        let (answer, durable) = self.ask(command).await?;
        if let Some(durable) = durable {
            durable.await.map_err(|_| Refusal::Stopping)?.map_err(Refusal::Unavailable)?;
        }
        Ok(answer)
    }

    pub async fn list(&self) -> Result<Vec<Summary>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::List(reply))?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// Asks for a place; the answer comes later, in the order of asking.
    pub fn place(&self, order: Order, request: Arc<wire::PlaceRequest>) -> Result<PlaceReply, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Place(Box::new(order), request, reply))?;
        Ok(answer)
    }
}
