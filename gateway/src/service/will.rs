//! Wills: messages that clients leave for the case that their connection breaks.
//!
//! A will is entered with its client's CONNECT, taken out by a DISCONNECT that says so, and published when the client
//! is lost: at once, or after its delay unless the client came back to its session meanwhile. It is stored, so that a
//! node that was killed publishes, when it starts again, what it held.
//! Invariants: number and bytes are bounded when a will is entered; each is published once, or once more after a crash
//! in that very moment.  Spec: MQTT 5.0 s3.1.2.5, s3.1.3.2.2.

mod book;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::book::Book;
pub use self::book::{TooManyWills, WillTicket};
use crate::{
    config::WillConfig,
    model::{Millis, Will, WillKey},
    service::uplink::{NotPublished, NotRetained, NotSent, Origin, Sending, Terms, Uplink},
    shutdown::Shutdown,
    store::{
        StoreError,
        sessions::{SessionStore, StoredWill, WillChange},
    },
    telemetry::metrics::{Metrics, WillEnd},
};

/// Wills that are published at one time.
const BATCH: usize = 64;
/// When what could not be published or stored is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The wills of all clients; a clone is another handle on them.
#[derive(Clone)]
pub struct Wills {
    inner: Arc<Inner>,
}

struct Inner {
    uplink: Uplink,
    store: SessionStore,
    book: Mutex<Book>,
    has_work: Notify,
    seconds: Histogram,
    metrics: Metrics,
}

/// What became of an attempt to publish one.
enum Attempt {
    Over(WillEnd),
    Again,
}

impl Wills {
    /// Takes the wills over that were left, and publishes them when they are due, until `shutdown` stops.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(
        uplink: Uplink,
        store: SessionStore,
        config: WillConfig,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let (now, wall) = (Instant::now(), Millis::now());
        let held_back = config.after_restart;
        let mut book = Book::new(config);
        // Where nodes share the store, what a node leaves is taken over when it is seen off.
        let left = if store.is_remote() {
            Vec::new()
        } else {
            store.load_wills().await?
        };
        for left in left {
            let wait = left
                .due_at
                .map_or(left.will.delay, |due_at| due_at.since(wall));
            book.restore(left.key, left.will, now + wait.max(held_back));
        }
        let inner = Arc::new(Inner {
            uplink,
            store,
            book: Mutex::new(book),
            has_work: Notify::new(),
            seconds: metrics.store_seconds("sessions", "wills"),
            metrics: metrics.clone(),
        });
        inner.show_depth();
        let (this, stop) = (Arc::clone(&inner), shutdown.token().clone());
        shutdown.spawn(async move { this.run(stop).await });
        Ok(Self { inner })
    }

    /// A client connects, with a will or without. What it left before is over: published, unless it comes back to its
    /// session within the delay.  Spec: MQTT 5.0 s3.1.3.2.2, s3.1.4.
    ///
    /// # Errors
    /// [`TooManyWills`]: the client is to be turned away.
    ///
    /// # Cancel safety
    /// A cancelled call may have published the former will.
    pub async fn enter(
        &self,
        key: &WillKey,
        will: Option<Will>,
        resumes: bool,
    ) -> Result<Option<WillTicket>, TooManyWills> {
        let former = self.inner.book.lock().take(key);
        if let Some(former) = former {
            if resumes && !former.delay.is_zero() {
                self.inner.metrics.wills.ended(WillEnd::Withdrawn).inc();
            } else if let Attempt::Over(end) = self.inner.publish(key, &former).await {
                self.inner.metrics.wills.ended(end).inc();
            } else {
                self.inner.metrics.wills.ended(WillEnd::Failed).inc();
            }
        }
        let ticket = match will {
            Some(will) => Some(self.inner.book.lock().enter(key, will).inspect_err(|_| {
                self.inner.metrics.wills.ended(WillEnd::Refused).inc();
            })?),
            None => None,
        };
        self.inner.work();
        Ok(ticket)
    }

    /// A client came to another node: what it left here is over, as [`Wills::enter`] says.
    pub async fn came_elsewhere(&self, key: &WillKey, resumes: bool) {
        // Without a will there is no limit to be above.
        let _none = self.enter(key, None, resumes).await;
    }

    /// Takes over what clients of a dead node left: due after its delay, and not before they had the time to come back.
    pub fn adopt(&self, wills: Vec<StoredWill>) {
        let (now, wall) = (Instant::now(), Millis::now());
        {
            let mut book = self.inner.book.lock();
            let held_back = book.held_back();
            for left in wills {
                let wait = left
                    .due_at
                    .map_or(left.will.delay, |due_at| due_at.since(wall));
                book.adopt(left.key, left.will, now + wait.max(held_back));
            }
        }
        self.inner.work();
    }

    /// Stores everything anew: the store may have forgotten it.
    pub fn store_again(&self) {
        self.inner.book.lock().note_all();
        self.inner.work();
    }

    /// The client took leave: its will is over.
    pub fn withdraw(&self, ticket: &WillTicket) {
        if self.inner.book.lock().remove(ticket) {
            self.inner.metrics.wills.ended(WillEnd::Withdrawn).inc();
            self.inner.work();
        }
    }

    /// The client is lost: its will is published after its delay, or after `session_expiry`, which is when its session
    /// ends, if that is sooner.
    pub fn lost(&self, ticket: &WillTicket, session_expiry: Duration) {
        if self
            .inner
            .book
            .lock()
            .lose(ticket, Instant::now(), session_expiry)
        {
            self.inner.work();
        }
    }
}

