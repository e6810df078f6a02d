//! What holds in any weather.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::pair::{End, Pair, Weather};
use crate::coap::{Block, Code, Event, OptionNumber, Request, Response, Sequence, Szx};

fn weather() -> impl Strategy<Value = Weather> {
    (0..30_u32, 0..30_u32, 0..40_u32).prop_map(|(loss, duplication, reordering)| Weather {
        loss,
        duplication,
        reordering,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_is_carried_out_once_and_ends_once(
        seed: u64, weather in weather(), requests in 1..20_u32, slow in 0..3_u64,
    ) {
        let mut pair = Pair::new(seed, weather);
        let mut carried_out: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut ended: BTreeMap<u32, u32> = BTreeMap::new();
        let mut answered: BTreeSet<u32> = BTreeSet::new();
        for tag in 0..requests {
            let request = Request::new(Code::POST, "d").with_payload(tag.to_string().into());
            let now = pair.now;
            if pair.client.request(now, End::Server, request, tag).is_err() {
                // Too many wait: that is known at once.
                ended.insert(tag, 1);
            }
            let mut open = Vec::new();
            pair.run(Duration::from_secs(if tag + 1 == requests { 600 } else { 5 }), |pair, end, event| {
                match (end, event) {
                    (End::Server, Event::Request { exchange, message, .. }) => {
                        *carried_out.entry(message.payload.to_vec()).or_default() += 1;
                        open.push((exchange, message.payload.clone()));
                        // Some answers take longer than the acknowledgement may.
                        if open.len() as u64 > slow {
                            for (exchange, payload) in open.drain(..) {
                                let response = Response::new(Code::CHANGED).with_payload(payload);
                                pair.server.respond(pair.now, exchange, response);
                            }
                        }
                    }
                    (End::Client, Event::Response { tag, message }) => {
                        assert_eq!(message.payload, tag.to_string());
                        answered.insert(tag);
                        *ended.entry(tag).or_default() += 1;
                    }
                    (End::Client, Event::Failed { tag, .. }) => {
                        *ended.entry(tag).or_default() += 1;
                    }
                    _ => {}
                }
            });
        }
        prop_assert!(carried_out.values().all(|times| *times == 1), "{carried_out:?}");
        prop_assert!(ended.values().all(|times| *times == 1), "{ended:?}");
        prop_assert_eq!(ended.len(), requests as usize);
        for tag in answered {
            prop_assert!(carried_out.contains_key(tag.to_string().as_bytes()));
        }
        prop_assert_eq!(pair.client.depths().requests, 0);
        prop_assert_eq!(pair.client.depths().received, 0, "what is over is forgotten");
    }

    #[test]
    fn a_body_comes_whole_block_by_block(
        seed: u64, weather in weather(), size in 1..20_000_usize, exponent in 2..=6_u8,
    ) {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at * 31 % 251).expect("below 251")).collect();
        let mut pair = Pair::new(seed, Weather { loss: weather.loss / 2, ..weather });
        let ask = |pair: &mut Pair, at: usize, size: Szx| {
            let block = Block::at(at as u64, size).expect("a block begins there");
            let request = Request::new(Code::GET, "r").with_uint(OptionNumber::BLOCK2, block.value());
            let now = pair.now;
            pair.client.request(now, End::Server, request, 0).expect("taken");
        };
        let asked = Szx::new(exponent).expect("0 to 6");
        let largest = Szx::new(5).expect("0 to 6");
        let (mut got, mut done) = (Vec::new(), false);
        ask(&mut pair, 0, asked);
        pair.run(Duration::from_hours(24), |pair, end, event| match (end, event) {
            (End::Server, Event::Request { exchange, message, .. }) => {
                let value = message.first(OptionNumber::BLOCK2).expect("it is asked for");
                let slice = Block::decode(value).expect("legal").slice(body.len() as u64, largest);
                let slice = slice.expect("within");
                let start = usize::try_from(slice.offset).expect("small");
                let payload = body[start..start + slice.len].to_vec();
                let response = Response::new(Code::CONTENT)
                    .with_uint(OptionNumber::BLOCK2, slice.block.value())
                    .with_payload(payload.into())
                    .repeatable();
                pair.server.respond(pair.now, exchange, response);
            }
            (End::Client, Event::Response { message, .. }) => {
                let block = Block::decode(message.first(OptionNumber::BLOCK2).expect("there")).expect("legal");
                assert_eq!(block.offset(), got.len() as u64);
                got.extend_from_slice(&message.payload);
                if block.more {
                    // What the server chose is gone on with.
                    ask(pair, got.len(), block.size);
                } else {
                    done = true;
                }
            }
            (End::Client, Event::Failed { .. }) => ask(pair, got.len(), asked.min(largest)),
            _ => {}
        });
        prop_assert!(done);
        prop_assert_eq!(got, body);
    }

    #[test]
    fn an_observer_ends_up_with_the_latest_value(
        seed: u64, weather in weather(), changes in 1..30_u32,
    ) {
        let mut pair = Pair::new(seed, Weather::default());
        let request = Request::new(Code::GET, "t").with_uint(OptionNumber::OBSERVE, 0);
        let now = pair.now;
        let token = pair.client.request(now, End::Server, request, 0).expect("taken");
        pair.run(Duration::from_secs(1), |pair, _, event| {
            if let Event::Request { exchange, .. } = event {
                let value = Response::new(Code::CONTENT).with_uint(OptionNumber::OBSERVE, 0);
                pair.server.respond(pair.now, exchange, value);
            }
        });
        pair.weather = weather;
        let (mut seen, mut latest) = ((Sequence::new(0), pair.now), 0);
        let mut settled = false;
        for n in 1..=changes {
            let value = |n: u32| Response::new(Code::CONTENT)
                .with_uint(OptionNumber::OBSERVE, n)
                .with_payload(n.to_string().into());
            let now = pair.now;
            pair.server.notify(now, End::Client, token, value(n), Some(n)).expect("taken");
            let time = if n == changes { 6_000 } else { 1 };
            pair.run(Duration::from_secs(time), |pair, end, event| match (end, event) {
                (End::Client, Event::Response { message, .. }) => {
                    let number = Sequence::new(message.uint(OptionNumber::OBSERVE).unwrap_or(0));
                    if number.is_newer(pair.now, seen.0, seen.1) {
                        seen = (number, pair.now);
                        latest = String::from_utf8_lossy(&message.payload).parse().unwrap_or(0);
                    }
                }
                // A timeout ends nothing: the device is reached again later.
                (End::Server, Event::Failed { tag, .. }) if tag == changes => {
                    let now = pair.now;
                    pair.server.notify(now, End::Client, token, value(changes), Some(changes)).expect("taken");
                }
                (End::Server, Event::Acknowledged(tag)) => settled |= tag == changes,
                _ => {}
            });
        }
        prop_assert!(settled);
        prop_assert_eq!(latest, changes);
    }
}
