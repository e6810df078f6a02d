//! The sessions of this node, a part of the list; parts made one page.

use std::{cmp::Reverse, time::Duration};

use futures_util::future::join_all;
use headgate_protocol::identity::DeviceId;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{DEVICE, FoundSession, Inner, SessionEntry, SessionFilter, SessionKind};
use crate::{model::Paged, session::inspect::SessionInfo};

/// How long a session has to say how it is.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What one node has of a page.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Part {
    /// In the order of their names.
    pub(super) entries: Vec<SessionEntry>,
    /// Up to which name it was looked, where there is more behind it.
    pub(super) reached: Option<String>,
}

impl Inner {
    /// The session of a device that is here: `None` where it is not, `Some(None)` where it has just ended.
    pub(super) async fn look_here(&self, id: &DeviceId) -> Option<Option<FoundSession>> {
        let session = self.devices.of(id)?;
        let found = |info| FoundSession {
            node: self.node.clone(),
            info,
        };
        Some(match timeout(INSPECT_TIMEOUT, session.inspect()).await {
            Ok(Ok(info)) => Some(found(Some(info))),
            Ok(Err(_)) => None,
            Err(_elapsed) => Some(found(None)),
        })
    }

    /// What this node has of a page.
    pub(super) async fn list_here(
        &self,
        filter: &SessionFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Part {
        let wants = |kind| filter.kind.is_none_or(|asked| asked == kind);
        // One more than fits says that there is more.
        let most = limit.saturating_add(1);
        let device_after = after.and_then(|after| after.strip_prefix(DEVICE));
        let mut entries = Vec::new();
        let lists_apps = wants(SessionKind::Application)
            && filter.product.is_none()
            && filter.persistent.is_none()
            && filter.listener.is_none()
            && device_after.is_none();
        if lists_apps {
            let apps = self.applications.page(after, most);
            entries.extend(apps.iter().map(|app| SessionEntry {
                name: app.client_id().to_owned(),
                node: self.node.clone(),
                since: app.since(),
                connection: None,
            }));
        }
        if wants(SessionKind::Device) && entries.len() < most {
            let rest = most - entries.len();
            let devices = self
                .devices
                .page(device_after, rest, filter.product.as_ref());
            let asked = devices.iter().map(|session| async {
                let answer = timeout(INSPECT_TIMEOUT, session.inspect()).await;
                SessionEntry {
                    name: format!("{DEVICE}{}", session.device_id),
                    node: self.node.clone(),
                    since: session.since,
                    connection: answer.ok().and_then(Result::ok),
                }
            });
            entries.extend(join_all(asked).await);
        }
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let last = entries.last().map(|entry| entry.name.clone());
        entries.retain(|entry| fits(entry.connection.as_ref(), filter));
        Part {
            entries,
            reached: last.filter(|_| has_more),
        }
    }
}

/// Whether a connection is one of those that are asked for.
fn fits(connection: Option<&SessionInfo>, filter: &SessionFilter) -> bool {
    let is_kept =
        |wanted: bool| connection.is_some_and(|shown| (shown.session_expiry_secs > 0) == wanted);
    let is_at = |wanted: &String| {
        let listener = connection.and_then(|shown| shown.listener);
        listener.is_some_and(|at| at.port().to_string() == *wanted || at.to_string() == *wanted)
    };
    filter.persistent.is_none_or(is_kept) && filter.listener.as_ref().is_none_or(is_at)
}

/// One page of what nodes have: as far as all of them have looked.
pub(super) fn merge(parts: Vec<Part>, limit: usize) -> Paged<SessionEntry> {
    let reached = parts.iter().filter_map(|part| part.reached.clone()).min();
    let mut entries: Vec<_> = parts.into_iter().flat_map(|part| part.entries).collect();
    if let Some(reached) = &reached {
        entries.retain(|entry| entry.name <= *reached);
    }
    // A client that goes from node to node just now is on the one that it came to last.
    entries.sort_by(|a, b| (&a.name, Reverse(a.since)).cmp(&(&b.name, Reverse(b.since))));
    entries.dedup_by(|later, first| later.name == first.name);
    if entries.len() > limit {
        entries.truncate(limit);
        let last = entries.last().map(|entry| entry.name.clone());
        return Paged::with_next(entries, last.as_deref());
    }
    Paged::with_next(entries, reached.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Millis, Page};

    fn part(names: &[&str], reached: Option<&str>, since: i64) -> Part {
        let entry = |name: &&str| SessionEntry {
            name: (*name).to_owned(),
            node: since.to_string(),
            since: Millis::from_i64(since),
            connection: None,
        };
        Part {
            entries: names.iter().map(entry).collect(),
            reached: reached.map(str::to_owned),
        }
    }

    fn merged(parts: Vec<Part>, limit: usize) -> (Vec<String>, Option<String>) {
        let page = merge(parts, limit);
        let names = page.items.iter().map(|entry| entry.name.clone());
        let names = names.collect();
        let next = Page::new(None, page.next).expect("a page");
        (names, next.after().expect("a cursor"))
    }

    #[test]
    fn a_page_ends_where_a_node_has_not_looked_further() {
        let parts = vec![
            part(&["a", "d"], Some("d"), 1),
            part(&["b", "c"], Some("c"), 2),
        ];
        let (names, next) = merged(parts, 5);
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(next.as_deref(), Some("c"), "d comes again");
        // What was looked at and does not fit is left behind all the same.
        let (names, next) = merged(vec![part(&[], Some("x"), 1), part(&["y"], None, 2)], 5);
        assert!(names.is_empty());
        assert_eq!(next.as_deref(), Some("x"));
        let (names, next) = merged(vec![part(&["a", "c"], None, 1), part(&["b"], None, 2)], 2);
        assert_eq!(names, ["a", "b"]);
        assert_eq!(next.as_deref(), Some("b"));
    }

    #[test]
    fn a_client_is_listed_where_it_came_last() {
        let page = merge(vec![part(&["a"], None, 1), part(&["a"], None, 2)], 5);
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.items[0].node, "2");
    }
}
