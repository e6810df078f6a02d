//! Any packet that a sender may send, for property tests.

mod properties;

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use self::properties::{boxed, of_connection, of_message, of_result, user};
use super::*;

/// Any packet that `sender` may send once the connection is open, or to open it.
pub(super) fn packet(sender: Sender) -> BoxedStrategy<Packet> {
    match sender.decoder {
        Role::Server => prop_oneof![
            connect(sender.version).prop_map(|connect| Packet::Connect(Box::new(connect))),
            subscribe(sender.version),
            unsubscribe(sender.version),
            Just(Packet::PingReq),
            disconnect(sender),
            either_way(sender),
        ]
        .boxed(),
        Role::Client => prop_oneof![
            connack(sender.version),
            suback(sender.version),
            unsuback(sender.version),
            Just(Packet::PingResp),
            either_way(sender),
        ]
        .boxed(),
    }
}

fn either_way(sender: Sender) -> BoxedStrategy<Packet> {
    let acks = acks(sender.version);
    match sender.version {
        ProtocolVersion::V5 => {
            prop_oneof![publish(sender), acks, auth(), disconnect(sender)].boxed()
        }
        _ => prop_oneof![publish(sender), acks].boxed(),
    }
}

pub(super) fn topic_name() -> impl Strategy<Value = TopicName> {
    let texts = prop_oneof!["[a-z/$é中🚀 ]{1,20}", "[^+#\0]{1,40}", "(/[a-z]{0,3}){1,9}"];
    texts.prop_filter_map("no topic name", |text| {
        let fits = text.len() <= 255 && text.split('/').count() <= 10;
        fits.then(|| text.parse().ok()).flatten()
    })
}

pub(super) fn topic_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![Just("+".to_owned()), "[a-zé$]{0,4}"];
    let share = option::of("[a-z]{1,5}");
    (share, vec(level, 1..9), any::<bool>()).prop_filter_map("no filter", |(share, levels, all)| {
        let mut filter = share.map_or_else(String::new, |name| format!("$share/{name}/"));
        filter.push_str(&levels.join("/"));
        if all {
            filter.push_str("/#");
        }
        filter.parse().ok()
    })
}

fn text() -> impl Strategy<Value = Box<str>> {
    "[^\0]{0,20}".prop_map(Into::into)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Into::into)
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

fn reason(packet_type: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes = ReasonCode::ALL.iter().copied();
    let codes: Vec<_> = codes
        .filter(|reason| reason.is_allowed_in(packet_type))
        .collect();
    prop::sample::select(codes)
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Connect> {
    let start = (any::<bool>(), any::<u16>(), text());
    let credentials = (option::of(text()), option::of(bytes()));
    let wishes = any::<(Option<bool>, Option<bool>)>();
    (
        start,
        credentials,
        option::of(will(version)),
        of_connection(version),
        wishes,
    )
        .prop_map(
            move |(start, (username, password), will, mut properties, wishes)| {
                let (mut clean_start, keep_alive_secs, mut client_id) = start;
                if client_id.is_empty() && version == ProtocolVersion::V31 {
                    client_id = "c".into();
                }
                if version.has_properties() {
                    (
                        properties.request_problem_information,
                        properties.request_response_information,
                    ) = wishes;
                } else {
                    clean_start |= client_id.is_empty();
                }
                let needs_username = !version.has_properties() && username.is_none();
                let password = password.filter(|_| !needs_username);
                let properties = boxed(properties);
                Connect {
                    version,
                    clean_start,
                    keep_alive_secs,
                    client_id,
                    username,
                    password,
                    will,
                    properties,
                }
            },
        )
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will> {
    let message = (topic_name(), bytes(), qos(), any::<bool>());
    (message, of_message(version), any::<Option<u32>>()).prop_map(
        move |((topic, payload, qos, retain), mut properties, delay)| {
            properties.will_delay_interval_secs = delay.filter(|_| version.has_properties());
            Will {
                topic,
                payload,
                qos,
                retain,
                properties: boxed(properties),
            }
        },
    )
}

fn connack(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let reasons = reason(PacketType::ConnAck).prop_map(move |reason| {
        if version.has_properties() {
            return reason;
        }
        ReasonCode::from_connect_return_code(reason.connect_return_code()).unwrap()
    });
    let flags = any::<(
        Option<bool>,
        Option<bool>,
        Option<bool>,
        Option<bool>,
        Option<bool>,
    )>();
    let texts = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
    );
    (
        any::<bool>(),
        reasons,
        of_connection(version),
        flags,
        texts,
        any::<Option<u16>>(),
    )
        .prop_map(
            move |(session_present, reason, mut properties, flags, texts, keep_alive)| {
                if version.has_properties() {
                    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce];
                    properties.maximum_qos = flags.0.map(|one| levels[usize::from(one)]);
                    properties.retain_available = flags.1;
                    properties.wildcard_subscription_available = flags.2;
                    properties.subscription_identifiers_available = flags.3;
                    properties.shared_subscription_available = flags.4;
                    properties.assigned_client_id = texts.0;
                    properties.response_information = texts.1;
                    properties.server_reference = texts.2;
                    properties.reason_string = texts.3;
                    properties.server_keep_alive_secs = keep_alive;
                }
                let may_be_present = !reason.is_error() && version != ProtocolVersion::V31;
                let session_present = session_present && may_be_present;
                Packet::ConnAck(ConnAck {
                    session_present,
                    reason,
                    properties: boxed(properties),
                })
            },
        )
        .boxed()
}

