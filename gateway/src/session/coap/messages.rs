//! `/d` and `/c`: messages of a device to applications, and theirs to it.
//!
//! A message to a device goes in a confirmable response or notification, and leaves the mailbox when that has been
//! acknowledged; one at a time, the oldest first.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use headgate_protocol::{
    coap::{Code, ContentFormat, MessageType, OptionNumber, Response, Szx},
    mqtt::{QoS, TopicName},
    topics::{DeviceNames, UpTopic},
};
use serde_json::{Value, json};

use super::{
    Asked, CoapServer, Done, Tag, Timer, body,
    registration::{Command, Observation, RdId},
    unavailable,
};
use crate::{
    model::{DeviceName, Message, MessageProperties, Millis},
    service::{
        delivery::StoreError,
        uplink::{Stored, Terms},
    },
    telemetry::metrics::DropReason,
};

/// Messages that are not kept and wait for one device.
const MAX_TRANSIENT: usize = 8;
/// When the mailbox is looked at again where that is not possible now.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

impl CoapServer {
    /// `POST /d/{sub}`: a message to applications, on the topic `{product}/{device}/{sub}`.
    pub(super) fn publish(&mut self, now: Instant, asked: Asked, id: RdId, levels: &[String]) {
        if asked.message.first(OptionNumber::BLOCK1).is_some() {
            // A message is one datagram. [RFC 7959 s2.9.3]
            let most = Szx::MAX.bytes();
            let response =
                Response::new(Code::REQUEST_ENTITY_TOO_LARGE).with_uint(OptionNumber::SIZE1, most);
            return self.answer(now, &asked, response);
        }
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        let device = &registration.device;
        let names = DeviceNames {
            product: &device.product.id,
            node: &device.node_id,
            device: &device.device_id,
        };
        let Some(topic) = topic_of(names, levels) else {
            return self.answer(now, &asked, Response::new(Code::BAD_REQUEST));
        };
        let rules = registration
            .awake
            .as_ref()
            .map(|awake| awake.handle.rules.topics());
        let topics = rules
            .filter(|topics| topics.classify_publish(names, topic.as_str()) == Some(UpTopic::Data));
        if topics.is_none() {
            return self.answer(now, &asked, Response::new(Code::FORBIDDEN));
        }
        let message = Message {
            device: DeviceName {
                device_id: device.device_id.clone(),
                product_id: device.product.id.clone(),
                node_id: device.node_id.clone(),
            },
            topic,
            payload: asked.message.payload.clone(),
            qos: match asked.message.kind {
                MessageType::Confirmable => QoS::AtLeastOnce,
                _ => QoS::AtMostOnce,
            },
            properties: MessageProperties {
                content_type: asked.message.content_format().and_then(media_type),
                ..MessageProperties::default()
            },
            retain: false,
            at: Millis::now(),
        };
        self.node.requests.answer(&message);
        let terms = Terms {
            // 5.03, upon which the device sends it again.
            may_refuse: message.qos == QoS::AtLeastOnce,
            ..Terms::default()
        };
        let uplink = self.node.uplink.clone();
        self.spawn(async move {
            let response = match uplink.publish_from_device(message, terms).await {
                Ok(_published) => Response::new(Code::CHANGED),
                Err(error) => {
                    tracing::warn!(%error, "a message could not be handed on");
                    unavailable(10)
                }
            };
            Done::Answer(asked, response)
        });
    }

    /// `GET /c`: the oldest message that waits.
    pub(super) fn get_command(&mut self, now: Instant, asked: Asked, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let accept = asked.message.accept();
        if body::encode(accept, &json!({})).is_none() {
            return self.answer(now, &asked, Response::new(Code::NOT_ACCEPTABLE));
        }
        match asked.message.uint(OptionNumber::OBSERVE) {
            Some(0) if asked.peer == registration.address => {
                registration.commands = Some(Observation::new(asked.message.token, accept));
            }
            Some(_) => registration.commands = None,
            None => {}
        }
        if registration.command.is_some() {
            return self.serve_command(now, &asked, id);
        }
        self.look_for_command(now, Some(asked), id);
    }

