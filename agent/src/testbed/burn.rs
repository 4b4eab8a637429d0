//! What a task executes: it keeps the CPU busy for as long as the task would, at the task's share of it.
//!
//! A node has a control group of its own where the machine allows that: what its tasks use together above the node's
//! capacity, the kernel takes from all of them.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use crate::storage::random;

/// The command of `remora` that is such a task.
pub const BURN: &str = "burn";
/// How often it sleeps.
const TICK: Duration = Duration::from_millis(4);
/// What the machine kept from it for longer, it does not catch up on: a slower node is slower.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Names of control groups begin so. A run holds the lock on a file of its group's name; groups that nobody holds are
/// of a run that was killed, and the next removes them.
const PREFIX: &str = "remora-testbed-";
/// The least that a group can be given of a period, microseconds.
const LEAST_QUOTA_US: f64 = 1_000.0;

/// Use the CPU of a node; a node of a testbed starts this.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of work at full pace.
    #[arg(long)]
    work_s: f64,
    /// Share of one core to use, 0 to 1.
    #[arg(long)]
    pace: f64,
    /// Control group to join.
    #[arg(long)]
    group: Option<PathBuf>,
}

/// Says `ready`, waits for a line, works, and says how many CPU seconds that took. Ends at once when its input does.
pub fn run(args: &Args) -> ExitCode {
    let joined = args.group.as_ref().map(|group| {
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
            .map_err(|error| eprintln!("cannot join {}: {error}", group.display()))
    });
    if joined.is_some_and(|joined| joined.is_err()) {
        return ExitCode::FAILURE;
    }
    let say = |text: &str| writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
    let mut go = String::new();
    if say("ready").is_err() || !io::stdin().lock().read_line(&mut go).is_ok_and(|read| read > 0) {
        return ExitCode::FAILURE;
    }
    // The node that started it holds the other end.
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let used = work(args.work_s, args.pace.clamp(0.0, 1.0));
    if say(&format!("{}", used.as_secs_f64())).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Works for so many seconds at a pace, or for longer where it does not get the CPU.
fn work(seconds: f64, pace: f64) -> Duration {
    let began = ThreadTime::now();
    let mut last = Instant::now();
    let (mut done, mut owed) = (0.0, 0.0);
    let all = seconds * pace;
    if pace == 0.0 {
        sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }
    while done < all {
        sleep(TICK.min(Duration::from_secs_f64((all - done) / pace)));
        let now = Instant::now();
        owed = (owed + (now - last).as_secs_f64() * pace).min(CATCH_UP.as_secs_f64() * pace);
        last = now;
        let slice = ThreadTime::now();
        while slice.elapsed().as_secs_f64() < owed {
            std::hint::spin_loop();
        }
        let used = slice.elapsed().as_secs_f64();
        owed = (owed - used).max(0.0);
        done += used;
    }
    began.elapsed()
}

/// The control groups of one run.
#[derive(Debug)]
pub struct Groups {
    folder: PathBuf,
    unified: bool,
    /// Held as long as this is.
    #[expect(dead_code, reason = "it is held, not read")]
    lock: fs::File,
}

impl Groups {
    /// Where this machine lets us make groups; removes what an earlier run left.
    pub fn new() -> Option<Groups> {
        let (mounted, unified) = mounted()?;
        for left in fs::read_dir(&mounted).ok()?.flatten() {
            let name = left.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && abandoned(&name) {
                remove(&left.path());
                // Whose file it is may remove it.
                let _ = fs::remove_file(lock_of(&name));
            }
        }
        let name = format!("{PREFIX}{}", random::<6>());
        let lock = fs::File::create(lock_of(&name)).ok()?;
        lock.lock().ok()?;
        let folder = mounted.join(name);
        fs::create_dir(&folder).ok()?;
        let groups = Groups { folder, unified, lock };
        let usable = !unified || fs::write(groups.folder.join("cgroup.subtree_control"), "+cpu").is_ok();
        // What is dropped is removed.
        let usable = usable && groups.make("probe", 0.5).is_some();
        usable.then_some(groups)
    }

    /// A group that gets so much of one core.
    pub fn make(&self, name: &str, share: f64) -> Option<PathBuf> {
        let folder = self.folder.join(name.replace('/', "-"));
        // It is there already where a node is started again.
        fs::create_dir_all(&folder).ok()?;
        let period_us = (LEAST_QUOTA_US / share).clamp(10_000.0, 1_000_000.0);
        let quota_us = (period_us * share).max(LEAST_QUOTA_US);
        let set = if self.unified {
            fs::write(folder.join("cpu.max"), format!("{quota_us:.0} {period_us:.0}"))
        } else {
            fs::write(folder.join("cpu.cfs_period_us"), format!("{period_us:.0}"))
                .and_then(|()| fs::write(folder.join("cpu.cfs_quota_us"), format!("{quota_us:.0}")))
        };
        set.ok().map(|()| folder)
    }
}

/// The file whose lock says that a group is in use.
fn lock_of(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{name}.lock"))
}

fn abandoned(name: &str) -> bool {
    fs::File::open(lock_of(name)).map_or(true, |lock| lock.try_lock().is_ok())
}

impl Drop for Groups {
    fn drop(&mut self) {
        remove(&self.folder);
        if let Some(name) = self.folder.file_name() {
            // It is gone already where somebody tidied up.
            let _ = fs::remove_file(lock_of(&name.to_string_lossy()));
        }
    }
}

/// Removes a group with those in it, none of which has processes any more.
fn remove(folder: &Path) {
    for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&inner.path());
        }
    }
    for _ in 0..50 {
        match fs::remove_dir(folder) {
            // A process that was killed may take a moment to leave.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(Duration::from_millis(20)),
            _ => return,
        }
    }
}

/// Where CPU groups are, and whether in the unified hierarchy.
fn mounted() -> Option<(PathBuf, bool)> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|controller| controller == "cpu") {
        return Some((root.to_owned(), true));
    }
    let cpu = root.join("cpu");
    cpu.join("cpu.cfs_quota_us").exists().then_some((cpu.clone(), false)).or_else(|| {
        // The root group of the older hierarchy has no quota of its own.
        cpu.join("cgroup.procs").exists().then_some((cpu, false))
    })
}
