//! What a section of the configuration is: keys with their documentation, default and kind.
//!
//! The `section!` macro declares a section once; from that come its struct, its defaults, the
//! reading of a file and of the environment, `config print` and the documented example file.
//! Invariants: a key exists in all of these or in none.

use super::source::Keys;

/// One key, ready to be shown.
pub(crate) struct Shown {
    /// The key's name inside its section.
    pub(crate) key: &'static str,
    /// The lines of its documentation.
    pub(crate) doc: &'static [&'static str],
    /// Its value as the file spells it; a secret is redacted.
    pub(crate) value: String,
    /// What may be written.
    pub(crate) range: String,
    /// Whether the value is a secret.
    pub(crate) secret: bool,
}

/// A section: `[name]` in the file, `HEADGATE__NAME__KEY` in the environment.
pub(crate) trait Section: Default {
    /// The section's name.
    const NAME: &'static str;
    /// The lines of its documentation.
    const DOC: &'static [&'static str];

    /// Takes this section's keys from what was read; a problem leaves the default in place.
    fn read(keys: &mut Keys<'_>) -> Self;

    /// Lists the keys with their present values.
    fn show(&self) -> Vec<Shown>;
}

/// Whether a kind is a secret; `T` is only there to find the kind's trait.
pub(crate) fn is_secret<T, K: super::setting::Kind<T>>(_: &K, _: &T) -> bool {
    K::SECRET
}

/// Declares a section: `field: Type = default, Kind(limits);`.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $ty:ty = $default:expr, $kind:expr;
            )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nDefault `", stringify!($default), "`, `", stringify!($kind), "`.")]
                pub $field: $ty,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $section;
            const DOC: &'static [&'static str] = &[$($section_doc),+];

            fn read(keys: &mut $crate::config::source::Keys<'_>) -> Self {
                Self { $($field: keys.take(stringify!($field), &$kind, || $default),)+ }
            }

            fn show(&self) -> Vec<$crate::config::section::Shown> {
                use $crate::config::setting::Kind as _;
                vec![$({
                    let kind = $kind;
                    $crate::config::section::Shown {
                        key: stringify!($field),
                        doc: &[$($doc),+],
                        value: kind.print(&self.$field),
                        range: $crate::config::setting::Kind::<$ty>::range(&kind),
                        secret: $crate::config::section::is_secret(&kind, &self.$field),
                    }
                }),+]
            }
        }
    };
}
pub(crate) use section;
