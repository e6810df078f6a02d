//! Batches: what goes to the device in the next write, and what its acknowledgements mean.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_protocol::mqtt::{PacketType, QoS, encode_publish_header};

use super::{DeviceSession, Sent};
use crate::{
    service::delivery::{Hold, Refusal},
    session::{batch::Batch, pump::Slot},
};

/// How often a session that found no memory for its next batch looks again.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// Chunks at QoS 0 that go in one write: no acknowledgement shows what more the link takes.
const UNACKNOWLEDGED_BATCH_BYTES: usize = 64 * 1024;

impl DeviceSession {
    /// Puts into `batch` what is to be sent now; leaves it empty where there is nothing.
    ///
    /// The edge calls it only when the socket has taken everything before.
    pub async fn fill(&mut self, batch: &mut Batch) {
        if let Some(transfer) = &mut self.transfer {
            transfer.count_acknowledged(&self.link.node.metrics);
        }
        self.hand_over_chunks();
        if self.kept.is_some() && !Box::pin(self.keep(batch)).await {
            return;
        }
        self.link.take_control(batch);
        let now = Instant::now();
        if self.mail.is_some() && self.link.closing.is_none() {
            Box::pin(self.fill_mail(now, batch)).await;
            if self.kept.is_some() && !Box::pin(self.keep(batch)).await {
                return;
            }
        }
        let mail_waits = self.mail.as_ref().is_some_and(|mail| mail.waits());
        if self.link.closing.is_none() && !mail_waits && self.may_send_chunks(now) {
            self.fill_chunks(now, batch).await;
            self.link.take_control(batch);
        }
        self.note_outbox();
    }

    /// Takes note that the last batch was written, and whether the socket took all of it.
    pub fn on_written(&mut self, all_taken: bool) {
        let hold = self.link.node.slots.hold();
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.pump.on_written(all_taken);
        if let Slot::Held(ticket) = transfer.slot {
            let done = transfer.pump.in_flight_bytes() == 0 || transfer.answers_later_than(hold);
            if all_taken && done {
                transfer.slot = Slot::None;
                self.link.node.slots.release(ticket, Instant::now());
            }
        }
    }

    /// Whether a batch of chunks may go: there is one, memory allows it, and a slot is held.
    fn may_send_chunks(&mut self, now: Instant) -> bool {
        let Some(transfer) = &mut self.transfer else {
            return false;
        };
        transfer.memory_due = None;
        if !transfer.wants_to_send() {
            return false;
        }
        if !self.link.node.has_backlog_budget() {
            // Nobody tells when there is some: it is other devices' sockets that give it back.
            transfer.memory_due = Some(now + MEMORY_INTERVAL);
            transfer.delivery.set_hold(Hold::NodeBudget);
            return false;
        }
        let from = transfer.turn(&self.link.node.delivery, now);
        if from > now {
            transfer.memory_due = Some(from);
            transfer.delivery.set_hold(Hold::BytesRate);
            return false;
        }
        transfer.delivery.set_hold(Hold::None);
        match transfer.slot {
            Slot::Held(ticket) if self.link.node.slots.renew(ticket, now) => return true,
            Slot::Waiting => return false,
            Slot::Held(_) | Slot::None => {}
        }
        if let Some(ticket) = self.link.node.slots.acquire(&self.handle, now) {
            transfer.hold(ticket);
            true
        } else {
            transfer.slot = Slot::Waiting;
            false
        }
    }

