//! One page of a list, by key: stable while rows come and go, as cheap at the end as at the start.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows at most, 1 to [`Page::MAX_LIMIT`].
    pub limit: u32,
    /// Where the page before ended: its [`Paged::next`]. Opaque to clients.
    pub cursor: Option<String>,
}

/// Why a page cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPage {
    /// The limit is 0 or too great.
    #[error("limit is not between 1 and 500")]
    Limit,
    /// The cursor is none that this list gave.
    #[error("cursor is not one of this list")]
    Cursor,
}

impl Page {
    /// Greatest number of rows in one page.
    pub const MAX_LIMIT: u32 = 500;
    /// Rows of a page when nothing is asked for.
    pub const DEFAULT_LIMIT: u32 = 50;

    /// A checked page; `None` means [`Page::DEFAULT_LIMIT`].
    ///
    /// # Errors
    /// [`InvalidPage::Limit`] outside 1 to [`Page::MAX_LIMIT`]. A wrong cursor is found when it is used.
    pub fn new(limit: Option<u32>, cursor: Option<String>) -> Result<Self, InvalidPage> {
        let limit = limit.unwrap_or(Self::DEFAULT_LIMIT);
        if !(1..=Self::MAX_LIMIT).contains(&limit) {
            return Err(InvalidPage::Limit);
        }
        Ok(Self { limit, cursor })
    }

    /// The key of the last row of the page before.
    ///
    /// # Errors
    /// [`InvalidPage::Cursor`] when the cursor was not made by [`Paged::cut`].
    pub fn after(&self) -> Result<Option<String>, InvalidPage> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let key = URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| InvalidPage::Cursor)?;
        String::from_utf8(key)
            .map(Some)
            .map_err(|_| InvalidPage::Cursor)
    }
}

impl Default for Page {
    fn default() -> Self {
        Self {
            limit: Self::DEFAULT_LIMIT,
            cursor: None,
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paged<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    /// Makes a page of up to `limit` rows out of a query for `limit + 1`: the row too many says that there is more.
    pub fn cut(mut items: Vec<T>, limit: u32, key: impl FnOnce(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = match items.last() {
            Some(last) if more => Some(key(last)),
            _ => None,
        };
        Self::with_next(items, next.as_deref())
    }

    /// A page that is made already; `next` is the key behind which the next one begins.
    pub fn with_next(items: Vec<T>, next: Option<&str>) -> Self {
        let next = next.map(|key| URL_SAFE_NO_PAD.encode(key));
        Self { items, next }
    }

    /// The same page of other items.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            items: self.items.into_iter().map(convert).collect(),
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        assert_eq!(Page::new(None, None).unwrap().limit, 50);
        assert_eq!(Page::new(Some(500), None).unwrap().limit, 500);
        assert_eq!(Page::new(Some(0), None), Err(InvalidPage::Limit));
        assert_eq!(Page::new(Some(501), None), Err(InvalidPage::Limit));
    }

    #[test]
    fn a_cursor_leads_from_page_to_page() {
        let page = Paged::cut(vec!["a", "b", "c"], 2, |item| (*item).to_owned());
        assert_eq!(page.items, ["a", "b"]);
        let next = Page::new(Some(2), page.next).unwrap();
        assert_eq!(next.after(), Ok(Some("b".to_owned())));

        let last = Paged::cut(vec!["c", "d"], 2, |item| (*item).to_owned());
        assert_eq!(last.items, ["c", "d"]);
        assert_eq!(last.next, None);
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        for cursor in ["*", "a", "_w"] {
            let page = Page::new(None, Some(cursor.to_owned())).unwrap();
            assert_eq!(page.after(), Err(InvalidPage::Cursor), "{cursor}");
        }
    }
}
