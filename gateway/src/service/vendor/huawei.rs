//! Huawei's services on `sys/events`.

use headgate_protocol::{
    topics::DeviceNames,
    vendor::huawei::{Event, Events, Service, TimeSync, files, ota},
};

use super::Verdict;
use crate::model::Millis;

/// What a device says about transfers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// To `$ota`.
    Ota(ota::Report),
    /// To `$file_manager`.
    Files(files::Request),
}

/// What is done about a message on `sys/events/up` that came at `received`.
///
/// A message that asks several services is data unless the gateway has all of them; the time is
/// told once however often it is asked for.
pub fn ask(device: DeviceNames<'_>, payload: &[u8], received: Millis, now: Millis) -> Verdict {
    let Ok(events) = Events::parse(payload) else {
        return Verdict::Data;
    };
    let mut verdict = Verdict::Taken;
    let mut transfers = Vec::new();
    for event in &events.services {
        match event.service {
            Service::TimeSync if event.event_type == "time_sync_request" => {
                let about = events
                    .object_device_id
                    .as_deref()
                    .unwrap_or(device.device.as_str());
                verdict = Verdict::Answer {
                    topic: device.huawei_events_down(),
                    payload: tell_time(event, about, received, now),
                };
            }
            Service::SdkInfo | Service::Log => {}
            Service::Ota | Service::FileManager => match transfer(event) {
                Some(transfer) => transfers.push(transfer),
                None => return Verdict::Data,
            },
            Service::TimeSync | Service::Other => return Verdict::Data,
        }
    }
    if transfers.is_empty() {
        verdict
    } else {
        Verdict::Transfers(transfers)
    }
}

fn transfer(event: &Event) -> Option<Transfer> {
    if event.service == Service::Ota {
        ota::Report::read(&event.event_type, &event.paras).map(Transfer::Ota)
    } else {
        files::Request::read(&event.event_type, &event.paras).map(Transfer::Files)
    }
}

fn tell_time(event: &Event, about: &str, received: Millis, now: Millis) -> Vec<u8> {
    let answer = TimeSync {
        device_send_time: &event.paras["device_send_time"],
        server_recv_time: received.as_i64(),
        server_send_time: now.as_i64(),
    };
    answer.to_json(about, &time(now))
}

/// `2026-11-21T05:57:53.123Z` as the vendor writes it: `20261121T055753Z`.
pub fn time(at: Millis) -> String {
    let text = at.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    let digits = seconds.trim_end_matches('Z').replace(['-', ':'], "");
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
    use serde_json::{Value, json};

    use super::*;

    fn asked(services: &Value) -> Verdict {
        let (product, node, device) = (
            ProductId::new("P").expect("legal"),
            NodeId::new("d").expect("legal"),
            DeviceId::new("P_d").expect("legal"),
        );
        let names = DeviceNames {
            product: &product,
            node: &node,
            device: &device,
        };
        let payload = json!({"object_device_id": "P_d", "services": services}).to_string();
        let at = Millis::from_i64(1_795_240_673_123);
        ask(names, payload.as_bytes(), at, at)
    }

    #[test]
    fn the_time_is_told_on_the_device_s_own_topic() {
        let verdict = asked(&json!([
            {"service_id": "$log"},
            {"service_id": "$time_sync", "event_type": "time_sync_request", "paras": {"device_send_time": 5}},
        ]));
        let Verdict::Answer { topic, payload } = verdict else {
            panic!("an answer: {verdict:?}")
        };
        assert_eq!(topic, "$oc/devices/P_d/sys/events/down");
        let answer: Value = serde_json::from_slice(&payload).expect("JSON");
        let service = &answer["services"][0];
        assert_eq!(service["event_time"], "20261121T055753Z");
        assert_eq!(service["paras"]["device_send_time"], 5);
        assert_eq!(service["paras"]["server_recv_time"], 1_795_240_673_123_i64);
    }

    #[test]
    fn what_the_gateway_has_no_service_for_is_data() {
        for (services, verdict) in [
            (
                json!([{"service_id": "$log"}, {"service_id": "$sdk_info"}]),
                Verdict::Taken,
            ),
            (json!([{"service_id": "mine"}]), Verdict::Data),
            (
                json!([{"service_id": "$log"}, {"service_id": "mine"}]),
                Verdict::Data,
            ),
            (json!(7), Verdict::Data),
        ] {
            assert_eq!(asked(&services), verdict, "{services}");
        }
    }
}
