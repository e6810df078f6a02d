//! Two endpoints on a virtual clock over a link that breaks: whatever the schedule of
//! disconnections, crashes and resumptions, QoS 1 arrives at least once and QoS 2 exactly once.
//!
//! [`Server`] drives a [`Connection`](super::Connection) as a gateway does, with a store that says what a
//! crash leaves; [`Client`] is a client's side of the protocol. Packets travel as bytes. What is on
//! the way when the link breaks is lost from some packet on, in each direction; the server may
//! learn of it late, and may be asked for the session again before it does.

mod client;
mod server;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use self::{client::Client, server::Server};
use super::*;

/// How a run goes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    version: ProtocolVersion,
    qos: QoS,
    /// Messages each way.
    messages: u32,
    /// Whether the server may lose all but what it stored.
    crashes: bool,
    seed: u64,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Up,
    Down,
    ServerSends,
    ClientSends,
    ClientAnswers,
    ServerAnswers,
    Break,
    ServerNotices,
    Connect,
    Crash,
    TimePasses,
}

/// A small generator: the same seed, the same run.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).expect("fits")).expect("fits")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Packets on their way, each when it arrives at the earliest.
#[derive(Debug, Default)]
struct Lane(VecDeque<(Instant, Bytes)>);

impl Lane {
    fn send(&mut self, now: Instant, rng: &mut Rng, packets: Vec<Bytes>) {
        for packet in packets {
            let delay = Duration::from_millis(u64::try_from(rng.below(40)).expect("fits"));
            // A stream: nothing overtakes.
            let last = self.0.back().map_or(now, |(at, _)| *at);
            self.0.push_back((last.max(now + delay), packet));
        }
    }

    fn receive(&mut self, now: Instant) -> Option<Bytes> {
        self.0
            .pop_front_if(|(at, _)| *at <= now)
            .map(|(_, packet)| packet)
    }

    /// The link is gone: a part of what was sent still arrives.
    fn cut(&mut self, rng: &mut Rng) {
        let arrive = rng.below(self.0.len() + 1);
        self.0.truncate(arrive);
    }
}

struct Pair {
    now: Instant,
    rng: Rng,
    plan: Plan,
    server: Server,
    client: Client,
    up: Lane,
    down: Lane,
    /// Packets of an earlier link that the server has not read.
    late: Lane,
    trace: VecDeque<Step>,
}

impl Pair {
    fn new(plan: Plan) -> Self {
        let now = now();
        Self {
            now,
            rng: Rng(plan.seed),
            plan,
            server: Server::new(now),
            client: Client::new(plan.version, plan.qos),
            up: Lane::default(),
            down: Lane::default(),
            late: Lane::default(),
            trace: VecDeque::new(),
        }
    }

    fn run(mut self) {
        const STEPS: &[Step] = &[
            Step::Up,
            Step::Up,
            Step::Up,
            Step::Down,
            Step::Down,
            Step::Down,
            Step::ServerSends,
            Step::ClientSends,
            Step::ClientAnswers,
            Step::ClientAnswers,
            Step::ServerAnswers,
            Step::ServerAnswers,
            Step::Connect,
            Step::Connect,
            Step::TimePasses,
            Step::TimePasses,
            Step::ServerNotices,
        ];
        for _ in 0..600 {
            let step = match self.rng.below(40) {
                0 => Step::Break,
                1 if self.plan.crashes => Step::Crash,
                _ => self.rng.pick(STEPS),
            };
            self.act(step);
        }
        self.calm_down();
        let expected: Vec<u32> = (0..self.plan.messages).collect();
        for (what, got) in [
            ("to the client", &self.client.received),
            ("to the server", &self.server.received),
        ] {
            if self.plan.qos == QoS::ExactlyOnce {
                assert_eq!(got, &expected, "{what}: {:?}", self.plan);
            } else {
                let mut first: Vec<u32> = Vec::new();
                for number in got {
                    if !first.contains(number) {
                        first.push(*number);
                    }
                }
                assert_eq!(first, expected, "{what}: {:?}", self.plan);
            }
        }
        let mut done = self.server.acknowledged.clone();
        done.sort_unstable();
        done.dedup();
        assert_eq!(done, expected, "every exchange came to its end");
    }

