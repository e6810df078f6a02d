//! Requests and responses of one device: the message layer over a [`Channel`].
//!
//! One request at a time; what else comes, which is notifications, waits in a short queue.

use std::collections::VecDeque;
use std::time::Duration;

use headgate_protocol::coap::{
    Counters, Endpoint, Event, Failure, Limits, Message, OptionNumber, Output, Parameters, Request,
    Token,
};
use tokio::time::{Instant, sleep};

use super::channel::Channel;
use crate::device::error::DeviceError;

/// What one device says and hears.
pub(super) struct Dialogue {
    channel: Channel,
    endpoint: Endpoint<(), u32>,
    asked: u32,
    come: VecDeque<(u32, Result<Message, Failure>)>,
    /// The observation of what waits.
    watch: Option<(u32, Token)>,
    counted: Counters,
}

impl Dialogue {
    /// Nothing said yet.
    pub(super) fn new(channel: Channel, ack_timeout: Duration, seed: u64) -> Self {
        let parameters = Parameters {
            ack_timeout,
            ..Parameters::default()
        };
        let limits = Limits {
            max_received: MAX_REMEMBERED,
            max_message_bytes: MAX_MESSAGE_BYTES,
            ..Limits::default()
        };
        Self {
            channel,
            endpoint: Endpoint::new(parameters, limits, KNOWN, seed),
            asked: 0,
            come: VecDeque::new(),
            watch: None,
            counted: Counters::default(),
        }
    }

    /// Asks, and waits for the response.
    ///
    /// # Errors
    /// [`DeviceError::Silent`]: there is none.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Message, DeviceError> {
        let (tag, _) = self.begin(request)?;
        self.response(tag).await
    }

    /// Whether something is observed.
    pub(super) const fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Asks with Observe, in place of what was observed before; gives the first response.
    ///
    /// # Errors
    /// As [`Dialogue::ask`].
    pub(super) async fn watch(&mut self, request: Request) -> Result<Message, DeviceError> {
        self.end_watch();
        let (tag, token) = self.begin(request.with_uint(OptionNumber::OBSERVE, 0))?;
        self.watch = Some((tag, token));
        self.response(tag).await
    }

    /// The next notification; `None` when none has come until then.
    ///
    /// # Errors
    /// [`DeviceError::Io`].
    pub(super) async fn notification(
        &mut self,
        until: Instant,
    ) -> Result<Option<Message>, DeviceError> {
        loop {
            while let Some((tag, come)) = self.come.pop_front() {
                if self.watch.is_some_and(|(watched, _)| watched == tag)
                    && let Ok(message) = come
                {
                    return Ok(Some(message));
                }
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.turn(until).await?;
        }
    }

    /// Says something that is not answered: the last word.
    pub(super) fn say(&mut self, request: Request) {
        // Nobody waits for it, and nobody would do anything where it fails.
        let _ = self.begin(request.non_confirmable());
        let _ = self.flush();
        self.channel.close();
    }

    /// Neither hears nor says anything.
    pub(super) async fn sleep(&mut self, time: Duration) {
        sleep(time).await;
        self.channel.deafen();
    }

    /// Retransmissions since the last call, and messages that were given up.
    pub(super) fn take_counters(&mut self) -> Counters {
        let now = self.endpoint.counters();
        let before = std::mem::replace(&mut self.counted, now);
        Counters {
            retransmissions: now.retransmissions - before.retransmissions,
            timeouts: now.timeouts - before.timeouts,
            ..Counters::default()
        }
    }

    fn end_watch(&mut self) {
        if let Some((_, token)) = self.watch.take() {
            self.endpoint.cancel((), token);
        }
        self.come.clear();
    }

    fn begin(&mut self, request: Request) -> Result<(u32, Token), DeviceError> {
        self.asked = self.asked.wrapping_add(1);
        let now = Instant::now().into_std();
        let token = self.endpoint.request(now, (), request, self.asked);
        let token = token.map_err(|error| DeviceError::Unexpected(error.to_string()))?;
        Ok((self.asked, token))
    }

    async fn response(&mut self, tag: u32) -> Result<Message, DeviceError> {
        loop {
            self.flush()?;
            if let Some(at) = self.come.iter().position(|(known, _)| *known == tag) {
                return match self.come.remove(at) {
                    Some((_, Ok(message))) => Ok(message),
                    _ => Err(DeviceError::Silent),
                };
            }
            self.turn(Instant::now() + LONGEST_REST).await?;
        }
    }

    /// Takes one datagram, or notes that time has passed.
    async fn turn(&mut self, until: Instant) -> Result<(), DeviceError> {
        self.flush()?;
        let due = self.endpoint.timeout().map(Instant::from_std);
        let due = due.map_or(until, |due| due.min(until));
        let received = self.channel.receive(due).await?;
        let now = Instant::now().into_std();
        match received {
            Some(datagram) => self.endpoint.handle_datagram(now, (), &datagram),
            None => self.endpoint.handle_timeout(now),
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { datagram, .. } => {
                    self.channel.send(&datagram)?;
                }
                Output::Event(Event::Response { tag, message }) => self.note(tag, Ok(*message)),
                Output::Event(Event::Failed { tag, failure }) => self.note(tag, Err(failure)),
                // A gateway asks its devices nothing.
                Output::Event(Event::Request { exchange, .. }) => self.endpoint.ignore(exchange),
                Output::Event(Event::Acknowledged(_)) => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, tag: u32, come: Result<Message, Failure>) {
        if self.come.len() >= MAX_COME {
            self.come.pop_front();
        }
        self.come.push_back((tag, come));
    }
}

/// The options that a device acts on.
const KNOWN: &[OptionNumber] = &[OptionNumber::BLOCK1, OptionNumber::BLOCK2];
/// Messages of the gateway that are remembered for their duplicates.
const MAX_REMEMBERED: usize = 64;
/// What every link of the Internet carries: room for a block of 1,024 bytes and a long query.
pub(super) const MAX_MESSAGE_BYTES: usize = 1_280;
/// Notifications that nobody has looked at.
const MAX_COME: usize = 8;
/// When nothing is due.
const LONGEST_REST: Duration = Duration::from_mins(5);
