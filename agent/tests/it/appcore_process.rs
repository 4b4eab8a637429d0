//! Jobs as real processes: how each may end, what it may use, and that nothing of it is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use remora_agent::appcore::executor::process::Processes;
use remora_agent::appcore::executor::{Executor, Exit, Job, OUTPUT, Stop};
use remora_agent::appcore::manifest::Limits;
use remora_agent::appcore::run::{LOG, Run, RunKind, Status, Usage};
use tempfile::TempDir;
use tokio::sync::watch;

const REMORA: &str = env!("CARGO_BIN_EXE_remora");
/// What a job's processes bear in their environment, with the job's folder as its value.
const MARK: &str = "REMORA_JOB";

/// A job that is a script of the shell, in a folder of its own.
pub fn shell(folder: &TempDir, script: &str) -> Job {
    let folder = folder.path().canonicalize().unwrap();
    fs::create_dir_all(folder.join(OUTPUT)).unwrap();
    let run =
        Run { status: Status::Running, seed: 7, attempt: 1, ..Run::new("app.1", "app", RunKind::Execute) };
    Job {
        run,
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        image: None,
        limits: Limits { timeout_s: 60.0, ..Limits::default() },
        folder,
        environment: Vec::new(),
        node: "here".to_owned(),
    }
}

/// Runs a job to its end with nobody stopping it. Nothing of it may be left then.
async fn ends(job: &Job) -> (Exit, Usage) {
    let (_stop, stopped) = watch::channel(None);
    let ended = Processes::supervised_by(REMORA).run(job, stopped).await;
    assert_eq!(marked(&job.folder), Vec::<i32>::new(), "{:?}", job.command);
    ended
}

async fn ends_so(script: &str) -> Exit {
    ends(&shell(&TempDir::new().unwrap(), script)).await.0
}

/// Runs a job, and stops it once it has made the file `ready`.
async fn stopped(job: &Job, how: Stop) -> Exit {
    let (stop, stopped) = watch::channel(None);
    let running = tokio::spawn({
        let job = job.clone();
        async move { Processes::supervised_by(REMORA).run(&job, stopped).await.0 }
    });
    ready(job).await;
    stop.send(Some(how)).unwrap();
    let exit = running.await.unwrap();
    assert_eq!(marked(&job.folder), Vec::<i32>::new());
    exit
}

async fn ready(job: &Job) {
    until("the job is ready", || job.folder.join("ready").exists()).await;
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Numbers of the processes that bear a folder's mark.
fn marked(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", folder.display());
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let bears = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
    };
    pids.filter(bears).collect()
}

/// The number in a file that a job's script wrote.
fn pid(job: &Job, file: &str) -> i32 {
    fs::read_to_string(job.folder.join(file)).unwrap().trim().parse().unwrap()
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit_once(") ").map_or("Z", |(_, rest)| &rest[..1]), "Z" | "X")
}

fn log(job: &Job) -> String {
    fs::read_to_string(job.folder.join(LOG)).unwrap()
}

#[tokio::test]
async fn it_ends_with_a_code_or_a_signal() {
    assert_eq!(ends_so("exit 0").await, Exit::Code(0));
    assert_eq!(ends_so("exit 65").await, Exit::Code(65));
    assert_eq!(ends_so("kill -11 $$").await, Exit::Signal(11));
    // A service manager tells everybody to end; what becomes of jobs is the service's to decide.
    assert_eq!(ends_so("kill -TERM $PPID; kill -INT $PPID; sleep 0.1; exit 5").await, Exit::Code(5));
    // Its own group is not its supervisor's.
    assert_eq!(ends_so("kill -9 0").await, Exit::Signal(9));
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let folder = TempDir::new().unwrap();
    let mut job = shell(&folder, "");
    let said = async |job: &Job| match ends(job).await {
        (Exit::Broken(why), usage) if usage.cpu_s == 0.0 => why,
        other => panic!("{other:?}"),
    };
    job.command = vec!["no-such-program".to_owned()];
    let why = said(&job).await;
    assert!(why.starts_with("program \"no-such-program\": is not found"), "{why}");
    let program = job.folder.join("program");
    fs::write(&program, "exit 0").unwrap();
    job.command = vec!["./program".to_owned()];
    let why = said(&job).await;
    assert!(why.starts_with("program \"./program\": is not executable"), "{why}");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let why = said(&job).await;
    assert!(why.starts_with("program \"./program\": is no program of this machine"), "{why}");
    fs::write(&program, "#!/no/such/shell\n").unwrap();
    let why = said(&job).await;
    assert!(why.contains("what its first line names"), "{why}");
    fs::write(&program, "#!/bin/sh\nexit 3\n").unwrap();
    assert_eq!(ends(&job).await.0, Exit::Code(3));
    job.command = vec!["a\0b".to_owned()];
    let why = said(&job).await;
    assert!(why.starts_with("program \"a\\0b\": "), "{why}");
    job.command.clear();
    assert_eq!(said(&job).await, "command: is empty, want a program");
    folder.close().unwrap();
    let why = said(&job).await;
    assert!(why.starts_with(&format!("folder {}: No such file", job.folder.display())), "{why}");
    let (_stop, stop) = watch::channel(None);
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, "");
    let (exit, _) = Processes::supervised_by("/no/such/remora").run(&job, stop).await;
    assert!(
        matches!(&exit, Exit::Broken(why) if why.starts_with("its supervisor /no/such/remora: ")),
        "{exit:?}"
    );
}

