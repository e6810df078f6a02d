//! `/`: how all is: who is connected, what is under way, what needs attention.

mod chart;

use std::{fmt::Display, sync::Arc};

use askama::Template;
use axum::{extract::State, response::Response};

use self::chart::Chart;
use super::{
    Console,
    call::Routes,
    fault::Fault,
    layout::{Layout, Place, render},
    session::Visit,
    show,
    tasks::TaskRow,
    text::{TEXTS, Texts, fill},
};
use crate::{
    model::{Millis, Page, RunState},
    service::{DeviceFilter, ResourceFilter, TaskFilter},
    telemetry::trend::Sample,
};

/// Tasks of each state that are shown.
const SHOWN_TASKS: u32 = 10;
/// A certificate that ends within so many days is warned of.
const SOON_DAYS: u64 = 30;

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new().get("/", page)
}

#[derive(Template)]
#[template(path = "console/overview.html")]
struct OverviewPage {
    t: &'static Texts,
    layout: Layout,
    warnings: Vec<Warning>,
    figures: Vec<(&'static str, String)>,
    charts: Vec<Chart>,
    tasks: Vec<TaskRow>,
    first: Option<FirstSteps>,
}

/// What a new gateway lacks before the first delivery, where it lacks any of it.
struct FirstSteps {
    has_product: bool,
    has_device: bool,
    has_resource: bool,
}

impl OverviewPage {
    fn last(&self) -> String {
        let minutes = self.charts.first().map_or(0, |chart| chart.minutes);
        fill(self.t.overview.last, &[("minutes", &minutes)])
    }

    fn most(&self, chart: &Chart) -> String {
        fill(self.t.overview.most, &[("value", &chart.most)])
    }

    fn describe(&self, chart: &Chart) -> String {
        let values: [(&str, &dyn Display); 4] = [
            ("title", &chart.title),
            ("last", &chart.last),
            ("most", &chart.most),
            ("minutes", &chart.minutes),
        ];
        fill(self.t.overview.chart, &values)
    }
}

/// What needs attention, and whether it cannot wait.
struct Warning {
    text: String,
    is_urgent: bool,
}

async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Fault> {
    let samples = console.trend.samples();
    let tasks = under_way(&console).await?;
    let layout = Layout::new(&visit, Place::Overview, TEXTS.overview.title);
    let first = if tasks.is_empty() && layout.may_operate {
        first_steps(&console).await?
    } else {
        None
    };
    let page = OverviewPage {
        t: &TEXTS,
        layout,
        warnings: warnings(&console),
        figures: figures(&console, samples.last().copied().unwrap_or_default()),
        charts: charts(&samples),
        tasks,
        first,
    };
    Ok(render(&page))
}

/// What stands now.
fn figures(console: &Console, last: Sample) -> Vec<(&'static str, String)> {
    let t = &TEXTS.overview;
    let metrics = &console.metrics;
    let count = |gauge: i64| show::grouped(u64::try_from(gauge).unwrap_or(0));
    vec![
        (t.by_mqtt, count(metrics.devices_by_mqtt())),
        (t.by_coap, count(metrics.devices_by_coap())),
        (t.connects, show::rate(last.connects)),
        (t.bytes_out, show::bytes(whole(last.bytes_out))),
        (t.bytes_in, show::bytes(whole(last.bytes_in))),
        (t.waiting, count(metrics.deliveries.pending.get())),
        (
            t.in_progress,
            count(metrics.deliveries.pushed.get() + metrics.deliveries.delivering.get()),
        ),
    ]
}

/// The last hour.
fn charts(samples: &[Sample]) -> Vec<Chart> {
    let t = &TEXTS.overview;
    let series = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    vec![
        Chart::new(
            t.devices_online,
            &series(|sample| {
                let online = sample.online_mqtt + sample.online_coap;
                f64::from(i32::try_from(online).unwrap_or(i32::MAX))
            }),
            |value| show::grouped(whole(value)),
        ),
        Chart::new(t.connects, &series(|sample| sample.connects), show::rate),
        Chart::new(t.bytes_out, &series(|sample| sample.bytes_out), |value| {
            show::bytes(whole(value))
        }),
        Chart::new(t.bytes_in, &series(|sample| sample.bytes_in), |value| {
            show::bytes(whole(value))
        }),
    ]
}

/// A rate without its fraction.
fn whole(rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are not negative, and a cast ends at the greatest number"
    )]
    let whole = rate as u64;
    whole
}

/// Tasks that run, wait or are held.
async fn under_way(console: &Console) -> Result<Vec<TaskRow>, Fault> {
    let mut rows = Vec::new();
    for run in [RunState::Running, RunState::Paused, RunState::Scheduled] {
        let filter = TaskFilter {
            run: Some(run),
            ..TaskFilter::default()
        };
        let page = Page {
            limit: SHOWN_TASKS,
            cursor: None,
        };
        let found = console.services.delivery.tasks(&filter, &page).await?;
        rows.extend(found.items.iter().map(TaskRow::from));
    }
    Ok(rows)
}

/// What is there already; `None` once a task has been made.
async fn first_steps(console: &Console) -> Result<Option<FirstSteps>, Fault> {
    let one = Page {
        limit: 1,
        cursor: None,
    };
    let services = &console.services;
    let (tasks, devices) = (TaskFilter::default(), DeviceFilter::default());
    let tasks = services.delivery.tasks(&tasks, &one).await?;
    if !tasks.items.is_empty() {
        return Ok(None);
    }
    let products = services.registry.products(&one).await?;
    let devices = services.registry.devices(&devices, &one).await?;
    let resources = ResourceFilter::default();
    let resources = services.resources.resources(&resources, &one).await?;
    Ok(Some(FirstSteps {
        has_product: !products.items.is_empty(),
        has_device: !devices.items.is_empty(),
        has_resource: !resources.items.is_empty(),
    }))
}

fn warnings(console: &Console) -> Vec<Warning> {
    let t = &TEXTS.overview;
    let mut all = Vec::new();
    let mut warn = |is_urgent, text: &str, values: &[(&str, &dyn Display)]| {
        let text = fill(text, values);
        all.push(Warning { text, is_urgent });
    };
    for check in console.readiness.report() {
        if let Some(reason) = &check.failure {
            warn(
                true,
                t.backend,
                &[("name", &check.name), ("reason", reason)],
            );
        }
    }
    if let Some(end) = console.metrics.certificate_end() {
        let now = Millis::now().as_secs();
        if end <= now {
            warn(true, t.certificate_ended, &[]);
        } else if end - now < SOON_DAYS * 86_400 {
            warn(
                false,
                t.certificate_ends,
                &[("days", &((end - now) / 86_400))],
            );
        }
    }
    let failed = console.metrics.tls_certificates.failed.get();
    if failed > 0 {
        warn(false, t.certificate_unusable, &[]);
    }
    let paused = console.metrics.paused_connections.get();
    if paused > 0 {
        warn(false, t.paused_sockets, &[("count", &paused)]);
    }
    all
}
