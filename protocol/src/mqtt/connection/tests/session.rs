//! Sessions: what is agreed on in CONNACK, what goes on with the next connection, and how it ends.

use super::*;

fn of(properties: Properties) -> Connect {
    Connect {
        properties: Some(Box::new(properties)),
        ..connect(ProtocolVersion::V5, 10)
    }
}

fn offering(offer: Offer) -> Arc<ConnectionLimits> {
    Arc::new(ConnectionLimits {
        offer,
        ..(*limits()).clone()
    })
}

/// A server with these limits that has let this client in.
fn open_with(
    limits: Arc<ConnectionLimits>,
    connect: Connect,
    accept: Accept<u32>,
) -> (Server, Vec<Output<u32>>) {
    let now = now();
    let mut server = Server::new(limits, now + Duration::from_secs(10));
    server.handle(now, Input::Packet(Packet::Connect(Box::new(connect))));
    let output = drain(&mut server);
    assert!(
        matches!(output[..], [Output::Event(Event::Connect(_))]),
        "{output:?}"
    );
    server.accept(now, accept);
    let output = drain(&mut server);
    (server, output)
}

fn connack(output: &[Output<u32>]) -> &ConnAck {
    let [Output::Transmit(Packet::ConnAck(connack)), ..] = output else {
        panic!("{output:?}")
    };
    connack
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn at_qos_2(tag: u32) -> Message<u32> {
    Message {
        qos: QoS::ExactlyOnce,
        ..message(tag, 4)
    }
}

fn lasting() -> Arc<ConnectionLimits> {
    offering(Offer {
        max_session_expiry: Duration::from_hours(1),
        ..Offer::default()
    })
}

fn for_a_minute() -> Accept<u32> {
    Accept {
        resumed: None,
        session_expiry: Duration::from_mins(1),
    }
}

fn packets(output: Vec<Output<u32>>) -> Vec<Packet> {
    let packet = |output| match output {
        Output::Transmit(packet) => Some(packet),
        Output::Event(_) | Output::Close(_) => None,
    };
    output.into_iter().filter_map(packet).collect()
}

#[test]
fn what_was_under_way_goes_on_with_the_next_connection() {
    let (mut server, _) = open_with(lasting(), of(Properties::default()), for_a_minute());
    for tag in 1..=3 {
        server.send(at_qos_2(tag)).expect("room");
    }
    drain(&mut server);
    server.handle(
        now(),
        Input::Packet(Packet::PubRec(crate::mqtt::PubRec::new(id(2)))),
    );
    assert!(matches!(
        drain(&mut server)[..],
        [
            Output::Event(Event::Received(2)),
            Output::Transmit(Packet::PubRel(_))
        ]
    ));
    let resumed = server.suspend();
    let phases: Vec<_> = resumed
        .in_flight
        .iter()
        .map(|(id, phase, message)| (id.get(), *phase, message.tag))
        .collect();
    assert_eq!(
        phases,
        [
            (2, Phase::Released, 2),
            (1, Phase::Published, 1),
            (3, Phase::Published, 3)
        ]
    );
    assert!(resumed.in_flight[0].2.payload.is_empty(), "nobody needs it");

    let one_at_a_time = of(Properties {
        receive_maximum: NonZeroU16::new(2),
        ..Properties::default()
    });
    let accept = Accept {
        resumed: Some(resumed),
        ..for_a_minute()
    };
    let (mut server, output) = open_with(lasting(), one_at_a_time, accept);
    assert!(connack(&output).session_present);
    let packets = packets(output);
    let [_, Packet::PubRel(rel), Packet::Publish(publish)] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!(rel.packet_id, id(2));
    assert_eq!((publish.packet_id, publish.dup), (Some(id(1)), true));
    assert_eq!(server.reserve(9), None, "what is older goes first");
    server.handle(
        now(),
        Input::Packet(Packet::PubComp(crate::mqtt::PubComp::new(id(2)))),
    );
    let output = drain(&mut server);
    let [
        Output::Event(Event::Acknowledged(2)),
        Output::Transmit(Packet::Publish(publish)),
    ] = &output[..]
    else {
        panic!("{output:?}")
    };
    assert_eq!((publish.packet_id, publish.dup), (Some(id(3)), true));
}

#[test]
fn what_the_caller_sends_itself_is_not_sent_again() {
    let (mut server, _) = open_with(lasting(), of(Properties::default()), for_a_minute());
    assert!(server.reserve(1).is_some());
    let publish = server.prepare(at_qos_2(2)).expect("room");
    assert_eq!(publish.packet_id, Some(id(2)));
    let resumed = server.suspend();
    assert_eq!(resumed.in_flight.len(), 1, "there is a message of one only");
    assert_eq!(resumed.in_flight[0].0, id(2));
}

#[test]
fn a_session_that_ends_with_its_connection_keeps_no_message() {
    let (mut server, _) = open_with(lasting(), of(Properties::default()), Accept::default());
    server.send(at_qos_2(1)).expect("room");
    assert_eq!(server.suspend(), Resumed::default());
}

#[test]
fn a_message_that_nobody_acted_on_is_new_on_the_next_connection() {
    let (mut server, _) = open_with(lasting(), of(Properties::default()), for_a_minute());
    for value in [1, 2] {
        let publish = Packet::Publish(publish(QoS::ExactlyOnce, value));
        server.handle(now(), Input::Packet(publish));
    }
    server.acknowledge(id(1), QoS::ExactlyOnce, ReasonCode::Success);
    let resumed = server.suspend();
    assert_eq!(resumed.unreleased, [id(1)]);
    let accept = Accept {
        resumed: Some(resumed),
        ..for_a_minute()
    };
    let (mut server, _) = open_with(lasting(), of(Properties::default()), accept);
    let again = |value| Publish {
        dup: true,
        ..publish(QoS::ExactlyOnce, value)
    };
    server.handle(now(), Input::Packet(Packet::Publish(again(1))));
    let output = drain(&mut server);
    assert!(
        matches!(output[..], [Output::Transmit(Packet::PubRec(_))]),
        "{output:?}"
    );
    server.handle(now(), Input::Packet(Packet::Publish(again(2))));
    let output = drain(&mut server);
    assert!(
        matches!(output[..], [Output::Event(Event::Publish(_))]),
        "{output:?}"
    );
}

#[test]
fn the_agreed_session_expiry_is_told() {
    let cases = [(0, 0), (60, 60), (3_600, 3_600), (7_200, 3_600)];
    for (wanted, agreed) in cases {
        let accept = Accept {
            resumed: None,
            session_expiry: Duration::from_secs(wanted),
        };
        let (server, output) = open_with(lasting(), of(Properties::default()), accept);
        let told = connack(&output).properties.as_ref();
        let told = told.and_then(|properties| properties.session_expiry_interval_secs);
        assert_eq!(told, Some(agreed));
        assert_eq!(server.session_expiry_secs(), agreed);
    }
}

#[test]
fn disconnect_changes_the_session_expiry_within_bounds() {
    let asked = |secs| Properties {
        session_expiry_interval_secs: secs,
        ..Properties::default()
    };
    let cases = [
        (Some(60), None, Some(None)),
        (Some(60), Some(0), Some(Some(0))),
        (Some(60), Some(120), Some(Some(120))),
        (Some(60), Some(u32::MAX), Some(Some(3_600))),
        (None, Some(0), Some(Some(0))),
        (Some(0), Some(1), None),
        (None, Some(1), None),
    ];
    for (at_connect, at_end, expected) in cases {
        let (mut server, _) = open_with(lasting(), of(asked(at_connect)), for_a_minute());
        let disconnect = Disconnect {
            reason: ReasonCode::DisconnectWithWill,
            properties: Some(Box::new(asked(at_end))),
        };
        server.handle(now(), Input::Packet(Packet::Disconnect(disconnect)));
        let output = drain(&mut server);
        match expected {
            Some(session_expiry) => assert_eq!(
                output,
                [
                    Output::Event(Event::Disconnected {
                        reason: ReasonCode::DisconnectWithWill,
                        session_expiry
                    }),
                    Output::Close(ReasonCode::DisconnectWithWill)
                ]
            ),
            None => assert_eq!(
                output.last(),
                Some(&Output::Close(ReasonCode::ProtocolError)),
                "there is no session to prolong"
            ),
        }
    }
}

#[test]
fn a_will_that_cannot_be_kept_is_refused_at_once() {
    let will = |qos, retain| crate::mqtt::Will {
        topic: "w".parse().expect("legal"),
        payload: Bytes::new(),
        qos,
        retain,
        properties: None,
    };
    let offer = Offer {
        max_qos: QoS::AtLeastOnce,
        ..Offer::default()
    };
    for (will, reason) in [
        (will(QoS::ExactlyOnce, false), ReasonCode::QoSNotSupported),
        (will(QoS::AtMostOnce, true), ReasonCode::RetainNotSupported),
    ] {
        let mut server = Server::new(offering(offer), now());
        let connect = Connect {
            will: Some(will),
            ..connect(ProtocolVersion::V5, 10)
        };
        server.handle(now(), Input::Packet(Packet::Connect(Box::new(connect))));
        let output = drain(&mut server);
        assert_eq!(output.last(), Some(&Output::Close(reason)));
        assert_eq!(connack(&output).reason, reason);
    }
}

#[test]
fn what_is_offered_is_told_by_what_is_left_out() {
    let nothing = Offer {
        max_qos: QoS::AtLeastOnce,
        ..Offer::default()
    };
    let all = Offer {
        retain_available: true,
        shared_subscriptions: true,
        subscription_identifiers: true,
        topic_alias_maximum: 7,
        ..Offer::default()
    };
    for (offer, has) in [(nothing, Some(false)), (all, None)] {
        let (_, output) = open_with(
            offering(offer),
            of(Properties::default()),
            Accept::default(),
        );
        let told = connack(&output).properties.as_deref().expect("of MQTT 5");
        assert_eq!(told.retain_available, has);
        assert_eq!(told.shared_subscription_available, has);
        assert_eq!(told.subscription_identifiers_available, has);
        assert_eq!(told.topic_alias_maximum, has.map_or(Some(7), |_| None));
        assert_eq!(
            told.maximum_qos,
            has.map(|_| QoS::AtLeastOnce),
            "QoS 2 goes without saying"
        );
    }
}

#[test]
fn another_server_is_named_only_where_one_is_to_be_used() {
    let details = CloseDetails {
        server_reference: Some("b:8883".into()),
        reason_string: Some("drain".into()),
    };
    for (reason, named) in [
        (ReasonCode::UseAnotherServer, Some("b:8883")),
        (ReasonCode::ServerMoved, Some("b:8883")),
        (ReasonCode::ServerShuttingDown, None),
    ] {
        let (mut server, ..) = open(connect(ProtocolVersion::V5, 10));
        server.close_with(reason, details.clone());
        let output = drain(&mut server);
        let [
            Output::Transmit(Packet::Disconnect(disconnect)),
            Output::Close(_),
        ] = &output[..]
        else {
            panic!("{output:?}")
        };
        let said = disconnect.properties.as_deref().expect("a reason string");
        assert_eq!(said.server_reference.as_deref(), named);
        assert_eq!(said.reason_string.as_deref(), Some("drain"));

        let mut refused = Server::new(limits(), now());
        let connect = connect(ProtocolVersion::V5, 10);
        refused.handle(now(), Input::Packet(Packet::Connect(Box::new(connect))));
        drain(&mut refused);
        refused.refuse_with(reason, details.clone());
        let output = drain(&mut refused);
        let said = connack(&output).properties.as_deref();
        assert_eq!(
            said.and_then(|said| said.server_reference.as_deref()),
            named
        );
    }
}

#[test]
fn a_client_may_do_without_keep_alive_where_that_is_allowed() {
    let lenient = Arc::new(ConnectionLimits {
        allow_no_keep_alive: true,
        server_keep_alive: Some(Duration::from_mins(1)),
        ..(*limits()).clone()
    });
    let cases = [
        (ProtocolVersion::V5, 0, None, None),
        (ProtocolVersion::V5, 120, Some(60), Some(90)),
        (ProtocolVersion::V5, 10, None, Some(15)),
        (ProtocolVersion::V311, 0, None, None),
        (ProtocolVersion::V311, 120, None, Some(180)),
    ];
    for (version, asked, told, silence) in cases {
        let begun = now();
        let mut server = Server::new(Arc::clone(&lenient), begun);
        let connect = connect(version, asked);
        server.handle(begun, Input::Packet(Packet::Connect(Box::new(connect))));
        drain(&mut server);
        server.accept(begun, Accept::default());
        let output = drain(&mut server);
        let said = connack(&output).properties.as_ref();
        assert_eq!(said.and_then(|said| said.server_keep_alive_secs), told);
        let due = silence.map(|secs| begun + Duration::from_secs(secs));
        assert_eq!(server.timeout(), due, "{version:?} {asked}");
        server.handle(begun + Duration::from_hours(24), Input::Timeout);
        assert_eq!(server.is_closed(), silence.is_some());
    }
}
