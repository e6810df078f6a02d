//! Products: what a kind of device may do and how it proves who it is.

use headgate_protocol::identity::ProductId;
use serde::{Deserialize, Serialize};

use crate::model::{
    certificate::{self, CertificateError},
    device::AuthKind,
    text::{self, InvalidField},
    time::Millis,
};

/// A kind of device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id, fixed for ever; stands in topics and default device ids.
    pub id: ProductId,
    /// A label of 1 to 64 characters.
    pub name: String,
    /// Up to 100 characters.
    pub description: String,
    /// How its devices may connect.
    pub transports: Transports,
    /// How its devices may prove who they are; at least one.
    pub auth_kinds: Vec<AuthKind>,
    /// In whose forms its devices may write their credentials; at least one.
    pub credential_forms: Vec<CredentialForm>,
    /// Authorities to one of which its devices' certificates must lead, PEM; `None`: any certificate whose fingerprint is
    /// registered.
    pub client_ca: Option<String>,
    /// Topics that its devices may use besides the default ones.
    pub topic_policy: TopicPolicy,
    /// What makes a delivery delivered.
    pub confirm: Confirm,
    /// Whether `done` counts although not every byte was sent.
    pub trust_done: bool,
    /// Seconds after an uplink within which a device that sleeps can be reached; `None`: always.
    pub reachable_after_uplink_secs: Option<u32>,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// How devices of a product may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transports {
    /// MQTT over TLS.
    pub mqtt: bool,
    /// CoAP, plain and over DTLS.
    pub coap: bool,
}

impl Default for Transports {
    fn default() -> Self {
        Self {
            mqtt: true,
            coap: false,
        }
    }
}

/// In whose form a device writes its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialForm {
    /// The secret itself, over TLS.
    Native,
    /// Huawei's: an HMAC under the hour.
    Huawei,
    /// Tencent's: an HMAC over the username.
    Tencent,
}

/// What makes a delivery delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// The device says `done`.
    #[default]
    Report,
    /// Every byte was acknowledged.
    Acked,
}

/// Topic filters that a product's devices may use besides the default ones.
///
/// `{product}` and `{device}` stand for the product's id and the device's node id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPolicy {
    /// Where they may publish.
    #[serde(default)]
    pub publish: Vec<String>,
    /// What they may subscribe to.
    #[serde(default)]
    pub subscribe: Vec<String>,
}

impl CredentialForm {
    /// Every form.
    pub const ALL: &'static [Self] = &[Self::Native, Self::Huawei, Self::Tencent];

    /// The form's name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Huawei => "huawei",
            Self::Tencent => "tencent",
        }
    }
}

impl Confirm {
    /// The name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Acked => "acked",
        }
    }
}

impl Product {
    /// Checks every rule that its fields must keep together.
    ///
    /// # Errors
    /// [`InvalidField`] for the first field that breaks one.
    pub fn validate(&self) -> Result<(), InvalidField> {
        text::check_label("name", &self.name, 1)?;
        text::check_description("description", &self.description)?;
        if !self.transports.mqtt && !self.transports.coap {
            return Err(InvalidField::new("transports", "allow no transport"));
        }
        check_set("auth_kinds", &self.auth_kinds)?;
        check_set("credential_forms", &self.credential_forms)?;
        let tencent_id = self.id.as_str().len() == TENCENT_ID_LEN
            && self.id.as_str().bytes().all(|b| b.is_ascii_alphanumeric());
        if self.credential_forms.contains(&CredentialForm::Tencent) && !tencent_id {
            return Err(InvalidField::new(
                "id",
                "is not exactly 10 letters and digits, which Tencent's credential form needs",
            ));
        }
        self.client_ca.as_deref().map_or(Ok(()), check_client_ca)?;
        if self.reachable_after_uplink_secs == Some(0) {
            return Err(InvalidField::new("reachable_after_uplink_secs", "is 0"));
        }
        self.topic_policy.validate()
    }
}

impl TopicPolicy {
    fn validate(&self) -> Result<(), InvalidField> {
        for (field, filters) in [
            ("topic_policy.publish", &self.publish),
            ("topic_policy.subscribe", &self.subscribe),
        ] {
            if filters.len() > MAX_FILTERS {
                return Err(InvalidField::new(
                    field,
                    format!("has more than {MAX_FILTERS} filters"),
                ));
            }
            for filter in filters {
                check_filter(filter).map_err(|reason| {
                    InvalidField::new(field, format!("has the filter {filter:?}, which {reason}"))
                })?;
            }
        }
        Ok(())
    }
}

fn check_client_ca(pem: &str) -> Result<(), InvalidField> {
    let invalid = |reason: String| InvalidField::new("client_ca", reason);
    let malformed = |error: CertificateError| invalid(error.to_string());
    let authorities = certificate::read_pem(pem.as_bytes()).map_err(malformed)?;
    if authorities.len() > MAX_AUTHORITIES {
        return Err(invalid(format!(
            "has more than {MAX_AUTHORITIES} certificates"
        )));
    }
    for authority in &authorities {
        let info = certificate::describe(authority, Millis::now()).map_err(malformed)?;
        if !certificate::is_authority(authority).map_err(malformed)? {
            let subject = info.subject;
            return Err(invalid(format!(
                "has the certificate of {subject:?}, which is no authority's"
            )));
        }
    }
    Ok(())
}

