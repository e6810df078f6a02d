//! MQTT over WebSocket: the frames around the bytes of a connection.
//!
//! A [`WebSocket`] takes frames apart as they come and hands their payload on, piece by piece: MQTT
//! packets need not begin or end with a frame. Nothing of a data frame is kept, so a connection at
//! rest owns no buffer here, and a large frame costs no memory; that is why this is no library's.
//! Sans-IO: whoever drives it reads and writes. Spec: RFC 6455; MQTT 5.0 section 6.
//! Invariants: data frames of the client are binary and masked; a violation is answered with its
//! close code, once, and nothing is taken behind it.

mod upgrade;

use bytes::BytesMut;

pub use self::upgrade::{Refusal, Upgrade};

/// Longest frame. Only its header costs memory, so the bound is one of time: how long a client may
/// go on before it has to show that it still speaks in frames.
const MAX_FRAME_BYTES: u64 = 16 * 1024 * 1024;
/// [RFC 6455, 5.5]: control frames carry 125 bytes at most.
const MAX_CONTROL_BYTES: u64 = 125;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Why frames end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// The client has said goodbye.
    #[error("the client closed the WebSocket")]
    Closed,
    /// The client broke the protocol; the code is what it is told.
    #[error("the client broke the WebSocket protocol: {reason}")]
    Violation {
        /// Close code of RFC 6455, 7.4.1.
        code: u16,
        /// What it did.
        reason: &'static str,
    },
}

const fn violation(code: u16, reason: &'static str) -> WebError {
    WebError::Violation { code, reason }
}

const fn protocol_error(reason: &'static str) -> WebError {
    violation(PROTOCOL_ERROR, reason)
}

/// [RFC 6455, 7.4.1].
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const TOO_BIG: u16 = 1009;

/// The server's side of one WebSocket, after its upgrade.
#[derive(Debug)]
pub struct WebSocket {
    /// The beginning of a frame's header.
    header: [u8; Self::MAX_HEADER],
    header_len: u8,
    /// The frame whose payload is coming.
    frame: Option<Frame>,
    /// A message of several frames has begun and not ended.
    is_in_message: bool,
    /// Payload of a control frame that has not come whole.
    control: Vec<u8>,
    /// What the goodbye says; `None` once it was said.
    goodbye: Option<u16>,
    has_ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
    /// Which byte of the mask comes next.
    turn: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            header: [0; Self::MAX_HEADER],
            header_len: 0,
            frame: None,
            is_in_message: false,
            control: Vec::new(),
            goodbye: Some(NORMAL),
            has_ended: false,
        }
    }
}

impl WebSocket {
    /// The longest header of a frame, in bytes.
    pub const MAX_HEADER: usize = 14;

    /// Writes the header of a binary frame that carries `len` bytes; gives the header's length.
    pub fn header(len: usize, header: &mut [u8; Self::MAX_HEADER]) -> usize {
        header[0] = FIN | 2;
        match len {
            0..=125 => {
                header[1] = u8::try_from(len).unwrap_or(0);
                2
            }
            126..=0xffff => {
                header[1] = 126;
                header[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&u64::try_from(len).unwrap_or(0).to_be_bytes());
                10
            }
        }
    }

    /// Takes apart the frames that stand in `buffer` from `from` on, and leaves their payload there.
    /// Answers to control frames are appended to `answers`.
    ///
    /// # Errors
    /// [`WebError`]: nothing more is to be read, and [`WebSocket::close`] says why.
    pub fn unframe(
        &mut self,
        buffer: &mut BytesMut,
        from: usize,
        answers: &mut Vec<u8>,
    ) -> Result<(), WebError> {
        let mut filled = from;
        let outcome = self.take_all(buffer, from, &mut filled, answers);
        buffer.truncate(filled);
        if let Err(error) = outcome {
            self.has_ended = true;
            if let (WebError::Violation { code, .. }, Some(goodbye)) = (error, &mut self.goodbye) {
                *goodbye = code;
            }
        }
        outcome
    }

    /// Whether nothing more is taken.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The frame that says goodbye; `None` if it was said.
    pub fn close(&mut self) -> Option<Vec<u8>> {
        let code = self.goodbye.take()?;
        let mut frame = Vec::with_capacity(4);
        push_control(&mut frame, 8, &code.to_be_bytes());
        Some(frame)
    }

