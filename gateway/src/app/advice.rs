//! What is wrong with a configuration only beside what is registered: said at the start, in the log.

use crate::{
    config::FilesConfig,
    model::{CredentialForm, Page},
    store::{StoreError, registry::Registry},
};

/// Warns where devices of a product cannot read the addresses that they are told.
///
/// Tencent's C SDK takes a port for a part of the host's name, so its devices need `files.public_url` without one.
/// Products that are made later are as likely to have such devices: the documentation of the setting says so.
///
/// # Errors
/// [`StoreError`] where products cannot be read.
pub(super) async fn check_addresses(
    registry: &Registry,
    files: &FilesConfig,
) -> Result<(), StoreError> {
    if let Some(url) = &files.public_url
        && !names_a_port(url)
    {
        return Ok(());
    }
    let mut page = Page {
        limit: Page::MAX_LIMIT,
        cursor: None,
    };
    loop {
        let found = registry.products(&page).await?;
        let forms = found.items.iter();
        let mut affected =
            forms.filter(|product| product.credential_forms.contains(&CredentialForm::Tencent));
        if let Some(product) = affected.next() {
            tracing::warn!(product = %product.id, "devices with Tencent's C SDK cannot use addresses with a port: set files.public_url to one without");
            return Ok(());
        }
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// Whether an address has a port behind its host.
fn names_a_port(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(']')
        .map_or(authority, |(_, after)| after);
    host.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_seen_behind_names_and_addresses() {
        for (url, expected) in [
            ("https://files.example.org", false),
            ("https://files.example.org/x:1", false),
            ("https://files.example.org:8443", true),
            ("https://[::1]", false),
            ("https://[::1]:8443/f", true),
        ] {
            assert_eq!(names_a_port(url), expected, "{url}");
        }
    }
}
