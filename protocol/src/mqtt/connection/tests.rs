use std::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::mqtt::{ConnAck, Connect, Properties, PubAck, PubRel, Publish, QoS, Subscription};

mod flow;
mod pair;
mod session;

type Server = Connection<u32>;

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do as the beginning"
)]
fn now() -> Instant {
    Instant::now()
}

fn limits() -> Arc<ConnectionLimits> {
    Arc::new(ConnectionLimits {
        max_keep_alive: Duration::from_mins(20),
        server_keep_alive: None,
        allow_no_keep_alive: false,
        outbox_messages: 3,
        outbox_bytes: 100,
        max_in_flight: 64,
        receive_maximum: 4,
        max_unreleased: 6,
        max_packet_bytes: 262_144,
        offer: Offer::default(),
    })
}

fn connect(version: ProtocolVersion, keep_alive_secs: u16) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs,
        client_id: "c".into(),
        username: None,
        password: None,
        will: None,
        properties: None,
    }
}

fn drain(server: &mut Server) -> Vec<Output<u32>> {
    std::iter::from_fn(|| server.poll_output()).collect()
}

/// A server that has let a client of this version in, with what CONNACK said.
fn open(connect: Connect) -> (Server, Instant, ConnAck) {
    let now = now();
    let mut server = Server::new(limits(), now + Duration::from_secs(10));
    server.handle(now, Input::Packet(Packet::Connect(Box::new(connect))));
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Event(Event::Connect(_))]
    ));
    server.accept(now, Accept::default());
    let output = drain(&mut server);
    let [Output::Transmit(Packet::ConnAck(connack))] = &output[..] else {
        panic!("{output:?}")
    };
    (server, now, connack.clone())
}

fn publish(qos: QoS, id: u16) -> Publish {
    let mut publish = Publish::new(
        "P/d/x".parse().expect("legal"),
        Bytes::from_static(b"hello"),
    );
    publish.qos = qos;
    publish.packet_id = PacketId::new(id);
    publish
}

fn message(tag: u32, len: usize) -> Message<u32> {
    Message {
        qos: QoS::AtLeastOnce,
        ..Message::new("t".parse().expect("legal"), Bytes::from(vec![0; len]), tag)
    }
}

fn puback(id: u16) -> Packet {
    let packet_id = PacketId::new(id).expect("not zero");
    Packet::PubAck(PubAck {
        packet_id,
        reason: ReasonCode::Success,
        properties: None,
    })
}

#[test]
fn keep_alive_is_capped_and_an_mqtt_5_client_is_told() {
    for (asked, expected) in [
        (0, 1_200),
        (60, 60),
        (1_200, 1_200),
        (1_201, 1_200),
        (u16::MAX, 1_200),
    ] {
        let (server, now, connack) = open(connect(ProtocolVersion::V5, asked));
        let told = connack
            .properties
            .and_then(|properties| properties.server_keep_alive_secs);
        assert_eq!(told, (asked != expected).then_some(expected));
        assert_eq!(
            server.timeout(),
            Some(now + Duration::from_secs(u64::from(expected) * 3 / 2))
        );
    }
    let (_, _, connack) = open(connect(ProtocolVersion::V311, 60));
    assert_eq!(connack.properties, None, "3.1.1 has no properties");
}

#[test]
fn silence_for_one_and_a_half_keep_alives_ends_the_connection() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V5, 10));
    server.handle(now + Duration::from_millis(14_999), Input::Timeout);
    assert_eq!(drain(&mut server), []);
    server.handle(
        now + Duration::from_secs(14),
        Input::Packet(Packet::PingReq),
    );
    assert_eq!(drain(&mut server), [Output::Transmit(Packet::PingResp)]);
    server.handle(now + Duration::from_secs(20), Input::Timeout);
    assert_eq!(drain(&mut server), []);
    server.handle(now + Duration::from_secs(29), Input::Timeout);
    let output = drain(&mut server);
    assert!(matches!(
        output[..],
        [
            Output::Transmit(Packet::Disconnect(Disconnect {
                reason: ReasonCode::KeepAliveTimeout,
                ..
            })),
            Output::Close(ReasonCode::KeepAliveTimeout)
        ]
    ));
    assert_eq!(server.timeout(), None);
}

#[test]
fn a_client_that_never_introduces_itself_is_closed_without_a_word() {
    let now = now();
    let mut server = Server::new(limits(), now + Duration::from_secs(10));
    server.handle(now + Duration::from_secs(10), Input::Timeout);
    assert_eq!(
        drain(&mut server),
        [Output::Close(ReasonCode::KeepAliveTimeout)]
    );
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V311, 10));
    server.handle(
        now,
        Input::Packet(Packet::Connect(Box::new(connect(
            ProtocolVersion::V311,
            10,
        )))),
    );
    assert_eq!(
        drain(&mut server),
        [Output::Close(ReasonCode::ProtocolError)]
    );
}

