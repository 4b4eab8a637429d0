//! Results as files.

use std::path::Path;

use anyhow::{Context, Result};
use remora_env::file::write_whole;

/// Writes a file that is seen whole or not at all.
///
/// # Errors
/// When it cannot be written, with its path.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_whole(path, |file| file.write_all(content.as_ref()))
        .with_context(|| format!("cannot write {}", path.display()))
}