#[tokio::test]
async fn it_knows_its_environment_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let mut job = shell(&folder, "env | sort; pwd; wc -c; ls /proc/self/fd | wc -l; nice");
    job.environment =
        vec![("COLOUR".to_owned(), "two words".to_owned()), ("HOME".to_owned(), "/nowhere".to_owned())];
    assert_eq!(ends(&job).await.0, Exit::Code(0));
    let (here, said) = (job.folder.display().to_string(), log(&job));
    let names: Vec<_> = said.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, ["COLOUR", "HOME", "LANG", "PATH", "PWD", MARK, "REMORA_PROGRAM"], "{said}");
    assert!(said.contains("COLOUR=two words\nHOME=/nowhere\n"), "{said}");
    // Its folder, nothing to read, three descriptors and that of the listing, and as important as the service.
    let nice = Command::new("nice").output().unwrap().stdout;
    let nice: i32 = String::from_utf8(nice).unwrap().trim().parse().unwrap();
    assert!(said.ends_with(&format!("{here}\n0\n4\n{nice}\n")), "{said}");
    for kind in [RunKind::Learn, RunKind::Evaluate] {
        job.run.kind = kind;
        assert_eq!(ends(&job).await.0, Exit::Code(0));
        assert!(log(&job).ends_with(&format!("\n{}\n", (nice + 10).min(19))), "{}", log(&job));
    }
}

#[tokio::test]
async fn the_log_holds_both_outputs_in_their_order() {
    let folder = TempDir::new().unwrap();
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf end";
    let job = shell(&folder, script);
    // What an earlier attempt said is replaced; a link is not followed.
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("precious"), "kept").unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("precious"), job.folder.join(LOG)).unwrap();
    let (exit, usage) = ends(&job).await;
    assert_eq!(exit, Exit::Code(0));
    let want: String = (0..2000).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(log(&job), want + "end");
    assert_eq!(usage.output_bytes, log(&job).len() as u64);
    assert_eq!(fs::read_to_string(elsewhere.path().join("precious")).unwrap(), "kept");
}

#[tokio::test]
async fn a_runaway_log_stops_at_the_bound() {
    let mebibyte = 1 << 20;
    for script in ["yes", "trap '' TERM; while :; do yes; done", "head -c 1100000 /dev/zero", "yes & exit 0"]
    {
        let folder = TempDir::new().unwrap();
        let mut job = shell(&folder, script);
        job.limits.output_mib = 1;
        let (exit, usage) = ends(&job).await;
        // The last may end before it is caught, and its leftovers are nobody's.
        let ended = exit == Exit::Output || (script.ends_with("exit 0") && exit == Exit::Code(0));
        assert!(ended, "{script}: {exit:?}");
        assert!(fs::metadata(job.folder.join(LOG)).unwrap().len() <= mebibyte, "{script}");
        assert!(usage.output_bytes <= mebibyte, "{script}");
    }
}

#[tokio::test]
async fn output_and_log_share_one_limit() {
    let half = "head -c 700000 /dev/zero";
    for (script, ended) in [
        (format!("{half} > output/a; sleep 30"), None),
        (format!("mkdir output/b; {half} > output/b/c; {half} > output/d; sleep 30"), Some(Exit::Output)),
        (format!("{half} > output/a; {half}; sleep 30"), Some(Exit::Output)),
        // Too fast to be caught at it.
        (format!("{half} > output/a; {half} > output/b"), Some(Exit::Output)),
        (format!("{half} > output/a; {half} > elsewhere"), Some(Exit::Code(0))),
    ] {
        let folder = TempDir::new().unwrap();
        let mut job = shell(&folder, &script);
        (job.limits.output_mib, job.limits.timeout_s) = (1, if ended.is_some() { 60.0 } else { 0.5 });
        let (exit, usage) = ends(&job).await;
        assert_eq!(exit, ended.unwrap_or(Exit::TimedOut), "{script}");
        assert!(usage.output_bytes >= 700_000, "{script}: {usage:?}");
    }
}

