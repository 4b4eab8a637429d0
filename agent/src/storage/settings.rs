//! Settings of the service and of single clusters: every change is a row, and the last one holds.

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::aliases::next_sequence;
use super::audit::{Who, append};
use super::error::check_texts;
use super::page::{Page, Paging, Select};
use super::{Error, Storage};

/// What a setting is from a time on.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingChange {
    pub sequence: i64,
    pub at_ms: i64,
    /// A cluster's id, or empty for the service.
    pub scope: String,
    pub key: String,
    /// Nothing where the default holds again.
    pub value: Option<Value>,
    pub reason: String,
    pub actor: String,
}

const SELECT: &str = "SELECT sequence, at_ms, scope, key, value, reason, actor FROM settings WHERE true";

fn change(row: &AnyRow) -> Result<SettingChange, Error> {
    let sequence = row.try_get("sequence")?;
    let value: Option<String> = row.try_get("value")?;
    let value = value.map(|text| serde_json::from_str(&text)).transpose();
    Ok(SettingChange {
        sequence,
        at_ms: row.try_get("at_ms")?,
        scope: row.try_get("scope")?,
        key: row.try_get("key")?,
        value: value.map_err(|error| Error::Damaged(format!("value of setting {sequence}: {error}")))?,
        reason: row.try_get("reason")?,
        actor: row.try_get("actor")?,
    })
}

impl Storage {
    /// Changes a setting of a cluster, or of the service where `scope` is empty.
    pub async fn set_setting(
        &self,
        (scope, key): (&str, &str),
        value: Option<&Value>,
        reason: &str,
        who: &Who,
    ) -> Result<SettingChange, Error> {
        check_texts(&[("scope", scope), ("key", key), ("reason", reason), ("actor", &who.actor)])?;
        let mut write = self.database.write().await?;
        let change = SettingChange {
            sequence: next_sequence(
                write.connection(),
                "SELECT coalesce(max(sequence), 0) + 1 FROM settings",
            )
            .await?,
            at_ms: who.at_ms,
            scope: scope.to_owned(),
            key: key.to_owned(),
            value: value.cloned(),
            reason: reason.to_owned(),
            actor: who.actor.clone(),
        };
        sqlx::query(
            "INSERT INTO settings (sequence, at_ms, scope, key, value, reason, actor)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(change.sequence)
        .bind(change.at_ms)
        .bind(&change.scope)
        .bind(&change.key)
        .bind(value.map(Value::to_string))
        .bind(&change.reason)
        .bind(&change.actor)
        .execute(write.connection())
        .await?;
        let details = json!({ "scope": scope, "value": value, "reason": reason });
        append(&mut write, who, ("setting.set", key), &details, true).await?;
        write.commit().await?;
        Ok(change)
    }

    /// What a setting is now; nothing where the default holds.
    pub async fn setting(&self, scope: &str, key: &str) -> Result<Option<Value>, Error> {
        let last = Paging { limit: 1, newest_first: true, ..Paging::default() };
        let page = self.setting_history(scope, key, &last).await?;
        Ok(page.items.into_iter().next().and_then(|change| change.value))
    }

    /// All settings that are not left to their defaults, by scope and key.
    pub async fn settings(&self) -> Result<Vec<SettingChange>, Error> {
        let last = "SELECT sequence, at_ms, scope, key, value, reason, actor FROM settings
             WHERE value IS NOT NULL AND sequence IN (SELECT max(sequence) FROM settings GROUP BY scope, key)";
        let mut settings = Select::new(last).all(&self.database, change).await?;
        settings.sort_by(|a, b| (&a.scope, &a.key).cmp(&(&b.scope, &b.key)));
        Ok(settings)
    }

    pub async fn setting_history(
        &self,
        scope: &str,
        key: &str,
        paging: &Paging,
    ) -> Result<Page<SettingChange>, Error> {
        Select::new(SELECT)
            .filter("scope =", Some(scope.to_owned()))?
            .filter("key =", Some(key.to_owned()))?
            .page(&self.database, paging, change)
            .await
    }
}