fn publish(sender: Sender) -> BoxedStrategy<Packet> {
    let flags = (any::<bool>(), qos(), any::<bool>(), packet_id());
    let alias = (option::weighted(0.3, any::<NonZeroU16>()), any::<bool>());
    let numbers = vec(
        (1..=268_435_455_u32).prop_map(|n| NonZeroU32::new(n).unwrap()),
        0..3,
    );
    (
        flags,
        topic_name(),
        of_message(sender.version),
        alias,
        numbers,
        bytes(),
    )
        .prop_map(
            move |(flags, mut topic, mut properties, alias, numbers, payload)| {
                let (dup, qos, retain, packet_id) = flags;
                let has_id = qos != QoS::AtMostOnce;
                if sender.version.has_properties() {
                    properties.topic_alias = alias.0;
                    if alias.0.is_some() && alias.1 {
                        topic = TopicName::aliased();
                    }
                    if sender.decoder == Role::Client {
                        properties.subscription_identifiers = numbers;
                    }
                }
                Packet::Publish(Publish {
                    dup: dup && has_id,
                    qos,
                    retain,
                    topic,
                    packet_id: has_id.then_some(packet_id),
                    properties: boxed(properties),
                    payload,
                })
            },
        )
        .boxed()
}

fn acks(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let reason = move |packet_type| {
        reason(packet_type).prop_map(move |reason| {
            if version.has_properties() {
                reason
            } else {
                ReasonCode::Success
            }
        })
    };
    let receipts = (
        0..2,
        packet_id(),
        reason(PacketType::PubAck),
        of_result(version),
    )
        .prop_map(
            |(kind, packet_id, reason, properties)| match (kind, boxed(properties)) {
                (0, properties) => Packet::PubAck(PubAck {
                    packet_id,
                    reason,
                    properties,
                }),
                (_, properties) => Packet::PubRec(PubRec {
                    packet_id,
                    reason,
                    properties,
                }),
            },
        );
    let releases = (
        0..2,
        packet_id(),
        reason(PacketType::PubRel),
        of_result(version),
    )
        .prop_map(
            |(kind, packet_id, reason, properties)| match (kind, boxed(properties)) {
                (0, properties) => Packet::PubRel(PubRel {
                    packet_id,
                    reason,
                    properties,
                }),
                (_, properties) => Packet::PubComp(PubComp {
                    packet_id,
                    reason,
                    properties,
                }),
            },
        );
    prop_oneof![receipts, releases].boxed()
}

fn subscription(version: ProtocolVersion) -> impl Strategy<Value = Subscription> {
    let handling = prop::sample::select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (topic_filter(), qos(), any::<(bool, bool)>(), handling).prop_map(
        move |(filter, qos, (no_local, retain_as_published), retain_handling)| {
            if !version.has_properties() {
                return Subscription::new(filter, qos);
            }
            let no_local = no_local && !filter.is_shared();
            Subscription {
                filter,
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            }
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let number = option::of((1..=268_435_455_u32).prop_map(|n| NonZeroU32::new(n).unwrap()));
    let filters = vec(subscription(version), 1..5);
    (packet_id(), filters, number, user()).prop_map(move |(packet_id, filters, number, user)| {
        let mut properties = Properties::default();
        if version.has_properties() {
            properties.subscription_identifiers = number.into_iter().collect();
            properties.user = user;
        }
        let properties = boxed(properties);
        Packet::Subscribe(Box::new(Subscribe {
            packet_id,
            filters: filters.into(),
            properties,
        }))
    })
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    (packet_id(), vec(topic_filter(), 1..5), user()).prop_map(move |(packet_id, filters, user)| {
        let user = if version.has_properties() {
            user
        } else {
            Vec::new()
        };
        let properties = boxed(Properties {
            user,
            ..Properties::default()
        });
        let filters = filters.into();
        Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id,
            filters,
            properties,
        }))
    })
}

fn suback(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let reasons = reason(PacketType::SubAck).prop_map(move |reason| {
        let maps = reason.is_error() && !version.has_properties();
        if maps {
            ReasonCode::UnspecifiedError
        } else {
            reason
        }
    });
    (packet_id(), vec(reasons, 1..6), of_result(version))
        .prop_map(|(packet_id, reasons, properties)| {
            let (reasons, properties) = (reasons.into(), boxed(properties));
            Packet::SubAck(SubAck {
                packet_id,
                reasons,
                properties,
            })
        })
        .boxed()
}

fn unsuback(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let count = if version.has_properties() { 1..6 } else { 0..1 };
    (
        packet_id(),
        vec(reason(PacketType::UnsubAck), count),
        of_result(version),
    )
        .prop_map(|(packet_id, reasons, properties)| {
            let (reasons, properties) = (reasons.into(), boxed(properties));
            Packet::UnsubAck(UnsubAck {
                packet_id,
                reasons,
                properties,
            })
        })
        .boxed()
}

fn disconnect(sender: Sender) -> BoxedStrategy<Packet> {
    if !sender.version.has_properties() {
        return Just(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).boxed();
    }
    let extra = (any::<Option<u32>>(), option::of(text()));
    (
        reason(PacketType::Disconnect),
        of_result(sender.version),
        extra,
    )
        .prop_map(move |(reason, mut properties, (expiry, reference))| {
            match sender.decoder {
                Role::Server => properties.session_expiry_interval_secs = expiry,
                Role::Client => properties.server_reference = reference,
            }
            Packet::Disconnect(Disconnect {
                reason,
                properties: boxed(properties),
            })
        })
        .boxed()
}

fn auth() -> impl Strategy<Value = Packet> {
    let method = (text(), option::of(bytes()));
    (
        reason(PacketType::Auth),
        method,
        of_result(ProtocolVersion::V5),
    )
        .prop_map(|(reason, (method, data), mut properties)| {
            properties.authentication_method = Some(method);
            properties.authentication_data = data;
            Packet::Auth(Auth {
                reason,
                properties: boxed(properties),
            })
        })
}
