//! The rules of the message layer, one at a time.

use std::time::Duration;

use hex_literal::hex;

use super::pair::{End, KNOWN, Pair, Weather};
use crate::coap::{
    Code, Counters, Endpoint, Event, ExchangeId, Failure, Limits, Message, MessageId, MessageType,
    NotSent, OptionNumber, Output, Parameters, Request, Response, Token, tests::epoch,
};

const FINE: Weather = Weather {
    loss: 0,
    duplication: 0,
    reordering: 0,
};
const LONG: Duration = Duration::from_mins(10);

type Server = Endpoint<u8, u32>;

fn server() -> Server {
    Endpoint::new(Parameters::default(), Limits::default(), KNOWN, 1)
}

fn message(kind: MessageType, code: Code, id: u16) -> Message {
    let token = Token::new(b"tk").expect("legal");
    let mut message = Message::new(kind, code, MessageId(id), token);
    message.add(OptionNumber::URI_PATH, "a");
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.encode(2_000).expect("legal").to_vec()
}

fn sent(endpoint: &mut Server) -> Vec<Message> {
    std::iter::from_fn(|| endpoint.poll_output())
        .filter_map(|output| match output {
            Output::Transmit { datagram, .. } => Message::decode(&datagram).ok(),
            Output::Event(_) => None,
        })
        .collect()
}

/// The requests that are handed out, and nothing else.
fn asked(endpoint: &mut Server) -> Vec<ExchangeId> {
    std::iter::from_fn(|| endpoint.poll_output())
        .filter_map(|output| match output {
            Output::Event(Event::Request { exchange, .. }) => Some(exchange),
            _ => None,
        })
        .collect()
}

#[test]
fn a_duplicate_con_gets_the_cached_reply_and_is_not_handed_out_again() {
    let (mut server, now) = (server(), epoch());
    let post = bytes(&message(MessageType::Confirmable, Code::POST, 7));
    server.handle_datagram(now, 1, &post);
    let exchange = asked(&mut server)[0];
    server.handle_datagram(now, 1, &post);
    assert_eq!(server.poll_output(), None, "it is being worked on");
    let response = Response::new(Code::CHANGED).with_payload("x".into());
    server.respond(now, exchange, response);
    let first = sent(&mut server);
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].kind, first[0].id),
        (MessageType::Acknowledgement, MessageId(7))
    );
    let lifetime = Parameters::default().exchange_lifetime();
    server.handle_datagram(
        now + lifetime.saturating_sub(Duration::from_secs(1)),
        1,
        &post,
    );
    assert_eq!(sent(&mut server), first);
    assert_eq!(server.counters().duplicates, 2);
    // Another peer's message of that identifier, and the same after its lifetime, are new.
    server.handle_datagram(now, 2, &post);
    server.handle_datagram(now + lifetime, 1, &post);
    assert_eq!(asked(&mut server).len(), 2);
}

#[test]
fn a_repeatable_reply_is_made_anew() {
    let (mut server, now) = (server(), epoch());
    let get = bytes(&message(MessageType::Confirmable, Code::GET, 7));
    server.handle_datagram(now, 1, &get);
    let exchange = asked(&mut server)[0];
    server.respond(now, exchange, Response::new(Code::CONTENT).repeatable());
    assert_eq!(sent(&mut server).len(), 1);
    assert_eq!(server.depths().reply_bytes, 0);
    server.handle_datagram(now, 1, &get);
    assert_eq!(asked(&mut server).len(), 1);
}

#[test]
fn a_duplicate_non_is_ignored() {
    let (mut server, now) = (server(), epoch());
    let post = bytes(&message(MessageType::NonConfirmable, Code::POST, 7));
    server.handle_datagram(now, 1, &post);
    let exchange = asked(&mut server)[0];
    server.respond(now, exchange, Response::new(Code::CHANGED));
    let answers = sent(&mut server);
    assert_eq!(answers[0].kind, MessageType::NonConfirmable);
    assert_eq!(answers[0].token.as_bytes(), b"tk");
    server.handle_datagram(now, 1, &post);
    assert_eq!(server.poll_output(), None);
}

