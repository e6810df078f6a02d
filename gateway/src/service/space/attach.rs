//! Connections come to sessions and leave them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Link, Space, SpaceKey, SpaceMessage, state::PendingWill};

/// What CONNECT asks for.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Whose session; not empty.
    pub client_id: &'a str,
    /// Whether what there was is dropped.
    pub is_clean: bool,
    /// Who is told of messages.
    pub link: Arc<dyn Link>,
}

/// A session that a connection has come to.
#[derive(Debug)]
pub struct Attached<K> {
    /// The session.
    pub key: SpaceKey,
    /// What the last connection left, where the session goes on.
    pub kept: Option<K>,
    /// Whether another connection was ended for this one.
    pub took_over: bool,
}

/// Why a client cannot have a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are as many sessions as there may be.
    #[error("there are as many sessions as there may be")]
    TooManySessions,
}

/// A will to be published, unless the client comes back before.
#[derive(Debug)]
pub struct WillOrder {
    /// The will.
    pub message: SpaceMessage,
    /// How long the client has for that; no longer than its session lasts.
    pub delay: Duration,
}

/// What a connection leaves.
#[derive(Debug)]
pub struct Left<K> {
    /// For the next connection.
    pub kept: K,
    /// How long the session lasts from now on.
    pub session_expiry: Duration,
    /// The will, unless the client took its leave.
    pub will: Option<WillOrder>,
}

impl<K: Send> Space<K> {
    /// Comes to the session of a client, or makes one. Another connection of it is ended first, and
    /// waited for.
    ///
    /// # Errors
    /// [`Refusal`], where there is no room.
    /// # Cancel safety
    /// Safe: until it returns there is no new connection, and the other one may have been ended.
    pub async fn attach(&self, opening: Opening<'_>) -> Result<Attached<K>, Refusal> {
        let mut took_over = false;
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if let Some(attached) = self.try_attach(&opening, took_over)? {
                return Ok(attached);
            }
            took_over = true;
            left.await;
        }
    }

    /// `None` where another connection was told to end.
    fn try_attach(
        &self,
        opening: &Opening<'_>,
        took_over: bool,
    ) -> Result<Option<Attached<K>>, Refusal> {
        let mut state = self.state.lock();
        let mut known = state.key_of(opening.client_id);
        if let Some(session) = known.and_then(|key| state.session(key)) {
            if let Some(other) = &session.link {
                other.end(true);
                return Ok(None);
            }
            if !opening.is_clean {
                // [MQTT-3.1.3-9]: it is back before the delay was over.
                session.will = None;
            }
        }
        if let Some(key) = known.filter(|_| opening.is_clean) {
            // [MQTT-3.1.2-4], and the session that ends here takes its will along.
            if let Some(will) = state.remove(key) {
                state.publish(None, &Arc::new(will), &self.limits, &self.metrics);
            }
            known = None;
        }
        let key = match known {
            Some(key) => key,
            None if state.len() >= self.limits.max_sessions => {
                return Err(Refusal::TooManySessions);
            }
            None => state.create(opening.client_id),
        };
        let mut kept = None;
        if let Some(session) = state.session(key) {
            kept = session.kept.take();
            session.expires_at = None;
            session.link = Some(Arc::clone(&opening.link));
        }
        Ok(Some(Attached {
            key,
            kept,
            took_over,
        }))
    }

    /// The connection of a session is gone.
    pub fn detach(&self, key: SpaceKey, left: Left<K>) {
        let now = Instant::now();
        {
            let mut state = self.state.lock();
            let Some(session) = state.session(key) else {
                return;
            };
            session.link = None;
            session.kept = Some(left.kept);
            session.will = left.will.map(|will| PendingWill {
                message: will.message,
                due: now + will.delay.min(left.session_expiry),
            });
            session.expires_at = now.checked_add(left.session_expiry);
            session.drop_fleeting();
            state.act_on_due(now, &self.limits, &self.metrics);
        }
        self.left.notify_waiters();
        self.sooner.notify_one();
    }
}
