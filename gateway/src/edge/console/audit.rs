//! `/audit`: what was changed, by whom and from where.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    layout::{Layout, Place, render},
    paging::{ListQuery, Rows},
    session::Admin,
    show,
    text::{TEXTS, Texts},
    tokens::day,
};
use crate::{model::AuditEntry, service::AuditFilter};

/// The filters of the list.
const FILTERS: &[&str] = &["actor", "action", "subject", "since", "until"];
/// The last day that is asked for belongs to what is shown.
const DAY: Duration = Duration::from_hours(24);

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new().get("/audit", list)
}

#[derive(Template)]
#[template(path = "console/audit.html")]
struct AuditPage {
    t: &'static Texts,
    layout: Layout,
    actor: String,
    action: String,
    subject: String,
    since: String,
    until: String,
    rows: Rows<Row>,
}

/// Something that was done.
struct Row {
    at: String,
    actor: String,
    origin: String,
    action: String,
    subject: String,
    detail: String,
}

impl From<&AuditEntry> for Row {
    fn from(entry: &AuditEntry) -> Self {
        Self {
            at: show::time(entry.at),
            actor: entry.actor.clone(),
            origin: entry.origin.clone(),
            action: entry.action.clone(),
            subject: entry.subject.clone(),
            detail: entry.detail.clone(),
        }
    }
}

async fn list(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    query: ListQuery,
) -> Result<Response, Fault> {
    let value = |name| query.value(name).to_owned();
    let given = |name| Some(value(name)).filter(|text| !text.is_empty());
    let filter = AuditFilter {
        actor: given("actor"),
        action: given("action"),
        subject: given("subject"),
        since: day(query.value("since")),
        until: day(query.value("until")).map(|begin| begin.after(DAY)),
    };
    let accounts = &console.services.accounts;
    let found = accounts.audit(&filter, &query.page()).await?;
    let page = AuditPage {
        t: &TEXTS,
        layout: Layout::new(&visit, Place::Audit, TEXTS.audit.title),
        actor: value("actor"),
        action: value("action"),
        subject: value("subject"),
        since: value("since"),
        until: value("until"),
        rows: query.rows(&found, FILTERS),
    };
    Ok(render(&page))
}