#[test]
fn a_refused_client_gets_a_connack_and_then_the_end() {
    let now = now();
    let mut server = Server::new(limits(), now);
    server.handle(
        now,
        Input::Packet(Packet::Connect(Box::new(connect(
            ProtocolVersion::V311,
            10,
        )))),
    );
    drain(&mut server);
    server.refuse(ReasonCode::BadUserNameOrPassword);
    let output = drain(&mut server);
    assert!(matches!(
        output[..],
        [
            Output::Transmit(Packet::ConnAck(ConnAck {
                reason: ReasonCode::BadUserNameOrPassword,
                ..
            })),
            Output::Close(_)
        ]
    ));
    server.handle(now, Input::Packet(Packet::PingReq));
    assert_eq!(drain(&mut server), [], "nothing follows the close");
}

#[test]
fn an_empty_client_id_needs_a_clean_session_before_mqtt_5() {
    let now = now();
    let mut server = Server::new(limits(), now);
    let nameless = Connect {
        client_id: "".into(),
        clean_start: false,
        ..connect(ProtocolVersion::V311, 10)
    };
    server.handle(now, Input::Packet(Packet::Connect(Box::new(nameless))));
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Transmit(Packet::ConnAck(ConnAck {
                reason: ReasonCode::ClientIdentifierNotValid,
                ..
            })),
            Output::Close(_)
        ]
    ));
}

#[test]
fn a_publish_is_acknowledged_only_when_it_has_been_acted_on() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V311, 10));
    server.handle(
        now,
        Input::Packet(Packet::Publish(publish(QoS::AtLeastOnce, 7))),
    );
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Event(Event::Publish(_))]
    ));
    server.acknowledge(
        PacketId::new(7).expect("not zero"),
        QoS::AtLeastOnce,
        ReasonCode::Success,
    );
    assert_eq!(drain(&mut server), [Output::Transmit(puback(7))]);
}

#[test]
fn a_qos_2_message_that_comes_twice_is_acted_on_once() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V311, 10));
    let id = PacketId::new(7).expect("not zero");
    server.handle(
        now,
        Input::Packet(Packet::Publish(publish(QoS::ExactlyOnce, 7))),
    );
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Event(Event::Publish(_))]
    ));
    server.acknowledge(id, QoS::ExactlyOnce, ReasonCode::Success);
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Transmit(Packet::PubRec(_))]
    ));
    server.handle(
        now,
        Input::Packet(Packet::Publish(publish(QoS::ExactlyOnce, 7))),
    );
    assert!(
        matches!(
            drain(&mut server)[..],
            [Output::Transmit(Packet::PubRec(_))]
        ),
        "no second event"
    );
    let release = || Input::Packet(Packet::PubRel(PubRel::new(id)));
    server.handle(now, release());
    let output = drain(&mut server);
    let [
        Output::Event(Event::Released(released)),
        Output::Transmit(Packet::PubComp(comp)),
    ] = &output[..]
    else {
        panic!("{output:?}")
    };
    assert_eq!((*released, comp.reason), (id, ReasonCode::Success));
    server.handle(now, release());
    let output = drain(&mut server);
    let [Output::Transmit(Packet::PubComp(comp))] = &output[..] else {
        panic!("{output:?}")
    };
    assert_eq!(comp.reason, ReasonCode::PacketIdentifierNotFound);
}

#[test]
fn qos_2_messages_that_are_never_released_are_bounded() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V5, 10));
    for id in 1..=4 {
        server.handle(
            now,
            Input::Packet(Packet::Publish(publish(QoS::ExactlyOnce, id))),
        );
        assert!(matches!(
            drain(&mut server)[..],
            [Output::Event(Event::Publish(_))]
        ));
    }
    server.handle(
        now,
        Input::Packet(Packet::Publish(publish(QoS::ExactlyOnce, 5))),
    );
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Transmit(Packet::Disconnect(_)),
            Output::Close(ReasonCode::ReceiveMaximumExceeded)
        ]
    ));
}

#[test]
fn what_exceeds_the_receive_maximum_waits_its_turn() {
    let properties = Properties {
        receive_maximum: NonZeroU16::new(2),
        ..Properties::default()
    };
    let (mut server, now, _) = open(Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    });
    for tag in 0..5 {
        server.send(message(tag, 10)).expect("room");
    }
    assert_eq!(
        server.send(message(5, 10)),
        Err(NotSent::OutboxFull),
        "3 messages may wait"
    );
    assert_eq!(server.waiting_bytes(), 30);
    assert_eq!(drain(&mut server).len(), 2);
    assert_eq!(
        (server.reserve(9), server.send_quota()),
        (None, 0),
        "messages that wait go before chunks"
    );
    server.handle(now, Input::Packet(puback(1)));
    let output = drain(&mut server);
    assert!(matches!(
        output[..],
        [
            Output::Event(Event::Acknowledged(0)),
            Output::Transmit(Packet::Publish(_))
        ]
    ));
}

