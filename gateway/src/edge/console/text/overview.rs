//! Words of the overview.

use super::texts;

texts! {
    /// How all is.
    Overview {
        title: "Overview",
        now: "Now",
        by_mqtt: "Online by MQTT",
        by_coap: "Online by CoAP",
        devices_online: "Devices online",
        connects: "Connects a second",
        bytes_out: "To devices a second",
        bytes_in: "From devices a second",
        waiting: "Deliveries waiting",
        in_progress: "Deliveries in progress",
        last: "The last {minutes} minutes",
        most: "most {value}",
        no_samples: "The first line appears after half a minute.",
        chart: "{title}: {last} now, {most} at most in the last {minutes} minutes",
        tasks: "Tasks under way",
        no_tasks: "No task is under way.",
        warnings: "Warnings",
        first_steps: "First steps",
        first_product: "Make a product",
        first_product_about: "a kind of devices, and how they connect.",
        first_device: "Register devices",
        first_device_one: "or one device",
        first_device_about: "from a CSV,",
        first_resource: "Add a resource",
        first_resource_about: "the file that devices are to get.",
        first_task: "Deliver it",
        first_task_about: "and watch it arrive.",
        done: "done",
        no_warnings: "Nothing needs attention.",
        backend: "{name} fails: {reason}",
        certificate_ended: "A certificate has ended. Devices that check it do not connect.",
        certificate_ends: "A certificate ends in {days} days.",
        certificate_unusable: "A changed certificate could not be used; the one from before is still served. The log says why.",
        paused_sockets: "{count} connections are not read from for now: what they send cannot be taken as fast.",
    }
}