fn check_set<T: PartialEq>(field: &'static str, items: &[T]) -> Result<(), InvalidField> {
    if items.is_empty() {
        return Err(InvalidField::new(field, "is empty"));
    }
    let repeated = items
        .iter()
        .enumerate()
        .any(|(index, item)| items.iter().take(index).any(|before| before == item));
    if repeated {
        return Err(InvalidField::new(field, "names something twice"));
    }
    Ok(())
}

fn check_filter(filter: &str) -> Result<(), &'static str> {
    if filter.is_empty() {
        return Err("is empty");
    }
    if filter.len() > MAX_FILTER_BYTES {
        return Err("is longer than 255 bytes");
    }
    if filter.chars().any(char::is_control) {
        return Err("has a control character");
    }
    let mut levels = filter.split('/').peekable();
    let mut count = 0;
    while let Some(level) = levels.next() {
        count += 1;
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err("has a '#' that is not alone in the last level");
        }
        // [MQTT-4.7.1-3]
        if level.contains('+') && level != "+" {
            return Err("has a '+' that is not alone in its level");
        }
        let rest = level.replace("{product}", "").replace("{device}", "");
        if rest.contains(['{', '}']) {
            return Err("has a placeholder other than {product} and {device}");
        }
    }
    if count > MAX_FILTER_LEVELS {
        return Err("has more than 10 levels");
    }
    Ok(())
}

/// Certificates of authorities that a product may have.
const MAX_AUTHORITIES: usize = 16;
const TENCENT_ID_LEN: usize = 10;
/// Filters of one direction in a topic policy.
const MAX_FILTERS: usize = 64;
const MAX_FILTER_BYTES: usize = 255;
const MAX_FILTER_LEVELS: usize = 10;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn product(id: &str) -> Product {
        Product {
            id: ProductId::new(id).unwrap(),
            name: "Meter".to_owned(),
            description: String::new(),
            transports: Transports::default(),
            auth_kinds: vec![AuthKind::Secret],
            credential_forms: vec![CredentialForm::Native],
            client_ca: None,
            topic_policy: TopicPolicy::default(),
            confirm: Confirm::Report,
            trust_done: false,
            reachable_after_uplink_secs: None,
            created_at: Millis::from_i64(1),
            updated_at: Millis::from_i64(1),
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Product), field: &str) {
        let mut product = product("meter");
        change(&mut product);
        assert_eq!(product.validate().unwrap_err().field, field);
    }

    #[test]
    fn every_rule_names_its_field() {
        assert_eq!(product("meter").validate(), Ok(()));
        refused(|p| p.name.clear(), "name");
        refused(|p| p.description = "é".repeat(101), "description");
        refused(|p| p.transports.mqtt = false, "transports");
        refused(|p| p.auth_kinds.clear(), "auth_kinds");
        refused(|p| p.auth_kinds.push(AuthKind::Secret), "auth_kinds");
        refused(|p| p.credential_forms.clear(), "credential_forms");
        let leaf = include_str!("certificate/weak.pem");
        refused(|p| p.client_ca = Some(String::new()), "client_ca");
        refused(|p| p.client_ca = Some(leaf.to_owned()), "client_ca");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        refused(|p| p.client_ca = Some(key.to_owned()), "client_ca");
        refused(
            |p| p.reachable_after_uplink_secs = Some(0),
            "reachable_after_uplink_secs",
        );
        refused(
            |p| p.topic_policy.publish.push(String::new()),
            "topic_policy.publish",
        );
        refused(
            |p| p.topic_policy.subscribe.push("a#".into()),
            "topic_policy.subscribe",
        );
        refused(
            |p| p.topic_policy.publish = vec!["a".into(); 65],
            "topic_policy.publish",
        );
    }

    #[test]
    fn tencents_form_wants_ten_letters_and_digits() {
        for (id, legal) in [
            ("ABCDE12345", true),
            ("ABCDE1234", false),
            ("ABCDE_2345", false),
        ] {
            let mut product = product(id);
            assert_eq!(product.validate(), Ok(()));
            product.credential_forms.push(CredentialForm::Tencent);
            assert_eq!(product.validate().is_ok(), legal, "{id}");
        }
    }

    #[test]
    fn topic_filters_follow_the_standard() {
        for (filter, legal) in [
            ("{product}/{device}/#", true),
            ("fleet/+/state", true),
            ("$x/{product}-{device}", true),
            ("#", true),
            ("a/#/b", false),
            ("a/b#", false),
            ("a+/b", false),
            ("{node}/a", false),
            ("a\0b", false),
            ("1/2/3/4/5/6/7/8/9/10", true),
            ("1/2/3/4/5/6/7/8/9/10/11", false),
        ] {
            assert_eq!(check_filter(filter).is_ok(), legal, "{filter}");
        }
    }
}
