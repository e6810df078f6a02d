//! Work that one node does at a time: whoever holds its lease, by the database's own clock.

use std::time::Duration;

use crate::{
    model::Millis,
    store::{
        StoreError,
        registry::{
            Registry,
            rows::{Fields, stored},
            sql::Sql,
        },
    },
};

impl Registry {
    /// Takes a lease, or holds it for longer; says whether `holder` has it until `lasts` from now on.
    pub async fn hold_lease(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.dialect.now();
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let mut sql = Sql::new("INSERT INTO lease (name, holder, ends_at) VALUES (");
        sql.bind(name.to_owned())
            .push(", ")
            .bind(holder.to_owned())
            .push(", ")
            .push(now)
            .push(" + ")
            .bind(stored(lasts))
            .push(
                ") ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at \
                 WHERE lease.holder = excluded.holder OR lease.ends_at < ",
            )
            .push(now);
        let held = sql.build(self.dialect)?.execute(&self.write).await?;
        Ok(held.rows_affected() == 1)
    }

    /// Gives a lease back, if `holder` has it.
    pub async fn end_lease(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let mut sql = Sql::new("DELETE FROM lease WHERE name = ");
        sql.bind(name.to_owned())
            .push(" AND holder = ")
            .bind(holder.to_owned());
        sql.build(self.dialect)?.execute(&self.write).await?;
        Ok(())
    }

    /// What time it is to the database.
    ///
    /// # Errors
    /// What the database says.
    pub async fn clock(&self) -> Result<Millis, StoreError> {
        let mut sql = Sql::new("SELECT ");
        sql.push(self.dialect.now()).push(" AS now");
        let row = sql.build(self.dialect)?.fetch_one(&self.read).await?;
        Fields(&row).time("now")
    }

    /// The database's own time.
    pub(super) async fn server_time(&self, tx: &mut super::Tx) -> Result<Millis, StoreError> {
        let mut sql = Sql::new("SELECT ");
        sql.push(self.dialect.now()).push(" AS now");
        let row = sql.build(self.dialect)?.fetch_one(&mut **tx).await?;
        Fields(&row).time("now")
    }
}
