//! Who changed what, and settings that all nodes share.

use sqlx::Row as _;

use crate::{
    model::{AuditEntry, Id, Millis, Page, Paged},
    store::{
        StoreError,
        registry::{
            Registry, Tx,
            rows::Fields,
            sql::{self, Sql},
        },
    },
};

/// Which audit entries are meant; `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this operator or token, by its name.
    pub actor: Option<String>,
    /// A noun and a verb, such as `device.freeze`, or a noun alone.
    pub action: Option<String>,
    /// To this record.
    pub subject: Option<String>,
    /// At this time or later.
    pub since: Option<Millis>,
    /// Before this time.
    pub until: Option<Millis>,
}

impl Registry {
    /// Records what an actor did where the change itself is not the registry's.
    pub async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        self.record_in(&mut tx, entry).await?;
        Ok(tx.commit().await?)
    }

    /// Adds an audit entry to a change, to be committed or lost together with it.
    pub(super) async fn record_in(
        &self,
        tx: &mut Tx,
        entry: &AuditEntry,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO audit (id, account_id, at, actor, action, noun, subject, detail, origin) \
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.next_id().as_i64())
        .bind(entry.at.as_i64())
        .bind(entry.actor.as_str())
        .bind(entry.action.as_str())
        .bind(noun(&entry.action))
        .bind(entry.subject.as_str())
        .bind(entry.detail.as_str())
        .bind(entry.origin.as_str())
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Audit entries, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Paged<AuditEntry>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, at, actor, action, subject, detail, origin FROM audit WHERE 1 = 1",
        );
        if let Some(before) = super::id_cursor(page)? {
            sql.push(" AND id < ").bind(before);
        }
        if let Some(actor) = &filter.actor {
            sql.push(" AND actor = ").bind(actor.clone());
        }
        if let Some(subject) = &filter.subject {
            sql.push(" AND subject = ").bind(subject.clone());
        }
        if let Some(action) = &filter.action {
            if action.contains('.') {
                sql.push(" AND action = ").bind(action.clone());
            } else {
                // A noun alone means all that was done to its kind.
                sql.push(" AND noun = ").bind(format!("{action}."));
            }
        }
        if let Some(since) = filter.since {
            // An entry gets its id when it is written, which is not before what it says was done.
            sql.push(" AND at >= ")
                .bind(since.as_i64())
                .push(" AND id >= ")
                .bind(Id::first_at(since).as_i64());
        }
        if let Some(until) = filter.until {
            // And soon after it: so much later nothing is written any more.
            let late = Millis::from_i64(until.as_i64().saturating_add(WRITTEN_WITHIN_MS));
            sql.push(" AND at < ")
                .bind(until.as_i64())
                .push(" AND id < ")
                .bind(Id::first_at(late).as_i64());
        }
        sql.push(" ORDER BY id DESC LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let entries = rows.iter().map(|row| {
            let fields = Fields(row);
            let entry = AuditEntry {
                at: fields.time("at")?,
                actor: fields.text("actor")?.to_owned(),
                action: fields.text("action")?.to_owned(),
                subject: fields.text("subject")?.to_owned(),
                detail: fields.text("detail")?.to_owned(),
                origin: fields.text("origin")?.to_owned(),
            };
            Ok((fields.id("id")?, entry))
        });
        let entries = entries.collect::<Result<Vec<_>, StoreError>>()?;
        let page = Paged::cut(entries, page.limit, |(id, _)| id.to_string());
        Ok(page.map(|(_, entry)| entry))
    }

    /// The value of a setting that all nodes share.
    pub async fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM setting WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.read)
            .await?;
        row.map(|row| Ok(row.try_get("value")?)).transpose()
    }

    /// Stores a setting unless it has a value already; returns the value that it has now. Of several nodes that
    /// start at once, all get the first one's.
    pub async fn setting_or_insert(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(value)
        .execute(&mut *tx)
        .await?;
        let row = sqlx::query("SELECT value FROM setting WHERE key = $1")
            .bind(key)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(row.try_get("value")?)
    }

    /// Stores a setting, whatever it was.
    pub async fn set_setting(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO setting (key, value) VALUES ($1, $2) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(key)
        .bind(value)
        .execute(&self.write)
        .await?;
        Ok(())
    }
}

/// The kind of thing that an action is done to, with the dot behind it; empty where the action names none.
fn noun(action: &str) -> &str {
    action
        .find('.')
        .and_then(|dot| action.get(..=dot))
        .unwrap_or_default()
}

/// An entry is written within this time of what it says was done: a day.
const WRITTEN_WITHIN_MS: i64 = 86_400_000;
