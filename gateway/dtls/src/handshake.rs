//! One peer's handshake, from its first good cookie on.

use std::time::Instant;

use crate::{
    context::{Context, Key, Progress},
    error::HandshakeFailure,
    record::Record,
};

/// What is held of a peer while its key is looked up: its last flight, which comes again anyway if some is lost.
const MAX_HELD: usize = 8;

/// A handshake under way.
pub(crate) struct Handshake {
    pub(crate) context: Context,
    /// Of its `ClientHello`: another one is another handshake.
    pub(crate) random: [u8; 32],
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// What the peer says it is, once it has said so.
    pub(crate) identity: Option<Box<[u8]>>,
    /// Records that wait for a key.
    held: Vec<Box<[u8]>>,
    awaits_key: bool,
}

/// What came of a record.
pub(crate) enum Step {
    Done,
    Pending,
    /// The key of this identity is needed before it can go on.
    KeyWanted(Box<[u8]>),
    Failed(HandshakeFailure),
}

impl Handshake {
    pub(crate) fn new(context: Context, random: [u8; 32], deadline: Instant) -> Self {
        Self {
            context,
            random,
            deadline,
            identity: None,
            held: Vec::new(),
            awaits_key: false,
        }
    }

    /// Takes a record.
    pub(crate) fn take(&mut self, now: Instant, record: &Record<'_>) -> Step {
        if self.awaits_key {
            self.hold(record.bytes);
            return Step::Pending;
        }
        let named = record.psk_identity();
        if let Some(identity) = named.filter(|_| self.identity.is_none()) {
            self.identity = Some(identity.into());
            self.awaits_key = true;
            self.hold(record.bytes);
            return Step::KeyWanted(identity.into());
        }
        self.go_on(now, Some(record.bytes))
    }

    /// Goes on because of the time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::Failed(HandshakeFailure::Timeout);
        }
        if self.awaits_key {
            return Step::Pending;
        }
        let is_due = self.context.deadline().is_some_and(|at| at <= now);
        if is_due {
            self.go_on(now, None)
        } else {
            Step::Pending
        }
    }

    /// Goes on with the key that was asked for.
    pub(crate) fn provide_key(&mut self, now: Instant, key: Key) -> Step {
        if !std::mem::take(&mut self.awaits_key) {
            return Step::Pending;
        }
        self.context.set_key(key);
        for record in std::mem::take(&mut self.held) {
            match self.go_on(now, Some(&record)) {
                Step::Pending => {}
                step => return step,
            }
        }
        Step::Pending
    }

    /// When it wants to be called because of the time.
    pub(crate) fn timeout(&mut self) -> Instant {
        let own = self.deadline;
        self.context.deadline().map_or(own, |at| at.min(own))
    }

    fn hold(&mut self, record: &[u8]) {
        let is_new = !self.held.iter().any(|held| **held == *record);
        if is_new && self.held.len() < MAX_HELD {
            self.held.push(record.into());
        }
    }

    fn go_on(&mut self, now: Instant, record: Option<&[u8]>) -> Step {
        let awaited_finished = self.context.awaits_finished();
        match self.context.handshake(now, record) {
            Progress::Done => Step::Done,
            Progress::Pending | Progress::CookieSent => Step::Pending,
            Progress::Failed(code) => {
                let awaits_finished = awaited_finished || self.context.awaits_finished();
                let has_key = self.identity.is_some();
                Step::Failed(failure(code, awaits_finished && has_key))
            }
        }
    }
}

/// What an error of the library means; a bad MAC where the other side had to show its key means another key.
pub(crate) fn failure(code: i32, shows_key: bool) -> HandshakeFailure {
    use mbedtls_rs_sys as sys;
    match code {
        sys::MBEDTLS_ERR_SSL_INVALID_MAC if shows_key => HandshakeFailure::WrongKey,
        sys::MBEDTLS_ERR_SSL_TIMEOUT => HandshakeFailure::Timeout,
        sys::MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE | sys::MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY => {
            HandshakeFailure::Alert
        }
        sys::MBEDTLS_ERR_SSL_BAD_CERTIFICATE
        | sys::MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE
        | sys::MBEDTLS_ERR_X509_CERT_VERIFY_FAILED => HandshakeFailure::BadCertificate,
        code => HandshakeFailure::Protocol(code),
    }
}
