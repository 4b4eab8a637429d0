//! Folders of runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most files that one folder of outputs may have.
const MOST_FILES: usize = 10_000;
/// Largest archive of code when unpacked.
pub const MOST_CODE_BYTES: u64 = 512 << 20;

/// An empty folder, whatever was there.
pub fn fresh(folder: &Path) -> Result<()> {
    remove(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))
}

/// A folder with nothing in it but what `keep` holds.
pub fn fresh_but(folder: &Path, keep: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name() != keep {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// Removes a folder or file, if it is there. What cannot be removed only takes room.
pub fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if path.exists() => tracing::warn!(%error, path = %path.display(), "cannot be removed"),
        _ => {}
    }
}

/// Copies of files, so that no run changes another's code.
pub fn link_files(from: &Path, to: &Path) -> Result<()> {
    for (name, path) in files(from)? {
        let copy = to.join(&name);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
        }
        fs::copy(&path, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

/// Every plain file below a folder, by its path from there, in order. Links are left out: they may lead anywhere.
pub fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((name, path));
            }
            if found.len() > MOST_FILES {
                bail!("{} holds more than {MOST_FILES} files", folder.display());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A folder and all that is in it, links as such.
pub fn all(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if !path.is_symlink() && path.is_dir() {
            for entry in fs::read_dir(&path)? {
                found.push(entry?.path());
            }
        }
    }
    Ok(found)
}

/// Unpacks a tar archive of plain files, all or nothing.
pub fn unpack(archive: &[u8], folder: &Path) -> Result<()> {
    let parent = folder.parent().context("a folder for code lies somewhere")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot write {}", parent.display()))?;
    let aside = tempfile::Builder::new().prefix("unpacking").tempdir_in(parent)?;
    check_archive(archive)?;
    tar::Archive::new(archive).unpack(aside.path()).context("the application's files cannot be unpacked")?;
    let aside = aside.keep();
    match fs::rename(&aside, folder) {
        Err(error) if !folder.exists() => {
            Err(error).with_context(|| format!("cannot write {}", folder.display()))
        }
        // Another run was quicker.
        Err(_) => {
            remove(&aside);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Refuses archives that hold anything but plain files in it, or are too large.
pub fn check_archive(archive: &[u8]) -> Result<()> {
    let mut bytes = 0u64;
    for entry in tar::Archive::new(archive).entries().context("code: is no tar archive")? {
        let entry = entry.context("code: is a damaged tar archive")?;
        let path = entry.path().context("code: has a file whose name cannot be read")?.into_owned();
        if !entry.header().entry_type().is_file() {
            bail!("code: {} is no plain file", path.display());
        }
        safe(&path.to_string_lossy()).context("code")?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > MOST_CODE_BYTES {
            bail!("code: is larger than {} MiB when unpacked", MOST_CODE_BYTES >> 20);
        }
    }
    Ok(())
}

/// A name that stays within its folder.
pub fn safe(name: &str) -> Result<&str> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\\']);
    if name.len() <= 200 && name.split('/').all(plain) {
        Ok(name)
    } else {
        bail!("{name:?} is no name of a file, want one that stays within its folder")
    }
}
