//! The closed sets of label values that other layers choose from.
//!
//! Invariants: a label's values are known when the program is built, so that no device, topic or
//! address can become one.

/// Declares a closed set of label values.
macro_rules! labels {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $( $(#[doc = $value_doc:literal])+ $value:ident = $label:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $value_doc])+ $value, )+
        }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The value as it stands in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $label,)+
                }
            }

            pub(crate) const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Why a connection of a device ended.
    pub enum DisconnectReason {
        /// The device said goodbye.
        Client = "client",
        /// The device closed the connection, or the network did, without a goodbye.
        ConnectionLost = "connection_lost",
        /// Nothing arrived for one and a half keep-alives.
        KeepAlive = "keep_alive",
        /// The device broke the protocol.
        ProtocolError = "protocol_error",
        /// The device sent a packet above a limit.
        PacketTooLarge = "packet_too_large",
        /// The device did what its product does not allow.
        NotAuthorized = "not_authorized",
        /// The device connected again.
        Takeover = "takeover",
        /// The device took no byte for too long while data waited.
        Stalled = "stalled",
        /// An operator froze, deleted or kicked the device.
        Administrative = "administrative",
        /// This node drains or stops.
        ServerShutdown = "server_shutdown",
        /// The connection failed here.
        ServerError = "server_error",
    }
}

labels! {
    /// Why a message to a device or an application was dropped.
    pub enum DropReason {
        /// The device's outbox holds as many messages or bytes as it may.
        OutboxFull = "outbox_full",
        /// The message is above the device's maximum packet size.
        TooLarge = "too_large",
        /// The device is not connected, and the message is not kept.
        Offline = "offline",
        /// The device has no subscription that matches.
        NoSubscription = "no_subscription",
        /// As many messages wait for the device, or for all devices, as may.
        MailboxFull = "mailbox_full",
        /// The message waited for as long as it may.
        Expired = "expired",
        /// It was to be retained, and as many messages are as may be.
        RetainedFull = "retained_full",
        /// A session of an application has no room for it.
        ApplicationFull = "application_full",
        /// As many messages wait for a persistent session of an application as may.
        QueueFull = "queue_full",
        /// The persistent session that it waited for has ended.
        SessionEnded = "session_ended",
    }
}

labels! {
    /// Whose a persistent session is.
    pub enum SessionKind {
        /// A device's.
        Device = "device",
        /// An application's.
        Application = "application",
    }
}

labels! {
    /// Why a connection is not read from for a while.
    pub enum PauseReason {
        /// The device publishes faster than a device may.
        DeviceRate = "device_rate",
        /// All clients together publish faster than they may.
        NodeRate = "node_rate",
    }
}

labels! {
    /// What became of a will.
    pub enum WillEnd {
        /// It was published.
        Published = "published",
        /// Its client took leave, or came back to its session in time.
        Withdrawn = "withdrawn",
        /// There were too many when its client connected.
        Refused = "refused",
        /// It could not be published: its device is gone, or there was no room to retain it.
        Failed = "failed",
    }
}

labels! {
    /// What became of an upload.
    pub enum UploadEnd {
        /// Its bytes are stored and are what was announced.
        Stored = "stored",
        /// Its bytes were not what was announced.
        Mismatched = "mismatched",
        /// It got no byte for too long.
        Expired = "expired",
        /// An operator deleted it before it was whole.
        Deleted = "deleted",
        /// Its device announced other bytes under its name, or too many uploads.
        Replaced = "replaced",
        /// Its device went on with it at another node.
        Moved = "moved",
        /// It was not taken when it was announced: size, quota, room.
        Refused = "refused",
    }
}

labels! {
    /// What became of a chunk of an upload.
    pub enum UploadChunk {
        /// It is in the spool.
        Stored = "stored",
        /// It was there before.
        Duplicate = "duplicate",
        /// Too much waits for the disk: the device is to send it again.
        Postponed = "postponed",
        /// It belongs nowhere, or could not be written.
        Refused = "refused",
    }
}
