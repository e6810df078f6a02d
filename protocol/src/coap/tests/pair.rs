//! Two endpoints and what is between them: a virtual clock, and a network that loses, doubles and reorders.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::coap::{
    Endpoint, Event, Limits, OptionNumber, Output, Parameters, random::Random, tests::epoch,
};

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Client,
    Server,
}

/// What the network does to datagrams, in hundredths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) reordering: u32,
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) client: Endpoint<End, u32>,
    pub(super) server: Endpoint<End, u32>,
    pub(super) weather: Weather,
    random: Random,
    /// What is on its way, by the time of its arrival.
    flying: BTreeMap<(Instant, u64), (End, Bytes)>,
    sent: u64,
    /// Every datagram that was sent, for tests that look at them.
    pub(super) log: Vec<(End, Bytes)>,
}

pub(super) const KNOWN: &[OptionNumber] = &[
    OptionNumber::URI_PATH,
    OptionNumber::URI_QUERY,
    OptionNumber::BLOCK1,
    OptionNumber::BLOCK2,
];

impl Pair {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        let end = |seed| Endpoint::new(Parameters::default(), Limits::default(), KNOWN, seed);
        Self {
            now: epoch(),
            client: end(seed),
            server: end(seed ^ 0xffff),
            weather,
            random: Random::new(seed),
            flying: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
        }
    }

    /// Goes on to the next thing that happens; gives the events of either end. `None`: nothing is left to happen
    /// before `until`.
    pub(super) fn step(&mut self, until: Instant) -> Option<Vec<(End, Event<End, u32>)>> {
        let events = self.drain();
        if !events.is_empty() {
            return Some(events);
        }
        let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
        let timers = [self.client.timeout(), self.server.timeout()];
        let next = timers.into_iter().flatten().chain(arrival).min()?;
        if next > until {
            self.now = until;
            return None;
        }
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= self.now)
            && let Some((_, (to, datagram))) = self.flying.pop_first()
        {
            let (end, from) = match to {
                End::Client => (&mut self.client, End::Server),
                End::Server => (&mut self.server, End::Client),
            };
            end.handle_datagram(self.now, from, &datagram);
        } else {
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        Some(self.drain())
    }

    /// Runs for so long; `act` is told of every event.
    pub(super) fn run(
        &mut self,
        time: Duration,
        mut act: impl FnMut(&mut Self, End, Event<End, u32>),
    ) {
        let until = self.now + time;
        while let Some(events) = self.step(until) {
            for (end, event) in events {
                act(self, end, event);
            }
        }
    }

    fn drain(&mut self) -> Vec<(End, Event<End, u32>)> {
        let mut events = Vec::new();
        for end in [End::Client, End::Server] {
            loop {
                let output = match end {
                    End::Client => self.client.poll_output(),
                    End::Server => self.server.poll_output(),
                };
                match output {
                    None => break,
                    Some(Output::Event(event)) => events.push((end, event)),
                    Some(Output::Transmit { peer, datagram }) => {
                        self.log.push((end, datagram.clone()));
                        self.fly(peer, &datagram);
                    }
                }
            }
        }
        events
    }

    fn fly(&mut self, to: End, datagram: &Bytes) {
        let copies = if self.chance(self.weather.loss) {
            0
        } else {
            1 + u32::from(self.chance(self.weather.duplication))
        };
        for _ in 0..copies {
            let mut delay = Duration::from_millis(20);
            if self.chance(self.weather.reordering) {
                delay += Duration::from_millis(u64::from(self.random.next_u16() % 5_000));
            }
            self.sent += 1;
            let key = (self.now + delay, self.sent);
            self.flying.insert(key, (to, datagram.clone()));
        }
    }

    fn chance(&mut self, hundredths: u32) -> bool {
        self.random.next_u32() % 100 < hundredths
    }
}
