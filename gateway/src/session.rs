//! One live device: its protocol state, its outbox, its pump and its limits.
//!
//! A [`DeviceSession`] owns no socket. The edge hands it packets and asks it to fill batches; the
//! services tell it through its [`SessionHandle`] that something waits. [`Node`] is what all
//! sessions of the process share.

mod batch;
mod connect;
mod device;
mod handle;
mod inspect;
mod link;
mod node;
mod pump;
mod signals;
mod slots;
mod subscriptions;
mod table;

pub use self::{
    batch::{Batch, Part},
    connect::{Refused, admit},
    device::{DeviceSession, Sent},
    handle::{Canceled, CloseReason, SessionHandle},
    inspect::SessionInfo,
    node::Node,
    signals::Signals,
    slots::{SendingSlots, Ticket},
    table::SessionTable,
};