    async fn fill_chunks(&mut self, now: Instant, batch: &mut Batch) {
        let Some(mut transfer) = self.transfer.take() else {
            return;
        };
        let metrics = &self.link.node.metrics;
        let version = self.link.connection.version();
        let mut topic = String::with_capacity(transfer.topic_prefix.len() + 20);
        let (mut sent, mut in_flight): (u64, i64) = (0, 0);
        let mut unreadable = None;
        let window_bytes = self.link.node.delivery_config.window_bytes;
        while let Some(chunk) = transfer.pump.peek_within_window() {
            if is_full(transfer.qos, batch.len(), window_bytes) {
                break;
            }
            let payload = match transfer.payload(&self.link.node.delivery, chunk).await {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(%error, delivery = %transfer.delivery.id, "a resource could not be read");
                    unreadable = Some(transfer.delivery.transfer.clone());
                    break;
                }
            };
            let packet_id = if transfer.qos == QoS::AtMostOnce {
                None
            } else {
                let tag = Sent::Chunk {
                    generation: transfer.generation,
                    chunk,
                };
                let Some(packet_id) = self.link.connection.reserve(tag) else {
                    break;
                };
                Some(packet_id)
            };
            topic.clear();
            topic.push_str(&transfer.topic_prefix);
            push_decimal(&mut topic, chunk.offset);
            let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
            let encoded = batch.push_packet(
                |head| {
                    encode_publish_header(
                        head,
                        version,
                        &topic,
                        transfer.qos,
                        packet_id,
                        false,
                        false,
                        len,
                    )
                },
                payload,
            );
            if let Err(error) = encoded {
                tracing::error!(%error, delivery = %transfer.delivery.id, "a chunk could not be encoded");
                break;
            }
            transfer.pump.next_chunk();
            if transfer.delivery.on_sent(chunk) {
                metrics.delivery_chunks.resent.inc();
            }
            if transfer.qos == QoS::AtMostOnce {
                transfer.pump.on_acknowledged(chunk);
            } else {
                in_flight += 1;
            }
            sent += 1;
        }
        // Once a batch: every core counts in the same places.
        metrics.delivery_chunks.sent.inc_by(sent);
        metrics
            .packets_out(PacketType::Publish.number())
            .inc_by(sent);
        metrics.chunks_in_flight.add(in_flight);
        transfer.settle(now, batch.len());
        transfer.on_batch_sent(now, batch.len());
        self.transfer = Some(transfer);
        if let Some(transfer) = unreadable {
            // The device asks again; meanwhile its place is for others.
            self.drop_transfer(now);
            self.refuse(Refusal::unreadable(), &transfer);
            Box::pin(self.act(now)).await;
        }
    }

    pub(super) async fn handle_acknowledged(&mut self, now: Instant, sent: Sent) {
        match sent {
            Sent::Message => {}
            Sent::Mail(id) => self.on_mail_acknowledged(id),
            Sent::Announcement => {
                if let Some(delivery) = self.announced.take() {
                    Box::pin(self.link.node.delivery.on_announced(&delivery)).await;
                }
            }
            Sent::Chunk { generation, chunk } => {
                let counts = self.acknowledging.as_ref();
                if let Some((delivery, _)) = counts.filter(|(_, since)| generation >= *since) {
                    let delivery = Arc::clone(delivery);
                    if self.link.node.delivery.on_acknowledged(&delivery, chunk) {
                        Box::pin(self.link.node.delivery.confirm(&delivery)).await;
                    }
                }
                // An acknowledgement of an earlier request makes no room for this one.
                let Some(transfer) = self
                    .transfer
                    .as_mut()
                    .filter(|transfer| transfer.generation == generation)
                else {
                    self.link.node.metrics.delivery_chunks.acked.inc();
                    self.drop_finished_transfer();
                    return;
                };
                transfer.on_acknowledged(now, chunk);
                let over = transfer.delivery.state().is_final()
                    || (transfer.pump.is_exhausted() && transfer.pump.in_flight_bytes() == 0);
                if over {
                    self.drop_transfer(now);
                } else if let Slot::Held(ticket) = transfer.slot
                    && transfer.slot_is_used_up(self.link.node.slots.slot_bytes())
                    && transfer.pump.is_ready()
                {
                    // Others that wait go before its next batch.
                    transfer.slot = Slot::None;
                    self.link.node.slots.release(ticket, now);
                }
            }
        }
    }
}

/// Whether no more chunks go into a batch of so many bytes; at QoS 1 it is the window that ends one.
fn is_full(qos: QoS, batch_bytes: usize, window_bytes: usize) -> bool {
    qos == QoS::AtMostOnce && batch_bytes >= UNACKNOWLEDGED_BATCH_BYTES.min(window_bytes / 2)
}

/// Appends a number in decimal without a formatter's detour: once for every chunk.
fn push_decimal(text: &mut String, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_window_makes_no_larger_batches_of_what_is_not_acknowledged() {
        const KIB: usize = 1024;
        let chunks_of_a_batch = |window_bytes| {
            let lens = (0..).map(|chunks| chunks * 15 * KIB);
            lens.take_while(|len| !is_full(QoS::AtMostOnce, *len, window_bytes))
                .count()
        };
        assert_eq!(chunks_of_a_batch(16 * KIB), 1);
        assert_eq!(chunks_of_a_batch(128 * KIB), 5);
        assert_eq!(chunks_of_a_batch(256 * KIB), 5);
        assert_eq!(chunks_of_a_batch(4096 * KIB), 5);
        assert!(!is_full(QoS::AtLeastOnce, 240 * KIB, 256 * KIB));
    }

    #[test]
    fn offsets_are_written_in_decimal() {
        for number in [0, 7, 10, 15_360, u64::MAX] {
            let mut text = String::from("t/");
            push_decimal(&mut text, number);
            assert_eq!(text, format!("t/{number}"));
        }
    }
}