    /// The link holds from now on, until nothing is left to say.
    fn calm_down(&mut self) {
        for _ in 0..200_000 {
            if self.is_done() {
                return;
            }
            for step in [
                Step::Connect,
                Step::ServerSends,
                Step::ClientSends,
                Step::TimePasses,
                Step::Up,
                Step::Down,
                Step::ClientAnswers,
                Step::ServerAnswers,
            ] {
                self.act(step);
            }
        }
        panic!(
            "not at rest: {:?} {:?} {:?}",
            self.plan, self.client, self.trace
        );
    }

    fn is_done(&self) -> bool {
        self.client.sent == self.plan.messages
            && self.server.sent == self.plan.messages
            && self.client.is_at_rest()
            && self.server.is_at_rest()
            && self.up.0.is_empty()
            && self.down.0.is_empty()
    }

    fn act(&mut self, step: Step) {
        if self.trace.len() == 64 {
            self.trace.pop_front();
        }
        self.trace.push_back(step);
        let Self { now, rng, .. } = self;
        match step {
            Step::Up => {
                // An earlier link's packets come first, as long as the server has not noticed its end.
                if let Some(packet) = self.late.receive(*now) {
                    self.server.handle(*now, &packet);
                } else if let Some(packet) = self.up.receive(*now) {
                    self.server.handle(*now, &packet);
                }
            }
            Step::Down => {
                if let Some(packet) = self.down.receive(*now) {
                    self.client.handle(&packet);
                }
            }
            Step::ServerSends if self.server.sent < self.plan.messages => {
                self.server.send(*now, self.plan.qos);
            }
            Step::ClientSends if self.client.sent < self.plan.messages => self.client.send(),
            Step::ClientAnswers => self.client.answer(),
            Step::ServerAnswers => self.server.answer(),
            Step::Break => self.break_link(),
            Step::ServerNotices if !self.client.is_connected() => {
                self.late.0.clear();
                self.server.lose_link();
            }
            Step::Connect if !self.client.is_connected() => {
                // A takeover: what the server has not read of the old link, it never reads.
                self.late.0.clear();
                self.server.lose_link();
                self.server.listen(*now);
                let receive_maximum = u16::try_from(1 + rng.below(5)).expect("fits");
                self.client.connect(receive_maximum);
            }
            Step::Crash => {
                self.break_link();
                self.late.0.clear();
                self.server.crash();
            }
            Step::TimePasses => {
                *now += Duration::from_millis(u64::try_from(rng.below(60)).expect("fits"));
                self.server.tick(*now);
            }
            Step::ServerSends | Step::ClientSends | Step::ServerNotices | Step::Connect => {}
        }
        let said = self.client.take_output();
        self.up.send(self.now, &mut self.rng, said);
        let said = self.server.take_output();
        if self.client.is_connected() {
            self.down.send(self.now, &mut self.rng, said);
        }
    }

    fn break_link(&mut self) {
        if self.client.is_connected() {
            self.up.cut(&mut self.rng);
            self.down.cut(&mut self.rng);
            // What still arrives at the client arrives before it learns of the break.
            while let Some((_, packet)) = self.down.0.pop_front() {
                self.client.handle(&packet);
            }
            self.late = std::mem::take(&mut self.up);
            self.client.lose_link();
        }
    }
}

#[test]
fn a_quiet_link_hands_everything_over() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut pair = Pair::new(Plan {
                version,
                qos,
                messages: 30,
                crashes: false,
                seed: 1,
            });
            pair.calm_down();
            let expected: Vec<u32> = (0..30).collect();
            assert_eq!(pair.client.received, expected);
            assert_eq!(pair.server.received, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn qos_1_arrives_at_least_once(seed: u64, is_v5: bool, crashes: bool) {
        Pair::new(Plan {
            version: if is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 },
            qos: QoS::AtLeastOnce,
            messages: 40,
            crashes,
            seed,
        })
        .run();
    }

    #[test]
    fn qos_2_arrives_exactly_once_and_in_order(seed: u64, is_v5: bool, crashes: bool) {
        Pair::new(Plan {
            version: if is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 },
            qos: QoS::ExactlyOnce,
            messages: 40,
            crashes,
            seed,
        })
        .run();
    }
}
