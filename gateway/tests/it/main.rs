//! Integration tests of the gateway, in one binary so that it is linked once.

mod api;
mod applications;
mod batches;
mod bounds;
mod cli;
mod clients;
mod config;
mod connect;
mod files;
mod harness;
mod huawei;
mod layers;
mod login;
mod malformed;
mod metrics;
mod proof;
mod queue;
mod refusal;
mod resume;
mod sdk;
mod serve;
mod session;
mod tencent;
mod topics;
mod transfer;
mod uploads;
