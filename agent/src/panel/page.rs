//! What all pages have in common.

use maud::{DOCTYPE, Markup, Render, html};

use super::session::Undo;
use super::{Asked, Part, Parts};
use crate::storage::Role;

/// A page: its title, where it belongs, what is on it.
pub struct Page {
    pub title: String,
    /// The entry of the menu that it belongs to.
    pub place: &'static str,
    pub main: Part,
}

/// The menu: path and name.
const MENU: [(&str, &str); 12] = [
    ("", "Overview"),
    ("apps", "Applications"),
    ("runs", "Runs"),
    ("archive", "Archive"),
    ("data", "Data"),
    ("placements", "Placements"),
    ("policies", "Policies"),
    ("training", "Training"),
    ("triggers", "Triggers"),
    ("audit", "Audit"),
    ("access", "Access"),
    ("settings", "Settings"),
];

impl Page {
    pub fn new(place: &'static str, title: impl Into<String>, main: Part) -> Page {
        Page { title: title.into(), place, main }
    }

    /// Something went wrong.
    pub fn trouble(why: &str) -> Page {
        let main = html! {
            h1 { "That did not work" }
            p.trouble role="alert" { (why) }
            p { a href="." { "Back to the overview" } }
        };
        Page::new("-", "That did not work", main)
    }

    pub fn render(self, asked: &Asked<'_>) -> Markup {
        let caller = &asked.session.caller;
        let base = format!("{}/", asked.panel.prefix);
        html! {
            (DOCTYPE)
            html lang="en" {
                (head(&base, &self.title))
                body {
                    a.skip href="#main" { "To the content" }
                    header.top {
                        a.brand href="." { "Remora" }
                        nav aria-label="Main" {
                            @for (path, name) in MENU {
                                @if !matches!(path, "audit" | "access" | "settings") || asked.may(Role::Admin) {
                                    a href=(if path.is_empty() { "." } else { path })
                                        aria-current=[(path == self.place).then_some("page")] { (name) }
                                }
                            }
                        }
                        span.who {
                            span #live title="live updates" aria-hidden="true" { "●" }
                            " " (caller.name) " (" (caller.role.name()) ")"
                            @if asked.session.signed_in {
                                form.inline method="post" action="sign-out" { button.quiet { "Sign out" } }
                            }
                        }
                    }
                    main #main tabindex="-1" {
                        @if let Some(told) = &asked.told { div.told role="status" { (told) " " (undo(asked, told)) } }
                        (self.main)
                    }
                }
            }
        }
    }
}

/// A button that undoes what was just done.
fn undo(asked: &Asked<'_>, told: &str) -> Part {
    let Some(Undo { method, fields, back }) = asked.undo.clone() else { return html! {} };
    let reason = format!("undo of: {}", told.chars().take(400).collect::<String>());
    let fields = fields.into_iter().chain([("reason", reason)]).collect();
    Form { asked, method, fields, back, label: "Undo", inside: html! {} }.button()
}

fn head(base: &str, title: &str) -> Part {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            base href=(base);
            title { (title) " · Remora" }
            link rel="stylesheet" href="assets/panel.css";
            link rel="icon" href="data:,";
            script src="assets/panel.js" defer {}
        }
    }
}

/// The door for those who are not in.
pub fn sign_in(panel: &Parts, wrong: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{}/", panel.prefix), "Sign in"))
            body {
                main.narrow {
                    h1 { "Remora" }
                    p { "Sign in with an access token. An administrator makes one with "
                        code { "remora token create NAME --role operator" } "." }
                    @if let Some(wrong) = wrong { p.trouble role="alert" { (wrong) } }
                    form method="post" action="sign-in" {
                        label { "Token" input type="password" name="token" required autocomplete="current-password"; }
                        button { "Sign in" }
                    }
                }
            }
        }
    }
}

