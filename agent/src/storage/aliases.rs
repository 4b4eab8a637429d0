//! Aliases of policies, as `champion`: every change is a row, and the last one holds.

use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::audit::{Who, append};
use super::error::check_texts;
use super::page::{Page, Paging, Select};
use super::{Error, Storage};

/// What an alias names from a time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasChange {
    pub sequence: i64,
    pub at_ms: i64,
    pub alias: String,
    /// A checkpoint's id or a heuristic's name; nothing where the alias was taken away.
    pub policy: Option<String>,
    pub reason: String,
    pub actor: String,
}

const SELECT: &str = "SELECT sequence, at_ms, alias, policy, reason, actor FROM aliases WHERE true";

fn change(row: &AnyRow) -> Result<AliasChange, Error> {
    Ok(AliasChange {
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        alias: row.try_get("alias")?,
        policy: row.try_get("policy")?,
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
    })
}

impl Storage {
    /// Lets an alias name a policy, or none.
    pub async fn set_alias(
        &self,
        alias: &str,
        policy: Option<&str>,
        reason: &str,
        who: &Who,
    ) -> Result<AliasChange, Error> {
        let texts =
            [("alias", alias), ("policy", policy.unwrap_or("")), ("reason", reason), ("actor", &who.actor)];
        check_texts(&texts)?;
        let mut write = self.database.write().await?;
        let change = AliasChange {
            sequence: next_sequence(write.connection(), "SELECT coalesce(max(sequence), 0) + 1 FROM aliases")
                .await?,
            at_ms: who.at_ms,
            alias: alias.to_owned(),
            policy: policy.map(str::to_owned),
            reason: reason.to_owned(),
            actor: who.actor.clone(),
        };
        sqlx::query(
            "INSERT INTO aliases (sequence, at_ms, alias, policy, reason, actor) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(change.sequence)
        .bind(change.at_ms)
        .bind(&change.alias)
        .bind(&change.policy)
        .bind(&change.reason)
        .bind(&change.actor)
        .execute(write.connection())
        .await?;
        let details = json!({ "policy": policy, "reason": reason });
        append(&mut write, who, ("alias.set", alias), &details, true).await?;
        write.commit().await?;
        Ok(change)
    }

    /// What an alias names now.
    pub async fn alias(&self, alias: &str) -> Result<Option<String>, Error> {
        self.alias_at(alias, i64::MAX).await
    }

    /// What an alias named at a time.
    pub async fn alias_at(&self, alias: &str, at_ms: i64) -> Result<Option<String>, Error> {
        let last = Paging { limit: 1, newest_first: true, ..Paging::default() };
        let page = Select::new(SELECT)
            .filter("alias =", Some(alias.to_owned()))?
            .filter("at_ms <=", Some(at_ms))?
            .page(&self.database, &last, change)
            .await?;
        Ok(page.items.into_iter().next().and_then(|change| change.policy))
    }

    /// All aliases that name a policy now, by name.
    pub async fn aliases(&self) -> Result<Vec<AliasChange>, Error> {
        let last = "SELECT sequence, at_ms, alias, policy, reason, actor FROM aliases
             WHERE policy IS NOT NULL AND sequence IN (SELECT max(sequence) FROM aliases GROUP BY alias)";
        let mut aliases = Select::new(last).all(&self.database, change).await?;
        aliases.sort_by(|a, b| a.alias.cmp(&b.alias));
        Ok(aliases)
    }

    pub async fn alias_history(&self, alias: &str, paging: &Paging) -> Result<Page<AliasChange>, Error> {
        Select::new(SELECT)
            .filter("alias =", Some(alias.to_owned()))?
            .page(&self.database, paging, change)
            .await
    }
}

pub(super) async fn next_sequence(connection: &mut AnyConnection, query: &'static str) -> Result<i64, Error> {
    Ok(sqlx::query(query).fetch_one(connection).await?.try_get(0)?)
}
