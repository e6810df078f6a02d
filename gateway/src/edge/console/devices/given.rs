//! Credentials that a form gives: a secret twice, a fingerprint as text or as the certificate that it is of.

use multer::Field;
use zeroize::Zeroizing;

use crate::{
    edge::{
        console::{
            fault::Fault,
            form::{Errors, sentence},
            text::TEXTS,
        },
        http::{
            form::whole,
            problem::{Kind, Problem},
        },
    },
    model::{CertificateInfo, Fingerprint, Millis, Secret, certificate},
};

/// Bytes of a certificate's file; what has more is none.
pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A fingerprint, and what its certificate says where that was given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) fingerprint: Fingerprint,
    pub(super) certificate: Option<CertificateInfo>,
}

/// The secret of two fields; `None` where they are empty, and where they are wrong, which `errors` says then.
pub(super) fn secret(
    given: &Zeroizing<String>,
    again: &Zeroizing<String>,
    errors: &mut Errors,
) -> Option<Secret> {
    if given.as_str() != again.as_str() {
        errors.add("secret_again", TEXTS.register.secret_differs);
        return None;
    }
    if given.is_empty() {
        return None;
    }
    match Secret::given(given.as_str().to_owned()) {
        Ok(secret) => Some(secret),
        Err(error) => {
            errors.add("secret", sentence(&error.to_string()));
            None
        }
    }
}

/// The fingerprint of a text field or of a file; `None` where both are empty, and where they are wrong, which `errors`
/// says then.
///
/// # Errors
/// The fault of an upload that was cut.
pub(super) async fn fingerprint(
    text: &str,
    file: Field<'static>,
    errors: &mut Errors,
) -> Result<Option<Given>, Fault> {
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    let bytes = match whole(file, limit).await {
        Ok(bytes) => bytes,
        Err(problem) => {
            errors.add("file", unread(problem)?);
            return Ok(None);
        }
    };
    let text = text.trim();
    if bytes.is_empty() {
        if text.is_empty() {
            return Ok(None);
        }
        return Ok(match text.parse() {
            Ok(fingerprint) => Some(Given {
                fingerprint,
                certificate: None,
            }),
            Err(error) => {
                errors.add("fingerprint", sentence(&format!("{error}")));
                None
            }
        });
    }
    if !text.is_empty() {
        errors.add("file", TEXTS.register.both);
        return Ok(None);
    }
    match certificate::inspect(&bytes, Millis::now()) {
        Ok(info) => Ok(Some(Given {
            fingerprint: info.fingerprint,
            certificate: Some(info),
        })),
        Err(error) => {
            errors.add("file", sentence(&format!("file {error}")));
            Ok(None)
        }
    }
}

/// What is wrong with a file; a fault where it did not arrive.
fn unread(problem: Problem) -> Result<String, Fault> {
    match problem.kind() {
        Kind::TooLarge => {
            let error = certificate::CertificateError::TooLarge;
            Ok(sentence(&format!("file {error}")))
        }
        _ => Err(problem.into()),
    }
}
