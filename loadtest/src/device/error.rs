//! Why a device's connection or delivery came to an end.
//!
//! Each kind has a stable key for the report, and says whether trying again makes sense.

use std::io;

use headgate_dtls::{DtlsError, HandshakeFailure};
use headgate_protocol::mqtt::{DecodeError, EncodeError, ReasonCode};

use crate::verify::WrongBytes;

/// One device's error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// TCP.
    #[error("tcp connect: {0}")]
    Connect(#[source] io::Error),
    /// No answer within `--connect-timeout`.
    #[error("no connection within the connect timeout ({0})")]
    ConnectTimeout(&'static str),
    /// The TLS handshake.
    #[error("tls handshake: {0}")]
    Tls(#[source] io::Error),
    /// The request for a WebSocket.
    #[error("websocket: {0}")]
    WebSocket(#[source] io::Error),
    /// The device's own certificate.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The DTLS handshake.
    #[error("dtls handshake: {0:?}")]
    Dtls(HandshakeFailure),
    /// DTLS could not be set up, or does not take a message.
    #[error("dtls: {0}")]
    DtlsLibrary(#[from] DtlsError),
    /// CONNACK with a refusal.
    #[error("login refused: {0:?}")]
    LoginRefused(ReasonCode),
    /// SUBACK with a refusal.
    #[error("subscription refused: {0:?}")]
    SubscribeRefused(ReasonCode),
    /// The gateway closed the connection.
    #[error("closed by the gateway")]
    Closed,
    /// The gateway said DISCONNECT.
    #[error("disconnected by the gateway: {0:?}")]
    Disconnected(ReasonCode),
    /// Reading or writing.
    #[error("connection lost: {0}")]
    Io(#[source] io::Error),
    /// No answer to PINGREQ, or to a confirmable message.
    #[error("no answer")]
    Silent,
    /// A packet that MQTT forbids.
    #[error("malformed packet: {0}")]
    Decode(#[from] DecodeError),
    /// A packet that cannot be written.
    #[error("cannot encode: {0}")]
    Encode(#[from] EncodeError),
    /// A packet or message that has no place here.
    #[error("unexpected: {0}")]
    Unexpected(String),
    /// The bytes are not the resource's.
    #[error("wrong bytes: {0}")]
    Wrong(#[from] WrongBytes),
    /// What was announced is not what was uploaded.
    #[error("announcement: {0}")]
    Announcement(String),
    /// `transfer_error`.
    #[error("transfer error {code}: {message}")]
    TransferError {
        /// The gateway's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// A report was answered with an error.
    #[error("report refused: {0}")]
    ReportRefused(String),
    /// The gateway did not take the file.
    #[error("upload refused: {0}")]
    UploadRefused(String),
    /// `/rd` did not give a registration.
    #[error("registration refused: {0}")]
    RegistrationRefused(String),
    /// The gateway does not know the registration any more.
    #[error("the registration is gone")]
    Unregistered,
    /// The delivery was cancelled.
    #[error("delivery cancelled by the gateway")]
    Canceled,
    /// The HTTPS download.
    #[error("https: {0}")]
    Https(String),
    /// The run ended first.
    #[error("not done when the run ended")]
    Unfinished,
}

impl DeviceError {
    /// Stable key of the report.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "tcp_connect",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "websocket",
            Self::Certificate(_) => "certificate",
            Self::Dtls(_) => "dtls",
            Self::DtlsLibrary(_) => "dtls_library",
            Self::LoginRefused(_) => "login_refused",
            Self::SubscribeRefused(_) => "subscribe_refused",
            Self::Closed => "closed_by_gateway",
            Self::Disconnected(_) => "disconnected_by_gateway",
            Self::Io(_) => "connection_lost",
            Self::Silent => "no_answer",
            Self::Decode(_) => "malformed_packet",
            Self::Encode(_) => "encode",
            Self::Unexpected(_) => "unexpected_message",
            Self::Wrong(_) => "wrong_bytes",
            Self::Announcement(_) => "wrong_announcement",
            Self::TransferError { .. } => "transfer_error",
            Self::ReportRefused(_) => "report_refused",
            Self::UploadRefused(_) => "upload_refused",
            Self::RegistrationRefused(_) => "registration_refused",
            Self::Unregistered => "unregistered",
            Self::Canceled => "canceled",
            Self::Https(_) => "https",
            Self::Unfinished => "unfinished",
        }
    }

    /// The device received something else than the resource.
    pub(crate) const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong(_) | Self::Announcement(_))
    }

    /// A new connection may do better.
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::LoginRefused(reason) => matches!(
                reason,
                ReasonCode::ServerUnavailable
                    | ReasonCode::ServerBusy
                    | ReasonCode::QuotaExceeded
                    | ReasonCode::ConnectionRateExceeded
                    | ReasonCode::UseAnotherServer
            ),
            Self::Connect(_)
            | Self::ConnectTimeout(_)
            | Self::Tls(_)
            | Self::WebSocket(_)
            | Self::Dtls(_)
            | Self::Closed
            | Self::Disconnected(_)
            | Self::Io(_)
            | Self::Silent
            | Self::Unregistered
            | Self::Https(_) => true,
            _ => false,
        }
    }
}
