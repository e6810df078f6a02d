//! Integration tests of the gateway, in one binary so that it is linked once.

mod api;
mod api_document;
mod application_mqtt;
mod applications;
mod backup;
mod batches;
mod bounds;
mod bucket;
mod cli;
mod clients;
mod coap;
mod coap_clients;
mod coap_input;
mod coap_options;
#[cfg(feature = "coaps")]
mod coap_wires;
#[cfg(feature = "coaps")]
mod coaps;
#[cfg(feature = "coaps")]
mod coaps_clients;
mod command_line;
mod config;
mod conformance;
mod connect;
mod console;
mod deploy;
#[cfg(feature = "coaps")]
mod device_guide;
mod elsewhere;
mod failures;
mod faults;
mod features;
mod files;
mod harness;
mod huawei;
mod huawei_files;
mod layers;
mod listeners;
#[cfg(feature = "coaps")]
mod log;
mod login;
mod malformed;
mod metrics;
mod nodes;
mod openapi;
mod persistent;
mod postgres;
mod proof;
mod queue;
mod rates;
mod refusal;
mod resume;
mod retained;
mod sdk;
mod serve;
mod session;
mod session_list;
mod settings;
mod shared;
mod tencent;
mod tencent_ota;
mod tls;
mod topics;
mod transfer;
mod uploads;
mod web;
mod wills;
