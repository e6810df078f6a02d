//! Words of the overview.

use super::texts;

texts! {
    /// How all is.
    Overview {
        title: "Overview",
        devices_online: "Devices online",
        by_mqtt: "by MQTT",
        by_coap: "by CoAP",
        warnings: "Warnings",
        no_warnings: "Nothing needs attention.",
        backend: "{name}: {reason}",
    }
}
