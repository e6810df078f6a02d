//! Receive Maximum, Maximum Packet Size and topic aliases, each way.

use super::*;
use crate::mqtt::{PubComp, PubRec, TopicName};

fn client(properties: Properties) -> Connect {
    Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    }
}

fn limits_with(offer: Offer) -> Arc<ConnectionLimits> {
    Arc::new(ConnectionLimits {
        offer,
        ..(*limits()).clone()
    })
}

fn open_with(offer: Offer, connect: Connect) -> Server {
    let now = now();
    let mut server = Server::new(limits_with(offer), now + Duration::from_secs(10));
    server.handle(now, Input::Packet(Packet::Connect(Box::new(connect))));
    drain(&mut server);
    server.accept(now, Accept::default());
    drain(&mut server);
    server
}

fn aliased(topic: &str, alias: u16) -> Packet {
    let topic = match topic {
        "" => TopicName::aliased(),
        topic => topic.parse().expect("legal"),
    };
    let mut publish = Publish::new(topic, Bytes::new());
    publish.properties = Some(Box::new(Properties {
        topic_alias: NonZeroU16::new(alias),
        content_type: Some("x".into()),
        ..Properties::default()
    }));
    Packet::Publish(publish)
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

#[test]
fn a_topic_alias_stands_for_the_topic_it_was_given_with() {
    let offer = Offer {
        topic_alias_maximum: 2,
        ..Offer::default()
    };
    let mut server = open_with(offer, client(Properties::default()));
    for (topic, alias, expected) in [
        ("a", 1, Ok("a")),
        ("", 1, Ok("a")),
        ("b", 2, Ok("b")),
        ("c", 1, Ok("c")),
        ("", 1, Ok("c")),
        ("", 2, Ok("b")),
        ("", 3, Err(ReasonCode::TopicAliasInvalid)),
    ] {
        server.handle(now(), Input::Packet(aliased(topic, alias)));
        let output = drain(&mut server);
        match expected {
            Ok(expected) => {
                let [Output::Event(Event::Publish(publish))] = &output[..] else {
                    panic!("{output:?}")
                };
                assert_eq!(publish.topic.as_str(), expected);
                let properties = publish.properties.as_deref().expect("of the client");
                assert_eq!(properties.topic_alias, None, "it is of this link only");
                assert_eq!(properties.content_type.as_deref(), Some("x"));
            }
            Err(reason) => assert_eq!(output.last(), Some(&Output::Close(reason))),
        }
    }
    let mut server = open_with(offer, client(Properties::default()));
    server.handle(now(), Input::Packet(aliased("", 1)));
    assert_eq!(
        drain(&mut server).last(),
        Some(&Output::Close(ReasonCode::ProtocolError)),
        "aliases are of one connection"
    );
}

#[test]
fn topics_get_aliases_towards_a_client_that_takes_them() {
    let offer = Offer {
        outbound_topic_aliases: 2,
        ..Offer::default()
    };
    let cases = [
        (
            Some(9),
            [
                ("aaaa", Some(1)),
                ("", Some(1)),
                ("bbbb", Some(2)),
                ("cccc", None),
            ],
        ),
        (
            Some(1),
            [
                ("aaaa", Some(1)),
                ("", Some(1)),
                ("bbbb", None),
                ("cccc", None),
            ],
        ),
        (
            None,
            [
                ("aaaa", None),
                ("aaaa", None),
                ("bbbb", None),
                ("cccc", None),
            ],
        ),
    ];
    for (maximum, expected) in cases {
        let properties = Properties {
            topic_alias_maximum: maximum,
            ..Properties::default()
        };
        let mut server = open_with(offer, client(properties));
        for (topic, (said, alias)) in ["aaaa", "aaaa", "bbbb", "cccc"].into_iter().zip(expected) {
            let topic = topic.parse().expect("legal");
            let publish = server
                .prepare(Message::new(topic, Bytes::new(), 0))
                .expect("room");
            assert_eq!(publish.topic.as_str(), said);
            let told = publish.properties.and_then(|all| all.topic_alias);
            assert_eq!(told.map(NonZeroU16::get), alias);
        }
    }
}

#[test]
fn an_alias_that_makes_a_packet_too_large_is_not_given() {
    let offer = Offer {
        outbound_topic_aliases: 2,
        ..Offer::default()
    };
    let mut server = open_with(
        offer,
        client(Properties {
            topic_alias_maximum: Some(2),
            maximum_packet_size: NonZeroU32::new(60),
            ..Properties::default()
        }),
    );
    // Fixed header 2, topic 6, properties 1: an alias takes 3 more.
    let first = NonZeroU16::new(1);
    for (len, alias) in [(51, None), (48, first), (51, first)] {
        let payload = Bytes::from(vec![0; len]);
        let message = Message::new("aaaa".parse().expect("legal"), payload, 0);
        let publish = server.prepare(message).expect("small enough");
        assert!(publish.encoded_len(ProtocolVersion::V5).expect("legal") <= 60);
        assert_eq!(publish.properties.and_then(|all| all.topic_alias), alias);
    }
}

#[test]
fn more_than_our_receive_maximum_ends_an_mqtt_5_connection() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (mut server, ..) = open(client(Properties::default()));
        for value in 1..=4 {
            server.handle(now(), Input::Packet(Packet::Publish(publish(qos, value))));
        }
        assert_eq!(drain(&mut server).len(), 4, "{qos:?}");
        server.acknowledge(id(1), qos, ReasonCode::NotAuthorized);
        server.handle(now(), Input::Packet(Packet::Publish(publish(qos, 5))));
        assert!(!server.is_closed(), "one was answered");
        server.handle(now(), Input::Packet(Packet::Publish(publish(qos, 6))));
        assert_eq!(
            drain(&mut server).last(),
            Some(&Output::Close(ReasonCode::ReceiveMaximumExceeded))
        );
    }
}