#[test]
fn a_slow_answer_comes_by_itself_and_is_sent_until_it_is_acknowledged() {
    let (mut server, now) = (server(), epoch());
    let get = bytes(&message(MessageType::Confirmable, Code::GET, 7));
    server.handle_datagram(now, 1, &get);
    let exchange = asked(&mut server)[0];
    let later = now + Duration::from_millis(500);
    assert_eq!(server.timeout(), Some(later));
    server.handle_timeout(later);
    let ack = sent(&mut server);
    assert_eq!(
        ack,
        [Message::empty(MessageType::Acknowledgement, MessageId(7))]
    );
    server.handle_datagram(later, 1, &get);
    assert_eq!(
        sent(&mut server),
        ack,
        "the duplicate is acknowledged again"
    );
    server.respond(later, exchange, Response::new(Code::CONTENT));
    let first = sent(&mut server);
    assert_eq!(
        (first[0].kind, first[0].code),
        (MessageType::Confirmable, Code::CONTENT)
    );
    let mut at = later;
    for _ in 0..4 {
        at = server.timeout().expect("it is sent again").max(at);
        server.handle_timeout(at);
        assert_eq!(sent(&mut server), first);
    }
    let waited = at - later;
    assert!(
        waited >= Duration::from_secs(30) && waited <= Duration::from_secs(45),
        "{waited:?}"
    );
    let ack = Message::empty(MessageType::Acknowledgement, first[0].id);
    server.handle_datagram(at, 1, &bytes(&ack));
    server.handle_timeout(at + LONG);
    assert_eq!(sent(&mut server), []);
    assert_eq!(server.counters().retransmissions, 4);
}

#[test]
fn pings_and_malformed_confirmables_are_rejected_and_others_ignored() {
    let (mut server, now) = (server(), epoch());
    let reset = Message::empty(MessageType::Reset, MessageId(0x1234));
    for datagram in [&hex!("40 00 1234")[..], &hex!("40 01 1234 ff")] {
        server.handle_datagram(now, 1, datagram);
        assert_eq!(sent(&mut server), std::slice::from_ref(&reset));
    }
    for datagram in [
        &hex!("50 01 1234 ff")[..],
        &hex!("60 00 1234"),
        &hex!("70 00 1234"),
        &hex!("60 45 1234"),
        &hex!("80 01 1234"),
    ] {
        server.handle_datagram(now, 1, datagram);
        assert_eq!(server.poll_output(), None, "{datagram:02x?}");
    }
    // A response that nobody asked for.
    server.handle_datagram(now, 1, &hex!("40 45 1234"));
    assert_eq!(sent(&mut server), [reset]);
}

#[test]
fn unknown_critical_options_are_refused() {
    let (mut server, now) = (server(), epoch());
    let with = |kind, number: OptionNumber| {
        let mut request = message(kind, Code::GET, number.0);
        request.add(number, "x");
        bytes(&request)
    };
    server.handle_datagram(now, 1, &with(MessageType::Confirmable, OptionNumber(9)));
    let answers = sent(&mut server);
    assert_eq!(
        (answers[0].code, &*answers[0].payload),
        (Code::BAD_OPTION, &b"option 9"[..])
    );
    let proxied = with(MessageType::Confirmable, OptionNumber::PROXY_URI);
    server.handle_datagram(now, 1, &proxied);
    assert_eq!(sent(&mut server)[0].code, Code::PROXYING_NOT_SUPPORTED);
    server.handle_datagram(now, 1, &with(MessageType::NonConfirmable, OptionNumber(9)));
    assert_eq!(server.poll_output(), None);
    assert_eq!(server.depths().exchanges, 0);
}

#[test]
fn what_the_client_does_not_want_to_hear_is_not_said() {
    for (no_response, code, is_said) in [
        (2, Code::CHANGED, false),
        (2, Code::NOT_FOUND, true),
        (26, Code::NOT_FOUND, false),
        (0, Code::CHANGED, true),
    ] {
        let (mut server, now) = (server(), epoch());
        for kind in [MessageType::Confirmable, MessageType::NonConfirmable] {
            let mut post = message(kind, Code::POST, 7);
            post.add_uint(OptionNumber::NO_RESPONSE, no_response);
            server.handle_datagram(
                now,
                u8::from(kind == MessageType::Confirmable),
                &bytes(&post),
            );
            let exchange = asked(&mut server)[0];
            server.respond(now, exchange, Response::new(code));
            let answers = sent(&mut server);
            if is_said {
                assert_eq!(answers[0].code, code);
            } else if kind == MessageType::Confirmable {
                assert_eq!(
                    answers,
                    [Message::empty(MessageType::Acknowledgement, MessageId(7))]
                );
            } else {
                assert_eq!(answers, []);
            }
        }
    }
}

