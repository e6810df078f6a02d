//! Applications: programs that see and command the devices that are bound to them.

use headgate_protocol::identity::{AppId, DeviceId};

use crate::model::{
    text::{self, InvalidField},
    time::Millis,
};

/// One application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its id, fixed for ever.
    pub id: AppId,
    /// A label of 1 to 64 characters.
    pub name: String,
    /// Whether it may come in.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Millis,
    /// When an operator last changed it.
    pub updated_at: Millis,
}

impl Application {
    /// Checks what an operator gave.
    ///
    /// # Errors
    /// [`InvalidField`] naming the rule.
    pub fn validate(&self) -> Result<(), InvalidField> {
        text::check_label("name", &self.name, 1)
    }
}

/// A device that an application sees and commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The device.
    pub device_id: DeviceId,
    /// Since when.
    pub bound_at: Millis,
}
