//! Devices by how their device id, their node id or their name begins.
//!
//! Three lists, one behind the other, each in the order of its own index: a page reads what it shows, and the rows that
//! other filters leave out, however many devices there are. A device that several of its names find stands in the first
//! list alone.

use crate::{
    model::{Device, InvalidPage, Page, Paged},
    store::{
        StoreError,
        registry::{
            DeviceFilter, Registry,
            device::{SELECT, read},
            sql::Sql,
        },
    },
};

/// A name of a device as it is compared.
#[derive(Clone, Copy)]
struct Name {
    text: &'static str,
    /// Says that a device has one: those without are in no index of it.
    is_there: &'static str,
    of: fn(&Device) -> &str,
}

/// In the order of the lists.
const NAMES: [Name; 3] = [
    Name {
        text: "LOWER(id)",
        is_there: "",
        of: |device| device.id.as_str(),
    },
    Name {
        text: "LOWER(node_id)",
        is_there: "",
        of: |device| device.node_id.as_str(),
    },
    Name {
        text: "LOWER(name)",
        is_there: " AND name <> ''",
        of: |device| &device.name,
    },
];

/// Where a page begins.
struct Place {
    /// Which of the lists.
    list: usize,
    /// Behind the device of this name and id.
    after: Option<(String, String)>,
}

impl Registry {
    /// Devices one of whose names begins with a text, in any case of ASCII letters.
    pub(super) async fn devices_beginning(
        &self,
        text: &str,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Paged<Device>, StoreError> {
        let text = text.to_ascii_lowercase();
        let place = place_of(page.after()?)?;
        let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let mut found: Vec<(usize, Device)> = Vec::new();
        let mut after = place.after;
        for list in place.list..NAMES.len() {
            let room = wanted.saturating_sub(found.len()).saturating_add(1);
            let devices = self
                .names_beginning(list, &text, filter, after.take().as_ref(), room)
                .await?;
            found.extend(devices.into_iter().map(|device| (list, device)));
            if found.len() > wanted {
                break;
            }
        }
        let page = Paged::cut(found, page.limit, |(list, device)| {
            let name = (NAMES[*list].of)(device).to_ascii_lowercase();
            format!("{list}{name}{SEPARATOR}{}", device.id)
        });
        Ok(page.map(|(_, device)| device))
    }

    /// A part of one list.
    async fn names_beginning(
        &self,
        list: usize,
        text: &str,
        filter: &DeviceFilter,
        after: Option<&(String, String)>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        let end = format!("{text}{}", char::MAX);
        let mut sql = Sql::new(SELECT);
        filter.narrow(&mut sql);
        let name = NAMES[list];
        sql.push(name.is_there);
        let from = after.map_or(text, |(last, _)| text.max(last));
        sql.push(" AND ").push(name.text).push(" >= ").bind(from);
        if let Some((last, id)) = after {
            // Not as rows of values: of those the index would not be asked where to begin.
            sql.push(" AND (")
                .push(name.text)
                .push(" > ")
                .bind(last.as_str())
                .push(" OR id > ")
                .bind(id.as_str())
                .push(")");
        }
        sql.push(" AND ")
            .push(name.text)
            .push(" < ")
            .bind(end.as_str());
        for earlier in &NAMES[..list] {
            sql.push(" AND NOT (")
                .push(earlier.text)
                .push(" >= ")
                .bind(text)
                .push(" AND ")
                .push(earlier.text)
                .push(" < ")
                .bind(end.as_str())
                .push(")");
        }
        sql.push(" ORDER BY ")
            .push(name.text)
            .push(", id LIMIT ")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(read).collect()
    }
}

/// What stands between a name and an id in a cursor; in no id.
const SEPARATOR: char = '\u{1f}';

fn place_of(cursor: Option<String>) -> Result<Place, InvalidPage> {
    let Some(cursor) = cursor else {
        return Ok(Place {
            list: 0,
            after: None,
        });
    };
    let wrong = InvalidPage::Cursor;
    let mut letters = cursor.chars();
    let list = letters.next().and_then(|digit| digit.to_digit(10));
    let list = usize::try_from(list.ok_or(wrong)?).map_err(|_| wrong)?;
    let (name, id) = letters.as_str().rsplit_once(SEPARATOR).ok_or(wrong)?;
    if list >= NAMES.len() {
        return Err(wrong);
    }
    Ok(Place {
        list,
        after: Some((name.to_owned(), id.to_owned())),
    })
}
