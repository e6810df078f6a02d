//! Lists by page: which part is shown, and the way to the next one.
//!
//! By key, never by number: a page costs the same wherever it is, and stays as it is while rows come and go.

use askama::Template;
use axum::http::Uri;

use super::{
    call::{Call, Part},
    fault::Fault,
    text::{TEXTS, common::Common},
};
use crate::model::{Page, Paged};

/// Rows of a page.
const ROWS: u32 = 50;
/// The longest value of a query that is looked at: the ids of all rows of a page.
const MAX_VALUE_BYTES: usize = 1_024;

/// What a list's address asks for: filters, and where the page begins.
#[derive(Debug, Clone)]
pub(super) struct ListQuery {
    path: String,
    values: Vec<(String, String)>,
}

impl ListQuery {
    fn read(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let values = form_urlencoded::parse(query.as_bytes()).into_owned();
        Self {
            path: uri.path().to_owned(),
            values: values
                .filter(|(_, value)| !value.is_empty() && value.len() <= MAX_VALUE_BYTES)
                .collect(),
        }
    }

    /// What asks for nothing: a list from its beginning.
    pub(super) fn plain(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            values: Vec::new(),
        }
    }

    /// A filter without the blanks around it; empty where it is not set.
    pub(super) fn value(&self, name: &str) -> &str {
        let mut values = self.values.iter();
        values
            .find_map(|(key, value)| (key == name).then(|| value.trim()))
            .unwrap_or_default()
    }

    /// The page that is asked for.
    pub(super) fn page(&self) -> Page {
        let cursor = self.value("after");
        Page {
            limit: ROWS,
            cursor: (!cursor.is_empty()).then(|| cursor.to_owned()),
        }
    }

    /// The ways from this page to others; `filters` are the names of the filters that go along.
    pub(super) fn ways<T>(&self, found: &Paged<T>, filters: &[&str]) -> Ways {
        Ways {
            first: (!self.value("after").is_empty()).then(|| self.address(filters, None)),
            next: found
                .next
                .as_deref()
                .map(|next| self.address(filters, Some(next))),
        }
    }

    /// A page of a list as it is shown.
    pub(super) fn rows<T, R: for<'a> From<&'a T>>(
        &self,
        found: &Paged<T>,
        filters: &[&str],
    ) -> Rows<R> {
        Rows {
            all: found.items.iter().map(R::from).collect(),
            ways: self.ways(found, filters),
            is_filtered: filters.iter().any(|name| !self.value(name).is_empty()),
        }
    }

    fn address(&self, filters: &[&str], after: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for name in filters {
            let value = self.value(name);
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if let Some(after) = after {
            query.append_pair("after", after);
        }
        match query.finish() {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Rows<R> {
    /// The rows of this page.
    pub(super) all: Vec<R>,
    /// The ways to others.
    pub(super) ways: Ways,
    /// Whether there may be more than what the filters let through.
    pub(super) is_filtered: bool,
}

/// Addresses of other pages of a list, and the links to them.
#[derive(Debug, Template)]
#[template(path = "console/pages.html")]
pub(super) struct Ways {
    /// The first one, unless this is it.
    pub(super) first: Option<String>,
    /// The next one, if there is one.
    pub(super) next: Option<String>,
}

impl Ways {
    /// The words of the links.
    const fn words() -> &'static Common {
        &TEXTS.common
    }
}

impl Part for ListQuery {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        Ok(Self::read(call.uri()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_keep_the_filters_and_escape_them() {
        let uri: Uri = "/resources?text=a%26b&product=&after=k&note=x"
            .parse()
            .expect("a path");
        let query = ListQuery::read(&uri);
        assert_eq!(query.value("text"), "a&b");
        assert_eq!(query.page().cursor.as_deref(), Some("k"));
        let found = Paged {
            items: vec![1],
            next: Some("n".to_owned()),
        };
        let ways = query.ways(&found, &["text", "product"]);
        assert_eq!(ways.first.as_deref(), Some("/resources?text=a%26b"));
        assert_eq!(ways.next.as_deref(), Some("/resources?text=a%26b&after=n"));
    }
}
