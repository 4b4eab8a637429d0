//! Who looks at the panel. Signing in with a token begins a session; the token is asked anew with every request, so that
//! one that was revoked or has run out opens nothing.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{FirstLink, Parts, page, plain};
use crate::service::access::{Caller, Peer};
use crate::storage::{hex, random};

const COOKIE_NAME: &str = "remora_session";
/// A session ends after so long, and after so long without a request.
const LONGEST_MS: i64 = 12 * 3_600_000;
const IDLE_MS: i64 = 2 * 3_600_000;
/// Sessions at a time; the oldest gives way.
const MOST: usize = 10_000;
/// Actions that can be undone, of all sessions.
const OFFERS: usize = 1000;
/// Attempts to sign in, in a row and then per second.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("is not 0");

/// Somebody who looks at the panel.
#[derive(Clone, Debug)]
pub struct Session {
    pub caller: Caller,
    /// What every form has to bring along.
    pub csrf: String,
    /// There is something to sign out of.
    pub signed_in: bool,
}

/// Why a request is nobody's.
pub enum Why {
    Unknown,
    Foreign(String),
}

struct Kept {
    token: String,
    csrf: String,
    began_ms: i64,
    seen_ms: i64,
}

/// All sessions, by the hash of what their cookie says.
pub struct Sessions {
    kept: Mutex<BTreeMap<String, Kept>>,
    first: Mutex<Option<FirstLink>>,
    attempts: DefaultDirectRateLimiter,
    /// Of those who need not sign in.
    csrf: String,
    /// What can be undone, with the session that did it, oldest first.
    offers: Mutex<VecDeque<(String, String, Undo)>>,
}

/// An action that undoes another: its method, its fields, and where to come back to.
#[derive(Clone, Debug)]
pub struct Undo {
    pub method: &'static str,
    pub fields: Vec<(&'static str, String)>,
    pub back: String,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl FirstLink {
    /// A link for whoever is told its code.
    pub fn new(token: String) -> FirstLink {
        FirstLink { code: random::<32>(), token }
    }
}

fn hashed(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// Refuses what another site's page sends. Browsers say where a request comes from.
pub fn same_origin(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err("this request comes from another site's page".to_owned());
    }
    match (text(ORIGIN), text(HOST)) {
        (Some(origin), Some(host)) if origin.split_once("://").is_none_or(|(_, of)| of != host) => {
            Err(format!("this request comes from {origin}, not from a page of this service"))
        }
        _ => Ok(()),
    }
}

/// Without authentication only this machine is to come in: a name that somebody else's DNS leads here is refused.
fn local_host(headers: &HeaderMap) -> Result<(), Why> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Why::Foreign(format!(
        "{host} is not how this service is called; without --auth it answers to addresses only"
    )))
}

impl Sessions {
    pub fn new(first: Option<FirstLink>) -> Sessions {
        let attempts = RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(BURST));
        let (kept, offers) = (Mutex::default(), Mutex::default());
        Sessions { kept, first: Mutex::new(first), attempts, csrf: random::<32>(), offers }
    }

    /// Keeps what a session can undo; returns under which name. It is kept here, so that no link makes a page of ours
    /// offer something else.
    pub fn offer(&self, csrf: &str, undo: Undo) -> String {
        let id = random::<8>();
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if offers.len() >= OFFERS {
            offers.pop_front();
        }
        offers.push_back((id.clone(), csrf.to_owned(), undo));
        id
    }

    pub fn offered(&self, csrf: &str, id: &str) -> Option<Undo> {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |(known, of, _): &&(String, String, Undo)| known == id && of == csrf;
        offers.iter().find(mine).map(|(.., undo)| undo.clone())
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sends these headers.
    pub fn find(&self, panel: &Parts, headers: &HeaderMap, peer: &Peer) -> Result<Session, Why> {
        let access = &panel.gate.0.access;
        if !access.authenticates() {
            local_host(headers)?;
            return Ok(Session { caller: Caller::local(), csrf: self.csrf.clone(), signed_in: false });
        }
        // A token in the header or a certificate is as good: programs and proxies that know their users.
        if let Ok(caller) = access.admit(crate::storage::Role::Viewer, headers, peer) {
            return Ok(Session { caller, csrf: self.csrf.clone(), signed_in: false });
        }
        let (storage, shown) =
            (panel.storage.as_ref().ok_or(Why::Unknown)?, cookie(headers).ok_or(Why::Unknown)?);
        let (now_ms, id) = (panel.clock.now_ms(), hashed(&shown));
        let mut sessions = self.kept();
        let session = sessions.get_mut(&id).ok_or(Why::Unknown)?;
        let old = now_ms - session.began_ms > LONGEST_MS || now_ms - session.seen_ms > IDLE_MS;
        match storage.authenticate(&session.token, now_ms) {
            Ok(token) if !old => {
                session.seen_ms = now_ms;
                let caller = Caller { name: token.name.into(), role: token.role };
                Ok(Session { caller, csrf: session.csrf.clone(), signed_in: true })
            }
            _ => {
                sessions.remove(&id);
                Err(Why::Unknown)
            }
        }
    }

    /// The token behind a one-time link, once.
    pub fn redeem(&self, code: &str) -> Option<String> {
        self.attempts.check().ok()?;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let right =
            first.as_ref().is_some_and(|first| bool::from(first.code.as_bytes().ct_eq(code.as_bytes())));
        if right { first.take().map(|first| first.token) } else { None }
    }

    /// Signs in, or says why not.
    pub fn begin(&self, panel: &Parts, token: &str) -> Response {
        if self.attempts.check().is_err() {
            return plain(StatusCode::TOO_MANY_REQUESTS, "too many attempts; wait a few seconds");
        }
        let now_ms = panel.clock.now_ms();
        let known = panel.storage.as_ref().map(|storage| storage.authenticate(token, now_ms));
        if let Some(Ok(_)) = known {
            let secret = random::<32>();
            let mut sessions = self.kept();
            if sessions.len() >= MOST
                && let Some(oldest) =
                    sessions.iter().min_by_key(|(_, kept)| kept.seen_ms).map(|(id, _)| id.clone())
            {
                sessions.remove(&oldest);
            }
            let kept =
                Kept { token: token.to_owned(), csrf: random::<32>(), began_ms: now_ms, seen_ms: now_ms };
            sessions.insert(hashed(&secret), kept);
            return self.send_home(panel, &secret, LONGEST_MS / 1000);
        }
        let why = "this token opens nothing; ask whoever administers this service for another";
        (StatusCode::FORBIDDEN, Html(page::sign_in(panel, Some(why)).into_string())).into_response()
    }

    pub fn end(&self, panel: &Parts, headers: &HeaderMap) -> Response {
        if let Some(shown) = cookie(headers) {
            self.kept().remove(&hashed(&shown));
        }
        self.send_home(panel, "", 0)
    }

    fn send_home(&self, panel: &Parts, secret: &str, seconds: i64) -> Response {
        let path = format!("{}/", panel.prefix);
        // Browsers take a secure cookie from this machine itself too, without encryption.
        let cookie = format!(
            "{COOKIE_NAME}={secret}; Path={path}; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict"
        );
        let mut response = (StatusCode::SEE_OTHER, [("location", path)]).into_response();
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = all.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.to_owned())
}
