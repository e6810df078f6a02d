//! Words of the pages about products, and of what products choose from.

use super::texts;

texts! {
    /// Products.
    Products {
        title: "Products",
        about: "Kinds of devices: how they connect, how they prove who they are and which topics they use.",
        add: "Make a product",
        empty: "There is no product yet. Devices and resources belong to one: make it first.",
        id: "Product id",
        name: "Name",
        description: "Description",
        transports: "Transports",
        auth_kinds: "Authentication",
        credential_forms: "Credential forms",
        changed: "Changed",
        created: "Made",
        details: "Details",
        id_hint: "1 to 36 letters, digits, _ and -. It stands in topics and device ids, and never changes.",
        name_hint: "1 to 64 characters.",
        description_hint: "Up to 100 characters.",
        transports_hint: "How its devices may connect.",
        auth_kinds_hint: "How its devices may prove who they are. The first one chosen is what a device has where nothing is said.",
        credential_forms_hint: "How its devices write user name and password. Tencent's form needs a product id of exactly 10 letters and digits.",
        client_ca: "Authorities of certificates",
        client_ca_hint: "Certificates in PEM, up to 16. A device's certificate must lead to one of them. Empty: any certificate whose fingerprint is registered.",
        topics: "Topics besides the default ones",
        publish: "May publish to",
        subscribe: "May subscribe to",
        topics_hint: "One topic filter a line, up to 64. {product} and {device} stand for the product id and the node id.",
        confirm: "A delivery is delivered when",
        trust_done: "Take “done” from a device although not every byte was sent",
        reachable_after_uplink_secs: "Seconds that a sleeping device can be reached after it spoke",
        reachable_hint: "Empty: its devices do not sleep.",
        reachable_rule: "Give a whole number of seconds, 1 or more, or nothing.",
        reachable: "Reachable after it spoke",
        seconds: "{seconds} s",
        always: "always",
        none: "none",
        any_authority: "any registered certificate",
        some_authorities: "only certificates of the given authorities",
        edit_title: "Edit a product",
        delete_title: "Delete a product",
        delete_question: "Delete the product “{id}”? Only one without devices and resources can go.",
        devices: "Its devices",
        resources: "Its resources",
        register: "Register a device",
        taken: "Another product has this id.",
        in_use: "The product cannot go: it is in use by {by}.",
        clash: "A device of this product would get a name that is taken by {with}.",
    }
}

/// The words of what can be chosen, by the names that the API gives them.
#[derive(Debug)]
pub(in crate::edge::console) struct Kinds(&'static [(&'static str, &'static str)]);

impl Kinds {
    /// English.
    pub(in crate::edge::console) const EN: Self = Self(&[
        ("mqtt", "MQTT"),
        ("coap", "CoAP"),
        ("secret", "Secret"),
        ("x509", "X.509 certificate"),
        ("none", "None, by plain CoAP"),
        ("native", "Native: the secret itself, over TLS"),
        ("huawei", "Huawei's: a signature under the hour"),
        ("tencent", "Tencent's: a signature over the user name"),
        ("report", "the device says that it is done"),
        ("acked", "every byte was acknowledged"),
        ("text", "its characters are the key"),
        ("hex", "hexadecimal"),
        ("base64", "base64"),
        ("primary", "First"),
        ("secondary", "Second"),
        ("viewer", "Viewer"),
        ("operator", "Operator"),
        ("admin", "Administrator"),
    ]);

    /// The words of a name; the name where there are none.
    pub(in crate::edge::console) fn of<'a>(&self, name: &'a str) -> &'a str {
        let mut known = self.0.iter();
        known
            .find_map(|(known, text)| (*known == name).then_some(*text))
            .unwrap_or(name)
    }
}
