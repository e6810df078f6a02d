//! What the databases that can hold the registry write differently.
//!
//! Statements and tables are written once, as SQLite has them; a database that spells something in another way gets it
//! from here. Nothing else of this crate looks at which database it is, but for how it is opened.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// Whose SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// By the scheme of an address.
    pub(super) fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// A statement whose placeholders are `?`, as the database wants it.
    ///
    /// SQLite binds those by position. It would find each `$n` by walking the list of all, ten times the work for a
    /// full block; PostgreSQL knows only `$n`.
    pub(super) fn statement(self, text: String) -> String {
        if self == Self::Sqlite {
            return text;
        }
        let mut parts = text.split('?');
        let mut numbered = String::with_capacity(text.len() + text.len() / 4);
        numbered.push_str(parts.next().unwrap_or_default());
        for (index, part) in parts.enumerate() {
            // Writing to a string does not fail.
            let _ok = write!(numbered, "${}{part}", index + 1);
        }
        numbered
    }

    /// What gives the database's own time, in milliseconds since 1970.
    pub(super) fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// The text of a migration, as the database wants it.
    ///
    /// Texts are compared byte by byte on both, so that lists have one order everywhere.
    pub(super) fn tables(self, text: &'static str) -> SqlStr {
        if self == Self::Sqlite {
            return text.into_sql_str();
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut translated = String::with_capacity(text.len() + 1024);
        for word in text.split_inclusive(|c| !is_word(c)) {
            let name = word.trim_end_matches(|c| !is_word(c));
            translated.push_str(match name {
                "BLOB" => "BYTEA",
                "INTEGER" => "BIGINT",
                "TEXT" => "TEXT COLLATE \"C\"",
                name => name,
            });
            translated.extend(word.chars().skip(name.chars().count()));
        }
        AssertSqlSafe(translated).into_sql_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_the_database() {
        for (url, expected) in [
            ("sqlite:///r.db", Some(Dialect::Sqlite)),
            ("postgres://h/d", Some(Dialect::Postgres)),
            ("postgresql://h/d", Some(Dialect::Postgres)),
            ("mysql://h/d", None),
            ("/r.db", None),
        ] {
            assert_eq!(Dialect::of(url), expected, "{url}");
        }
    }

    #[test]
    fn placeholders_are_numbered_where_a_database_wants_numbers() {
        let text = "VALUES (?, ?), (?, ?) LIMIT ?";
        assert_eq!(Dialect::Sqlite.statement(text.to_owned()), text);
        assert_eq!(
            Dialect::Postgres.statement(text.to_owned()),
            "VALUES ($1, $2), ($3, $4) LIMIT $5"
        );
    }

    #[test]
    fn types_of_columns_are_translated_as_whole_words() {
        let text = "CREATE TABLE blob (a BLOB, b TEXT NOT NULL,\n -- TEXTS é\n c INTEGER);";
        assert_eq!(Dialect::Sqlite.tables(text).as_str(), text);
        assert_eq!(
            Dialect::Postgres.tables(text).as_str(),
            "CREATE TABLE blob (a BYTEA, b TEXT COLLATE \"C\" NOT NULL,\n -- TEXTS é\n c BIGINT);"
        );
    }
}
