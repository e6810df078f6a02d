//! What the gateway knows: identities, the records of the registry and the rules that make them valid.
//!
//! A leaf that every layer may use. Records are plain data; whoever takes one from outside calls its
//! `validate` (or builds it from the validated `New*` forms), stores and services then trust it.
//! Invariants: lengths of names and descriptions count characters, never bytes; no type here holds a secret
//! in the clear except [`Secret`], which is wiped when dropped and prints nothing.

pub mod actor;
pub mod again;
pub mod app;
pub mod batch;
pub mod blob;
pub mod certificate;
pub mod device;
pub mod fingerprint;
pub mod history;
pub mod id;
pub mod message;
pub mod page;
pub mod pattern;
pub mod policy;
pub mod product;
pub mod random;
pub mod resource;
pub mod secret;
pub mod task;
pub mod text;
pub mod time;
pub mod upload;
pub mod will;

pub use actor::{Actor, AuditEntry, Role};
pub use again::Again;
pub use app::{Application, Binding};
pub use batch::{
    BatchRow, BatchRowCode, BatchRowError, BatchState, DeviceBatch, RowCounts, RowState,
};
pub use blob::{BlobId, Digests, PART_BYTES};
pub use certificate::{CertificateError, CertificateInfo, CertificateWarning, PeerCertificate};
pub use device::{Alias, AliasKind, AuthKind, CredentialSlot, Device, PskEncoding};
pub use fingerprint::Fingerprint;
pub use id::{Id, IdGenerator};
pub use message::{DeviceName, Handing, Message, MessageProperties};
pub use page::{InvalidPage, Page, Paged};
pub use pattern::NamePattern;
pub use policy::TaskPolicy;
pub use product::{Confirm, CredentialForm, Product, TopicPolicy, Transports};
pub use random::{NoRandomness, random};
pub use resource::{Resource, ResourceVersion};
pub use secret::{Secret, psk_of};
pub use task::{
    CreationState, Delivery, DeliveryChange, DeliveryState, FailReason, OpenDelivery, RunState,
    StateCounts, TargetFilter, Task,
};
pub use text::InvalidField;
pub use time::Millis;
pub use upload::{Upload, UploadPhase};
pub use will::{Will, WillKey};
