//! The listener over real sockets, read byte by byte as a device's parser would.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::edge::http::listener::Plain;

const SIZE: usize = 300_000;

#[derive(Clone)]
struct Shelf {
    content: Bytes,
    reports: Arc<Mutex<Vec<(u64, u64)>>>,
    taken: Arc<Mutex<Vec<u8>>>,
}

struct Book(Shelf);

impl FileSource for Shelf {
    type File = Book;
    type Upload = Tray;

    async fn open(&self, signed: &str) -> Result<Book, Refusal> {
        match signed {
            "good" => Ok(Book(self.clone())),
            "expired" => Err(Refusal::Expired),
            "canceled" => Err(Refusal::Canceled),
            "gone" => Err(Refusal::Gone),
            "unavailable" => Err(Refusal::Unavailable),
            _ => Err(Refusal::BadSignature),
        }
    }

    async fn open_upload(&self, signed: &str) -> Result<Tray, Refusal> {
        match signed {
            "upload" => Ok(Tray(self.clone())),
            "gone" => Err(Refusal::Gone),
            _ => Err(Refusal::BadSignature),
        }
    }
}

/// Takes five bytes.
struct Tray(Shelf);

impl UploadFile for Tray {
    type Receiver = Filling;

    fn begin(&self, length: u64, md5: Option<[u8; 16]>) -> Result<Filling, PutRefusal> {
        if length != 5 {
            return Err(PutRefusal::WrongSize);
        }
        if md5.is_some_and(|md5| md5 != [7; 16]) {
            return Err(PutRefusal::WrongDigest);
        }
        Ok(Filling(self.0.clone(), Vec::new()))
    }
}

struct Filling(Shelf, Vec<u8>);

impl Receiver for Filling {
    async fn write(&mut self, bytes: Bytes) -> Result<(), PutRefusal> {
        self.1.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self) -> Result<(), PutRefusal> {
        if self.1 == b"wrong" {
            return Err(PutRefusal::Mismatch("md5sum not matched"));
        }
        *self.0.taken.lock() = self.1;
        Ok(())
    }
}

impl File for Book {
    fn size_bytes(&self) -> u64 {
        self.0.content.len() as u64
    }

    fn md5(&self) -> [u8; 16] {
        [7; 16]
    }

    fn sha256(&self) -> [u8; 32] {
        [0xAB; 32]
    }

    async fn read(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).expect("small");
        // Shorter than asked for, as a cache whose slices have bounds of their own.
        let end = SIZE.min(start + max_bytes.min(100_000));
        Ok(self.0.content.slice(start..end))
    }

    fn sent(&self, start: u64, end: u64) {
        self.0.reports.lock().push((start, end));
    }
}

struct Server {
    address: std::net::SocketAddr,
    shelf: Shelf,
    shutdown: Shutdown,
    metrics: Metrics,
}

async fn start(config: FilesConfig) -> Server {
    let content: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    let shelf = Shelf {
        content: content.into(),
        reports: Arc::default(),
        taken: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let shutdown = Shutdown::new();
    let metrics = Metrics::new();
    let (source, owner, counted) = (shelf.clone(), shutdown.clone(), metrics.clone());
    shutdown.spawn(async move { serve(listener, Plain, source, &config, &counted, owner).await });
    Server {
        address,
        shelf,
        shutdown,
        metrics,
    }
}

/// Sends `request` and reads until the server closes.
async fn exchange(server: &Server, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("read");
    let at = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(bytes[..at + 2].to_vec()).expect("ascii");
    (head, bytes[at + 4..].to_vec())
}

async fn get(server: &Server, path: &str, more: &str) -> (String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}\r\n");
    exchange(server, &request).await
}