    /// Tells a device that watches `/c` of the next message.
    pub(super) fn tell_command(&mut self, now: Instant, id: RdId) {
        let registration = self.registrations.get(id);
        let may = registration.is_some_and(|registration| {
            registration.awake.is_some()
                && registration.commands.is_some()
                && registration.command.is_none()
        });
        if may {
            self.look_for_command(now, None, id);
        }
    }

    /// Takes in messages that are in no mailbox.
    pub(super) fn keep_transient(&mut self, id: RdId, inbox: VecDeque<Arc<Stored>>) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        for stored in inbox.into_iter().filter(|stored| stored.id.is_none()) {
            if registration.transient.len() < MAX_TRANSIENT {
                registration.transient.push_back(stored);
            } else {
                self.node
                    .metrics
                    .messages_dropped(DropReason::OutboxFull)
                    .inc();
            }
        }
    }

    fn look_for_command(&mut self, now: Instant, asked: Option<Asked>, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let (mailbox, device) = (self.node.uplink.mailbox(), &registration.device.device_id);
        if !mailbox.has(device) {
            let found = registration.transient.pop_front();
            return self.on_mail(now, asked, id, Ok(found));
        }
        if self.work.len() >= self.config.max_requests {
            match asked {
                Some(asked) => self.answer(now, &asked, unavailable(5)),
                None => self.set_timer(now + RETRY, Timer::Tell(id)),
            }
            return;
        }
        let (mailbox, device) = (mailbox.clone(), device.clone());
        self.spawn(async move {
            let found = mailbox.pending(&device, None, 1).await;
            Done::Mail(asked, id, found.map(|mut all| all.pop()))
        });
    }

    pub(super) fn on_mail(
        &mut self,
        now: Instant,
        asked: Option<Asked>,
        id: RdId,
        found: Result<Option<Arc<Stored>>, StoreError>,
    ) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a mailbox could not be read");
                match asked {
                    Some(asked) => self.answer(now, &asked, unavailable(5)),
                    None => self.set_timer(now + RETRY, Timer::Tell(id)),
                }
                return;
            }
        };
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let found = found.filter(|_| registration.command.is_none());
        let is_new = found.is_some();
        if let Some(stored) = found {
            let watched = registration.commands.as_ref();
            let accept = match &asked {
                Some(asked) => asked.message.accept(),
                None => watched.and_then(|watched| watched.accept),
            };
            let encoded = body::encode(accept, &shown(&stored));
            let Some((format, body)) = encoded else {
                return;
            };
            self.commands = self.commands.wrapping_add(1);
            registration.command = Some(Command {
                serial: self.commands,
                stored,
                format,
                body,
            });
        }
        match asked {
            Some(asked) => self.serve_command(now, &asked, id),
            None if is_new => self.notify_command(now, id),
            // A request that came meanwhile is answered with it.
            None => {}
        }
    }

    /// Answers a request with the message that the device is being given.
    fn serve_command(&mut self, now: Instant, asked: &Asked, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let watches = asked.message.uint(OptionNumber::OBSERVE) == Some(0);
        let number = registration
            .commands
            .as_mut()
            .filter(|_| watches)
            .map(Observation::next);
        let observed = |response: Response| match number {
            Some(number) => response.with_uint(OptionNumber::OBSERVE, number),
            None => response,
        };
        let Some(command) = &registration.command else {
            let nothing = body::encode(asked.message.accept(), &json!({}));
            let (format, body) = nothing.unwrap_or((ContentFormat::JSON, Bytes::new()));
            let response = Response::new(Code::CONTENT).with_content(format, body);
            return self.answer(now, asked, observed(response).repeatable());
        };
        match body::part(&asked.message, command.format, &command.body) {
            Ok((response, true)) => {
                let tag = Tag::Command(id, command.serial);
                let response = observed(response);
                let sent = self
                    .endpoint
                    .respond_confirmable(now, asked.exchange, response, tag);
                if let Err(error) = sent {
                    tracing::debug!(device_id = %registration.device.device_id, %error, "a message waits longer");
                    registration.command = None;
                }
            }
            Ok((response, false)) => self.answer(now, asked, observed(response).repeatable()),
            Err(response) => self.answer(now, asked, response),
        }
    }

    fn notify_command(&mut self, now: Instant, id: RdId) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let (Some(command), Some(watched)) = (&registration.command, &mut registration.commands)
        else {
            return;
        };
        let is_whole = command.body.len() <= Szx::MAX.bytes_usize();
        let mut response =
            Response::new(Code::CONTENT).with_uint(OptionNumber::OBSERVE, watched.next());
        let mut tag = Tag::Command(id, command.serial);
        if is_whole {
            response = response.with_content(command.format, command.body.clone());
        } else {
            // The device asks for the rest, and the last part is what it acknowledges.
            let first = headgate_protocol::coap::Block {
                more: true,
                ..headgate_protocol::coap::Block::first(Szx::MAX)
            };
            response = response
                .with_uint(OptionNumber::BLOCK2, first.value())
                .with_content(command.format, command.body.slice(..Szx::MAX.bytes_usize()));
            tag = Tag::Told(id);
        }
        let (address, token) = (registration.address, watched.token);
        if let Err(error) = self
            .endpoint
            .notify(now, address, token, response, Some(tag))
        {
            tracing::debug!(device_id = %registration.device.device_id, %error, "a message waits longer");
            registration.command = None;
            self.set_timer(now + RETRY, Timer::Tell(id));
        }
    }

    /// The device has a message.
    pub(super) fn on_command_acknowledged(&mut self, now: Instant, id: RdId, serial: u32) {
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        let is_it = |command: &mut Command| command.serial == serial;
        let Some(command) = registration.command.take_if(is_it) else {
            return;
        };
        if let Some(mail) = command.stored.id {
            self.node.uplink.mailbox().delivered([mail]);
        }
        self.tell_command(now, id);
    }
}

