//! Kubernetes objects as facts: pure functions, no clock, no network.
//!
//! What an object cannot say stands in [`Settings`] or has a default; what it says wrongly becomes a
//! warning that names the annotation, and the rest of it counts.

pub mod annotation;
pub mod node;
pub mod pod;
pub mod quantity;
pub mod resources;
pub mod settings;

pub use node::NodeFacts;
pub use pod::PodFacts;
pub use resources::Resources;
pub use settings::Settings;

/// Instruction sets that the core knows.
pub const ARCHS: [&str; 3] = ["amd64", "arm64", "arm"];

/// An image's name in full: `nginx` is `docker.io/library/nginx:latest`.
pub fn image_name(name: &str) -> String {
    let (path, digest) = name.split_once('@').map_or((name, None), |(path, digest)| (path, Some(digest)));
    let (registry, rest) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => ("docker.io", path.to_owned()),
        None => ("docker.io", format!("library/{path}")),
    };
    let tagged = rest.rsplit('/').next().is_some_and(|last| last.contains(':'));
    match digest {
        Some(digest) => format!("{registry}/{rest}@{digest}"),
        None if tagged => format!("{registry}/{rest}"),
        None => format!("{registry}/{rest}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::image_name;

    #[test]
    fn images_have_one_name() {
        for (name, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("nginx@sha256:0f", "docker.io/library/nginx@sha256:0f"),
        ] {
            assert_eq!(image_name(name), full);
        }
    }
}