#[tokio::test]
async fn heads_are_title_case_short_and_have_a_length() {
    let server = start(FilesConfig::default()).await;
    for (path, more) in [
        ("/files/good", ""),
        ("/files/good", "Range: bytes=0-300000\r\n"),
        ("/files/good", "Range: bytes=300000-\r\n"),
        ("/files/good", "Accept-Encoding: gzip, deflate\r\n"),
        ("/files/forged", ""),
        ("/elsewhere", ""),
    ] {
        let (head, body) = get(&server, path, more).await;
        assert!(head.len() < 1024, "{head}");
        for line in head.lines().skip(1) {
            let (name, _) = line.split_once(": ").expect("a header");
            for word in name.split('-') {
                let mut letters = word.chars();
                assert!(
                    letters
                        .next()
                        .is_some_and(|first| first.is_ascii_uppercase()),
                    "{name}"
                );
                assert!(letters.all(|letter| !letter.is_ascii_uppercase()), "{name}");
            }
        }
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
        for absent in [
            "Content-Encoding",
            "Transfer-Encoding",
            "Location",
            "Server",
        ] {
            assert!(!head.contains(absent), "{head}");
        }
    }
}

#[tokio::test]
async fn whole_and_part_are_sent_and_reported() {
    let server = start(FilesConfig::default()).await;
    let (head, body) = get(&server, "/files/good", "").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Md5: BwcHBwcHBwcHBwcHBwcHBw==\r\n"),
        "{head}"
    );
    let etag = format!("\r\nEtag: \"{}\"\r\n", "ab".repeat(32));
    assert!(head.contains(&etag), "{head}");
    assert_eq!(body, server.shelf.content);
    let reports = server.shelf.reports.lock().clone();
    let thirds = [(0, 100_000), (100_000, 200_000), (200_000, 300_000)];
    assert_eq!(reports, thirds);
    assert_eq!(server.metrics.bytes.out_files.get(), 300_000);

    let (head, body) = get(&server, "/files/good", "Range: bytes=299990-300000\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 206 Partial Content\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nContent-Range: bytes 299990-299999/300000\r\n"),
        "{head}"
    );
    assert_eq!(body, &server.shelf.content[299_990..]);

    let (head, _) = get(&server, "/files/good", "Range: bytes=300000-\r\n").await;
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
    assert!(
        head.contains("\r\nContent-Range: bytes */300000\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = start(FilesConfig::default()).await;
    let request = "HEAD /files/good HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let (head, body) = exchange(&server, request).await;
    assert!(head.contains("\r\nContent-Length: 300000\r\n"), "{head}");
    assert!(body.is_empty());
    assert!(server.shelf.reports.lock().is_empty());
}

#[tokio::test]
async fn refusals_are_short_and_close_the_connection() {
    let server = start(FilesConfig::default()).await;
    for (path, status) in [
        ("/files/forged", "403"),
        ("/files/expired", "403"),
        ("/files/canceled", "403"),
        ("/files/gone", "410"),
        ("/files/unavailable", "503"),
        ("/files/", "404"),
        ("/files/good/more", "404"),
        ("/files", "404"),
        ("/", "404"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let (head, body) = exchange(&server, &request).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&start), "{path}: {head}");
        assert!(body.len() < 64);
    }
    let request = "POST /files/good HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    let (head, _) = exchange(&server, request).await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("\r\nAllow: GET, HEAD, PUT\r\n"), "{head}");
}

async fn put(server: &Server, path: &str, headers: &str, body: &str) -> String {
    let request =
        format!("PUT {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n{body}");
    exchange(server, &request).await.0
}

#[tokio::test]
async fn a_put_is_taken_as_devices_send_it_and_answered_with_a_small_ok() {
    let server = start(FilesConfig::default()).await;
    for headers in [
        "Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-MD5: BwcHBwcHBwcHBwcHBwcHBw==\r\n",
        "Content-Length: 5\r\nContent-MD5:BwcHBwcHBwcHBwcHBwcHBw==\r\n",
        "Content-Length:5\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        "Content-Length: 5\r\nContent-Type: text/plain\r\n",
    ] {
        server.shelf.taken.lock().clear();
        let head = put(&server, "/files/upload", headers, "hello").await;
        assert!(head.starts_with("HTTP/1.1 200 ok\r\n"), "{headers}: {head}");
        assert!(head.contains("\r\nContent-Length: 0\r\n"), "{head}");
        assert!(head.contains("\r\nDate: "), "title case: {head}");
        assert_eq!(*server.shelf.taken.lock(), b"hello");
    }
    assert_eq!(server.metrics.bytes.in_files.get(), 25);
}

