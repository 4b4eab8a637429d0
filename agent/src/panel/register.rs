//! Taking an application in with what a form brings: its app.toml, and the files that its commands need.

use std::collections::BTreeMap;
use std::io::Read;

use maud::html;
use tonic::Status;

use super::fields::File;
use super::page::Form;
use super::{Asked, Part};
use crate::appcore::door::CODE_BYTES;
use crate::appcore::folder;
use crate::appcore::manifest::{Manifest, file_name};

const MANIFEST: &str = "app.toml";
/// What programs begin with: those that the system runs itself, and scripts that say who does.
const PROGRAMS: [&[u8]; 2] = [b"\x7fELF", b"#!"];

/// An application as it was handed over.
pub struct Handed {
    /// app.toml.
    pub manifest: String,
    /// A tar archive of the other files; empty where there are none.
    pub code: Vec<u8>,
}

/// What was chosen, put together.
///
/// # Errors
/// app.toml is not among it or is wrong, or a file that it names is missing.
pub fn handed(chosen: &[File]) -> Result<Handed, Status> {
    let refuse = |told: String| Status::invalid_argument(told);
    let mut files = match chosen {
        [archive] if archive.name.ends_with(".tar") => unpacked(&archive.content)?,
        files => named(files)?,
    };
    let manifest = files.remove(MANIFEST).ok_or_else(|| {
        let told: Vec<_> = files.keys().take(10).map(String::as_str).collect();
        refuse(format!("files: {MANIFEST} is not among them, which are {}", told.join(", ")))
    })?;
    let manifest = String::from_utf8(manifest).map_err(|_| refuse(format!("{MANIFEST}: is no text")))?;
    let read = Manifest::read(&manifest).map_err(|wrong| refuse(wrong.to_string()))?;
    for (index, file) in read.files.iter().enumerate() {
        if !files.contains_key(file_name(file)) {
            return Err(refuse(format!("files[{index}]: {file} was not chosen")));
        }
    }
    let code = packed(&files).map_err(|error| refuse(format!("files: {error}")))?;
    Ok(Handed { manifest, code })
}

type Files = BTreeMap<String, Vec<u8>>;

fn named(files: &[File]) -> Result<Files, Status> {
    let mut kept = Files::new();
    for File { name, content } in files {
        let told =
            || Status::invalid_argument(format!("files: {name:?} is no name of a file, or comes twice"));
        let name = folder::safe(name).map_err(|_| told())?;
        if kept.insert(name.to_owned(), content.to_vec()).is_some() {
            return Err(told());
        }
    }
    Ok(kept)
}

fn unpacked(archive: &[u8]) -> Result<Files, Status> {
    let damaged = |error: std::io::Error| Status::invalid_argument(format!("files: the archive: {error}"));
    let mut kept = Files::new();
    for entry in tar::Archive::new(archive).entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let name = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
        let name = name.trim_start_matches("./").to_owned();
        if !entry.header().entry_type().is_file() || folder::safe(&name).is_err() {
            return Err(Status::invalid_argument(format!("files: {name:?} is no plain file in the archive")));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(damaged)?;
        kept.insert(name, content);
    }
    Ok(kept)
}

/// The same files give the same archive.
fn packed(files: &Files) -> std::io::Result<Vec<u8>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        // Browsers do not tell who may run a file.
        let program = PROGRAMS.iter().any(|begin| content.starts_with(begin));
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if program { 0o755 } else { 0o644 });
        archive.append_data(&mut header, name, content.as_slice())?;
    }
    archive.into_inner()
}

/// Where an application is handed over.
pub fn form(asked: &Asked<'_>) -> Part {
    let form = Form {
        asked,
        method: "AppService/Register",
        fields: Vec::new(),
        back: "apps".to_owned(),
        label: "Register an application",
        inside: html! {
            label { "app.toml and the files that its commands need, or a .tar of them all"
                input type="file" name="files" multiple required data-most=(CODE_BYTES); }
            label { "Reason" input name="reason" maxlength="2000"; }
        },
    };
    form.with_files(
        "New code of one that is registered becomes its next version. The same again changes nothing.",
    )
}
