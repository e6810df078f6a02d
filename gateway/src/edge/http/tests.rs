//! The API as its clients see it, over real services.

mod registry;
mod resources;
mod socket;
mod stage;
mod surface;
mod tasks;
