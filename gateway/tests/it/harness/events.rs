//! A stream of server-sent events on a connection of its own.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{PATIENCE, Site};

/// One event; a comment has neither.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Events {
    stream: TcpStream,
    /// What has come and is no whole chunk.
    raw: Vec<u8>,
    /// What has come and is no whole event.
    text: String,
    ready: VecDeque<Event>,
    /// The last chunk has come.
    has_ended: bool,
    /// Comments that came.
    pub(crate) comments: usize,
}

impl Events {
    /// Opens a stream; gives the status where it is none.
    pub(crate) async fn open(
        site: &Site,
        path: &str,
        authorization: &str,
        more: &str,
    ) -> Result<Self, u16> {
        let address = site.ports.http.expect("an HTTP listener");
        let socket = TcpSocket::new_v4().expect("a socket");
        // Small, so that a reader that does not read is soon felt.
        socket.set_recv_buffer_size(4096).expect("a size");
        let mut stream = socket.connect(address).await.expect("it listens");
        let request = format!(
            "GET /api/v1{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut raw = Vec::new();
        let head = loop {
            if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = raw.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut raw, rest)).expect("a head");
            }
            assert!(read(&mut stream, &mut raw).await, "a head");
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        match status.expect("a status") {
            200 => {
                assert!(head.contains("content-type: text/event-stream"), "{head}");
                Ok(Self {
                    stream,
                    raw,
                    text: String::new(),
                    ready: VecDeque::new(),
                    has_ended: false,
                    comments: 0,
                })
            }
            other => Err(other),
        }
    }

    /// The next event; `None`: the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Some(event);
                }
                if self.has_ended {
                    return None;
                }
                if !self.take_chunk() && !read(&mut self.stream, &mut self.raw).await {
                    return None;
                }
            }
        })
        .await
        .expect("an event in time")
    }

    /// The next event, which must be a message; gives its data.
    pub(crate) async fn message(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event.kind, "message", "{event:?}");
        event.data
    }

    /// Takes a whole chunk, and the events that it completes.
    fn take_chunk(&mut self) -> bool {
        let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") else {
            return false;
        };
        let size = std::str::from_utf8(&self.raw[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let whole = end + 2 + size + 2;
        if self.raw.len() < whole {
            return false;
        }
        self.has_ended = size == 0;
        let chunk = self.raw[end + 2..end + 2 + size].to_vec();
        self.raw.drain(..whole);
        self.text
            .push_str(&String::from_utf8(chunk).expect("UTF-8"));
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.text = rest;
            self.take_block(&block);
        }
        true
    }

    fn take_block(&mut self, block: &str) {
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            let mut lines = block.lines().filter_map(|line| line.strip_prefix(&prefix));
            lines.next().map(str::to_owned)
        };
        match field("event") {
            Some(kind) => self.ready.push_back(Event {
                id: field("id"),
                kind,
                data: serde_json::from_str(&field("data").expect("data")).expect("JSON"),
            }),
            None => self.comments += 1,
        }
    }
}

/// Reads what there is; false at the end.
async fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> bool {
    let reading = stream.read_buf(into);
    let read = timeout(PATIENCE, reading).await.expect("bytes in time");
    read.is_ok_and(|count| count > 0)
}
