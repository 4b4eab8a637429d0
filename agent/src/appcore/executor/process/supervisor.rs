//! `remora supervise`: one job, from its start to the end of its last process.

use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, getpid, nice, set_child_subreaper, setsid, wait};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::super::run::{LOG, Usage};
use super::super::{Exit, OUTPUT};
use super::leftovers::Record;
use super::order::Order;
use super::table::{self, Process};
use super::{GRACE, NOW, SAVE};

/// How often limits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Time to end after a time-out, before it is killed.
const SHORT: Duration = Duration::from_secs(2);
const A_YEAR: Duration = Duration::from_secs(366 * 86_400);
const MIB: u64 = 1 << 20;
/// Below that of those whom somebody waits for.
const PATIENT: i32 = 10;
/// The descriptor after those of standard input, output and errors.
const FIRST_OTHER: i32 = 3;
/// Where the machine's memory runs out, jobs go before the service (0 to 1000, see proc(5)).
const EXPENDABLE: &str = "500";

/// Reads an order from stdin, carries it out, and reports on stdout.
pub fn supervise() -> ExitCode {
    // Out of reach of the terminal's keys; where it leads a session already it is.
    let _ = setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime
        .map_err(broken)
        .and_then(|runtime| runtime.block_on(async { Ok(Supervisor::start().await?.run().await) }));
    let report = report.unwrap_or_else(|wrong| (Exit::Broken(wrong), Usage::default()));
    let told = serde_json::to_writer(io::stdout(), &report);
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn broken(error: io::Error) -> String {
    format!("its supervisor: {error}")
}

/// What the job says, into a file of bounded size.
struct Log {
    pipe: Receiver,
    file: File,
    bytes: u64,
    over: bool,
}

impl Log {
    fn new(folder: &Path, pipe: PipeReader) -> io::Result<Log> {
        let path = folder.join(LOG);
        // Whatever is there is not followed: it might be a link.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().append(true).create_new(true).open(path)?;
        Ok(Log { pipe: Receiver::from_owned_fd(pipe.into())?, file, bytes: 0, over: false })
    }

    /// Copies what is there, unless the file would become larger than `most` bytes; false then. What does not fit is
    /// dropped, so that nobody waits for the pipe.
    async fn copy(&mut self, most: u64) -> io::Result<bool> {
        let mut buffer = [0; 1 << 16];
        let read = self.pipe.read(&mut buffer).await?;
        self.over = read == 0;
        let fits = read.min(usize::try_from(most.saturating_sub(self.bytes)).unwrap_or(usize::MAX));
        self.file.write_all(&buffer[..fits])?;
        self.bytes += fits as u64;
        Ok(fits == read)
    }
}

struct Supervisor {
    order: Order,
    /// A child has ended, or somebody else than the service wants this to end: a service manager may tell all processes
    /// of a service, but what becomes of jobs is the service's to decide.
    signals: [Signals; 3],
    words: Lines<BufReader<Receiver>>,
    listens: bool,
    log: Log,
    /// Ends at its time-out.
    late: Instant,
    command: i32,
    ended: Option<ExitStatus>,
    /// Why it was ended, and when whatever still runs is killed.
    why: Option<Exit>,
    kill: Option<Instant>,
    memory: u64,
    output: u64,
}

impl Supervisor {
    async fn start() -> Result<Supervisor, String> {
        let pipe = io::stdin().as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd);
        let mut words = BufReader::new(pipe.map_err(|error| format!("stdin: {error}"))?).lines();
        let line = words.next_line().await.map_err(broken)?.ok_or("stdin: is empty, want an order")?;
        let order: Order = serde_json::from_str(&line).map_err(|error| format!("stdin: {error}"))?;
        let signals = || -> io::Result<_> {
            Ok([
                signal(SignalKind::child())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            ])
        };
        let signals = signals().map_err(broken)?;
        set_child_subreaper(Some(getpid())).map_err(|error| broken(error.into()))?;
        if order.patient {
            nice(PATIENT).map_err(|error| broken(error.into()))?;
        }
        // Ours are not passed on anyway, but whoever started the service may have left some open.
        close_fds::set_fds_cloexec(FIRST_OTHER, &[]);
        // Where it may not say so, it goes by its size like everybody.
        let _ = fs::write("/proc/self/oom_score_adj", EXPENDABLE);
        let (reader, writer) = io::pipe().map_err(broken)?;
        let log = Log::new(&order.folder, reader).map_err(|error| format!("log: {error}"))?;
        let ours = std::process::id().cast_signed();
        let recorded =
            |command| Record::write(&order.folder, ours, command).map_err(|error| format!("record: {error}"));
        recorded(None)?;
        let command = order.start(writer).inspect_err(|_| Record::remove(&order.folder))?;
        // The mark is on it, should this fail.
        let _ = recorded(Some(command));
        let timeout = Duration::try_from_secs_f64(order.limits.timeout_s).unwrap_or(A_YEAR).min(A_YEAR);
        Ok(Supervisor {
            order,
            signals,
            words,
            listens: true,
            log,
            late: Instant::now() + timeout,
            command,
            ended: None,
            why: None,
            kill: None,
            memory: 0,
            output: 0,
        })
    }

    async fn run(mut self) -> (Exit, Usage) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.wait() {
            let most = self.most().saturating_sub(self.output);
            let [ended, terminated, interrupted] = &mut self.signals;
            tokio::select! {
                _ = ended.recv() => {}
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
                word = self.words.next_line(), if self.listens => self.hear(word.ok().flatten()),
                copied = self.log.copy(most), if !self.log.over => self.copied(copied),
                _ = ticks.tick() => self.look(),
            }
        }
        self.report().await
    }

    /// Most bytes that it may write.
    fn most(&self) -> u64 {
        u64::from(self.order.limits.output_mib) * MIB
    }

    /// Notices which children have ended; false once there are none. The last thing that the command leaves is killed.
    fn wait(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == self.command => {
                    self.ended = Some(ExitStatus::from_raw(status.as_raw()));
                }
                Ok(Some(_)) => {}
                Err(Errno::CHILD) => return false,
                Ok(None) | Err(_) => break,
            }
        }
        let left_behind = self.ended.is_some() && self.why.is_none();
        if left_behind || self.kill.is_some_and(|at| at <= Instant::now()) {
            self.signal(Signal::KILL);
        }
        true
    }

    fn signal(&self, signal: Signal) {
        for process in Process::descendants(std::process::id().cast_signed()) {
            process.signal(signal);
        }
    }

    /// Ends it for the first reason that there is, within this time. Nobody can stop what has ended, but it may turn out
    /// to have written too much.
    fn end(&mut self, why: Exit, within: Duration) {
        let too_late = self.ended.is_some() && matches!(why, Exit::Stopped | Exit::TimedOut);
        if self.why.is_none() && !too_late {
            self.why = Some(why);
            self.signal(Signal::TERM);
        }
        let at = Instant::now() + within;
        self.kill = Some(self.kill.map_or(at, |kill| kill.min(at)));
    }

    fn hear(&mut self, word: Option<String>) {
        match word.as_deref() {
            Some(SAVE) => self.end(Exit::Stopped, GRACE),
            Some(NOW) => self.end(Exit::Stopped, Duration::ZERO),
            Some(_) => {}
            None => {
                self.listens = false;
                self.end(Exit::Stopped, Duration::ZERO);
            }
        }
    }

    fn copied(&mut self, copied: io::Result<bool>) {
        match copied {
            Ok(true) => {}
            Ok(false) => self.end(Exit::Output, Duration::ZERO),
            Err(error) => self.end(Exit::Broken(format!("log: {error}")), Duration::ZERO),
        }
    }

    fn look(&mut self) {
        let now = Process::descendants(std::process::id().cast_signed());
        let limit = u64::from(self.order.limits.memory_mib) * MIB;
        let mut memory = now.iter().map(Process::memory).sum();
        if memory > limit {
            // What processes share was counted for each of them.
            memory = now.iter().map(Process::share_of_memory).sum();
        }
        self.memory = self.memory.max(memory);
        self.output = bytes_under(&self.order.folder.join(OUTPUT));
        if memory > limit {
            self.end(Exit::Memory, Duration::ZERO);
        } else if self.output + self.log.bytes > self.most() {
            self.end(Exit::Output, Duration::ZERO);
        } else if self.late <= Instant::now() && self.why.is_none() {
            self.end(Exit::TimedOut, SHORT);
        }
    }

    /// When all have ended: reads what they still said, and adds up.
    async fn report(mut self) -> (Exit, Usage) {
        self.output = bytes_under(&self.order.folder.join(OUTPUT));
        let most = self.most().saturating_sub(self.output);
        while !self.log.over {
            // No process holds its end any more, unless one gave it away, and then somebody may write for ever.
            let Ok(copied) = timeout(TICK, self.log.copy(most)).await else { break };
            let fits = matches!(copied, Ok(true));
            self.copied(copied);
            if !fits {
                break;
            }
        }
        Record::remove(&self.order.folder);
        let written = self.output + self.log.bytes;
        let cpu_s = table::cpu_s_of_children();
        let usage = Usage { cpu_s, memory_bytes: self.memory, output_bytes: written };
        (self.exit(written), usage)
    }

    fn exit(self, written: u64) -> Exit {
        let most = self.most();
        match (self.why, self.ended) {
            (Some(why), _) => why,
            (None, _) if written > most => Exit::Output,
            (None, Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Broken(format!("nobody knows how it ended: {status}")),
            },
            (None, None) => Exit::Broken("nobody knows how it ended".to_owned()),
        }
    }
}

/// Bytes of all files in a folder, links not followed. What vanishes meanwhile counts nothing.
fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => bytes_under(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
