//! What the repository promises about itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// All documents, by their paths from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "runs", "quickstart"].contains(&name.as_str())
            {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Whether a word in backticks is meant as a path of this repository.
fn is_path(word: &str) -> bool {
    let starts = ["agent/", "env/", "policies/", "trainer/", "proto/", "examples/", "docs/", ".ci/"];
    starts.iter().any(|start| word.starts_with(start)) && !word.contains([' ', '*'])
}

#[test]
fn every_path_in_the_documents_exists() {
    for document in documents() {
        let text = read(document.to_str().unwrap());
        let words =
            text.split('`').skip(1).step_by(2).flat_map(|code| code.split([',', ';', '(', ')', '\n']));
        for path in words.map(str::trim).filter(|word| is_path(word)) {
            assert!(root().join(path).exists(), "{} names {path}, which does not exist", document.display());
        }
    }
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    headings
        .map(|heading| {
            heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    for document in documents() {
        let text = read(document.to_str().unwrap());
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            let path = root().join(&target);
            assert!(path.exists(), "{} links to {link}, which does not exist", document.display());
            if !anchor.is_empty() {
                let there = anchors(&std::fs::read_to_string(path).unwrap());
                assert!(
                    there.contains(anchor),
                    "{} links to {link}, which has no such heading",
                    document.display()
                );
            }
        }
    }
}

/// Commands of ours in the examples of a document, without what the shell does with them.
fn commands(text: &str) -> Vec<Vec<String>> {
    let examples =
        text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(code, _)| code);
    let lines: Vec<_> = examples
        .flat_map(|code| code.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let words = |line: &String| {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.strip_prefix("remora ")?.chars() {
            match c {
                '"' => quoted = !quoted,
                '#' | '>' | '|' | '&' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty() && word != "2");
        Some(words)
    };
    lines.iter().filter_map(words).collect()
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut known = BTreeSet::new();
    for document in documents() {
        for command in commands(&read(document.to_str().unwrap())) {
            if known.insert(command.clone()) {
                // With it, flags and values before are read, and nothing is done.
                let tried =
                    Command::new(env!("CARGO_BIN_EXE_remora")).args(&command).arg("--help").output().unwrap();
                let told = String::from_utf8_lossy(&tried.stderr);
                assert!(
                    tried.status.success(),
                    "{}: remora {}: {told}",
                    document.display(),
                    command.join(" ")
                );
            }
        }
    }
    assert!(known.len() > 30, "{} commands were found", known.len());
}

/// `cargo run -- quickstart`, the first thing that anybody does, knows which program is meant.
#[test]
fn there_is_one_program_to_run() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let told = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let usual = told["workspace_default_members"].as_array().unwrap();
    let packages =
        told["packages"].as_array().unwrap().iter().filter(|package| usual.contains(&package["id"]));
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    let programs: Vec<_> = targets.filter(|target| target["kind"] == serde_json::json!(["bin"])).collect();
    assert_eq!(programs.len(), 1, "{programs:?}");
    assert_eq!(programs[0]["name"], "remora");
}

/// Nothing depends upwards.
#[test]
fn packages_depend_only_on_those_below_them() {
    let allowed = [
        ("env", &[][..]),
        ("proto", &[]),
        ("policies", &["env"]),
        ("trainer", &["env", "policies"]),
        ("agent", &["env", "policies", "proto", "trainer"]),
    ];
    for (package, below) in allowed {
        let manifest = read(&format!("{package}/Cargo.toml"));
        let ours = manifest.lines().filter_map(|line| line.strip_prefix("remora-")?.split_once(".workspace"));
        for (name, _) in ours {
            assert!(below.contains(&name), "{package} depends on {name}");
        }
    }
}
