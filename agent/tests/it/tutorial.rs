//! `docs/applications.md`, followed to the letter.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use remora_agent::appcore::gate::Scores;
use remora_agent::appcore::manifest::Manifest;

const REMORA: &str = env!("CARGO_BIN_EXE_remora");
/// Where the tutorial ends and the reference begins.
const OWN: &str = "## An application of your own";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    std::fs::read_to_string(repository().join("docs/applications.md")).unwrap()
}

/// Blocks of code in this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opens = format!("```{language}\n");
    text.split(&opens).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The commands of the tutorial, but those that build; afterwards the service is killed and started again.
fn script() -> String {
    let document = document();
    let (tutorial, _) = document.split_once(OWN).unwrap();
    let builds = |line: &&str| !line.starts_with("cargo build") && !line.starts_with("export PATH=");
    let lines: Vec<_> = blocks(tutorial, "sh").into_iter().flat_map(str::lines).filter(builds).collect();
    let serve = *lines.iter().find(|line| line.starts_with("remora serve")).unwrap();
    let again = format!("kill -9 %1\nwait || true\n{serve}\nremora app list\n");
    format!("set -e\ntrap 'kill $(jobs -p)' EXIT\nset -v\n{}\n{again}", lines.join("\n"))
}

/// A folder that looks like a clone in which everything is built. The service listens on a port of its own.
fn clone(folder: &Path, sensor_anomaly: &Path) {
    let example = Path::new("examples/apps/sensor-anomaly");
    std::fs::create_dir_all(folder.join(example)).unwrap();
    let manifest = example.join("app.toml");
    std::fs::copy(repository().join(&manifest), folder.join(&manifest)).unwrap();
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(sensor_anomaly, programs.join("sensor-anomaly")).unwrap();
    let remora = format!(
        "#!/bin/sh\nif [ \"$1\" = serve ]; then set -- \"$@\" --listen \"$REMORA_SERVER\"; fi\nexec {REMORA} \"$@\"\n"
    );
    std::fs::write(programs.join("remora"), remora).unwrap();
    std::fs::set_permissions(programs.join("remora"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a command printed, line by line, without the spaces that align tables.
fn said<'a>(session: &'a str, command: &str) -> Vec<Vec<&'a str>> {
    let told =
        session.split_once(&format!("\n{command}")).unwrap_or_else(|| panic!("{command}: {session}")).1;
    let own = |line: &&str| !line.starts_with("remora ") && !line.starts_with("sensor-anomaly generate ");
    told.lines().skip(1).take_while(own).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_tutorial_does_what_it_says() {
    let sensor_anomaly = Path::new(REMORA).with_file_name("sensor-anomaly");
    if !sensor_anomaly.exists() {
        eprintln!("skipped: {} is not built; cargo build -p sensor-anomaly", sensor_anomaly.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    clone(folder.path(), &sensor_anomaly);
    std::fs::write(folder.path().join("tutorial.sh"), script()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = format!("{}:{}", folder.path().join("programs").display(), std::env::var("PATH").unwrap());
    let ran = Command::new("bash")
        .args(["-c", "exec bash tutorial.sh 2>&1"])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("REMORA_SERVER", free.to_string())
        .output()
        .unwrap();
    let session = String::from_utf8(ran.stdout).unwrap();
    let log = std::fs::read_to_string(folder.path().join("demo-serve.log")).unwrap_or_default();
    assert!(ran.status.success(), "{session}\n{log}");
    let words = |command: &str| {
        let lines: Vec<_> = said(&session, command).into_iter().map(|words| words.join(" ")).collect();
        lines.join("\n")
    };
    let holds = |command: &str, expected: &[&str]| {
        let told = words(command);
        expected.iter().for_each(|part| assert!(told.contains(part), "{command}: {part:?} in\n{told}"));
    };
    let registered = "sensor-anomaly registered; next: remora app enable sensor-anomaly";
    holds("remora app register", &[registered]);
    holds("remora app enable", &["sensor-anomaly is asleep.idle; versions: candidate 1"]);
    holds("remora app list", &["sensor-anomaly asleep.idle", "candidate 1"]);
    holds("remora app notify sensor-anomaly demo/readings/monday.csv", &["taken: 1 file"]);
    assert_eq!(
        words("remora app wait sensor-anomaly --champion"),
        "sensor-anomaly is asleep.idle; versions: champion 2"
    );
    holds("remora app versions", &["2 champion sensor-anomaly.1", "passed: it is the first version"]);
    // It is told of in the order in which it happened.
    let answered = words("remora app run");
    let steps: Vec<_> = answered.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let (last, steps) = steps.split_last().unwrap();
    assert_eq!((*last, &steps[..2]), ("demo/answer.json", &["queued", "queued"][..]), "{answered}");
    let states = answered.lines().map(|line| line.split(": ").next().unwrap());
    let states: Vec<_> = states.take(steps.len()).collect();
    let order = ["asleep.idle", "waking", "awake.executing", "awake.executing", "awake.executing"];
    assert_eq!(states, order[..steps.len()], "{answered}");
    assert!(answered.contains("sensor-anomaly.3 succeeded on localhost, version 2, "), "{answered}");
    let answer = std::fs::read(folder.path().join("demo/answer.json")).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&answer).unwrap().is_object());
    let moves = [
        "waking awake.executing woken appcore ready",
        "asleep.idle waking requested local a request",
        "asleep.learning asleep.idle learnt appcore it is the first version",
        "asleep.idle asleep.learning learns appcore trigger new-data",
        "registered asleep.idle enabled local",
    ];
    holds("remora app transitions", &moves);
    let session_after = session.split_once("--champion 3").unwrap().1;
    let versions = said(session_after, "remora app versions").concat().join(" ");
    assert!(
        versions.contains("3 champion sensor-anomaly.4") && versions.contains("passed: better: "),
        "{versions}"
    );
    holds("remora app history", &["candidate nobody", "champion 3", "champion 2", "candidate 1 local"]);
    for run in ["5 evaluate", "4 learn", "3 execute", "2 evaluate", "1 learn"] {
        holds("remora app runs", &[&format!("sensor-anomaly.{run} succeeded ")]);
    }
    holds("remora app log", &["learnt from 650 windows"]);
    let same = "sensor-anomaly.1 repeated as sensor-anomaly.6: succeeded\nall that it wrote is the same, byte for byte";
    assert_eq!(words("remora app repeat"), same);
    holds("remora app export", &["demo/run.tar: ", "cd sensor-anomaly.1 && sha256sum"]);
    holds("remora app rollback", &["versions: champion 2"]);
    holds("remora app show", &["versions: champion 2", "sensor-anomaly.6 learn succeeded"]);
    // It was killed, and goes on where it was.
    let (_, after) = session.split_once("kill -9").unwrap();
    assert!(after.contains("champion 2"), "{after}");
}

/// A block of the document that shows a part of an `app.toml`, made whole.
fn whole(block: &str) -> String {
    let command = "command = [\"true\"]\n";
    let mut text = block.to_owned();
    if !block.starts_with("name = ") {
        text = format!("name = \"example\"\n{text}");
    }
    for part in ["execute", "learn", "evaluate"] {
        if !block.contains(&format!("[{part}]")) {
            text += &format!("[{part}]\n{command}");
        }
    }
    text
}

#[test]
fn the_examples_of_the_document_are_accepted() {
    let document = document();
    let manifests = blocks(&document, "toml");
    let shown = |block: &&&str| block.contains("[[trigger]]") || block.contains("[execute]");
    assert_eq!(manifests.iter().filter(shown).count(), 2, "{manifests:?}");
    for block in manifests.iter().filter(shown) {
        let read = Manifest::read(&whole(block)).unwrap_or_else(|wrong| panic!("{block}: {wrong}"));
        assert_eq!(read.triggers.len(), block.matches("[[trigger]]").count());
    }
    for block in blocks(&document, "json") {
        serde_json::from_str::<Scores>(block).unwrap_or_else(|wrong| panic!("{block}: {wrong}"));
    }
}
