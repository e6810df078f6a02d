//! An application's form: client id `app:{app_id}[:instance]`, username `{app_id}`, password its secret.
//!
//! Several instances of one application differ in what follows the second colon.

/// Whether CONNECT's fields have this form.
pub(super) fn is(client_id: &str, username: &str) -> bool {
    let Some(rest) = client_id
        .strip_prefix("app:")
        .and_then(|rest| rest.strip_prefix(username))
    else {
        return false;
    };
    !username.is_empty() && !username.contains(':') && (rest.is_empty() || rest.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_names_the_application_and_the_instance() {
        for (client_id, username, expected) in [
            ("app:billing", "billing", true),
            ("app:billing:2", "billing", true),
            ("app:billing:", "billing", true),
            ("app:billing:a:b", "billing", true),
            ("app:billing2", "billing", false),
            ("app:billing", "", false),
            ("app:", "", false),
            ("app:a:b", "a:b", false),
            ("App:billing", "billing", false),
            ("billing", "billing", false),
            ("app:other", "billing", false),
        ] {
            assert_eq!(is(client_id, username), expected, "{client_id} {username}");
        }
    }
}