#[test]
fn too_many_unanswered_requests_are_turned_away() {
    let limits = Limits {
        max_exchanges: 1,
        ..Limits::default()
    };
    let mut server: Server = Endpoint::new(Parameters::default(), limits, KNOWN, 1);
    let now = epoch();
    for id in 0..2 {
        server.handle_datagram(
            now,
            1,
            &bytes(&message(MessageType::Confirmable, Code::GET, id)),
        );
    }
    let answers = sent(&mut server);
    assert_eq!(answers[0].code, Code::SERVICE_UNAVAILABLE);
    assert_eq!(answers[0].uint(OptionNumber::MAX_AGE), Some(5));
    assert_eq!(
        (server.counters().overloaded, server.depths().exchanges),
        (1, 1)
    );
}

#[test]
fn requests_that_nobody_answers_are_forgotten() {
    let (mut server, now) = (server(), epoch());
    for (id, kind) in [
        (1, MessageType::Confirmable),
        (2, MessageType::NonConfirmable),
    ] {
        server.handle_datagram(now, 1, &bytes(&message(kind, Code::GET, id)));
    }
    assert_eq!(server.depths().exchanges, 2);
    let mut at = now;
    while server.depths().exchanges > 0 {
        at = server.timeout().expect("something is left").max(at);
        server.handle_timeout(at);
    }
    assert!(at - now <= Duration::from_secs(248), "{:?}", at - now);
}

#[test]
fn one_confirmable_message_is_under_way_to_a_peer_and_the_latest_notification_waits() {
    let (mut server, now) = (server(), epoch());
    let token = Token::new(b"o").expect("legal");
    for n in 1..=4 {
        let value = Response::new(Code::CONTENT).with_payload(n.to_string().into());
        assert_eq!(server.notify(now, 1, token, value, Some(n)), Ok(()));
    }
    let first = sent(&mut server);
    assert_eq!((first.len(), &*first[0].payload), (1, &b"1"[..]));
    let ack = Message::empty(MessageType::Acknowledgement, first[0].id);
    server.handle_datagram(now, 1, &bytes(&ack));
    assert_eq!(
        server.poll_output(),
        Some(Output::Event(Event::Acknowledged(1)))
    );
    let second = sent(&mut server);
    assert_eq!((second.len(), &*second[0].payload), (1, &b"4"[..]));
    assert_ne!(second[0].id, first[0].id);
    let reset = Message::empty(MessageType::Reset, second[0].id);
    server.handle_datagram(now, 1, &bytes(&reset));
    let failed = Event::Failed {
        tag: 4,
        failure: Failure::Reset,
    };
    assert_eq!(server.poll_output(), Some(Output::Event(failed)));
}

#[test]
fn what_waits_for_a_peer_is_bounded() {
    let limits = Limits {
        max_waiting: 2,
        max_peers: 1,
        ..Limits::default()
    };
    let mut server: Server = Endpoint::new(Parameters::default(), limits, KNOWN, 1);
    let now = epoch();
    let token = |n: u8| Token::new(&[n]).expect("legal");
    let value = || Response::new(Code::CONTENT);
    for n in 0..3 {
        assert_eq!(server.notify(now, 1, token(n), value(), None), Ok(()));
    }
    assert_eq!(
        server.notify(now, 1, token(3), value(), None),
        Err(NotSent::Full)
    );
    assert_eq!(
        server.notify(now, 1, token(2), value(), None),
        Ok(()),
        "replaces"
    );
    assert_eq!(
        server.notify(now, 2, token(0), value(), None),
        Err(NotSent::Full),
        "peers"
    );
    let large = value().with_payload(vec![0; 2_000].into());
    assert_eq!(
        server.notify(now, 1, token(2), large, None),
        Err(NotSent::TooLarge)
    );
    server.forget(1);
    assert_eq!(
        server.notify(now, 2, token(0), value(), None),
        Ok(()),
        "1 gave way"
    );
    assert_eq!(server.timeout().map(|at| at > now), Some(true));
}