#[test]
fn an_older_client_knows_no_receive_maximum_and_is_bounded_all_the_same() {
    let (mut server, ..) = open(connect(ProtocolVersion::V311, 10));
    for value in 1..=20 {
        let publish = Packet::Publish(publish(QoS::AtLeastOnce, value));
        server.handle(now(), Input::Packet(publish));
    }
    assert_eq!(drain(&mut server).len(), 20);
    for value in 1..=7 {
        assert!(!server.is_closed());
        let publish = Packet::Publish(publish(QoS::ExactlyOnce, value));
        server.handle(now(), Input::Packet(publish));
    }
    assert_eq!(
        drain(&mut server).last(),
        Some(&Output::Close(ReasonCode::ReceiveMaximumExceeded))
    );
}

#[test]
fn an_exchange_of_qos_2_takes_its_place_to_the_end() {
    let (mut server, ..) = open(client(Properties {
        receive_maximum: NonZeroU16::new(1),
        ..Properties::default()
    }));
    let of = |tag| Message {
        qos: QoS::ExactlyOnce,
        ..message(tag, 1)
    };
    server.send(of(1)).expect("goes");
    server.send(of(2)).expect("waits");
    assert_eq!(drain(&mut server).len(), 1);
    server.handle(now(), Input::Packet(Packet::PubRec(PubRec::new(id(1)))));
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Event(Event::Received(1)),
            Output::Transmit(Packet::PubRel(_))
        ]
    ));
    server.handle(now(), Input::Packet(Packet::PubRec(PubRec::new(id(1)))));
    assert_eq!(
        drain(&mut server),
        [Output::Transmit(Packet::PubRel(PubRel::new(id(1))))],
        "its PUBREL was lost"
    );
    server.handle(now(), Input::Packet(Packet::PubComp(PubComp::new(id(1)))));
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Event(Event::Acknowledged(1)),
            Output::Transmit(Packet::Publish(_))
        ]
    ));
    let refused = PubRec {
        packet_id: id(2),
        reason: ReasonCode::QuotaExceeded,
        properties: None,
    };
    server.handle(now(), Input::Packet(Packet::PubRec(refused)));
    assert_eq!(drain(&mut server), [Output::Event(Event::Acknowledged(2))]);
}

