//! Certificates in requests about devices: given as a fingerprint or as the certificate itself.

use serde::Serialize;
use utoipa::ToSchema;

use super::{problem::Problem, schema};
use crate::model::{Fingerprint, InvalidField, Millis, certificate};

/// What a certificate says of itself, and what speaks against it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub struct CertificateView {
    /// Whom it names, as RFC 4514 writes it.
    subject: String,
    /// Who signed it.
    issuer: String,
    /// From when on it is valid.
    #[schema(schema_with = schema::time)]
    not_before: Millis,
    /// Until when it is valid.
    #[schema(schema_with = schema::time)]
    not_after: Millis,
    /// Its public key, for example `EC P-256`.
    key: String,
    /// What speaks against it; it is taken all the same.
    warnings: Vec<String>,
}

/// A fingerprint, and the certificate that it was computed from.
pub(super) type Given = (Fingerprint, Option<CertificateView>);

/// Reads a fingerprint in hexadecimal, or the certificate in PEM; `None` when there is neither.
pub(super) fn given(
    fingerprint: Option<&str>,
    pem: Option<&str>,
) -> Result<Option<Given>, Problem> {
    match (fingerprint, pem) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some((text.parse::<Fingerprint>()?, None))),
        (None, Some(pem)) => {
            let info = certificate::inspect(pem.as_bytes(), Millis::now())
                .map_err(|error| InvalidField::new("certificate", error.to_string()))?;
            let view = CertificateView {
                subject: info.subject,
                issuer: info.issuer,
                not_before: info.not_before,
                not_after: info.not_after,
                key: info.key.to_string(),
                warnings: info.warnings.iter().map(ToString::to_string).collect(),
            };
            Ok(Some((info.fingerprint, Some(view))))
        }
        (Some(_), Some(_)) => Err(Problem::field(
            "certificate",
            "certificate is given although fingerprint is",
        )),
    }
}
