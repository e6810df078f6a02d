//! What nodes that share a registry tell each other about tasks, by the database's own channel of notices.
//!
//! A notice is sent with the change that it is about, in one transaction, and is a hint: who misses one finds the same in
//! the tables at the next look.

use std::{collections::BTreeMap, fmt};

use sqlx::postgres::PgListener;

use crate::{
    model::Id,
    store::{
        StoreError,
        registry::{Registry, Tx, sql::Sql},
    },
};

/// What a node tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A task, or which of its deliveries are open, is not as it was.
    Task(Id),
    /// Deliveries of a task made steps at this node.
    Steps {
        /// The node that tells it.
        node: Box<str>,
        /// The task.
        task: Id,
        /// The deliveries.
        deliveries: Vec<Id>,
    },
    /// Notices may have been missed: the connection to the database was lost.
    Missed,
}

/// What the other nodes tell, as it comes.
pub struct Notices(PgListener);

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Notices {
    /// Waits for the next one.
    ///
    /// # Errors
    /// What the database says when it is away; the next call tries again.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        loop {
            let Some(heard) = self.0.try_recv().await? else {
                return Ok(Notice::Missed);
            };
            // What cannot be read is of another release, or of somebody else.
            if let Some(notice) = read(heard.payload()) {
                return Ok(notice);
            }
        }
    }
}

impl Registry {
    /// Begins to listen to other nodes; `None` where there are none.
    ///
    /// # Errors
    /// What the database says.
    pub async fn listen(&self) -> Result<Option<Notices>, StoreError> {
        let Some(pool) = &self.listen else {
            return Ok(None);
        };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Notices(listener)))
    }

    /// Tells all nodes, this one too, that a task is not as it was: with the transaction.
    pub(super) async fn tell_of_task(&self, tx: &mut Tx, task: Id) -> Result<(), StoreError> {
        if self.is_shared() {
            tell(tx, &[format!("t {task}")]).await?;
        }
        Ok(())
    }

    /// Tells all nodes which deliveries made steps: with the transaction.
    pub(super) async fn tell_of_steps(
        &self,
        tx: &mut Tx,
        node: &str,
        steps: &[(Id, Id)],
    ) -> Result<(), StoreError> {
        let mut by_task: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        for (task, delivery) in steps {
            by_task.entry(*task).or_default().push(*delivery);
        }
        let mut told = Vec::with_capacity(by_task.len());
        for (task, mut deliveries) in by_task {
            deliveries.sort_unstable();
            deliveries.dedup();
            for part in deliveries.chunks(IN_ONE) {
                let mut text = format!("s {node} {task}");
                for delivery in part {
                    text.push(' ');
                    text.push_str(&delivery.to_string());
                }
                told.push(text);
            }
        }
        tell(tx, &told).await
    }
}

async fn tell(tx: &mut Tx, payloads: &[String]) -> Result<(), StoreError> {
    if payloads.is_empty() {
        return Ok(());
    }
    let mut sql =
        Sql::new("SELECT CAST(pg_notify('headgate', told.payload) AS TEXT) FROM (VALUES ");
    sql.rows(payloads, |row, payload| {
        row.bind(payload.clone());
    })
    .push(") AS told (payload)");
    let dialect = tx.dialect();
    sql.build_rows(dialect, payloads.len())?
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn read(payload: &str) -> Option<Notice> {
    let mut words = payload.split(' ');
    match words.next()? {
        "t" => Some(Notice::Task(words.next()?.parse().ok()?)),
        "s" => Some(Notice::Steps {
            node: words.next()?.into(),
            task: words.next()?.parse().ok()?,
            deliveries: words.map(|word| word.parse().ok()).collect::<Option<_>>()?,
        }),
        _ => None,
    }
}

/// The channel of the database.
const CHANNEL: &str = "headgate";
/// Deliveries in one notice: the server takes up to 8,000 bytes.
const IN_ONE: usize = 350;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_are_told_and_others_left() {
        let id = |number| Id::from_i64(number).expect("positive");
        assert_eq!(read(&format!("t {}", id(7))), Some(Notice::Task(id(7))));
        let steps = format!("s n1 {} {} {}", id(7), id(8), id(9));
        assert_eq!(
            read(&steps),
            Some(Notice::Steps {
                node: "n1".into(),
                task: id(7),
                deliveries: vec![id(8), id(9)],
            })
        );
        for wrong in ["", "t", "t !", "x 1", "s n1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
