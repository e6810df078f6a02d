//! What of a device's session outlives the connection.

use headgate_protocol::{
    mqtt::{PacketId, Publish, QoS, ReasonCode},
    topics::DeviceNames,
};

use super::{DeviceSession, Sent};
use crate::{
    model::Id,
    service::uplink::{NotKept, Opened, Receipt, Sending, SessionChange},
    session::batch::Batch,
    telemetry::metrics::DisconnectReason,
};

impl DeviceSession {
    /// Goes on where an earlier connection ended; `resuming` is sent again by the connection itself.
    pub(in crate::session) fn restore(&mut self, opened: Opened, resuming: Vec<Id>) {
        let Some(persistent) = opened.session else {
            return;
        };
        self.kept = Some(Box::new(persistent));
        let topics = self.handle.rules.topics();
        let names = DeviceNames {
            product: &self.device.product.id,
            node: &self.device.node_id,
            device: &self.device.device_id,
        };
        // The product's rules may have changed meanwhile.
        let dropped = self.subscriptions.restore(opened.subscriptions, |filter| {
            topics.may_subscribe(names, filter)
        });
        for filter in dropped {
            self.note_change(SessionChange::Unsubscribed(filter));
        }
        if !resuming.is_empty() {
            self.mail.get_or_insert_default().resume(resuming);
        }
    }

    /// At which QoS a message may go that is not stored: of a session that outlives the connection, the device would
    /// hold on to an identifier of QoS 2, and take the next message under it for this one.
    pub(super) fn max_unstored_qos(&self) -> QoS {
        if self.kept.is_some() {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        }
    }

    /// Takes note of a change of a session that outlives the connection.
    pub(super) fn note_change(&mut self, change: SessionChange) {
        if let Some(kept) = &mut self.kept {
            kept.note(change);
        }
    }

    /// Stores what has changed of the session; says whether what follows may be said.
    pub(super) async fn keep(&mut self, batch: &mut Batch) -> bool {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.is_changed()) else {
            return true;
        };
        match kept.flush().await {
            Ok(()) => true,
            Err(error) => {
                self.link.break_off(batch);
                if error == NotKept::TakenOver {
                    self.link.closing = Some(DisconnectReason::Takeover);
                }
                false
            }
        }
    }

    /// What is stored by where the device sends a message again.
    pub(super) fn sending(&self, publish: &Publish) -> Sending {
        let is_sent_again = publish.packet_id.is_some();
        Sending {
            receipt: self.receipt(publish),
            sender: is_sent_again.then(|| self.handle.standing()).flatten(),
        }
    }

    /// What is to be stored together with a message of the device's, so that it is taken once.
    fn receipt(&self, publish: &Publish) -> Option<Receipt> {
        let packet_id = publish
            .packet_id
            .filter(|_| publish.qos == QoS::ExactlyOnce)?;
        Some(self.kept.as_ref()?.receipt(packet_id))
    }

    /// Takes note that a message of QoS 2 is about to be acknowledged, unless that was stored with it.
    pub(super) fn note_taken(&mut self, publish: &Publish, reason: ReasonCode) {
        if publish.qos == QoS::ExactlyOnce
            && !reason.is_error()
            && let Some(packet_id) = publish.packet_id
        {
            self.note_change(SessionChange::Taken(packet_id));
        }
    }

    /// A stored message is about to be sent.
    pub(super) fn note_sending(&mut self, packet_id: Option<PacketId>, id: Id, qos: QoS) {
        if let (Some(kept), Some(packet_id)) = (&mut self.kept, packet_id) {
            kept.sending(packet_id, id, qos);
        }
    }

    /// The device has a message of QoS 2: it is not sent again.
    pub(super) fn handle_received(&mut self, sent: Sent) {
        if let Sent::Mail(id) = sent {
            self.link.node.uplink.mailbox().delivered([id]);
            if let Some(kept) = &mut self.kept {
                kept.received(id);
            }
        }
    }
}
