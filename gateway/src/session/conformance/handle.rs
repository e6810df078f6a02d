//! How the space reaches a connected client.

use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::{
    service::space::Link,
    session::{
        handle::CloseReason,
        signals::{Signal, SignalSet, Signals},
    },
};

/// One connection of the conformance profile as others see it.
#[derive(Debug)]
pub(crate) struct ConformanceHandle {
    client_id: Box<str>,
    signals: SignalSet,
    close: Mutex<Option<CloseReason>>,
}

impl ConformanceHandle {
    pub(super) fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.into(),
            signals: SignalSet::default(),
            close: Mutex::new(None),
        }
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn poll_signals(&self, cx: &Context<'_>) -> Poll<Signals> {
        self.signals.poll(cx)
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        *self.close.lock()
    }
}

impl Link for ConformanceHandle {
    fn wake(&self) {
        self.signals.raise(Signal::Mail);
    }

    fn end(&self, is_takeover: bool) {
        self.close.lock().get_or_insert(if is_takeover {
            CloseReason::Takeover
        } else {
            CloseReason::Shutdown
        });
        self.signals.raise(Signal::Close);
    }
}
