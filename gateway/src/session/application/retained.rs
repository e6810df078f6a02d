//! What is retained, for the application's new subscriptions and newly bound devices.
//!
//! Read by the page, and only while little waits for the client: how many devices it has costs time, not memory.

use headgate_protocol::mqtt::TopicFilter;

use super::{ApplicationSession, attached::Receiver};

impl ApplicationSession {
    /// Has what is retained sent for a subscription.
    pub(super) async fn replay(&mut self, filter: &TopicFilter) {
        let uplink = &self.link.node.uplink;
        match uplink.retained_for_app(&self.app, filter).await {
            Ok(replay) => {
                // A second SUBSCRIBE begins anew; so there are no more than subscriptions.
                self.replays.retain(|known| known.filter() != Some(filter));
                self.replays.push_back(replay);
            }
            Err(error) => self.log_unread(&error),
        }
    }

    /// Reads some of what is retained into the session's inbox.
    pub(super) async fn read_retained(&mut self) {
        let uplink = self.link.node.uplink.clone();
        let bound = self.handle.take_bound();
        if !bound.is_empty() {
            self.replays.push_back(uplink.retained_of(bound));
        }
        while self.handle.is_low() {
            let Some(replay) = self.replays.front_mut() else {
                return;
            };
            let to = Receiver {
                app: &self.app,
                attached: &self.attached,
            };
            if let Err(error) = uplink.replay(&to, replay).await {
                // Looked at again with the next thing that happens.
                return self.log_unread(&error);
            }
            if replay.is_done() {
                self.replays.pop_front();
            }
        }
    }

    fn log_unread(&self, error: &dyn std::error::Error) {
        let client_id = self.handle.client_id();
        tracing::warn!(%error, client_id, "retained messages could not be read");
    }
}
