//! The program as its users have it: against the gateway, and against a broker of somebody else's.

mod broker;
mod gateway;
mod harness;
mod manual;
mod upkeep;
