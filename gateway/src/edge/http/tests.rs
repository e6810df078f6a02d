//! The API as its clients see it, over real services.

mod access;
mod batches;
mod registry;
mod resources;
mod socket;
mod stage;
mod surface;
mod tasks;
