//! Integration tests of the gateway, in one binary so that it is linked once.

mod cli;
mod config;
mod layers;
mod serve;