#[tokio::test]
async fn time_runs_out() {
    let folder = TempDir::new().unwrap();
    let mut job = shell(&folder, "trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done");
    job.limits.timeout_s = 0.4;
    let began = Instant::now();
    assert_eq!(ends(&job).await.0, Exit::TimedOut);
    assert!((0.4..2.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert!(log(&job).ends_with("saved\n"), "{}", log(&job));
    // Whoever does not listen is killed shortly after.
    job.command[2] = "trap '' TERM; while :; do sleep 0.05; done".to_owned();
    let began = Instant::now();
    assert_eq!(ends(&job).await.0, Exit::TimedOut);
    assert!((2.4..5.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn memory_is_limited_over_all_its_processes() {
    // Seven processes with the same 25 MiB.
    let shared =
        "x=$(head -c 25M /dev/zero | tr '\\0' a); for i in 1 2 3 4 5 6; do (sleep 0.6; :) & done; wait";
    // `tail` keeps what has no line ends.
    let tail = |mib: u32| format!("(head -c {mib}M /dev/zero; sleep 2) | tail -n 1 > /dev/null");
    for (script, ended) in [
        (tail(200), Exit::Memory),
        (format!("{} & {} & wait", tail(80), tail(80)), Exit::Memory),
        (tail(60), Exit::Code(0)),
        (shared.to_owned(), Exit::Code(0)),
        // Memory that is a file, and may be dropped, is not its own.
        ("head -c 200M /dev/zero > big; cat big > /dev/null; sleep 0.3".to_owned(), Exit::Code(0)),
    ] {
        let folder = TempDir::new().unwrap();
        let mut job = shell(&folder, &script);
        job.limits.memory_mib = 120;
        let (exit, usage) = ends(&job).await;
        assert_eq!(exit, ended, "{script}: {usage:?}");
        let least = if exit == Exit::Memory { 120 << 20 } else { 0 };
        assert!(usage.memory_bytes > least, "{script}: {usage:?}");
        assert!(script != tail(60) || (60 << 20..120 << 20).contains(&usage.memory_bytes), "{usage:?}");
    }
}

#[tokio::test]
async fn it_is_stopped_at_once_or_may_save() {
    let saves = "trap 'sleep 0.3; echo saved > state; exit 7' TERM; : > ready; while :; do sleep 0.02; done";
    let folder = TempDir::new().unwrap();
    let saving = shell(&folder, saves);
    assert_eq!(stopped(&saving, Stop::Save).await, Exit::Stopped);
    assert_eq!(fs::read_to_string(folder.path().join("state")).unwrap(), "saved\n");
    let folder = TempDir::new().unwrap();
    let hurried = shell(&folder, saves);
    assert_eq!(stopped(&hurried, Stop::Now).await, Exit::Stopped);
    assert!(!folder.path().join("state").exists());
    // A shell dies at the signal; what it started has the time to save nevertheless.
    let folder = TempDir::new().unwrap();
    let script = format!("sh -c '{}'; echo never", saves.replace('\'', "\""));
    let below = shell(&folder, &script);
    assert_eq!(stopped(&below, Stop::Save).await, Exit::Stopped);
    assert_eq!(fs::read_to_string(folder.path().join("state")).unwrap(), "saved\n");
    assert!(!log(&below).contains("never"));
}

#[tokio::test]
async fn grace_ends_and_may_be_cut_short() {
    let stubborn = "trap '' TERM; : > ready; while :; do sleep 0.02; done";
    let folder = TempDir::new().unwrap();
    let began = Instant::now();
    assert_eq!(stopped(&shell(&folder, stubborn), Stop::Save).await, Exit::Stopped);
    assert!((10.0..14.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, stubborn);
    let (stop, asked) = watch::channel(None);
    let running = tokio::spawn({
        let job = job.clone();
        async move { Processes::supervised_by(REMORA).run(&job, asked).await.0 }
    });
    ready(&job).await;
    stop.send(Some(Stop::Save)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.is_finished());
    let began = Instant::now();
    stop.send(Some(Stop::Now)).unwrap();
    assert_eq!(running.await.unwrap(), Exit::Stopped);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // What was stopped before it began does not begin.
    fs::remove_file(job.folder.join("ready")).unwrap();
    let (_stop, asked) = watch::channel(Some(Stop::Save));
    let (exit, usage) = Processes::supervised_by(REMORA).run(&job, asked).await;
    assert_eq!((exit, usage), (Exit::Stopped, Usage::default()));
    assert!(!job.folder.join("ready").exists());
}

/// Starts what tries to escape: a grandchild, one in a session of its own, and one without the mark.
const ESCAPES: &str = "sleep 1000 & echo $! > child
    setsid sh -c 'echo $$ > session; exec sleep 1000' &
    (setsid env -i sh -c 'echo $$ > bare; exec sleep 1000' &) &
    while [ ! -s session ] || [ ! -s bare ]; do sleep 0.01; done; : > ready; ";
const ESCAPED: [&str; 3] = ["child", "session", "bare"];

#[tokio::test]
async fn nothing_outlives_its_command() {
    for (then, want) in [("exit 4", Exit::Code(4)), ("sleep 1000", Exit::TimedOut)] {
        let folder = TempDir::new().unwrap();
        let mut job = shell(&folder, &format!("{ESCAPES}{then}"));
        job.limits.timeout_s = 2.0;
        assert_eq!(ends(&job).await.0, want);
        assert_eq!(ESCAPED.map(|file| runs(pid(&job, file))), [false; 3], "{then}");
    }
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, &format!("{ESCAPES}sleep 1000"));
    assert_eq!(stopped(&job, Stop::Now).await, Exit::Stopped);
    assert_eq!(ESCAPED.map(|file| runs(pid(&job, file))), [false; 3]);
}

#[tokio::test]
async fn whoever_drops_a_run_ends_it() {
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, &format!("{ESCAPES}sleep 1000"));
    let (_stop, asked) = watch::channel(None);
    let running = tokio::spawn({
        let job = job.clone();
        async move { Processes::supervised_by(REMORA).run(&job, asked).await.0 }
    });
    ready(&job).await;
    running.abort();
    until("all are gone", || marked(&job.folder).is_empty() && !ESCAPED.iter().any(|it| runs(pid(&job, it))))
        .await;
}

/// Not a test of its own: the service that the next ones kill.
#[tokio::test]
async fn service_to_be_killed() {
    let Ok(folder) = std::env::var("REMORA_TEST_JOB_FOLDER") else { return };
    let mut job = shell(&TempDir::new().unwrap(), &std::env::var("REMORA_TEST_JOB_SCRIPT").unwrap());
    job.folder = folder.into();
    let (_stop, asked) = watch::channel(None);
    println!("{:?}", Processes::supervised_by(REMORA).run(&job, asked).await);
}

fn service(job: &Job) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "appcore_process::service_to_be_killed", "--nocapture"])
        .env("REMORA_TEST_JOB_FOLDER", &job.folder)
        .env("REMORA_TEST_JOB_SCRIPT", &job.command[2])
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn jobs_die_with_a_service_that_is_killed() {
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, &format!("{ESCAPES}sleep 1000"));
    let mut service = service(&job);
    ready(&job).await;
    assert!(ESCAPED.iter().all(|file| runs(pid(&job, file))));
    service.kill().unwrap();
    service.wait().unwrap();
    until("all are gone", || marked(&job.folder).is_empty() && !ESCAPED.iter().any(|it| runs(pid(&job, it))))
        .await;
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_job_along() {
    let folder = TempDir::new().unwrap();
    let job = shell(&folder, "sleep 1000 & setsid sleep 1000 & : > ready; kill -9 $PPID; sleep 1000");
    let (exit, _) = ends(&job).await;
    let Exit::Broken(why) = exit else { panic!("{exit:?}") };
    assert!(why.starts_with("its supervisor ended without a report: signal: 9"), "{why}");
}

#[tokio::test]
async fn what_service_and_supervisor_leave_is_reaped_and_nobody_else() {
    let folder = TempDir::new().unwrap();
    // The command bears no mark: it is known by the record, and what it starts by its descent and session.
    let script = "echo $PPID > supervisor; exec env -i PATH=\"$PATH\" sh -c \
                  'sleep 1000 & echo $! > child; echo $$ > bare; : > ready; wait'";
    let job = shell(&folder, script);
    let mut service = service(&job);
    ready(&job).await;
    let record = fs::read_to_string(job.folder.join(".processes")).unwrap();
    // Both at once: neither may notice that the other is gone.
    let (ours, supervisor) = (service.id().cast_signed(), pid(&job, "supervisor"));
    for (signal, pid) in [("-STOP", supervisor), ("-KILL", ours), ("-KILL", supervisor)] {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }
    service.wait().unwrap();
    assert!(runs(pid(&job, "child")) && runs(pid(&job, "bare")));
    let processes = Processes::supervised_by(REMORA);
    processes.reap(&job.folder).await;
    assert!(!runs(pid(&job, "child")) && !runs(pid(&job, "bare")));
    assert!(!job.folder.join(".processes").exists());

    // Another process has a recorded number now, or the machine was started anew.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let was: serde_json::Value = serde_json::from_str(&record).unwrap();
    let start: u64 = fs::read_to_string(format!("/proc/{}/stat", other.id()))
        .unwrap()
        .split(' ')
        .nth(21)
        .unwrap()
        .parse()
        .unwrap();
    let of = |boot: &serde_json::Value, start: u64| {
        let identity = serde_json::json!({ "pid": other.id(), "start": start });
        serde_json::json!({ "boot": boot, "supervisor": null, "command": identity }).to_string()
    };
    let records =
        [of(&was["boot"], start - 1), of(&"another".into(), start), "{\"boot\":".to_owned(), String::new()];
    for record in records {
        fs::write(job.folder.join(".processes"), &record).unwrap();
        processes.reap(&job.folder).await;
        assert!(runs(other.id().cast_signed()), "{record}");
    }
    // And it is the record that protects it.
    fs::write(job.folder.join(".processes"), of(&was["boot"], start)).unwrap();
    processes.reap(&job.folder).await;
    assert!(!runs(other.id().cast_signed()));
    other.wait().unwrap();
    processes.reap(Path::new("/no/such/folder")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_a_time_leave_nothing() {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        tasks.map(of).collect::<String>()
    };
    // The runtime opens what it needs for signals with the first.
    assert_eq!(ends_so("exit 0").await, Exit::Code(0));
    let (before, folder) = (descriptors(), TempDir::new().unwrap());
    let jobs: Vec<_> = (0..50)
        .map(|number| {
            let mut job =
                shell(&folder, &format!("sleep 1000 & setsid sleep 1000 & echo {number}; exit {number}"));
            job.folder = job.folder.join(number.to_string());
            fs::create_dir(&job.folder).unwrap();
            tokio::spawn(async move {
                let (_stop, asked) = watch::channel(None);
                (Processes::supervised_by(REMORA).run(&job, asked).await.0, job)
            })
        })
        .collect();
    for (number, running) in (0..).zip(jobs) {
        let (exit, job) = running.await.unwrap();
        assert_eq!((exit, log(&job)), (Exit::Code(number), format!("{number}\n")));
        assert_eq!(marked(&job.folder), Vec::<i32>::new());
    }
    assert_eq!(children(), "");
    assert_eq!(descriptors(), before);
}

#[tokio::test]
async fn usage_is_what_was_used() {
    // In a child that is waited for, and in an orphan.
    let busy = "sh -c 'i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done; times > spent'";
    let orphan = format!("({busy} &); while [ ! -s spent ]; do sleep 0.05; done");
    for script in [busy.to_owned(), orphan] {
        let folder = TempDir::new().unwrap();
        let (exit, usage) = ends(&shell(&folder, &format!("{script}; echo said"))).await;
        assert_eq!((exit, usage.output_bytes), (Exit::Code(0), 5));
        // Minutes and seconds, user and system, of the shell itself.
        let of = |text: &str| {
            let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
            60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
        };
        let spent = fs::read_to_string(folder.path().join("spent")).unwrap();
        let spent: f64 = spent.lines().next().unwrap().split(' ').map(of).sum();
        assert!(spent > 0.2, "{spent} s");
        assert!((usage.cpu_s - spent).abs() < 0.15, "{usage:?}, the shell says {spent} s");
        assert!((50_000..50_000_000).contains(&usage.memory_bytes), "{usage:?}");
    }
}

#[tokio::test]
async fn a_supervisor_without_an_order_says_so() {
    let supervisor =
        Command::new(REMORA).arg("supervise").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut supervisor = supervisor.unwrap();
    drop(supervisor.stdin.take());
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("stdin: is empty, want an order"), "{line}");
    supervisor.wait().unwrap();
}