#[tokio::test]
async fn a_put_that_is_not_what_was_announced_is_refused() {
    let server = start(FilesConfig::default()).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (path, headers, body, status) in [
        ("/files/upload", chunked, "5\r\nhello\r\n0\r\n\r\n", 411),
        ("/files/upload", "", "", 411),
        ("/files/upload", "Content-Length: 6\r\n", "hello!", 400),
        (
            "/files/upload",
            "Content-Length: 5\r\nContent-MD5: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            "hello",
            400,
        ),
        (
            "/files/upload",
            "Content-Length: 5\r\nContent-MD5: 5d41402abc4b2a76b9719d911017c592\r\n",
            "hello",
            400,
        ),
        ("/files/upload", "Content-Length: 5\r\n", "wrong", 400),
        ("/files/gone", "Content-Length: 5\r\n", "hello", 410),
        ("/files/good", "Content-Length: 5\r\n", "hello", 403),
    ] {
        let head = put(&server, path, headers, body).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&start), "{path} {headers}: {head}");
    }
    assert!(server.shelf.taken.lock().is_empty());
}

#[tokio::test]
async fn connection_serves_several_ranges_and_closes_when_idle() {
    let config = FilesConfig {
        idle_timeout: Duration::from_millis(300),
        ..FilesConfig::default()
    };
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    for _ in 0..3 {
        let request = "GET /files/good HTTP/1.1\r\nHost: h\r\nRange: bytes=5-9\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut bytes = Vec::new();
        while !bytes.ends_with(&server.shelf.content[5..10]) {
            let read = stream.read_buf(&mut bytes).await.expect("read");
            assert_ne!(read, 0);
        }
    }
    let mut rest = Vec::new();
    let closing = stream.read_to_end(&mut rest);
    let closed = tokio::time::timeout(Duration::from_secs(5), closing).await;
    closed.expect("closed by the server").expect("in order");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn reader_that_stops_is_not_read_ahead_for_and_is_closed() {
    let config = FilesConfig {
        idle_timeout: Duration::from_millis(300),
        ..FilesConfig::default()
    };
    let server = start(config).await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("small");
    let mut stream = socket.connect(server.address).await.expect("connected");
    let request = "GET /files/good HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    stream.write_all(request.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(800)).await;
    let reports = server.shelf.reports.lock().len();
    assert!(
        reports < 100 * 4 / 2,
        "read far ahead of the socket: {reports}"
    );
    let mut bytes = Vec::new();
    let ending = stream.read_to_end(&mut bytes);
    let ended = tokio::time::timeout(Duration::from_secs(5), ending).await;
    assert!(ended.is_ok(), "the server closed");
}

#[tokio::test]
async fn draining_finishes_the_request_in_hand_and_ends() {
    let server = start(FilesConfig::default()).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connected");
    let (head, _) = get(&server, "/files/good", "").await;
    assert!(head.starts_with("HTTP/1.1 200"));
    server.shutdown.drain();
    let ended = server.shutdown.wait(Duration::from_secs(5)).await;
    assert!(ended, "the listener ended");
    assert_eq!(server.metrics.connections_files.get(), 0);
    let mut rest = Vec::new();
    // Closed or reset, both will do for a connection without a request.
    if idle.read_to_end(&mut rest).await.is_ok() {
        assert!(rest.is_empty());
    }
    TcpStream::connect(server.address)
        .await
        .expect_err("nobody listens");
}