    fn take_all(
        &mut self,
        buffer: &mut [u8],
        from: usize,
        filled: &mut usize,
        answers: &mut Vec<u8>,
    ) -> Result<(), WebError> {
        let mut at = from;
        while at < buffer.len() && !self.has_ended {
            let Some(mut frame) = self.frame.take() else {
                at += self.take_header(&buffer[at..], answers)?;
                continue;
            };
            let come = buffer.len() - at;
            let now = usize::try_from(frame.left).map_or(come, |left| left.min(come));
            for byte in &mut buffer[at..at + now] {
                *byte ^= frame.mask[frame.turn];
                frame.turn = (frame.turn + 1) % 4;
            }
            frame.left -= now as u64;
            if frame.kind == Kind::Data {
                buffer.copy_within(at..at + now, *filled);
                *filled += now;
            } else {
                self.control.extend_from_slice(&buffer[at..at + now]);
            }
            at += now;
            if frame.left > 0 {
                self.frame = Some(frame);
            } else {
                self.end_frame(frame.kind, answers)?;
            }
        }
        Ok(())
    }

    /// Takes bytes of a header, and begins its frame when it is whole; gives how many it took.
    fn take_header(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize, WebError> {
        let mut taken = 0;
        while taken < bytes.len() {
            let have = usize::from(self.header_len);
            if have >= self.header_needed() {
                break;
            }
            self.header[have] = bytes[taken];
            self.header_len += 1;
            taken += 1;
            if self.header_len == 2 {
                self.check_start()?;
            }
        }
        if usize::from(self.header_len) >= self.header_needed() {
            self.begin_frame(answers)?;
        }
        Ok(taken)
    }

    /// Bytes of the header, as far as its beginning tells.
    fn header_needed(&self) -> usize {
        if self.header_len < 2 {
            return 2;
        }
        4 + match self.header[1] & !MASKED {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    /// What the first two bytes already tell.
    fn check_start(&self) -> Result<(), WebError> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(protocol_error("an extension that was not agreed on"));
        }
        if second & MASKED == 0 {
            return Err(protocol_error("a frame without a mask"));
        }
        let is_control = first & 0x08 != 0;
        if is_control && (first & FIN == 0 || u64::from(second & !MASKED) > MAX_CONTROL_BYTES) {
            return Err(protocol_error("a control frame that is long or in pieces"));
        }
        match (first & 0x0f, self.is_in_message) {
            (0, true) | (2, false) | (8..=10, _) => Ok(()),
            // [MQTT-6.0.0-1]: anything but binary frames ends the connection.
            (1, false) => Err(violation(UNSUPPORTED_DATA, "a frame of text")),
            (0, false) => Err(protocol_error("the continuation of nothing")),
            (1 | 2, true) => Err(protocol_error("a message inside of a message")),
            _ => Err(protocol_error("an unknown kind of frame")),
        }
    }

    fn begin_frame(&mut self, answers: &mut Vec<u8>) -> Result<(), WebError> {
        let header = self.header;
        let masks_at = self.header_needed() - 4;
        let left = match header[1] & !MASKED {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&header[2..10]);
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        let shortest = match masks_at {
            2 => 0,
            4 => 126,
            _ => 0x1_0000,
        };
        if left < shortest {
            return Err(protocol_error("a length in more bytes than it needs"));
        }
        if left > MAX_FRAME_BYTES {
            return Err(violation(TOO_BIG, "a frame that is too long"));
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&header[masks_at..masks_at + 4]);
        let kind = match header[0] & 0x0f {
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => Kind::Data,
        };
        if kind == Kind::Data {
            self.is_in_message = header[0] & FIN == 0;
        }
        self.header_len = 0;
        if left == 0 {
            return self.end_frame(kind, answers);
        }
        self.frame = Some(Frame {
            kind,
            left,
            mask,
            turn: 0,
        });
        Ok(())
    }

    fn end_frame(&mut self, kind: Kind, answers: &mut Vec<u8>) -> Result<(), WebError> {
        let control = std::mem::take(&mut self.control);
        match kind {
            Kind::Data | Kind::Pong => Ok(()),
            Kind::Ping => {
                push_control(answers, 10, &control);
                Ok(())
            }
            Kind::Close => Err(self.take_goodbye(&control)),
        }
    }

    /// [RFC 6455, 5.5.1]: the answer to a goodbye says the same.
    fn take_goodbye(&mut self, said: &[u8]) -> WebError {
        let code = match said {
            [] => Some(NORMAL),
            [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
                let code = u16::from_be_bytes([*high, *low]);
                // [RFC 6455, 7.4]: what may stand in a frame.
                matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(code)
            }
            _ => None,
        };
        let Some(code) = code else {
            return protocol_error("a goodbye that says nothing known");
        };
        if let Some(goodbye) = &mut self.goodbye {
            *goodbye = code;
        }
        WebError::Closed
    }
}

/// Appends a control frame; its payload is 125 bytes at most.
fn push_control(frames: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    frames.push(FIN | opcode);
    frames.push(u8::try_from(payload.len()).unwrap_or(0));
    frames.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