#[test]
fn requests_are_answered_and_silence_is_an_end() {
    let mut pair = Pair::new(3, FINE);
    let ask = |pair: &mut Pair, request: Request, tag| {
        let now = pair.now;
        pair.client
            .request(now, End::Server, request, tag)
            .expect("taken")
    };
    ask(
        &mut pair,
        Request::new(Code::GET, "/a/b").with_query("k", "v"),
        1,
    );
    let mut answers = Vec::new();
    pair.run(LONG, |pair, end, event| match (end, event) {
        (
            End::Server,
            Event::Request {
                exchange, message, ..
            },
        ) => {
            assert_eq!(message.path(), Some(vec!["a", "b"]));
            assert_eq!(message.query("k"), Some("v"));
            pair.server
                .respond(pair.now, exchange, Response::new(Code::CONTENT));
        }
        (End::Client, Event::Response { tag, message }) => answers.push((tag, message.code)),
        other => unreachable!("{other:?}"),
    });
    assert_eq!(answers, [(1, Code::CONTENT)]);

    pair.weather.loss = 100;
    let begun = pair.now;
    ask(&mut pair, Request::new(Code::GET, "a"), 2);
    ask(&mut pair, Request::new(Code::GET, "a").non_confirmable(), 3);
    let mut failed = Vec::new();
    pair.run(LONG, |pair, end, event| match (end, event) {
        (
            End::Client,
            Event::Failed {
                tag,
                failure: Failure::Timeout,
            },
        ) => {
            failed.push((tag, (pair.now - begun).as_secs()));
        }
        other => unreachable!("{other:?}"),
    });
    assert!(matches!(failed[..], [(2, 62..=93), (3, 145)]), "{failed:?}");
    assert_eq!(pair.client.depths().requests, 0);
    assert_eq!(pair.log.len(), 2 + 5 + 1);
}

#[test]
fn a_confirmable_answer_tells_when_it_arrived() {
    let mut pair = Pair::new(4, FINE);
    let now = pair.now;
    let request = Request::new(Code::GET, "c");
    pair.client
        .request(now, End::Server, request, 1)
        .expect("taken");
    let mut told = Vec::new();
    pair.run(LONG, |pair, end, event| match (end, event) {
        (End::Server, Event::Request { exchange, .. }) => {
            let answer = Response::new(Code::CONTENT);
            let sent = pair
                .server
                .respond_confirmable(pair.now, exchange, answer, 9);
            assert_eq!(sent, Ok(()));
        }
        (End::Server, Event::Acknowledged(tag)) | (End::Client, Event::Response { tag, .. }) => {
            told.push(tag);
        }
        other => unreachable!("{other:?}"),
    });
    assert_eq!(told, [1, 9]);
    let quiet = Counters::default();
    assert_eq!(
        (pair.client.counters(), pair.server.counters()),
        (quiet, quiet)
    );
}

#[test]
fn an_observation_goes_on_until_it_is_cancelled() {
    let mut pair = Pair::new(5, FINE);
    let now = pair.now;
    let request = Request::new(Code::GET, "t").with_uint(OptionNumber::OBSERVE, 0);
    let token = pair
        .client
        .request(now, End::Server, request, 1)
        .expect("taken");
    let notify = |pair: &mut Pair, n| {
        let value = Response::new(Code::CONTENT).with_uint(OptionNumber::OBSERVE, n);
        let now = pair.now;
        pair.server
            .notify(now, End::Client, token, value, Some(n))
            .expect("taken");
    };
    let mut heard = Vec::new();
    pair.run(LONG, |pair, end, event| match (end, event) {
        (End::Server, Event::Request { exchange, .. }) => {
            let value = Response::new(Code::CONTENT).with_uint(OptionNumber::OBSERVE, 1);
            pair.server.respond(pair.now, exchange, value);
            notify(pair, 2);
        }
        (End::Client, Event::Response { message, .. }) => {
            heard.push(message.uint(OptionNumber::OBSERVE));
        }
        (End::Server, Event::Acknowledged(2)) => {}
        other => unreachable!("{other:?}"),
    });
    assert_eq!(heard, [Some(1), Some(2)]);
    pair.client.cancel(End::Server, token);
    notify(&mut pair, 3);
    let mut failed = Vec::new();
    pair.run(LONG, |_, _, event| failed.push(event));
    let reset = Event::Failed {
        tag: 3,
        failure: Failure::Reset,
    };
    assert_eq!(failed, [reset], "nobody listens");
}
