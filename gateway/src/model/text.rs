//! Rules for texts that people write: how long, which characters.

use crate::model::page::InvalidPage;

/// A field breaks a rule. The reason reads on from the field's name: "`name` is longer than 64 characters".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidField {
    /// The field as the API names it.
    pub field: &'static str,
    /// The rule that it breaks.
    pub reason: String,
}

impl InvalidField {
    /// A field and the rule that it breaks.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}

impl From<InvalidPage> for InvalidField {
    fn from(error: InvalidPage) -> Self {
        match error {
            InvalidPage::Limit => Self::new("limit", "is not between 1 and 500"),
            InvalidPage::Cursor => Self::new("cursor", "is none that this list gave"),
        }
    }
}

/// Checks a label: `min` to [`MAX_LABEL_CHARS`] characters, none of them a control character.
///
/// # Errors
/// [`InvalidField`] naming the rule.
pub fn check_label(field: &'static str, text: &str, min: usize) -> Result<(), InvalidField> {
    check(field, text, min, MAX_LABEL_CHARS)
}

/// Checks a description: up to [`MAX_DESCRIPTION_CHARS`] characters, line breaks allowed.
///
/// # Errors
/// [`InvalidField`] naming the rule.
pub fn check_description(field: &'static str, text: &str) -> Result<(), InvalidField> {
    let visible = text.replace(['\n', '\r', '\t'], " ");
    check(field, &visible, 0, MAX_DESCRIPTION_CHARS)
}

fn check(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), InvalidField> {
    let chars = text.chars().count();
    if chars < min {
        return Err(InvalidField::new(field, "is empty"));
    }
    if chars > max {
        return Err(InvalidField::new(
            field,
            format!("is longer than {max} characters"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidField::new(field, "has a control character"));
    }
    Ok(())
}

/// Longest label (names of products, devices and tasks), in characters.
pub const MAX_LABEL_CHARS: usize = 64;
/// Longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_count_characters_not_bytes() {
        assert_eq!(check_description("description", ""), Ok(()));
        assert_eq!(check_description("description", &"固".repeat(100)), Ok(()));
        assert_eq!(
            check_description("description", &"固".repeat(101)),
            Err(InvalidField::new(
                "description",
                "is longer than 100 characters"
            ))
        );
        assert_eq!(check_description("description", "a\r\n\tb"), Ok(()));
        assert!(check_description("description", "a\u{7}b").is_err());
    }

    #[test]
    fn labels_have_a_length_and_no_control_characters() {
        assert_eq!(check_label("name", &"é".repeat(64), 1), Ok(()));
        assert!(check_label("name", &"é".repeat(65), 1).is_err());
        assert!(check_label("name", "", 1).is_err());
        assert_eq!(check_label("name", "", 0), Ok(()));
        assert!(check_label("name", "a\nb", 0).is_err());
    }
}
