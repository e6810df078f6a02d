//! Hearing what other nodes say.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{FORGET, Inner, NodeNumber, Telling, query::ANSWER};
use crate::{
    model::Millis,
    store::{StoreError, sessions::Told},
};

/// When what could not be read is read again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// With so many messages at once there may be more.
const MANY: usize = 100;
/// The kind by which a node says that it has done what it was asked.
const DONE: &str = "done";

impl Inner {
    /// Reads what this node is told, in order, for ever.
    pub(super) async fn hear(&self) {
        let mut last_seq = None;
        loop {
            let number = self.store.number();
            let seen = {
                let mut seen = self.seen.lock();
                if seen.0 != Some(number) {
                    // Another lease, another stream.
                    *seen = (Some(number), String::new());
                    last_seq = None;
                }
                seen.1.clone()
            };
            let asked = Millis::now();
            match self.store.listen(&seen).await {
                Ok((told, last)) => {
                    let is_all = told.len() < MANY;
                    for one in told {
                        self.take(one, &mut last_seq).await;
                    }
                    if is_all {
                        let alive = self.alive.load(Ordering::Acquire);
                        self.sure
                            .fetch_max(alive.min(asked.as_i64()), Ordering::AcqRel);
                    }
                    let mut seen = self.seen.lock();
                    if let Some(last) = last.filter(|_| seen.0 == Some(number)) {
                        seen.1 = last;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "what other nodes say could not be read");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn take(&self, told: Told, last_seq: &mut Option<u64>) {
        self.metrics.heard.inc();
        let expected = last_seq.map_or(1, |last| last + 1);
        *last_seq = Some(told.seq);
        if told.seq != expected {
            tracing::warn!(
                told.seq,
                expected,
                "what other nodes said was missed: what is in memory is read anew"
            );
            self.missed_since(None).await;
        }
        if told.kind == DONE {
            let ask = std::str::from_utf8(&told.body).ok();
            if let Some(ask) = ask.and_then(|ask| ask.parse().ok()) {
                self.answered(ask, told.from);
            }
            return;
        }
        if told.kind == ANSWER {
            return self.questions.answered(told.from, &told.body);
        }
        if told.kind == FORGET {
            let since = std::str::from_utf8(&told.body).ok();
            let since = since.and_then(|since| since.parse().ok());
            return self.missed_since(since.map(Millis::from_i64)).await;
        }
        let handler = self.handlers.read().get(&*told.kind).map(Arc::clone);
        if let Some(handler) = handler {
            let telling = Telling {
                from: told.from,
                body: told.body,
            };
            handler.told(telling).await;
        } else {
            tracing::warn!(kind = told.kind, "another node said something unknown");
        }
        if told.ask != 0
            && let Err(error) = self.say_done(told.from, told.ask).await
        {
            tracing::warn!(%error, "another node could not be told that its change is made");
        }
    }

    async fn say_done(&self, to: NodeNumber, ask: u64) -> Result<(), StoreError> {
        let body = ask.to_string();
        self.store.tell(&[to], DONE, 0, body.as_bytes()).await?;
        Ok(())
    }
}
