//! Which devices an application sees: bound one by one or from a file, unbound as chosen.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use futures_util::StreamExt as _;
use headgate_protocol::identity::{AppId, DeviceId};

use super::details;
use crate::{
    edge::{
        console::{
            Console,
            fault::Fault,
            form::{Errors, PathOf, Posted, Upload, sentence},
            layout::see,
            paging::ListQuery,
            session::Operator,
            text::{TEXTS, fill},
        },
        http::{
            csv_rows::{CsvRow, CsvRows},
            problem::{Kind, Problem},
            upload::{self, Announced},
        },
    },
    model::Actor,
    service::app::{AppService, BindReport},
};

/// The column of a file that names devices.
const COLUMN: &str = "device_id";
/// Devices that are bound by one call of the service.
const BLOCK: usize = 500;
/// Devices of which a page says why they could not be bound.
const MAX_SHOWN: usize = 100;

/// What came of devices that were to be bound; empty when all of them are.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What there is to say of all.
    pub(super) summary: String,
    /// Why some could not be.
    pub(super) reasons: Vec<String>,
}

/// Devices on their way to be bound.
struct Binder<'a> {
    apps: &'a AppService,
    actor: &'a Actor,
    app: &'a AppId,
    changed: u64,
    failed: usize,
    reasons: Vec<String>,
}

impl<'a> Binder<'a> {
    const fn new(console: &'a Console, actor: &'a Actor, app: &'a AppId) -> Self {
        Self {
            apps: &console.services.apps,
            actor,
            app,
            changed: 0,
            failed: 0,
            reasons: Vec::new(),
        }
    }

    /// Binds those of these names that can be.
    async fn bind(&mut self, names: Vec<CsvRow>) -> Result<(), Fault> {
        let mut lines = HashMap::with_capacity(names.len());
        let mut devices = Vec::with_capacity(names.len());
        for name in names {
            match name.value.parse::<DeviceId>() {
                Ok(device) => {
                    lines.entry(device.clone()).or_insert(name.line);
                    devices.push(device);
                }
                Err(error) => self.fail(name.line, &name.value, &error.to_string()),
            }
        }
        let report = self.apps.bind(self.actor, self.app, devices).await?;
        self.note(report, &lines);
        Ok(())
    }

    fn note(&mut self, report: BindReport, lines: &HashMap<DeviceId, u32>) {
        let t = &TEXTS.applications;
        self.changed += report.changed;
        let unknown = report.unknown.into_iter();
        let unknown = unknown.map(|device| (device, t.no_such_device));
        let over_limit = report.over_limit.into_iter();
        let over_limit = over_limit.map(|device| (device, t.too_many));
        for (device, reason) in unknown.chain(over_limit) {
            let line = lines.get(&device).copied().unwrap_or_default();
            self.fail(line, device.as_str(), reason);
        }
    }

    /// Says why a device could not be bound; line 0 is none.
    fn fail(&mut self, line: u32, device: &str, reason: &str) {
        let t = &TEXTS.applications;
        self.failed += 1;
        if self.reasons.len() >= MAX_SHOWN {
            return;
        }
        let shown: String = device.chars().take(128).collect();
        self.reasons.push(if line == 0 {
            fill(t.row_wrong, &[("device", &shown), ("reason", &reason)])
        } else {
            fill(
                t.line_wrong,
                &[("line", &line), ("device", &shown), ("reason", &reason)],
            )
        });
    }

    /// What there is to say; nothing where all were bound.
    fn report(mut self) -> Option<Report> {
        let t = &TEXTS.applications;
        if self.failed == 0 {
            return None;
        }
        let more = self.failed - self.reasons.len();
        if more > 0 {
            self.reasons.push(fill(t.and_more, &[("count", &more)]));
        }
        let values: [(&str, &dyn std::fmt::Display); 2] =
            [("changed", &self.changed), ("failed", &self.failed)];
        Some(Report {
            summary: fill(t.some_bound, &values),
            reasons: self.reasons,
        })
    }
}

