//! What a manifest must satisfy. All that is wrong is said at once, with the field's name and what would be right.

use std::collections::BTreeMap;

use super::{Act, Awake, Command, Execute, Failures, Gate, Keep, Limits, Manifest, On, Wrong, file_name};
use crate::appcore::schedule::Schedule;

/// Longest name of an application or trigger.
const LONGEST_NAME: usize = 48;
/// Longest time anything may be set to, seconds: a year.
const LONGEST_S: f64 = 366.0 * 86_400.0;
const MOST_TRIGGERS: usize = 100;
/// Names that a working folder has already.
const TAKEN: [&str; 5] = [".", "..", "input", "output", "log"];

impl Manifest {
    /// # Errors
    /// All that is wrong, a line each.
    pub fn check(&self) -> Result<(), Wrong> {
        let mut wrong = Vec::new();
        check_name("name", &self.name, &mut wrong);
        let commands = [
            ("execute", self.execute.as_ref().map(Execute::run)),
            ("learn", self.learn.clone()),
            ("evaluate", self.evaluate.clone()),
        ];
        if commands.iter().all(|(_, command)| command.is_none()) {
            wrong.push("execute: is missing, want a section [execute] or [learn]".to_owned());
        }
        for (name, command) in commands {
            if let Some(command) = command {
                check_command(name, &command, &mut wrong);
            }
        }
        if let Some(Execute { awake, .. }) = &self.execute {
            check_awake(awake, &mut wrong);
        }
        if self.evaluate.is_some() && self.learn.is_none() {
            wrong.push("evaluate: has nothing to evaluate, want a section [learn] too".to_owned());
        }
        self.check_files(&mut wrong);
        self.check_gate(&mut wrong);
        self.check_triggers(&mut wrong);
        for (name, value) in &self.parameters {
            // TOML has numbers that JSON has not; they become null.
            if toml::to_string(&BTreeMap::from([(name, value)])).is_err() {
                wrong.push(format!(
                    "parameters.{name}: want text, finite numbers, true or false, lists and tables of them"
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Wrong(wrong.join("\n"))) }
    }

    fn check_files(&self, wrong: &mut Vec<String>) {
        let mut names: Vec<_> = self.files.iter().map(|file| file_name(file)).collect();
        names.sort_unstable();
        for (index, file) in self.files.iter().enumerate() {
            if file_name(file).is_empty() || file.contains('\0') {
                wrong.push(format!("files[{index}]: is {file:?}, want the path of a file"));
            } else if TAKEN.contains(&file_name(file)) {
                wrong.push(format!(
                    "files[{index}]: is {file:?}, want another name than {}",
                    TAKEN.join(", ")
                ));
            }
        }
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            wrong.push(format!("files: two are called {:?}, want different names", pair[0]));
        }
    }

    fn check_gate(&self, wrong: &mut Vec<String>) {
        let Gate { margin, confidence, samples, first, roll_back_after, .. } = self.gate;
        within("gate.margin", margin, (0.0, 10.0), wrong);
        within("gate.confidence", confidence, (0.5, 0.9999), wrong);
        if !(2..=1_000_000).contains(&samples) {
            wrong.push(format!("gate.samples: is {samples}, want 2 to 1000000"));
        }
        if first.is_some_and(|first| !first.is_finite()) {
            wrong.push("gate.first: is not a finite number".to_owned());
        }
        if roll_back_after == 0 {
            wrong.push("gate.roll_back_after: is 0, want at least 1".to_owned());
        }
        let Failures { backoff_s, longest_backoff_s, quarantine_after } = self.failures;
        within("failures.backoff_s", backoff_s, (0.0, LONGEST_S), wrong);
        within("failures.longest_backoff_s", longest_backoff_s, (backoff_s.max(0.0), LONGEST_S), wrong);
        if quarantine_after == 0 {
            wrong.push("failures.quarantine_after: is 0, want at least 1".to_owned());
        }
        let Keep { runs, days } = self.keep;
        for (field, limit) in [("runs", runs), ("days", days)] {
            if limit == Some(0) {
                wrong.push(format!("keep.{field}: is 0, want at least 1, or leave it out to keep all"));
            }
        }
    }

    fn check_triggers(&self, wrong: &mut Vec<String>) {
        if self.triggers.len() > MOST_TRIGGERS {
            wrong.push(format!("trigger: there are {}, want at most {MOST_TRIGGERS}", self.triggers.len()));
        }
        let mut names = Vec::new();
        for (index, trigger) in self.triggers.iter().enumerate() {
            let at = format!("trigger[{index}]");
            check_name(&format!("{at}.name"), &trigger.name, wrong);
            if names.contains(&&trigger.name) {
                wrong.push(format!("{at}.name: {:?} is another trigger's too", trigger.name));
            }
            names.push(&trigger.name);
            let missing = match trigger.run {
                Act::Learn if self.learn.is_none() => Some("learn"),
                Act::Execute if self.execute.is_none() => Some("execute"),
                _ => None,
            };
            if let Some(missing) = missing {
                wrong.push(format!("{at}.run: is {missing:?}, but there is no section [{missing}]"));
            }
            check_on(&at, &trigger.on, wrong);
        }
    }
}

fn check_name(field: &str, name: &str, wrong: &mut Vec<String>) {
    let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if name.is_empty() || name.len() > LONGEST_NAME || !plain || name.starts_with('-') {
        let most = LONGEST_NAME;
        wrong.push(format!(
            "{field}: is {name:?}, want 1 to {most} lower-case letters, digits and dashes, no dash first"
        ));
    }
}

fn within(field: &str, value: f64, (least, most): (f64, f64), wrong: &mut Vec<String>) {
    if !(least..=most).contains(&value) {
        wrong.push(format!("{field}: is {value}, want {least} to {most}"));
    }
}

fn check_command(at: &str, command: &Command, wrong: &mut Vec<String>) {
    if command.command.first().is_none_or(String::is_empty) {
        wrong.push(format!("{at}.command: is empty, want a program and its arguments"));
    }
    if command.command.iter().any(|part| part.contains('\0')) {
        wrong.push(format!("{at}.command: has a zero byte"));
    }
    let Limits { timeout_s, cpu_millis, memory_mib, output_mib } = command.limits;
    within(&format!("{at}.limits.timeout_s"), timeout_s, (0.1, LONGEST_S), wrong);
    within(&format!("{at}.limits.cpu_millis"), f64::from(cpu_millis), (1.0, 1e6), wrong);
    within(&format!("{at}.limits.memory_mib"), f64::from(memory_mib), (1.0, 1e7), wrong);
    within(&format!("{at}.limits.output_mib"), f64::from(output_mib), (1.0, 1e5), wrong);
}

fn check_awake(awake: &Awake, wrong: &mut Vec<String>) {
    if awake.wake.first().is_some_and(String::is_empty) || awake.wake.iter().any(|part| part.contains('\0')) {
        wrong.push("execute.awake.wake: want a program and its arguments, without zero bytes".to_owned());
    }
    within("execute.awake.wake_deadline_s", awake.wake_deadline_s, (0.1, LONGEST_S), wrong);
    within("execute.awake.idle_s", awake.idle_s, (0.0, LONGEST_S), wrong);
    within("execute.awake.concurrency", f64::from(awake.concurrency), (1.0, 1000.0), wrong);
    within("execute.awake.queue", f64::from(awake.queue), (1.0, 100_000.0), wrong);
}

fn check_on(at: &str, on: &On, wrong: &mut Vec<String>) {
    match on {
        On::Schedule { cron, zone, catch_up_s } => {
            if let Err(error) = Schedule::read(cron, zone) {
                wrong.push(format!("{at}.on.schedule.{error}"));
            }
            within(&format!("{at}.on.schedule.catch_up_s"), *catch_up_s, (0.0, LONGEST_S), wrong);
        }
        On::Data { count, bytes, debounce_s, longest_s, folder } => {
            if *count == 0 || *bytes == Some(0) {
                wrong.push(format!("{at}.on.data: count and bytes want at least 1"));
            }
            within(&format!("{at}.on.data.debounce_s"), *debounce_s, (0.0, LONGEST_S), wrong);
            if let Some(longest_s) = longest_s {
                within(&format!("{at}.on.data.longest_s"), *longest_s, (*debounce_s, LONGEST_S), wrong);
            }
            if folder.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
                wrong.push(format!("{at}.on.data.folder: want an absolute path"));
            }
        }
        On::Drift { metric, above, below, times } => {
            if metric.is_empty() || (above.is_none() && below.is_none()) {
                wrong.push(format!("{at}.on.drift: want a metric, and above or below"));
            }
            if above.iter().chain(below).any(|bound| !bound.is_finite()) || *times == 0 {
                wrong.push(format!("{at}.on.drift: above and below want finite numbers, times at least 1"));
            }
        }
        On::Manual {} => {}
    }
}
