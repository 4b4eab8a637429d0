//! Taking applications in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use remora_proto::v1 as wire;
use serde_json::json;

use super::client;
use super::own::OwnArgs;
use crate::appcore::manifest::{Manifest, file_name};
use crate::client::{ServerArgs, in_pieces, refused};
use crate::commands::print;

#[derive(Debug, clap::Args)]
pub struct RegisterArgs {
    /// An app.toml, or the folder that it lies in.
    #[arg(required_unless_present = "own")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    own: OwnArgs,
    /// A further file that its commands need, such as a program just built; may be repeated.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Why; kept with the new version.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// An app.toml, or the folder that it lies in.
    manifest: PathBuf,
}

/// The manifest as text, what it says, and the files that it names as an archive.
fn read(path: &Path, further: &[PathBuf]) -> Result<(String, Manifest, Vec<u8>)> {
    let path = if path.is_dir() { path.join("app.toml") } else { path.to_owned() };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = Manifest::read(&text).map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut archive = tar::Builder::new(Vec::new());
    // The same files give the same archive, whoever owns them and whenever they were made.
    archive.mode(tar::HeaderMode::Deterministic);
    // Programs just built may have holes on some file systems; the archive does not tell.
    archive.sparse(false);
    for (index, file) in manifest.files.iter().enumerate() {
        let from = folder.join(file);
        let added = archive.append_path_with_name(&from, file_name(file));
        added
            .with_context(|| format!("{}: files[{index}]: cannot read {}", path.display(), from.display()))?;
    }
    for from in further {
        let name = from.file_name().with_context(|| format!("--file {}: is no file", from.display()))?;
        let added = archive.append_path_with_name(from, name);
        added.with_context(|| format!("--file: cannot read {}", from.display()))?;
    }
    let none = manifest.files.is_empty() && further.is_empty();
    let bytes = if none { Vec::new() } else { archive.into_inner()? };
    Ok((text, manifest, bytes))
}

pub fn check(args: &CheckArgs, as_json: bool) -> Result<()> {
    let (_, manifest, archive) = read(&args.manifest, &[])?;
    if as_json {
        return print(json!({ "rows": [{ "name": manifest.name, "bytes": archive.len() }] }));
    }
    let (files, triggers) = (manifest.files.len(), manifest.triggers.len());
    print(format_args!("{} is right: {files} files, {triggers} triggers", manifest.name))
}

pub fn schema() -> Result<()> {
    print(serde_json::to_string_pretty(&Manifest::schema())?)
}

pub async fn register(args: RegisterArgs, as_json: bool) -> Result<()> {
    let (text, archive) = match (args.own.manifest()?, args.manifest) {
        (Some(own), _) => (own, Vec::new()),
        (None, Some(manifest)) => read(&manifest, &args.file).map(|(text, _, archive)| (text, archive))?,
        (None, None) => bail!("an app.toml is missing, or --own"),
    };
    let first = wire::RegisterAppRequest {
        manifest: text,
        reason: args.reason,
        ..wire::RegisterAppRequest::default()
    };
    let piece = |chunk| wire::RegisterAppRequest { chunk, ..Default::default() };
    let messages: Vec<_> = std::iter::once(first).chain(in_pieces(&archive).map(piece)).collect();
    let service = args.server.connect().await?;
    let app =
        client(service.wire()).register(tokio_stream::iter(messages)).await.map_err(refused)?.into_inner();
    if as_json {
        return print(json!({ "rows": [app] }));
    }
    let what = if app.unchanged { "was registered so already" } else { "registered" };
    let name = &app.name;
    match app.state.as_str() {
        "registered" => print(format_args!("{name} {what}; next: remora app enable {name}")),
        state => print(format_args!("{name} {what}; it is {state}")),
    }
}