#[test]
fn the_outbox_is_bounded_in_bytes_too() {
    let properties = Properties {
        receive_maximum: NonZeroU16::new(1),
        ..Properties::default()
    };
    let (mut server, _, _) = open(Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    });
    server.send(message(0, 1_000)).expect("goes at once");
    assert_eq!(server.send(message(1, 101)), Err(NotSent::OutboxFull));
    assert_eq!(server.send(message(1, 100)), Ok(()));
}

#[test]
fn no_message_is_larger_than_the_client_takes() {
    let properties = Properties {
        maximum_packet_size: NonZeroU32::new(60),
        ..Properties::default()
    };
    let (mut server, _, _) = open(Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    });
    assert_eq!(server.send(message(0, 60)), Err(NotSent::TooLarge));
    assert_eq!(drain(&mut server), []);
    server.send(message(1, 40)).expect("small enough");
    let output = drain(&mut server);
    let [Output::Transmit(packet)] = &output[..] else {
        panic!("{output:?}")
    };
    let bytes = packet.encoded_len(ProtocolVersion::V5).expect("legal");
    assert!(bytes <= 60, "{bytes}");
}

#[test]
fn acknowledgements_of_nothing_are_no_harm() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V311, 10));
    server.handle(now, Input::Packet(puback(77)));
    assert_eq!(drain(&mut server), []);
    let id = server.reserve(5).expect("room");
    server.handle(now, Input::Packet(puback(id.get())));
    assert_eq!(drain(&mut server), [Output::Event(Event::Acknowledged(5))]);
    server.handle(now, Input::Packet(puback(id.get())));
    assert_eq!(
        drain(&mut server),
        [],
        "the second one acknowledges nothing"
    );
}

#[test]
fn what_connack_said_is_not_available_ends_an_mqtt_5_connection() {
    let retained = Publish {
        retain: true,
        ..publish(QoS::AtMostOnce, 0)
    };
    let properties = Properties {
        topic_alias: NonZeroU16::new(1),
        ..Properties::default()
    };
    let aliased = Publish {
        properties: Some(Box::new(properties)),
        ..publish(QoS::AtMostOnce, 0)
    };
    for (publish, reason) in [
        (retained, ReasonCode::RetainNotSupported),
        (aliased, ReasonCode::TopicAliasInvalid),
    ] {
        let (mut server, now, _) = open(connect(ProtocolVersion::V5, 10));
        server.handle(now, Input::Packet(Packet::Publish(publish)));
        let output = drain(&mut server);
        assert!(matches!(
            output[..],
            [Output::Transmit(Packet::Disconnect(_)), Output::Close(_)]
        ));
        assert_eq!(output.last(), Some(&Output::Close(reason)));
    }
}

#[test]
fn an_authentication_exchange_is_refused() {
    let now = now();
    let properties = Properties {
        authentication_method: Some("SCRAM".into()),
        ..Properties::default()
    };
    let mut server = Server::new(limits(), now);
    let asking = Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    };
    server.handle(now, Input::Packet(Packet::Connect(Box::new(asking))));
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Transmit(Packet::ConnAck(ConnAck {
                reason: ReasonCode::BadAuthenticationMethod,
                ..
            })),
            Output::Close(_)
        ]
    ));
}

#[test]
fn requests_to_subscribe_are_the_callers_to_answer() {
    let (mut server, now, _) = open(connect(ProtocolVersion::V311, 10));
    let packet_id = PacketId::new(3).expect("not zero");
    let subscription = Subscription::new("P/d/#".parse().expect("legal"), QoS::AtLeastOnce);
    let subscribe = Subscribe {
        packet_id,
        filters: [subscription].into_iter().collect(),
        properties: None,
    };
    server.handle(now, Input::Packet(Packet::Subscribe(Box::new(subscribe))));
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Event(Event::Subscribe(_))]
    ));
    server.grant(packet_id, [ReasonCode::GrantedQoS1].into_iter().collect());
    assert!(matches!(
        drain(&mut server)[..],
        [Output::Transmit(Packet::SubAck(_))]
    ));
}

#[test]
fn properties_go_along_and_count_as_bytes() {
    let mut connect = connect(ProtocolVersion::V5, 60);
    connect.properties = Some(Box::new(Properties {
        receive_maximum: NonZeroU16::new(1),
        ..Properties::default()
    }));
    let (mut server, ..) = open(connect);
    let properties = Properties {
        content_type: Some("x".repeat(60).into()),
        ..Properties::default()
    };
    let with_properties = |tag| Message {
        properties: Some(Box::new(properties.clone())),
        ..message(tag, 0)
    };
    assert_eq!(server.send(with_properties(1)), Ok(()));
    let output = drain(&mut server);
    let [Output::Transmit(Packet::Publish(publish))] = &output[..] else {
        panic!("{output:?}")
    };
    assert_eq!(publish.properties.as_deref(), Some(&properties));
    assert_eq!(server.send(with_properties(2)), Ok(()), "it waits");
    assert_eq!(
        server.send(with_properties(3)),
        Err(NotSent::OutboxFull),
        "two of them are above 100 bytes"
    );
}