/// `POST /applications/{id}/bind`
pub(super) async fn bind(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    form: Posted,
) -> Result<Response, Fault> {
    let names = form.raw("devices");
    let names = names.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
    let names: Vec<CsvRow> = names
        .filter(|name| !name.is_empty())
        .map(|name| CsvRow {
            line: 0,
            value: name.to_owned(),
        })
        .collect();
    if names.is_empty() {
        let errors = Errors::one("devices", TEXTS.applications.nothing_given);
        return wrong(&console, &visit, &id, errors).await;
    }
    let mut binder = Binder::new(&console, &visit.0.session.actor, &id);
    binder.bind(names).await?;
    answer(&console, &visit, &id, binder.report()).await
}

/// `POST /applications/{id}/import`
pub(super) async fn import(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    request: Request,
) -> Result<Response, Fault> {
    console.services.apps.app(&id).await?;
    // A row of the longest name, quoted, with room for other columns.
    let max_rows = console.services.limits.max_binding_rows;
    let max_bytes = u64::try_from(max_rows)
        .unwrap_or(u64::MAX)
        .saturating_mul(512);
    let failed = async |problem: Problem| match problem.kind() {
        Kind::Internal => Err(Fault::from(problem)),
        Kind::MalformedMultipart => {
            let errors = Errors::one("file", TEXTS.applications.file_missing);
            wrong(&console, &visit, &id, errors).await
        }
        _ => {
            let errors = Errors::one("file", sentence(problem.detail()));
            wrong(&console, &visit, &id, errors).await
        }
    };
    let form = match Upload::read(request, &visit.0, &["size"], max_bytes).await? {
        Ok(form) => form,
        Err(problem) => return failed(problem).await,
    };
    let (mut stream, slot) = upload::of_part(form.file, Announced::default());
    let mut rows = CsvRows::new(COLUMN, max_rows);
    let mut binder = Binder::new(&console, &visit.0.session.actor, &id);
    let mut waiting = Vec::with_capacity(BLOCK);
    while let Some(read) = stream.next().await {
        let cut = || Problem::new(Kind::Incomplete, "the connection ended within the file");
        let found = match read {
            Ok(bytes) => rows.push(&bytes),
            Err(_) => Err(slot.or(cut())),
        };
        match found {
            Ok(found) => waiting.extend(found),
            Err(problem) => return failed(problem).await,
        }
        while waiting.len() >= BLOCK {
            let rest = waiting.split_off(BLOCK);
            binder.bind(std::mem::replace(&mut waiting, rest)).await?;
        }
    }
    match rows.finish() {
        Ok(last) => waiting.extend(last),
        Err(problem) => return failed(problem).await,
    }
    binder.bind(waiting).await?;
    answer(&console, &visit, &id, binder.report()).await
}

/// `POST /applications/{id}/unbind`
pub(super) async fn unbind(
    State(console): State<Arc<Console>>,
    visit: Operator,
    PathOf(id): PathOf<AppId>,
    form: Posted,
) -> Result<Response, Fault> {
    let chosen = form.all("device").filter_map(|name| name.parse().ok());
    let chosen: Vec<DeviceId> = chosen.collect();
    if chosen.is_empty() {
        let errors = Errors::one("", TEXTS.applications.none_chosen);
        return wrong(&console, &visit, &id, errors).await;
    }
    let apps = &console.services.apps;
    apps.unbind(&visit.0.session.actor, &id, chosen).await?;
    Ok(see(&format!("/applications/{id}"), "devices-unbound"))
}

/// Back to the application, with what could not be bound.
async fn answer(
    console: &Console,
    visit: &Operator,
    id: &AppId,
    report: Option<Report>,
) -> Result<Response, Fault> {
    let own = format!("/applications/{id}");
    let Some(report) = report else {
        return Ok(see(&own, "devices-bound"));
    };
    let shown = (StatusCode::UNPROCESSABLE_ENTITY, report, Errors::default());
    details(console, &visit.0, id, &ListQuery::plain(&own), shown).await
}

async fn wrong(
    console: &Console,
    visit: &Operator,
    id: &AppId,
    errors: Errors,
) -> Result<Response, Fault> {
    let own = format!("/applications/{id}");
    let shown = (StatusCode::UNPROCESSABLE_ENTITY, Report::default(), errors);
    details(console, &visit.0, id, &ListQuery::plain(&own), shown).await
}
