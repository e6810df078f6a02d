//! MQTT in a WebSocket, the client's side: frames around the bytes of a connection.
//!
//! Spec: RFC 6455; MQTT 5.0 section 6. Invariants: at rest it owns no buffer; what is sent is in
//! masked binary frames, and a frame is written whole before the next one begins.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::io::poll_read_buf;

/// A connection inside of a WebSocket.
pub(crate) struct WebSocket<S> {
    inner: S,
    /// Bytes as they came, not yet taken apart.
    raw: BytesMut,
    /// Payload of the current frame that is to come.
    left: u64,
    /// Frames that are to be written.
    out: BytesMut,
    /// Draws masks: they keep proxies from being fooled, not secrets.
    masks: u32,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for a WebSocket with the subprotocol `mqtt` at `/mqtt`.
    ///
    /// # Errors
    /// What the socket says, or that the answer is no upgrade.
    ///
    /// # Cancel safety
    /// The socket is lost.
    pub(crate) async fn open(mut inner: S, host: &str, seed: u32) -> io::Result<Self> {
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        inner.write_all(request.as_bytes()).await?;
        inner.flush().await?;
        let mut raw = BytesMut::with_capacity(512);
        let end = loop {
            if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if raw.len() > MAX_HEAD_BYTES || inner.read_buf(&mut raw).await? == 0 {
                return Err(io::Error::other("no answer to the request for a WebSocket"));
            }
        };
        let head = raw.split_to(end);
        if !head.starts_with(b"HTTP/1.1 101") || !contains(&head, ACCEPT) {
            let text = String::from_utf8_lossy(&head);
            let line = text.lines().next().unwrap_or_default().to_owned();
            return Err(io::Error::other(format!("no WebSocket: {line}")));
        }
        Ok(Self {
            inner,
            raw,
            left: 0,
            out: BytesMut::new(),
            masks: seed | 1,
            closed: false,
        })
    }

    /// Appends a frame with `payload` to what is to be written.
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.masks = self
            .masks
            .wrapping_mul(747_796_405)
            .wrapping_add(2_891_336_453);
        let mask = self.masks.to_be_bytes();
        self.out.reserve(payload.len() + MAX_HEADER_BYTES);
        self.out.put_u8(FIN | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ 0..=125), _) => self.out.put_u8(MASKED | short),
            (_, Ok(long)) => {
                self.out.put_u8(MASKED | 0x7e);
                self.out.put_u16(long);
            }
            _ => {
                self.out.put_u8(MASKED | 0x7f);
                self.out.put_u64(payload.len() as u64);
            }
        }
        self.out.put_slice(&mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        self.out.extend(masked.map(|(byte, mask)| byte ^ mask));
    }

    /// Reads a frame's header where one is whole; false: more bytes are needed.
    fn begin_frame(&mut self) -> io::Result<bool> {
        let &[first, second, ..] = &self.raw[..] else {
            return Ok(false);
        };
        if second & MASKED != 0 {
            return Err(io::Error::other("a server's frame is masked"));
        }
        let (len, header) = match second & 0x7f {
            126 => match self.raw.get(2..4) {
                Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
                _ => return Ok(false),
            },
            127 => match self.raw.get(2..10).and_then(|eight| eight.try_into().ok()) {
                Some(eight) => (u64::from_be_bytes(eight), 10),
                None => return Ok(false),
            },
            short => (u64::from(short), 2),
        };
        let opcode = first & 0x0f;
        if opcode >= CLOSE {
            // Control frames are short: they are taken whole.
            let whole = header + usize::try_from(len).unwrap_or(usize::MAX);
            if len > 125 {
                return Err(io::Error::other("a control frame is too long"));
            }
            if self.raw.len() < whole {
                return Ok(false);
            }
            self.raw.advance(header);
            let payload = self.raw.split_to(whole - header);
            self.on_control(opcode, &payload);
            return Ok(true);
        }
        self.raw.advance(header);
        self.left = len;
        Ok(true)
    }

    fn on_control(&mut self, opcode: u8, payload: &[u8]) {
        match opcode {
            CLOSE => self.closed = true,
            PING => self.frame(PONG, payload),
            _ => {}
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        if self.out.capacity() > 0 {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.left > 0 && !self.raw.is_empty() {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let n = left.min(self.raw.len()).min(buf.remaining());
                buf.put_slice(&self.raw[..n]);
                self.raw.advance(n);
                self.left -= n as u64;
                return Poll::Ready(Ok(()));
            }
            if self.left == 0 && !self.closed && self.begin_frame()? {
                continue;
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            let this = &mut *self;
            // An answer to a ping goes as far as the socket takes it; the rest with the next write.
            if let Poll::Ready(Err(error)) = this.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
            if this.raw.is_empty() {
                this.raw = BytesMut::new();
            }
            this.raw.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.raw) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if this.raw.is_empty() {
                        this.raw = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let taken = bytes.len().min(MAX_FRAME_BYTES);
        let (now, _) = bytes.split_at(taken);
        self.frame(BINARY, now);
        match self.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What the key of every request is answered with: RFC 6455, section 1.3, has both as its example.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const MAX_HEADER_BYTES: usize = 14;
const MAX_FRAME_BYTES: usize = 64 * 1024;
const MAX_HEAD_BYTES: usize = 8 * 1024;
const READ_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Answers the request, then takes one masked frame and gives its payload.
    async fn serve(mut peer: tokio::io::DuplexStream, answer: Vec<u8>) -> Vec<u8> {
        let mut head = BytesMut::new();
        while !contains(&head, b"\r\n\r\n") {
            peer.read_buf(&mut head).await.unwrap();
        }
        peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ")
            .await
            .unwrap();
        peer.write_all(ACCEPT).await.unwrap();
        peer.write_all(b"\r\n\r\n").await.unwrap();
        for byte in answer {
            peer.write_all(&[byte]).await.unwrap();
        }
        let mut frame = [0; 6];
        peer.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[0], FIN | BINARY);
        let mut payload = vec![0; usize::from(frame[1] & 0x7f)];
        peer.read_exact(&mut payload).await.unwrap();
        let mask = frame[2..].iter().cycle();
        payload.iter().zip(mask).map(|(a, b)| a ^ b).collect()
    }

    #[tokio::test]
    async fn frames_are_bytes_in_and_out() {
        let (near, far) = duplex(64);
        let mut answer = vec![FIN | BINARY, 3, b'a', b'b', b'c', 0x89, 1, b'p'];
        answer.extend([0x02, 1, b'd', 0x80, 126, 0, 1, b'e']);
        let client = async {
            let mut web = WebSocket::open(near, "localhost", 7).await.unwrap();
            web.write_all(b"hello").await.unwrap();
            web.flush().await.unwrap();
            let mut got = [0; 5];
            web.read_exact(&mut got).await.unwrap();
            got
        };
        let (served, got) = tokio::join!(serve(far, answer), client);
        assert_eq!(&got, b"abcde");
        assert_eq!(served, b"hello");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_its_own_words() {
        let (near, mut far) = duplex(1024);
        far.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
            .await
            .unwrap();
        let error = WebSocket::open(near, "localhost", 7)
            .await
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains("404 Not Found"), "{error}");
    }
}
