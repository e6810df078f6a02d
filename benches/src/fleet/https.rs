//! Clients that fetch one file over HTTPS, read it to its end and keep nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{
    ClientError, Dial, FLEET_TIMEOUT, MAX_CONNECTING, Socket, first_end, read_shared, until_all,
};

/// Clients that are connected and wait for the word.
pub(crate) struct Fleet {
    clients: usize,
    go: watch::Sender<bool>,
    done: Arc<AtomicUsize>,
    tasks: JoinSet<Result<(), ClientError>>,
}

impl Fleet {
    /// Connects `clients` that will ask for `path` and expect `size_bytes`.
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn connect(
        dial: &Dial,
        clients: u32,
        path: &'static str,
        size_bytes: u64,
    ) -> Result<Self, ClientError> {
        let (go, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            connected: AtomicUsize::new(0),
            connecting: Semaphore::new(MAX_CONNECTING),
        });
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let client = Client {
                dial: dial.clone(),
                shared: Arc::clone(&shared),
                go: go.subscribe(),
                done: Arc::clone(&done),
                path,
                size_bytes,
            };
            tasks.spawn(client.run());
        }
        let clients = tasks.len();
        let connected = || shared.connected.load(Ordering::Relaxed);
        let first_error = || first_end(&mut tasks);
        until_all(clients, "connected", FLEET_TIMEOUT, connected, first_error).await?;
        Ok(Self {
            clients,
            go,
            done,
            tasks,
        })
    }

    /// Lets all of them ask at once and waits until the last has everything.
    ///
    /// # Errors
    /// The first client's [`ClientError`].
    pub(crate) async fn fetch(mut self) -> Result<(), ClientError> {
        self.go.send_replace(true);
        let done = || self.done.load(Ordering::Relaxed);
        let tasks = &mut self.tasks;
        let first_error = || match tasks.try_join_next() {
            Some(joined) => joined.map_err(|_| ClientError::Ended)?,
            None => Ok(()),
        };
        until_all(
            self.clients,
            "have it all",
            FLEET_TIMEOUT,
            done,
            first_error,
        )
        .await
    }
}

struct Shared {
    connected: AtomicUsize,
    connecting: Semaphore,
}

struct Client {
    dial: Dial,
    shared: Arc<Shared>,
    go: watch::Receiver<bool>,
    done: Arc<AtomicUsize>,
    path: &'static str,
    size_bytes: u64,
}

impl Client {
    async fn run(mut self) -> Result<(), ClientError> {
        let permit = self.shared.connecting.acquire().await;
        let mut socket = self.dial.open(None).await?;
        drop(permit);
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        // An error: the fleet is gone, nothing is to be asked.
        if self.go.wait_for(|&go| go).await.is_err() {
            return Ok(());
        }
        self.fetch(&mut socket).await?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn fetch(&self, socket: &mut Box<dyn Socket>) -> Result<(), ClientError> {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path);
        socket.write_all(request.as_bytes()).await?;
        socket.flush().await?;
        let mut head = Vec::new();
        let mut received = 0_u64;
        while received < self.size_bytes {
            let (read, body) =
                read_shared(socket, |bytes| (bytes.len(), body_bytes(&mut head, bytes))).await?;
            if read == 0 {
                return Err(ClientError::Answer(format!("end after {received} bytes")));
            }
            received += body as u64;
        }
        if head.starts_with(b"HTTP/1.1 200") && received == self.size_bytes {
            Ok(())
        } else {
            let head = String::from_utf8_lossy(&head);
            Err(ClientError::Answer(format!(
                "{received} bytes after {head}"
            )))
        }
    }
}

/// How many of `bytes` belong to the body; those of the head are appended to `head`.
fn body_bytes(head: &mut Vec<u8>, bytes: &[u8]) -> usize {
    if head.ends_with(HEAD_END) {
        return bytes.len();
    }
    let before = head.len();
    head.extend_from_slice(bytes);
    let end = head
        .windows(HEAD_END.len())
        .position(|window| window == HEAD_END);
    match end {
        Some(start) => {
            head.truncate(start + HEAD_END.len());
            before + bytes.len() - head.len()
        }
        None => 0,
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_counted_from_the_end_of_the_head() {
        let mut head = Vec::new();
        assert_eq!(body_bytes(&mut head, b"HTTP/1.1 200 OK\r\nA: b\r\n\r"), 0);
        assert_eq!(body_bytes(&mut head, b"\nabc"), 3);
        assert_eq!(body_bytes(&mut head, b"\r\n\r\nx"), 5);
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    }
}