impl Inner {
    fn work(&self) {
        self.show_depth();
        self.has_work.notify_one();
    }

    fn show_depth(&self) {
        let (wills, unstored) = {
            let book = self.book.lock();
            (book.len(), book.unstored())
        };
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.wills.held.set(gauge(wills));
        self.metrics.wills.unstored.set(gauge(unstored));
    }

    async fn run(&self, stop: CancellationToken) {
        loop {
            let due = self.book.lock().next_due();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // What is not published by now is stored, for the next start.
                    self.store().await;
                    return;
                }
                () = self.has_work.notified() => {}
                () = wait => {}
            }
            self.publish_due().await;
            if !self.store().await {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETRY_INTERVAL) => self.has_work.notify_one(),
                }
            }
        }
    }

    async fn publish_due(&self) {
        loop {
            let due = self.book.lock().due(Instant::now(), BATCH);
            if due.is_empty() {
                return;
            }
            let attempts = due
                .iter()
                .map(|(ticket, will)| self.publish(ticket.key(), will));
            let attempts = join_all(attempts).await;
            let mut book = self.book.lock();
            for ((ticket, _), attempt) in due.iter().zip(attempts) {
                match attempt {
                    Attempt::Over(end) => {
                        self.metrics.wills.ended(end).inc();
                        book.remove(ticket);
                    }
                    Attempt::Again => book.postpone(ticket, Instant::now() + RETRY_INTERVAL),
                }
            }
            drop(book);
            self.show_depth();
        }
    }

    /// Publishes a will as its client would: with the client's rights as they are now.
    async fn publish(&self, key: &WillKey, will: &Will) -> Attempt {
        let message = will.publish(Millis::now());
        let id = &will.message.device.device_id;
        match self.uplink.device(id).await {
            Ok(Some(device)) if *device == will.message.device => {}
            // Topics of a device that was deleted are nobody's.
            Ok(_) => return Attempt::Over(WillEnd::Failed),
            Err(_) => return Attempt::Again,
        }
        match key {
            WillKey::Device(_) => match self
                .uplink
                .publish_from_device(message, Terms::default())
                .await
            {
                Ok(_) => Attempt::Over(WillEnd::Published),
                Err(NotPublished::NotRetained(NotRetained::Full)) => Attempt::Over(WillEnd::Failed),
                Err(error) => {
                    tracing::warn!(%error, device_id = %id, "a will could not be published");
                    Attempt::Again
                }
            },
            WillKey::Application(app, _) => {
                let origin = Origin::App(app, None);
                match self
                    .uplink
                    .publish_to_device(origin, message, Sending::default())
                    .await
                {
                    // One of QoS 0 reaches whoever is there.
                    Ok(_) | Err(NotSent::Offline) => Attempt::Over(WillEnd::Published),
                    Err(error @ (NotSent::Unavailable | NotSent::Store(_))) => {
                        tracing::warn!(%error, app_id = %app, "a will could not be published");
                        Attempt::Again
                    }
                    Err(error) => {
                        tracing::info!(%error, app_id = %app, "a will was dropped");
                        Attempt::Over(WillEnd::Failed)
                    }
                }
            }
        }
    }

    /// Stores what has changed; says whether that worked.
    async fn store(&self) -> bool {
        loop {
            let changed = self.book.lock().take_changed();
            if changed.is_empty() {
                self.show_depth();
                return true;
            }
            let now = (Instant::now(), Millis::now());
            let changes: Vec<WillChange<'_>> = changed
                .iter()
                .map(|(key, kept)| {
                    let kept = kept.as_ref().map(|(will, due)| {
                        let due_at = due.map(|due| now.1.after(due.duration_since(now.0)));
                        (&**will, due_at)
                    });
                    (key, kept)
                })
                .collect();
            let timer = self.seconds.start_timer();
            let stored = self.store.change_wills(&changes).await;
            timer.observe_duration();
            if let Err(error) = stored {
                tracing::error!(%error, wills = changed.len(), "wills could not be stored");
                self.book
                    .lock()
                    .note_changed(changed.into_iter().map(|(key, _)| key));
                return false;
            }
        }
    }
}

impl fmt::Debug for Wills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wills").finish_non_exhaustive()
    }
}
