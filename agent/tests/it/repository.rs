//! What the repository promises about itself.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Whether a word in backticks or the target of a link is meant as a path of this repository.
fn is_path(word: &str) -> bool {
    let starts = ["agent/", "env/", "policies/", "trainer/", "proto/", "examples/", "docs/", ".ci/"];
    starts.iter().any(|start| word.starts_with(start)) && !word.contains([' ', '*'])
}

#[test]
fn every_path_in_the_documents_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "policies/pretrained/README.md"] {
        let text = read(document);
        let words = text.split(['`', '(', ')', ',', ';']).map(str::trim).filter(|word| is_path(word));
        for path in words {
            assert!(root().join(path).exists(), "{document} names {path}, which does not exist");
        }
    }
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
