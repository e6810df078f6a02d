//! Devices and the strings that name them.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use serde::{Deserialize, Serialize};

use crate::model::{
    message::DeviceName,
    product::{CredentialForm, Product},
    text::{self, InvalidField},
    time::Millis,
};

/// One device of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id in the whole gateway, fixed for ever.
    pub id: DeviceId,
    /// The product that it is one of, fixed for ever.
    pub product_id: ProductId,
    /// Its id within its product: the `{device}` of topics, fixed for ever.
    pub node_id: NodeId,
    /// A label of up to 64 characters: in no topic, not unique.
    pub name: String,
    /// Up to 100 characters for people.
    pub description: String,
    /// How it proves who it is.
    pub auth: AuthKind,
    /// How its secret is read as a pre-shared key, fixed for ever.
    pub psk_encoding: PskEncoding,
    /// Whether it may connect; false: frozen.
    pub enabled: bool,
    /// When it was registered.
    pub created_at: Millis,
    /// When an operator last changed it.
    pub updated_at: Millis,
    /// When it was last connected; `None`: never.
    pub last_seen_at: Option<Millis>,
}

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// It knows a secret.
    Secret,
    /// It holds the key of a certificate whose fingerprint is registered.
    X509,
    /// It does not: plain CoAP only.
    None,
}

/// How a secret is read as a pre-shared key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PskEncoding {
    /// Its characters are the key.
    #[default]
    Text,
    /// It is the key in hexadecimal.
    Hex,
    /// It is the key in base64.
    Base64,
}

/// Which of a device's two credentials: both are valid at any time, so that one can be replaced first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialSlot {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}

/// What kind of name an alias is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AliasKind {
    /// The device id.
    DeviceId,
    /// Tencent's ClientId: product id and node id without anything between.
    TencentClientId,
    /// The node id alone: CoAP endpoint name and PSK identity.
    NodeId,
}

/// A string that names a device, unique among all devices' aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The whole string.
    pub alias: String,
    /// What it is.
    pub kind: AliasKind,
}

impl Device {
    /// All of its ids.
    pub fn name(&self) -> DeviceName {
        DeviceName {
            device_id: self.id.clone(),
            product_id: self.product_id.clone(),
            node_id: self.node_id.clone(),
        }
    }

    /// Checks the fields that are no checked types already, and those that must fit `product`.
    ///
    /// # Errors
    /// [`InvalidField`] for the first that breaks a rule.
    pub fn validate(&self, product: &Product) -> Result<(), InvalidField> {
        text::check_label("name", &self.name, 0)?;
        text::check_description("description", &self.description)?;
        if !product.auth_kinds.contains(&self.auth) {
            return Err(InvalidField::new("auth", "is not allowed by the product"));
        }
        if self.auth == AuthKind::None && !product.transports.coap {
            return Err(InvalidField::new(
                "auth",
                "is none, which only products that allow CoAP can have",
            ));
        }
        Ok(())
    }

    /// Every string that names the device, once each.
    pub fn aliases(&self, product: &Product) -> Vec<Alias> {
        let mut aliases = vec![Alias {
            alias: self.id.to_string(),
            kind: AliasKind::DeviceId,
        }];
        let mut add = |alias: String, kind| {
            if aliases.iter().all(|known: &Alias| known.alias != alias) {
                aliases.push(Alias { alias, kind });
            }
        };
        if product.allows_alias(AliasKind::TencentClientId) {
            add(
                format!("{}{}", self.product_id, self.node_id),
                AliasKind::TencentClientId,
            );
        }
        if product.allows_alias(AliasKind::NodeId) {
            add(self.node_id.to_string(), AliasKind::NodeId);
        }
        aliases
    }
}

impl Product {
    /// Whether devices of this product are named by aliases of this kind.
    pub fn allows_alias(&self, kind: AliasKind) -> bool {
        match kind {
            AliasKind::DeviceId => true,
            AliasKind::TencentClientId => self.credential_forms.contains(&CredentialForm::Tencent),
            AliasKind::NodeId => self.transports.coap,
        }
    }

    /// How the secrets of its devices are read as pre-shared keys where nothing is said: as Tencent's form writes
    /// them where that is the only one, in hexadecimal where devices speak CoAP alone, else as their characters. A
    /// secret that the gateway makes is hexadecimal wherever devices may speak CoAP: a key of 16 bytes, which is all
    /// that some of them take.
    pub fn usual_psk_encoding(&self, is_given: bool) -> PskEncoding {
        if self.credential_forms == [CredentialForm::Tencent] {
            PskEncoding::Base64
        } else if self.transports.coap && !(self.transports.mqtt && is_given) {
            PskEncoding::Hex
        } else {
            PskEncoding::Text
        }
    }
}

impl AuthKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Secret, Self::X509, Self::None];

    /// The kind's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::X509 => "x509",
            Self::None => "none",
        }
    }
}

impl PskEncoding {
    /// Every encoding.
    pub const ALL: &'static [Self] = &[Self::Text, Self::Hex, Self::Base64];

    /// The encoding's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

impl CredentialSlot {
    /// The slot's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl AliasKind {
    /// The kind's name as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceId => "device_id",
            Self::TencentClientId => "tencent_client_id",
            Self::NodeId => "node_id",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::product::tests::product;

    pub(crate) fn device(product: &str, node: &str) -> Device {
        let product_id = ProductId::new(product).unwrap();
        let node_id = NodeId::new(node).unwrap();
        Device {
            id: DeviceId::default_for(&product_id, &node_id),
            product_id,
            node_id,
            name: String::new(),
            description: String::new(),
            auth: AuthKind::Secret,
            psk_encoding: PskEncoding::Text,
            enabled: true,
            created_at: Millis::from_i64(1),
            updated_at: Millis::from_i64(1),
            last_seen_at: None,
        }
    }

    fn names(device: &Device, product: &Product) -> Vec<String> {
        let aliases = device.aliases(product).into_iter();
        aliases.map(|alias| alias.alias).collect()
    }

    #[test]
    fn a_device_answers_to_what_its_product_allows() {
        let mut product = product("ABCDE12345");
        let device = device("ABCDE12345", "n1");
        assert_eq!(names(&device, &product), ["ABCDE12345_n1"]);
        product.credential_forms.push(CredentialForm::Tencent);
        product.transports.coap = true;
        assert_eq!(
            names(&device, &product),
            ["ABCDE12345_n1", "ABCDE12345n1", "n1"]
        );
    }

    #[test]
    fn a_name_that_is_two_kinds_stands_once() {
        let mut product = product("meter");
        product.transports.coap = true;
        let mut device = device("meter", "n1");
        device.id = DeviceId::new("n1").unwrap();
        assert_eq!(names(&device, &product), ["n1"]);
    }

    #[test]
    fn a_device_must_fit_its_product() {
        let mut product = product("meter");
        let mut device = device("meter", "n1");
        assert_eq!(device.validate(&product), Ok(()));
        device.name = "x".repeat(65);
        assert_eq!(device.validate(&product).unwrap_err().field, "name");
        device.name.clear();
        device.auth = AuthKind::None;
        assert_eq!(device.validate(&product).unwrap_err().field, "auth");
        product.auth_kinds.push(AuthKind::None);
        assert_eq!(device.validate(&product).unwrap_err().field, "auth");
        product.transports.coap = true;
        assert_eq!(device.validate(&product), Ok(()));
    }
}
