//! Huawei's `sys/events`: services of the platform that a device asks.
//!
//! One message holds requests to any number of services, each known by its `service_id`.

pub mod files;
pub mod ota;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The services that a message asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Whom the message is about: the device, or one behind it.
    pub object_device_id: Option<String>,
    /// In the message's order.
    pub services: Vec<Event>,
}

/// A request to one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Which service.
    pub service: Service,
    /// What is asked of it.
    pub event_type: String,
    /// With what.
    pub paras: Value,
}

/// A service of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `$time_sync`: what time it is.
    TimeSync,
    /// `$sdk_info`: which SDK the device has.
    SdkInfo,
    /// `$log`: what the device logs.
    Log,
    /// `$ota`: updates of firmware and software.
    Ota,
    /// `$file_manager`: files up and down.
    FileManager,
    /// Another one.
    Other,
}

/// Why a message asks nothing.
#[derive(Debug, thiserror::Error)]
#[error("no message about services: {0}")]
pub struct Malformed(#[from] serde_json::Error);

#[derive(Deserialize)]
struct RawEvents {
    object_device_id: Option<String>,
    services: Vec<RawEvent>,
}

#[derive(Deserialize)]
struct RawEvent {
    service_id: String,
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    paras: Value,
}

/// When a request for the time came, and when it is answered; milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimeSync<'a> {
    /// What the device said of its own clock, given back as it is.
    pub device_send_time: &'a Value,
    /// When the request came.
    pub server_recv_time: i64,
    /// When it is answered.
    pub server_send_time: i64,
}

impl Events {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] where it is no JSON, or has no services.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let raw: RawEvents = serde_json::from_slice(payload)?;
        let services = raw.services.into_iter().map(|event| Event {
            service: Service::named(&event.service_id),
            event_type: event.event_type,
            paras: event.paras,
        });
        Ok(Self {
            object_device_id: raw.object_device_id,
            services: services.collect(),
        })
    }
}

impl Service {
    fn named(id: &str) -> Self {
        match id {
            "$time_sync" => Self::TimeSync,
            "$sdk_info" => Self::SdkInfo,
            "$log" => Self::Log,
            "$ota" => Self::Ota,
            "$file_manager" => Self::FileManager,
            _ => Self::Other,
        }
    }
}

/// A message of one service to a device, stamped `time` (`20261121T055753Z`).
fn event(device: &str, service: &str, kind: &str, time: &str, paras: &Value) -> Vec<u8> {
    let message = json!({
        "object_device_id": device,
        "services": [{
            "service_id": service,
            "event_type": kind,
            "event_time": time,
            "paras": paras,
        }],
    });
    message.to_string().into_bytes()
}

impl TimeSync<'_> {
    /// The answer about a device, stamped `event_time` (`20261121T055753Z`).
    pub fn to_json(&self, object_device_id: &str, event_time: &str) -> Vec<u8> {
        let paras = json!(self);
        event(
            object_device_id,
            "$time_sync",
            "time_sync_response",
            event_time,
            &paras,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_names() {
        let message = json!({
            "object_device_id": "P_d1",
            "services": [
                {"service_id": "$time_sync", "event_type": "time_sync_request",
                 "event_time": "2026-11-21T05:57:53Z", "paras": {"device_send_time": 17}},
                {"service_id": "$sdk_info", "event_id": "", "event_time": null},
                {"service_id": "$log"}, {"service_id": "$ota"},
                {"service_id": "$file_manager"}, {"service_id": "mine"},
            ],
        });
        let events = Events::parse(message.to_string().as_bytes()).expect("legal");
        assert_eq!(events.object_device_id.as_deref(), Some("P_d1"));
        let services: Vec<_> = events.services.iter().map(|event| event.service).collect();
        assert_eq!(
            services,
            [
                Service::TimeSync,
                Service::SdkInfo,
                Service::Log,
                Service::Ota,
                Service::FileManager,
                Service::Other
            ]
        );
        let first = events.services.first().expect("six");
        assert_eq!(first.event_type, "time_sync_request");
        assert_eq!(first.paras, json!({"device_send_time": 17}));
    }

    #[test]
    fn what_names_no_service_is_refused() {
        for payload in [
            &b"\xff\x00"[..],
            b"",
            b"[]",
            b"{}",
            br#"{"services": 1}"#,
            br#"{"services": [{"service_id": 7}]}"#,
        ] {
            assert!(Events::parse(payload).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn the_time_is_told_in_the_vendor_s_fields() {
        let device_send_time = json!(1_573_115_000_000_i64);
        let answer = TimeSync {
            device_send_time: &device_send_time,
            server_recv_time: 2,
            server_send_time: 3,
        }
        .to_json("P_d1", "20261121T055753Z");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(
            answer,
            json!({
                "object_device_id": "P_d1",
                "services": [{
                    "service_id": "$time_sync",
                    "event_type": "time_sync_response",
                    "event_time": "20261121T055753Z",
                    "paras": {"device_send_time": 1_573_115_000_000_i64, "server_recv_time": 2, "server_send_time": 3},
                }],
            })
        );
    }
}