#[test]
fn acknowledgements_of_another_qos_are_a_protocol_error() {
    let publish = |qos| Message {
        qos,
        ..message(1, 1)
    };
    for (qos, packet) in [
        (QoS::ExactlyOnce, puback(1)),
        (QoS::AtLeastOnce, Packet::PubRec(PubRec::new(id(1)))),
        (QoS::ExactlyOnce, Packet::PubComp(PubComp::new(id(1)))),
    ] {
        let (mut server, ..) = open(client(Properties::default()));
        server.send(publish(qos)).expect("room");
        drain(&mut server);
        server.handle(now(), Input::Packet(packet));
        assert_eq!(
            drain(&mut server).last(),
            Some(&Output::Close(ReasonCode::ProtocolError))
        );
    }
    let (mut server, ..) = open(client(Properties::default()));
    server.handle(
        now(),
        Input::Packet(Packet::Publish(super::publish(QoS::ExactlyOnce, 1))),
    );
    drain(&mut server);
    server.handle(now(), Input::Packet(Packet::PubRel(PubRel::new(id(1)))));
    assert_eq!(
        drain(&mut server).last(),
        Some(&Output::Close(ReasonCode::ProtocolError)),
        "released before it was received"
    );
}

#[test]
fn explanations_go_only_to_those_who_want_them_and_have_room() {
    let why = || Some("because".into());
    let said = |properties: Properties| {
        let (mut server, ..) = open(client(properties));
        server.acknowledge_with(id(1), QoS::AtLeastOnce, ReasonCode::NotAuthorized, why());
        let output = drain(&mut server);
        let [Output::Transmit(Packet::PubAck(ack))] = &output[..] else {
            panic!("{output:?}")
        };
        ack.properties.is_some()
    };
    assert!(said(Properties::default()));
    assert!(!said(Properties {
        request_problem_information: Some(false),
        ..Properties::default()
    }));
    let (mut server, ..) = open(client(Properties {
        maximum_packet_size: NonZeroU32::new(40),
        ..Properties::default()
    }));
    let details = CloseDetails {
        reason_string: Some("x".repeat(100).into()),
        ..CloseDetails::default()
    };
    server.close_with(ReasonCode::QuotaExceeded, details);
    let output = drain(&mut server);
    let [Output::Transmit(packet), Output::Close(_)] = &output[..] else {
        panic!("{output:?}")
    };
    assert_eq!(
        *packet,
        Packet::Disconnect(Disconnect::new(ReasonCode::QuotaExceeded))
    );
}

#[test]
fn an_answer_that_does_not_fit_at_all_ends_the_connection() {
    let (mut server, ..) = open(client(Properties {
        maximum_packet_size: NonZeroU32::new(40),
        ..Properties::default()
    }));
    server.grant(id(1), [ReasonCode::Success; 50].into_iter().collect());
    assert_eq!(
        drain(&mut server),
        [Output::Close(ReasonCode::PacketTooLarge)]
    );
}

#[test]
fn a_connack_that_does_not_fit_is_a_refusal() {
    for (bytes, expected) in [(10, 2), (4, 1)] {
        let properties = Properties {
            maximum_packet_size: NonZeroU32::new(bytes),
            ..Properties::default()
        };
        let mut server = Server::new(limits(), now());
        let connect = Packet::Connect(Box::new(client(properties)));
        server.handle(now(), Input::Packet(connect));
        drain(&mut server);
        server.accept(now(), Accept::default());
        let output = drain(&mut server);
        assert_eq!(output.len(), expected, "{output:?}");
        assert_eq!(
            output.last(),
            Some(&Output::Close(ReasonCode::PacketTooLarge))
        );
    }
}

#[test]
fn identifiers_of_subscriptions_go_along_to_mqtt_5_clients() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let (mut server, ..) = open(connect(version, 10));
        let mut numbered = message(1, 1);
        numbered.retain = true;
        numbered.subscription_ids = [7, 9].into_iter().filter_map(NonZeroU32::new).collect();
        let publish = server.prepare(numbered).expect("room");
        assert!(publish.retain);
        let told = publish.properties.map(|all| all.subscription_identifiers);
        let expected = (version == ProtocolVersion::V5)
            .then(|| [7, 9].into_iter().filter_map(NonZeroU32::new).collect());
        assert_eq!(told, expected);
    }
}

#[test]
fn a_connection_at_rest_is_small() {
    // Counted in what README says of an idle connection.
    assert!(size_of::<Connection<[u64; 3]>>() <= 128);
}
