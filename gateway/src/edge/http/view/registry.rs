//! Products and devices as the API shows and takes them.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    edge::http::{certificates::CertificateView, schema},
    model::{
        AuthKind, Confirm, CredentialForm, CredentialSlot, Device, Fingerprint, Millis, Product,
        PskEncoding, TopicPolicy, Transports,
    },
    service::DeviceSlots,
};

/// How the devices of a product may connect.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Transports)]
pub struct TransportsView {
    /// MQTT over TLS.
    #[serde(default)]
    mqtt: bool,
    /// CoAP, plain and over DTLS.
    #[serde(default)]
    coap: bool,
}

/// Topic filters that a product's devices may use besides the default ones; `{product}` and
/// `{device}` stand for the two ids.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TopicPolicy)]
pub struct TopicPolicyView {
    /// Where they may publish.
    #[serde(default)]
    publish: Vec<String>,
    /// What they may subscribe to.
    #[serde(default)]
    subscribe: Vec<String>,
}

/// A kind of device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    /// Its id, fixed for ever.
    #[schema(value_type = String)]
    id: ProductId,
    /// A label of 1 to 64 characters.
    name: String,
    /// Up to 100 characters.
    description: String,
    /// How its devices may connect.
    transports: TransportsView,
    /// How its devices may prove who they are.
    #[schema(schema_with = schema::auth_kinds)]
    auth_kinds: Vec<AuthKind>,
    /// In whose forms its devices may write their credentials.
    #[schema(schema_with = schema::credential_forms)]
    credential_forms: Vec<CredentialForm>,
    /// Authorities to one of which its devices' certificates must lead, PEM; absent: any registered certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca: Option<String>,
    /// Topics that its devices may use besides the default ones.
    topic_policy: TopicPolicyView,
    /// What makes a delivery delivered: the device's report, or the acknowledgement of every byte.
    #[schema(schema_with = schema::confirm)]
    confirm: Confirm,
    /// Whether `done` counts although not every byte was sent.
    trust_done: bool,
    /// Seconds after an uplink within which a sleeping device can be reached; absent: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable_after_uplink_secs: Option<u32>,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last changed.
    #[schema(schema_with = schema::time)]
    updated_at: Millis,
}

