//! Statements whose number of rows or conditions is known only when they run.

use sqlx::{Any, Arguments as _, AssertSqlSafe, Encode, Type, any::AnyArguments, query::Query};

use crate::store::{
    StoreError,
    registry::{BLOCK, dialect::Dialect},
};

/// A statement in the making: text of this crate and values, bound in the order of their placeholders.
///
/// The placeholders are `?` until it is built: [`Dialect::statement`] says why.
pub(super) struct Sql {
    text: String,
    arguments: AnyArguments,
    error: Option<sqlx::Error>,
}

impl Sql {
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            arguments: AnyArguments::default(),
            error: None,
        }
    }

    /// Adds text. Only literals: values go through [`Sql::bind`].
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a placeholder and its value.
    pub(super) fn bind<'q, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'q, Any> + Type<Any>,
    {
        if let Err(source) = self.arguments.add(value) {
            self.error = Some(sqlx::Error::Encode(source));
        }
        self.text.push('?');
        self
    }

    /// Adds `(.., ..), (.., ..)`: one row for each item, whose values `bind` adds with [`Row::bind`].
    pub(super) fn rows<T>(&mut self, items: &[T], bind: impl Fn(&mut Row<'_>, &T)) -> &mut Self {
        for (index, item) in items.iter().enumerate() {
            self.text.push_str(if index == 0 { "(" } else { ", (" });
            bind(
                &mut Row {
                    sql: self,
                    first: true,
                },
                item,
            );
            self.text.push(')');
        }
        self
    }

    /// Adds `(.., ..)` of texts for `IN`. Their number is rounded up to a power of two by repeating the last, so
    /// that look-ups of every size share a dozen prepared statements.
    pub(super) fn texts<S: AsRef<str>>(&mut self, items: &[S]) -> &mut Self {
        let padded = items.len().next_power_of_two();
        self.text.push('(');
        for index in 0..padded {
            if index > 0 {
                self.text.push_str(", ");
            }
            if let Some(item) = items.get(index).or_else(|| items.last()) {
                self.bind(item.as_ref());
            }
        }
        self.text.push(')');
        self
    }

    /// Adds `(.., ..)` of numbers for `IN`.
    pub(super) fn numbers(&mut self, items: impl Iterator<Item = i64>) -> &mut Self {
        self.text.push('(');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.bind(item);
        }
        self.text.push(')');
        self
    }

    /// The statement, kept prepared on its connection. For texts of which there are few.
    pub(super) fn build(
        self,
        dialect: Dialect,
    ) -> Result<Query<'static, Any, AnyArguments>, StoreError> {
        count();
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let text = dialect.statement(self.text);
        #[cfg(test)]
        let _unless_nobody_asks = MADE.try_with(|made| made.borrow_mut().push(text.clone()));
        Ok(sqlx::query_with(AssertSqlSafe(text), self.arguments))
    }

    /// The statement, prepared for this one run unless it is a full block or its rows are a power of two: of those there
    /// are few. For multi-row texts.
    pub(super) fn build_rows(
        self,
        dialect: Dialect,
        rows: usize,
    ) -> Result<Query<'static, Any, AnyArguments>, StoreError> {
        Ok(self
            .build(dialect)?
            .persistent(rows == BLOCK || rows.is_power_of_two()))
    }
}

/// A statement of a fixed text, counted like those that are made.
pub(super) fn query(text: &'static str) -> Query<'static, Any, AnyArguments> {
    count();
    sqlx::query(text)
}

/// Takes note of a statement, for the tests that hold what tasks and deliveries may cost.
fn count() {
    #[cfg(test)]
    STATEMENTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Statements that were made in this process.
#[cfg(test)]
pub(super) static STATEMENTS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(test)]
tokio::task_local! {
    /// The texts that were made for the tests of what lists cost.
    pub(super) static MADE: std::cell::RefCell<Vec<String>>;
}

/// One row of a multi-row statement in the making.
pub(super) struct Row<'s> {
    sql: &'s mut Sql,
    first: bool,
}

impl Row<'_> {
    /// Adds a value.
    pub(super) fn bind<'q, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'q, Any> + Type<Any>,
    {
        if !self.first {
            self.sql.text.push_str(", ");
        }
        self.first = false;
        self.sql.bind(value);
        self
    }
}

/// A pattern for `LIKE .. ESCAPE '\'` that finds `text` anywhere, whatever characters it has.
pub(super) fn contains(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    // As the databases do it, which leave other letters as they are.
    for c in text.to_ascii_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_a_placeholder_for_each_value() {
        let mut sql = Sql::new("INSERT INTO t (a, b) VALUES ");
        sql.rows(&[(1_i64, "x"), (2, "y")], |row, (a, b)| {
            row.bind(*a).bind(*b);
        });
        assert_eq!(sql.text, "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)");
    }

    #[test]
    fn text_lists_come_in_few_sizes() {
        let mut sql = Sql::new("x IN ");
        sql.texts(&["a", "b", "c"]);
        assert_eq!(sql.text, "x IN (?, ?, ?, ?)");
        assert_eq!(sql.arguments.len(), 4);
    }

    #[test]
    fn patterns_take_characters_for_themselves() {
        assert_eq!(contains("50%_A\\"), "%50\\%\\_a\\\\%");
        assert_eq!(contains("Éa"), "%Éa%");
    }
}
