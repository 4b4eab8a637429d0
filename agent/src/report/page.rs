//! The report as one page that needs nothing else, and as PDF.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use maud::{DOCTYPE, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

const STYLE: &str = "
:root { color-scheme: light; font: 11pt/1.5 system-ui, sans-serif }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff }
h1 { line-height: 1.2 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: 1rem 0; font-size: 85%; display: block; overflow-x: auto }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
code { font-size: 90%; overflow-wrap: anywhere } pre { background: #f4f4f4; padding: .6rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
@media print {
  @page { size: A4; margin: 18mm }
  body { margin: 0; padding: 0; max-width: none }
  h2, h3 { break-after: avoid } tr, svg { break-inside: avoid } table { display: table }
}
";

/// Markdown with its plots as one page.
pub fn render(text: &str, plots: &BTreeMap<String, String>) -> String {
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("Report");
    let mut body = String::new();
    let mut events = Vec::new();
    let mut picture = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Image { dest_url, .. }) if plots.contains_key(&*dest_url) => {
                picture = true;
                events.push(Event::InlineHtml(CowStr::from(plots[&*dest_url].clone())));
            }
            Event::End(TagEnd::Image) if picture => picture = false,
            // What a picture shows stands in its caption.
            _ if picture => {}
            event => events.push(event),
        }
    }
    pulldown_cmark::html::push_html(&mut body, events.into_iter());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (PreEscaped(body)) }
        }
    };
    page.into_string()
}

/// Programs that print pages, any of which will do.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Prints a page.
///
/// # Errors
/// When there is no browser, or it fails.
pub fn print(page: &Path, pdf: &Path) -> Result<()> {
    let page = page.canonicalize().with_context(|| format!("cannot read {}", page.display()))?;
    let profile = tempfile::tempdir().context("a browser wants a folder of its own")?;
    for browser in BROWSERS {
        let mut command = Command::new(browser);
        command
            .args(["--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--print-to-pdf={}", pdf.display()))
            .arg(format!("file://{}", page.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Browsers refuse to be root with a sandbox; the page is ours and has no scripts.
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        match command.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!("{browser} cannot be started: {error}"),
            Ok(status) if status.success() && pdf.is_file() => return Ok(()),
            Ok(status) => bail!("{browser} printed no PDF ({status})"),
        }
    }
    bail!("a PDF is printed by a browser, and none of {} is installed", BROWSERS.join(", "))
}