impl From<Product> for ProductView {
    fn from(product: Product) -> Self {
        Self {
            id: product.id,
            name: product.name,
            description: product.description,
            transports: TransportsView {
                mqtt: product.transports.mqtt,
                coap: product.transports.coap,
            },
            auth_kinds: product.auth_kinds,
            credential_forms: product.credential_forms,
            client_ca: product.client_ca,
            topic_policy: TopicPolicyView {
                publish: product.topic_policy.publish,
                subscribe: product.topic_policy.subscribe,
            },
            confirm: product.confirm,
            trust_done: product.trust_done,
            reachable_after_uplink_secs: product.reachable_after_uplink_secs,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

/// What can be said of a product; what is left out takes its default, also when an existing product
/// is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "sensor", "name": "Sensor"}))]
pub struct ProductBody {
    /// 1 to 36 letters, digits, `_` and `-`; needed to create, and the path's to replace.
    #[serde(default)]
    pub(in crate::edge::http) id: Option<String>,
    /// A label of 1 to 64 characters.
    name: String,
    /// Up to 100 characters.
    #[serde(default)]
    description: String,
    /// Default: MQTT alone.
    #[serde(default)]
    transports: Option<TransportsView>,
    /// Default: `secret`.
    #[serde(default)]
    #[schema(schema_with = schema::auth_kinds)]
    auth_kinds: Option<Vec<AuthKind>>,
    /// Default: `native`.
    #[serde(default)]
    #[schema(schema_with = schema::credential_forms)]
    credential_forms: Option<Vec<CredentialForm>>,
    /// Up to 16 certificates of authorities, PEM. Default: a registered fingerprint is enough.
    #[serde(default)]
    client_ca: Option<String>,
    /// Default: nothing besides the default topics.
    #[serde(default)]
    topic_policy: TopicPolicyView,
    /// Default: `report`.
    #[serde(default)]
    #[schema(schema_with = schema::confirm)]
    confirm: Confirm,
    /// Default: false.
    #[serde(default)]
    trust_done: bool,
    /// Default: always reachable.
    #[serde(default)]
    reachable_after_uplink_secs: Option<u32>,
}

impl ProductBody {
    /// The product that this describes, made now.
    pub(in crate::edge::http) fn into_product(self, id: ProductId) -> Product {
        let now = Millis::now();
        let transports = self
            .transports
            .map_or_else(Transports::default, |given| Transports {
                mqtt: given.mqtt,
                coap: given.coap,
            });
        Product {
            id,
            name: self.name,
            description: self.description,
            transports,
            auth_kinds: self.auth_kinds.unwrap_or_else(|| vec![AuthKind::Secret]),
            credential_forms: self
                .credential_forms
                .unwrap_or_else(|| vec![CredentialForm::Native]),
            client_ca: self.client_ca,
            topic_policy: TopicPolicy {
                publish: self.topic_policy.publish,
                subscribe: self.topic_policy.subscribe,
            },
            confirm: self.confirm,
            trust_done: self.trust_done,
            reachable_after_uplink_secs: self.reachable_after_uplink_secs,
            created_at: now,
            updated_at: now,
        }
    }
}

/// One device of a product.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub struct DeviceView {
    /// Its id in the whole gateway: username and default `ClientId` of a native device.
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// The product that it is one of.
    #[schema(value_type = String)]
    product_id: ProductId,
    /// Its id within its product: the `{device}` of topics and the `DeviceName` of a CSV.
    #[schema(value_type = String)]
    node_id: NodeId,
    /// A label of up to 64 characters; stands in no topic.
    name: String,
    /// Up to 100 characters for people.
    description: String,
    /// How it proves who it is.
    #[schema(schema_with = schema::auth_kind)]
    auth: AuthKind,
    /// How its secret is read as a pre-shared key.
    #[schema(schema_with = schema::psk_encoding)]
    psk_encoding: PskEncoding,
    /// Whether it may connect.
    enabled: bool,
    /// When it was registered.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last changed.
    #[schema(schema_with = schema::time)]
    updated_at: Millis,
    /// When it was last connected; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    last_seen_at: Option<Millis>,
}

impl From<Device> for DeviceView {
    fn from(device: Device) -> Self {
        Self {
            device_id: device.id,
            product_id: device.product_id,
            node_id: device.node_id,
            name: device.name,
            description: device.description,
            auth: device.auth,
            psk_encoding: device.psk_encoding,
            enabled: device.enabled,
            created_at: device.created_at,
            updated_at: device.updated_at,
            last_seen_at: device.last_seen_at,
        }
    }
}

/// A device that was just registered.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedDeviceView {
    /// The device.
    #[serde(flatten)]
    pub(in crate::edge::http) device: DeviceView,
    /// Its secret, shown this once; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) secret: Option<String>,
    /// Fingerprint of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::hex)]
    pub(in crate::edge::http) fingerprint: Option<Fingerprint>,
    /// The certificate, where it was given as such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) certificate: Option<CertificateView>,
}

/// A device with what it proves itself with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceDetail)]
pub struct DeviceDetailView {
    /// The device.
    #[serde(flatten)]
    device: DeviceView,
    /// Fingerprint of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::hex)]
    fingerprint: Option<Fingerprint>,
    /// Fingerprint of its second certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::hex)]
    secondary_fingerprint: Option<Fingerprint>,
    /// Whether it has a second secret.
    has_secondary_secret: bool,
}

impl DeviceDetailView {
    /// A device and its credentials.
    pub(in crate::edge::http) fn of(device: Device, slots: &DeviceSlots) -> Self {
        let fingerprint = |wanted| {
            let mut all = slots.fingerprints.iter();
            all.find_map(|(slot, found)| (*slot == wanted).then_some(*found))
        };
        Self {
            device: device.into(),
            fingerprint: fingerprint(CredentialSlot::Primary),
            secondary_fingerprint: fingerprint(CredentialSlot::Secondary),
            has_secondary_secret: slots.secrets.contains(&CredentialSlot::Secondary),
        }
    }
}

/// A device to be registered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"product_id": "sensor", "node_id": "d1"}))]
pub struct NewDeviceBody {
    /// The product that it is one of.
    #[schema(value_type = String)]
    pub(in crate::edge::http) product_id: ProductId,
    /// Its id within the product: 1 to 64 letters, digits, `_`, `:` and `-`.
    #[schema(value_type = String)]
    pub(in crate::edge::http) node_id: NodeId,
    /// Default: `{product_id}_{node_id}`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(in crate::edge::http) device_id: Option<DeviceId>,
    /// A label of up to 64 characters.
    #[serde(default)]
    pub(in crate::edge::http) name: String,
    /// Up to 100 characters for people.
    #[serde(default)]
    pub(in crate::edge::http) description: String,
    /// Default: the first kind that the product allows.
    #[serde(default)]
    #[schema(schema_with = schema::auth_kind)]
    pub(in crate::edge::http) auth: Option<AuthKind>,
    /// 8 to 32 letters, digits, `_` and `-`, or 8 to 64 characters of hexadecimal or base64 where `psk_encoding`
    /// says so; default: 32 random hexadecimal digits.
    #[serde(default)]
    pub(in crate::edge::http) secret: Option<String>,
    /// Default: `base64` where the product allows Tencent's form alone, `hex` where it allows CoAP alone, else
    /// `text`. Cannot be changed later.
    #[serde(default)]
    #[schema(schema_with = schema::psk_encoding)]
    pub(in crate::edge::http) psk_encoding: Option<PskEncoding>,
    /// SHA-256 of its certificate, 64 hexadecimal digits with or without colons; for `x509`, which needs it.
    #[serde(default)]
    pub(in crate::edge::http) fingerprint: Option<String>,
    /// The same of a second certificate that it may come with.
    #[serde(default)]
    pub(in crate::edge::http) secondary_fingerprint: Option<String>,
    /// The certificate in PEM, instead of `fingerprint`.
    #[serde(default)]
    pub(in crate::edge::http) certificate: Option<String>,
}

/// What of a device can be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Roof"}))]
pub struct DevicePatchBody {
    /// A label of up to 64 characters.
    #[serde(default)]
    pub(in crate::edge::http) name: Option<String>,
    /// Up to 100 characters for people.
    #[serde(default)]
    pub(in crate::edge::http) description: Option<String>,
    /// False: the device cannot connect any more.
    #[serde(default)]
    pub(in crate::edge::http) enabled: Option<bool>,
}

/// Which secret is to be replaced, and by what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"which": "secondary", "disconnect": false}))]
pub struct ResetSecretBody {
    /// Default: `primary`.
    #[serde(default = "primary")]
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// As at registration; default: 32 random hexadecimal digits.
    #[serde(default)]
    pub(in crate::edge::http) secret: Option<String>,
    /// Whether the device's connection is to be closed. Default: false.
    #[serde(default)]
    pub(in crate::edge::http) disconnect: bool,
}

/// Which fingerprint is to be replaced, and by what: `fingerprint` or `certificate`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"fingerprint": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}))]
pub struct ResetFingerprintBody {
    /// Default: `primary`.
    #[serde(default = "primary")]
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// SHA-256 of the certificate, 64 hexadecimal digits with or without colons.
    #[serde(default)]
    pub(in crate::edge::http) fingerprint: Option<String>,
    /// The certificate in PEM.
    #[serde(default)]
    pub(in crate::edge::http) certificate: Option<String>,
    /// Whether the device's connection is to be closed. Default: false.
    #[serde(default)]
    pub(in crate::edge::http) disconnect: bool,
}

/// What goes with the clearing of a device's second credential.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClearQuery {
    /// Whether the device's connection is to be closed. Default: false.
    #[serde(default)]
    pub(in crate::edge::http) disconnect: bool,
}

/// A fingerprint that was just set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FingerprintSet)]
pub struct FingerprintView {
    /// The device.
    #[schema(value_type = String)]
    pub(in crate::edge::http) device_id: DeviceId,
    /// Which of its two.
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// SHA-256 of the certificate.
    #[schema(schema_with = schema::hex)]
    pub(in crate::edge::http) fingerprint: Fingerprint,
    /// The certificate, where it was given as such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) certificate: Option<CertificateView>,
}

const fn primary() -> CredentialSlot {
    CredentialSlot::Primary
}

/// A secret that was just made or taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretView {
    /// The device.
    #[schema(value_type = String)]
    pub(in crate::edge::http) device_id: DeviceId,
    /// Which of its two credentials.
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// The secret, shown this once.
    pub(in crate::edge::http) secret: String,
}