/// A form that does something: which method, with which fields, and where to come back to.
pub struct Form<'a> {
    pub asked: &'a Asked<'a>,
    /// `Service/Method`.
    pub method: &'static str,
    pub fields: Vec<(&'static str, String)>,
    pub back: String,
    pub label: &'static str,
    /// Further fields that are filled in.
    pub inside: Part,
}

impl Form<'_> {
    fn hidden(&self) -> Part {
        html! {
            input type="hidden" name="csrf" value=(self.asked.session.csrf);
            input type="hidden" name="back" value=(self.back);
            @for (name, value) in &self.fields { input type="hidden" name=(name) value=(value); }
        }
    }

    /// A button that does it at once.
    pub fn button(&self) -> Part {
        html! {
            form.inline method="post" action={ "act/" (self.method) } {
                (self.hidden())
                (self.inside)
                button { (self.label) }
            }
        }
    }

    /// One that sends files along.
    pub fn with_files(&self, consequence: &str) -> Part {
        html! {
            details.confirm {
                summary { (self.label) "…" }
                form method="post" action={ "act/" (self.method) } enctype="multipart/form-data" {
                    p { (consequence) }
                    (self.hidden())
                    (self.inside)
                    button { (self.label) }
                }
            }
        }
    }

    /// A button that first says what follows and asks why.
    pub fn confirmed(&self, consequence: &str, required: bool) -> Part {
        html! {
            details.confirm {
                summary { (self.label) "…" }
                form method="post" action={ "act/" (self.method) } {
                    p { (consequence) }
                    (self.hidden())
                    (self.inside)
                    label { "Reason" input name="reason" maxlength="2000" required[required]; }
                    button.danger { (self.label) }
                }
            }
        }
    }
}

/// A time, which the browser shows in its own zone.
pub fn time(at_ms: i64) -> Part {
    if at_ms == 0 {
        return html! { "—" };
    }
    let told = crate::commands::date(at_ms);
    html! { time datetime=(told) { (told) } }
}

pub fn time_or_none(at_ms: Option<i64>) -> Part {
    time(at_ms.unwrap_or_default())
}

/// A word with a colour of its own.
pub fn badge(word: &str) -> Part {
    html! { span.badge data-word=(word) { (word) } }
}

/// Figures of the same rank beside each other.
pub fn figures<'a>(all: impl IntoIterator<Item = (&'a str, String)>) -> Part {
    html! {
        dl.figures {
            @for (name, value) in all { div { dt { (name) } dd { (value) } } }
        }
    }
}

/// Nothing here yet, and what to do about it.
pub fn empty(what: &str, next: impl Render) -> Part {
    html! { div.empty { p { (what) } p { (next) } } }
}

/// A part that is replaced while somebody looks at it.
pub fn live(id: &str, part: impl Render) -> Part {
    html! { section id=(id) data-live { (part) } }
}

/// Text as one part of a path, whatever is in it.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Where a list is searched, all pages of it.
pub fn search(path: &str, label: &str, wanted: &str) -> Part {
    search_among(path, label, wanted, &[])
}

/// The same among some only, which these fields say.
pub fn search_among(path: &str, label: &str, wanted: &str, among: &[(&str, &str)]) -> Part {
    html! { form method="get" action=(path) role="search" {
        label { (label) input type="search" name="q" data-search value=(wanted); }
        @for (name, value) in among { @if !value.is_empty() { input type="hidden" name=(name) value=(value); } }
    } }
}

/// The pages before and after, where there are several.
pub fn pager(path: &str, wanted: &str, page: usize, found: usize, of: usize) -> Part {
    let to = |page: usize| format!("{path}?q={}&page={page}", escaped(wanted));
    html! { @if found > of {
        nav.pager aria-label="Pages" {
            "Page " (page + 1) " of " (found.div_ceil(of)) " "
            @if page > 0 { a rel="prev" href=(to(page - 1)) { "earlier" } " " }
            @if (page + 1) * of < found { a rel="next" href=(to(page + 1)) { "further" } }
        }
    } }
}
