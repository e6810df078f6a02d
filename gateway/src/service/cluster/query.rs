//! Questions to other nodes that are answered with words: who is connected there, and how.
//!
//! A question goes by the nodes' streams, like everything that they tell each other, and its answer comes the same way.
//! Invariants: of questions a bounded number is under way, at who asks and at who answers, and one more waits or is not
//! answered; who does not answer in time is left out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use super::{Cluster, Handler, NodeNumber, Telling};
use crate::{shutdown::Shutdown, store::StoreError};

/// By which a node is told the answer to a question.
pub(super) const ANSWER: &str = "answer";
/// How long the others have to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions under way at one time, asked by this node; and those of others that it answers.
const MAX_QUESTIONS: usize = 8;
/// Bytes of a question's number, before what is asked or answered.
const NUMBER_BYTES: usize = 8;

/// The most bytes that an answer may have: it waits in the store until it is read.
pub const MAX_ANSWER_BYTES: usize = 512 * 1024;

/// Answers what other nodes ask of one kind.
pub trait Answers: Send + Sync {
    /// The answer; `None` where the question makes no sense. At most [`MAX_ANSWER_BYTES`].
    fn answer(&self, question: Bytes) -> BoxFuture<'_, Option<Vec<u8>>>;
}

/// The questions of this node that are under way.
pub(super) struct Questions {
    places: Semaphore,
    waiting: Mutex<HashMap<u64, mpsc::Sender<(NodeNumber, Bytes)>>>,
}

impl Questions {
    pub(super) fn new() -> Self {
        Self {
            places: Semaphore::new(MAX_QUESTIONS),
            waiting: Mutex::default(),
        }
    }

    /// A node has answered; whoever asked may be gone.
    pub(super) fn answered(&self, from: NodeNumber, body: &Bytes) {
        let Some((number, answer)) = split(body) else {
            return;
        };
        if let Some(asker) = self.waiting.lock().get(&number) {
            let _full = asker.try_send((from, answer));
        }
    }
}

/// A question whose asker waits; dropped, nobody does.
struct Waiting<'a> {
    questions: &'a Questions,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.questions.waiting.lock().remove(&self.number);
    }
}

impl Cluster {
    /// Asks nodes something; gives the answers that came in time.
    ///
    /// # Errors
    /// What the store says; nobody was asked then.
    ///
    /// # Cancel safety
    /// Safe: answers are dropped.
    pub async fn query(
        &self,
        nodes: &[NodeNumber],
        kind: &'static str,
        question: &[u8],
    ) -> Result<Vec<(NodeNumber, Bytes)>, StoreError> {
        let mut heard = Vec::with_capacity(nodes.len());
        if nodes.is_empty() {
            return Ok(heard);
        }
        let (inner, deadline) = (&self.inner, Instant::now() + ANSWER_TIMEOUT);
        let questions = &inner.questions;
        let Ok(_place) = timeout_at(deadline, questions.places.acquire()).await else {
            return Ok(heard);
        };
        let number = inner
            .asks
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (asker, mut answers) = mpsc::channel(nodes.len());
        questions.waiting.lock().insert(number, asker);
        let _waiting = Waiting { questions, number };
        let body = numbered(number, question);
        let asked = inner.store.tell(nodes, kind, 0, &body).await?;
        while heard.len() < asked.len() {
            match timeout_at(deadline, answers.recv()).await {
                Ok(Some(answer)) => heard.push(answer),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(heard)
    }

    /// Has questions of a kind answered; before [`Cluster::spawn`].
    pub fn answer(&self, kind: &'static str, answers: Arc<dyn Answers>, shutdown: &Shutdown) {
        let responder = Responder {
            cluster: self.clone(),
            answers,
            shutdown: shutdown.clone(),
            places: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        };
        self.on(kind, Arc::new(responder));
    }
}

/// Answers beside what else this node hears: that does not wait for it.
struct Responder {
    cluster: Cluster,
    answers: Arc<dyn Answers>,
    shutdown: Shutdown,
    places: Arc<Semaphore>,
}

impl Handler for Responder {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        let done = Box::pin(std::future::ready(()));
        let Some((number, question)) = split(&telling.body) else {
            return done;
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!("another node asks more than can be answered");
            return done;
        };
        let (cluster, answers) = (self.cluster.clone(), Arc::clone(&self.answers));
        let stop = self.shutdown.token().clone();
        self.shutdown.spawn(async move {
            let answering = async {
                let Some(answer) = answers.answer(question).await else {
                    return;
                };
                let (to, body) = ([telling.from], numbered(number, &answer));
                let told = cluster.inner.store.tell(&to, ANSWER, 0, &body).await;
                if let Err(error) = told {
                    tracing::debug!(%error, "another node's question could not be answered");
                }
            };
            stop.run_until_cancelled(answering).await;
            drop(place);
        });
        done
    }
}

fn numbered(number: u64, body: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), body].concat()
}

fn split(body: &Bytes) -> Option<(u64, Bytes)> {
    let number = body.first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_be_bytes(*number), body.slice(NUMBER_BYTES..)))
}
