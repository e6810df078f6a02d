//! Words of the pages about what devices sent.

use super::texts;

texts! {
    /// Device resources.
    Uploads {
        title: "Device resources",
        about: "Files that devices have sent, and are sending.",
        device: "Device id",
        product: "Product",
        name: "Name",
        state: "State",
        all_states: "All states",
        version: "Version",
        size: "Size",
        sent: "Announced",
        empty: "No device has sent a file yet.",
        empty_search: "No file fits the filter.",
        actions: "Actions",
        download: "Download",
        received: "{percent} % received",
        delete_title: "Delete a device resource",
        delete_question: "Delete “{name}” of {device}? Its bytes are gone then.",
        delete_receiving: "“{name}” of {device} is still being received. Delete it? The device is told that it failed.",
        sha256: "SHA-256",
        md5: "MD5",
        id: "Id",
    }
}
