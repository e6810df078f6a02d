//! Who waits for the response of a device: known by the topic that the response will come on, in
//! which the vendors put the request's id, or which the request names.
//!
//! Invariants: at most as many wait as the limit says; whoever stops waiting takes no place.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use headgate_protocol::{identity::DeviceId, topics};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::Message;

/// The requests that wait for their responses. Cloning shares them.
#[derive(Clone)]
pub struct Requests {
    inner: Arc<Inner>,
}

struct Inner {
    waiting: Mutex<HashMap<Key, oneshot::Sender<Message>>>,
    /// So that a message costs a look at a number while nobody waits.
    count: AtomicUsize,
    max: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    device: DeviceId,
    topic: Box<str>,
}

/// Why a response cannot be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotExpected {
    /// What is sent there has no response.
    #[error("what is sent on this topic has no response; name a response_topic")]
    NoResponse,
    /// A request with this id waits already.
    #[error("a request with this id waits for its response already")]
    SameId,
    /// As many wait as may.
    #[error("as many requests wait for their responses as may")]
    TooMany,
}

/// A place among those that wait; dropped, it waits no more.
pub struct Waiting {
    requests: Requests,
    key: Key,
    response: oneshot::Receiver<Message>,
}

impl Requests {
    /// Nobody waits; at most `max` will.
    pub fn new(max: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                waiting: Mutex::default(),
                count: AtomicUsize::new(0),
                max,
            }),
        }
    }

    /// Begins to wait for the response to a request that is about to be sent to `device` on `topic`:
    /// on `response_topic`, where the request names one, else where the topic's vendor has it.
    ///
    /// # Errors
    /// [`NotExpected`].
    pub fn expect(
        &self,
        device: &DeviceId,
        topic: &str,
        response_topic: Option<&str>,
    ) -> Result<Waiting, NotExpected> {
        let response = response_topic
            .map(str::to_owned)
            .or_else(|| topics::response_to(topic))
            .ok_or(NotExpected::NoResponse)?;
        let key = Key {
            device: device.clone(),
            topic: response.into_boxed_str(),
        };
        let mut waiting = self.inner.waiting.lock();
        if waiting.len() >= self.inner.max {
            return Err(NotExpected::TooMany);
        }
        let Entry::Vacant(place) = waiting.entry(key.clone()) else {
            return Err(NotExpected::SameId);
        };
        let (answer, response) = oneshot::channel();
        place.insert(answer);
        self.inner.count.store(waiting.len(), Ordering::Release);
        drop(waiting);
        Ok(Waiting {
            requests: self.clone(),
            key,
            response,
        })
    }

    /// Hands a message of a device to whoever waits for it; says whether somebody did.
    pub fn answer(&self, message: &Message) -> bool {
        if self.inner.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let key = Key {
            device: message.device.device_id.clone(),
            topic: message.topic.as_str().into(),
        };
        let answer = self.take(&key);
        answer.is_some_and(|answer| answer.send(message.clone()).is_ok())
    }

    fn take(&self, key: &Key) -> Option<oneshot::Sender<Message>> {
        let mut waiting = self.inner.waiting.lock();
        let taken = waiting.remove(key);
        self.inner.count.store(waiting.len(), Ordering::Release);
        taken
    }
}

impl Waiting {
    /// The response, once it is there; for ever where none comes.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn response(&mut self) -> Message {
        match (&mut self.response).await {
            Ok(message) => message,
            // The sender stays in the table until it has sent or this is dropped.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Answered: the id may have been taken by another request since.
        if self.response.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            self.requests.take(&self.key);
        }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("waiting", &self.inner.count.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("topic", &self.key.topic)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headgate_protocol::mqtt::QoS;

    use super::*;
    use crate::model::{DeviceName, MessageProperties, Millis};

    const REQUEST: &str = "$oc/devices/P_d/sys/commands/request_id=1";
    const RESPONSE: &str = "$oc/devices/P_d/sys/commands/response/request_id=1";

    fn device(id: &str) -> DeviceId {
        id.parse().expect("legal")
    }

    fn message(from: &str, topic: &str) -> Message {
        Message {
            device: DeviceName {
                device_id: device(from),
                product_id: "P".parse().expect("legal"),
                node_id: "d".parse().expect("legal"),
            },
            topic: topic.parse().expect("a topic"),
            payload: Bytes::from_static(b"{}"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            at: Millis::from_i64(1),
        }
    }

    #[tokio::test]
    async fn a_response_goes_to_the_one_request_with_its_id() {
        let requests = Requests::new(8);
        let mut waiting = requests
            .expect(&device("P_d"), REQUEST, None)
            .expect("room");
        assert!(
            !requests.answer(&message("P_other", RESPONSE)),
            "another device"
        );
        assert!(!requests.answer(&message("P_d", "P/d/x")));
        assert!(requests.answer(&message("P_d", RESPONSE)));
        assert!(!requests.answer(&message("P_d", RESPONSE)), "once");
        assert_eq!(waiting.response().await.topic.as_str(), RESPONSE);
    }

    #[test]
    fn what_cannot_be_waited_for_is_said() {
        let requests = Requests::new(1);
        let expect = |topic: &str| requests.expect(&device("P_d"), topic, None).map(drop);
        assert_eq!(expect("P/d/x"), Err(NotExpected::NoResponse));
        let first = requests
            .expect(&device("P_d"), REQUEST, None)
            .expect("room");
        assert_eq!(expect("$rrpc/rxd/P/d/1"), Err(NotExpected::TooMany));
        drop(first);
        assert_eq!(expect("$rrpc/rxd/P/d/1"), Ok(()), "its place is free");

        let requests = Requests::new(2);
        let _first = requests
            .expect(&device("P_d"), REQUEST, None)
            .expect("room");
        let again = requests.expect(&device("P_d"), REQUEST, None).map(drop);
        assert_eq!(again, Err(NotExpected::SameId));
    }

    #[test]
    fn an_answered_request_leaves_the_next_one_with_its_id_alone() {
        let requests = Requests::new(2);
        let first = requests
            .expect(&device("P_d"), REQUEST, None)
            .expect("room");
        assert!(requests.answer(&message("P_d", RESPONSE)));
        let _second = requests
            .expect(&device("P_d"), REQUEST, None)
            .expect("room");
        drop(first);
        assert!(
            requests.answer(&message("P_d", RESPONSE)),
            "the second waits"
        );
    }
}