/// The topic of these levels below a device's own; `None` where they are none.
fn topic_of(names: DeviceNames<'_>, levels: &[String]) -> Option<TopicName> {
    let mut topic = format!("{}/{}", names.product, names.node);
    for level in levels {
        if level.contains('/') {
            return None;
        }
        topic.push('/');
        topic.push_str(level);
    }
    topic.parse().ok()
}

/// What MQTT calls a content format.
fn media_type(format: ContentFormat) -> Option<Box<str>> {
    let name = match format {
        ContentFormat::TEXT => "text/plain;charset=utf-8",
        ContentFormat::OCTETS => "application/octet-stream",
        ContentFormat::JSON => "application/json",
        ContentFormat::CBOR => "application/cbor",
        _ => return None,
    };
    Some(name.into())
}

/// A message as a device is shown it.
fn shown(stored: &Stored) -> Value {
    let message = &stored.message;
    let mut shown = json!({ "topic": message.topic.as_str() });
    match std::str::from_utf8(&message.payload) {
        Ok(text) => shown["payload"] = json!(text),
        Err(_) => shown["payload_base64"] = json!(STANDARD.encode(&message.payload)),
    }
    if let Some(id) = stored.id {
        shown["id"] = json!(id.to_string());
    }
    let properties = &message.properties;
    if let Some(topic) = &properties.response_topic {
        shown["response_topic"] = json!(topic.as_str());
    }
    if let Some(data) = &properties.correlation_data {
        shown["correlation_data_base64"] = json!(STANDARD.encode(data));
    }
    shown
}
