//! Access tokens. A token is `rmr_<id>_<secret>`; only a hash of the secret is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;
use subtle::ConstantTimeEq;

use super::audit::{Who, append};
use super::database::Database;
use super::error::check_texts;
use super::page::hex;
use super::{Error, Storage};

/// What a token's holder may do, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Orchestrator,
    Author,
    Operator,
    Admin,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Viewer, Role::Orchestrator, Role::Author, Role::Operator, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Orchestrator => "orchestrator",
            Role::Author => "author",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    pub(super) fn stored(name: &str) -> Result<Role, Error> {
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        role.ok_or_else(|| Error::Damaged(format!("role {name:?}, which this program does not know")))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_at_ms: i64,
    pub created_by: String,
    /// It is void from then on.
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
}

/// A token as its holder gets it, this once.
pub struct NewToken {
    pub token: Token,
    pub secret: String,
}

impl fmt::Debug for NewToken {
    /// Without the secret, which has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewToken({:?})", self.token)
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the token is malformed; want rmr_<id>_<secret>")]
    Malformed,
    #[error("the token is unknown; ask an administrator for another")]
    Unknown,
    #[error("the token has expired; ask an administrator for another")]
    Expired,
    #[error("the token was revoked; ask an administrator for another")]
    Revoked,
}

/// All tokens by id with the hashes of their secrets, so that checking one needs no database.
pub(super) type Tokens = BTreeMap<String, (Token, Vec<u8>)>;

/// Bytes of a secret. With 256 random bits there is nothing to guess, so one round of SHA-256 protects it as well as a
/// slow hash for passwords would, and checking it costs a microsecond.
const SECRET: usize = 32;

pub(super) async fn load(database: &Database) -> Result<Tokens, Error> {
    let query =
        "SELECT id, name, role, hash, created_at_ms, created_by, expires_at_ms, revoked_at_ms FROM tokens";
    let rows = sqlx::query(query).fetch_all(&mut *database.read().await?).await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &AnyRow) -> Result<(String, (Token, Vec<u8>)), Error> {
    let id: String = row.try_get("id")?;
    let token = Token {
        id: id.clone(),
        name: row.try_get("name")?,
        role: Role::stored(row.try_get("role")?)?,
        created_at_ms: row.try_get("created_at_ms")?,
        created_by: row.try_get("created_by")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        revoked_at_ms: row.try_get("revoked_at_ms")?,
    };
    Ok((id, (token, row.try_get("hash")?)))
}

impl Storage {
    pub async fn create_token(
        &self,
        name: &str,
        role: Role,
        expires_at_ms: Option<i64>,
        who: &Who,
    ) -> Result<NewToken, Error> {
        check_texts(&[("name", name), ("actor", &who.actor)])?;
        if expires_at_ms.is_some_and(|at_ms| at_ms <= who.at_ms) {
            return Err(Error::Invalid("expires_at_ms: lies in the past; want a later time".to_owned()));
        }
        let (id, secret) = (random::<8>(), random::<SECRET>());
        let hash = Sha256::digest(&secret).to_vec();
        let token = Token {
            id: id.clone(),
            name: name.to_owned(),
            role,
            created_at_ms: who.at_ms,
            created_by: who.actor.clone(),
            expires_at_ms,
            revoked_at_ms: None,
        };
        let mut write = self.database.write().await?;
        sqlx::query(
            "INSERT INTO tokens (id, name, role, hash, created_at_ms, created_by, expires_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&id)
        .bind(name)
        .bind(role.name())
        .bind(&hash)
        .bind(who.at_ms)
        .bind(&who.actor)
        .bind(expires_at_ms)
        .execute(write.connection())
        .await?;
        let details = json!({ "name": name, "role": role.name(), "expires_at_ms": expires_at_ms });
        append(&mut write, who, ("token.create", &id), &details, true).await?;
        write.commit().await?;
        self.tokens.send_modify(|tokens| drop(tokens.insert(id.clone(), (token.clone(), hash))));
        Ok(NewToken { token, secret: format!("rmr_{id}_{secret}") })
    }

    /// From now on the token is void. One that was revoked before stays so since then.
    pub async fn revoke_token(&self, id: &str, who: &Who) -> Result<Token, Error> {
        check_texts(&[("actor", &who.actor)])?;
        let Some((mut token, hash)) = self.tokens.borrow().get(id).cloned() else {
            return Err(Error::Unknown(format!("no token has the id {id:?}")));
        };
        token.revoked_at_ms.get_or_insert(who.at_ms);
        // First of all it is void here: should writing fail, then at least nobody gets in until a restart.
        self.tokens.send_modify(|tokens| drop(tokens.insert(id.to_owned(), (token.clone(), hash))));
        let mut write = self.database.write().await?;
        let revoked =
            sqlx::query("UPDATE tokens SET revoked_at_ms = $1 WHERE id = $2 AND revoked_at_ms IS NULL")
                .bind(token.revoked_at_ms)
                .bind(id)
                .execute(write.connection())
                .await?;
        if revoked.rows_affected() > 0 {
            append(&mut write, who, ("token.revoke", id), &json!({ "name": token.name }), true).await?;
        }
        write.commit().await?;
        Ok(token)
    }

    /// All tokens, revoked and expired ones too, by time of creation.
    pub fn tokens(&self) -> Vec<Token> {
        let mut tokens: Vec<_> = self.tokens.borrow().values().map(|(token, _)| token.clone()).collect();
        tokens.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        tokens
    }

    /// The token that somebody shows, if it is valid now.
    pub fn authenticate(&self, shown: &str, now_ms: i64) -> Result<Token, Denied> {
        let (id, secret) =
            shown.strip_prefix("rmr_").and_then(|rest| rest.split_once('_')).ok_or(Denied::Malformed)?;
        let tokens = self.tokens.borrow();
        let (token, hash) = tokens.get(id).ok_or(Denied::Unknown)?;
        // How long it takes says nothing about how much was right.
        if !bool::from(Sha256::digest(secret).as_slice().ct_eq(hash)) {
            return Err(Denied::Unknown);
        }
        if token.revoked_at_ms.is_some() {
            return Err(Denied::Revoked);
        }
        if token.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(Denied::Expired);
        }
        Ok(token.clone())
    }
}

/// Random bytes of the operating system's generator, in hexadecimal digits.
pub(crate) fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    hex(&bytes)
}
