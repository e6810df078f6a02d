//! Schemas of the words and identifiers that several views share.
//!
//! The model knows nothing of OpenAPI; these functions say for it what its types look like in JSON.

use utoipa::openapi::{
    Object, ObjectBuilder, SchemaFormat,
    schema::{Array, ArrayBuilder, Type},
};

fn words(all: &[&str]) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(all.iter().copied()))
        .build()
}

fn list_of(all: &[&str]) -> Array {
    ArrayBuilder::new().items(words(all)).build()
}

const AUTH_KINDS: &[&str] = &["secret", "x509", "none"];

/// How a device proves who it is.
pub(super) fn auth_kind() -> Object {
    words(AUTH_KINDS)
}

/// How the devices of a product may prove who they are.
pub(super) fn auth_kinds() -> Array {
    list_of(AUTH_KINDS)
}

/// In whose forms devices write their credentials.
pub(super) fn credential_forms() -> Array {
    list_of(&["native", "huawei", "tencent"])
}

/// How a secret is read as a pre-shared key.
pub(super) fn psk_encoding() -> Object {
    words(&["text", "hex", "base64"])
}

/// Which of the two credentials.
pub(super) fn credential_slot() -> Object {
    words(&["primary", "secondary"])
}

/// How far a batch of devices is.
pub(super) fn batch_state() -> Object {
    words(&["waiting", "running", "finished", "failed"])
}

/// How a row of a batch ended.
pub(super) fn row_state() -> Object {
    words(&["created", "unchanged", "failed"])
}

/// What makes a delivery delivered.
pub(super) fn confirm() -> Object {
    words(&["report", "acked"])
}

/// How far a delivery is.
pub(super) fn delivery_state() -> Object {
    words(&["pending", "pushed", "delivering", "delivered", "failed"])
}

/// How far the making of a task is.
pub(super) fn creation_state() -> Object {
    words(&["not_started", "creating", "created", "creation_failed"])
}

/// How far the running of a task is.
pub(super) fn run_state() -> Object {
    words(&[
        "scheduled",
        "running",
        "paused",
        "aborted",
        "canceled",
        "finished",
    ])
}

/// What became of a message to a device.
pub(super) fn sent() -> Object {
    words(&["sent", "queued"])
}

/// What someone may do.
pub(super) fn role() -> Object {
    words(&["viewer", "operator", "admin"])
}

/// How far a node is.
pub(super) fn node_state() -> Object {
    words(&["ready", "not_ready", "draining"])
}

/// Whether an upload is whole.
pub(super) fn upload_phase() -> Object {
    words(&["receiving", "stored"])
}

/// A time, RFC 3339 in UTC with milliseconds.
pub(super) fn time() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(
            utoipa::openapi::KnownFormat::DateTime,
        )))
        .examples(["2026-01-31T12:00:00.000Z"])
        .build()
}

/// An id that the gateway made: 13 characters, in the order of their making.
pub(super) fn id() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-7][0-9a-hjkmnp-tv-z]{12}$"))
        .examples(["02xk3fvq5m8g0"])
        .build()
}

/// A digest in hexadecimal.
pub(super) fn hex() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-9a-f]+$"))
        .build()
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::to_value;

    use super::*;
    use crate::model::{
        AuthKind, BatchState, Confirm, CreationState, CredentialForm, CredentialSlot,
        DeliveryState, Id, PskEncoding, RowState, RunState, UploadPhase,
    };

    fn check<T: Serialize>(all: &[T], schema: &impl Serialize) {
        let schema = to_value(schema).expect("json");
        let values = schema.get("items").unwrap_or(&schema)["enum"].clone();
        assert_eq!(to_value(all).expect("words"), values);
    }

    #[test]
    fn schemas_name_the_models_words() {
        let kinds = [AuthKind::Secret, AuthKind::X509, AuthKind::None];
        check(&kinds, &auth_kind());
        check(&kinds, &auth_kinds());
        let forms = [
            CredentialForm::Native,
            CredentialForm::Huawei,
            CredentialForm::Tencent,
        ];
        check(&forms, &credential_forms());
        let encodings = [PskEncoding::Text, PskEncoding::Hex, PskEncoding::Base64];
        check(&encodings, &psk_encoding());
        let slots = [CredentialSlot::Primary, CredentialSlot::Secondary];
        check(&slots, &credential_slot());
        check(&[Confirm::Report, Confirm::Acked], &confirm());
        check(BatchState::ALL, &batch_state());
        check(RowState::ALL, &row_state());
        check(DeliveryState::ALL, &delivery_state());
        check(CreationState::ALL, &creation_state());
        check(RunState::ALL, &run_state());
        let phases = UploadPhase::ALL.iter().map(|phase| phase.as_str());
        check(&phases.collect::<Vec<_>>(), &upload_phase());
    }

    #[test]
    fn example_id_is_one() {
        let schema = to_value(id()).expect("json");
        let example = schema["examples"][0].as_str().expect("an example");
        example.parse::<Id>().expect("an id");
    }
}
