//! What every page has around it: navigation, who is signed in, what was just done.

use std::fmt;

use askama::Template;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::{
    assets,
    fault::Fault,
    session::Visit,
    show,
    text::{TEXTS, Texts, common::Nav, fill},
};
use crate::model::{Millis, Role};

/// A place in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// How all is.
    Overview,
    /// Platform resources.
    Resources,
    /// A new task.
    Deliver,
    /// Tasks.
    Tasks,
    /// What devices sent.
    Uploads,
    /// Devices.
    Devices,
    /// Registration in batches.
    Batches,
    /// Kinds of devices.
    Products,
    /// Programs that see devices.
    Applications,
    /// Processes of the gateway.
    Nodes,
    /// Who signs in.
    Operators,
    /// With what programs come.
    Tokens,
    /// What was done.
    Audit,
    /// Who looks at it.
    Account,
}

/// One entry of the navigation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) address: &'static str,
    label: fn(&Nav) -> &'static str,
}

/// Entries that belong together, under a heading that may be empty.
#[derive(Debug)]
pub(super) struct Group {
    heading: fn(&Nav) -> &'static str,
    pub(super) entries: &'static [Entry],
}

const NAVIGATION: &[Group] = &[
    Group {
        heading: |_| "",
        entries: &[Entry {
            place: Place::Overview,
            address: "/",
            label: |nav| nav.overview,
        }],
    },
    Group {
        heading: |nav| nav.delivery,
        entries: &[
            Entry {
                place: Place::Resources,
                address: "/resources",
                label: |nav| nav.resources,
            },
            Entry {
                place: Place::Deliver,
                address: "/deliver",
                label: |nav| nav.deliver,
            },
            Entry {
                place: Place::Tasks,
                address: "/tasks",
                label: |nav| nav.tasks,
            },
            Entry {
                place: Place::Uploads,
                address: "/uploads",
                label: |nav| nav.uploads,
            },
        ],
    },
    Group {
        heading: |nav| nav.identity,
        entries: &[
            Entry {
                place: Place::Devices,
                address: "/devices",
                label: |nav| nav.devices,
            },
            Entry {
                place: Place::Batches,
                address: "/batches",
                label: |nav| nav.batches,
            },
            Entry {
                place: Place::Products,
                address: "/products",
                label: |nav| nav.products,
            },
            Entry {
                place: Place::Applications,
                address: "/applications",
                label: |nav| nav.applications,
            },
        ],
    },
    Group {
        heading: |nav| nav.gateway,
        entries: &[Entry {
            place: Place::Nodes,
            address: "/nodes",
            label: |nav| nav.nodes,
        }],
    },
];

/// What only administrators may see.
const ACCESS: Group = Group {
    heading: |nav| nav.access,
    entries: &[
        Entry {
            place: Place::Operators,
            address: "/operators",
            label: |nav| nav.operators,
        },
        Entry {
            place: Place::Tokens,
            address: "/tokens",
            label: |nav| nav.tokens,
        },
        Entry {
            place: Place::Audit,
            address: "/audit",
            label: |nav| nav.audit,
        },
    ],
};

impl Entry {
    pub(super) fn label(&self) -> &'static str {
        (self.label)(&TEXTS.nav)
    }
}

impl Group {
    pub(super) fn heading(&self) -> &'static str {
        (self.heading)(&TEXTS.nav)
    }
}

/// What a page for someone who is signed in stands in.
#[derive(Debug)]
pub(super) struct Layout {
    /// The words that are on every page.
    pub(super) t: &'static Texts,
    pub(super) bare: Bare,
    pub(super) navigation: Vec<&'static Group>,
    pub(super) title: String,
    pub(super) place: Place,
    pub(super) operator: String,
    pub(super) role: &'static str,
    /// Whether the operator may change devices, resources and tasks.
    pub(super) may_operate: bool,
    /// Whether the operator may change products, operators and nodes.
    pub(super) may_administer: bool,
    /// What every form carries.
    pub(super) csrf: String,
    /// What was just done.
    pub(super) notice: Option<&'static str>,
    now: Millis,
}

/// What every page refers to.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

impl Bare {
    pub(super) fn new() -> Self {
        Self {
            style: assets::address("console.css"),
            script: assets::address("console.js"),
            icon: assets::address("icon.svg"),
        }
    }
}

/// All of a page before what it is about: the same for each, and written once.
#[derive(Debug, Template)]
#[template(path = "console/top.html")]
pub(super) struct Top<'a> {
    layout: &'a Layout,
}

impl Layout {
    /// What stands before what the page is about.
    pub(super) const fn top(&self) -> Top<'_> {
        Top { layout: self }
    }

    /// The surroundings of one page. `title` is also the page's first heading.
    pub(super) fn new(visit: &Visit, place: Place, title: impl Into<String>) -> Self {
        let actor = &visit.session.actor;
        let access = (actor.role >= Role::Admin).then_some(&ACCESS);
        Self {
            t: &TEXTS,
            bare: Bare::new(),
            navigation: NAVIGATION.iter().chain(access).collect(),
            title: title.into(),
            place,
            operator: actor.name.clone(),
            role: actor.role.as_str(),
            may_operate: actor.role >= Role::Operator,
            may_administer: actor.role >= Role::Admin,
            csrf: visit.session.form_token().to_owned(),
            notice: visit
                .notice
                .as_deref()
                .and_then(|code| TEXTS.notice.of(code)),
            now: Millis::now(),
        }
    }

    /// Whether this is the page of who is signed in.
    pub(super) fn is_account(&self) -> bool {
        self.place == Place::Account
    }

    /// When the page was made.
    pub(super) fn made_at(&self) -> String {
        fill(TEXTS.common.utc, &[("time", &show::time(self.now))])
    }
}

/// A template of any type: what askama has for that brings all other ways of rendering with it.
pub(super) trait Html {
    /// Writes it.
    ///
    /// # Errors
    /// What the template met.
    fn write_to(&self, html: &mut dyn fmt::Write) -> askama::Result<()>;

    /// How long it may become, in bytes: a guess.
    fn usual_bytes(&self) -> usize;
}

impl<T: Template> Html for T {
    fn write_to(&self, html: &mut dyn fmt::Write) -> askama::Result<()> {
        self.render_into(html)
    }

    fn usual_bytes(&self) -> usize {
        T::SIZE_HINT
    }
}

/// A page.
pub(super) fn render(page: &dyn Html) -> Response {
    render_with(StatusCode::OK, page)
}

/// A page that is an answer of another kind: 422 shows a form again with what is wrong in it.
pub(super) fn render_with(status: StatusCode, page: &dyn Html) -> Response {
    let mut html = String::with_capacity(page.usual_bytes());
    match page.write_to(&mut html) {
        Ok(()) => (
            status,
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            html,
        )
            .into_response(),
        // Templates write to memory, and what they show never fails; still nothing panics here.
        Err(error) => {
            tracing::error!(%error, "a template failed");
            (StatusCode::INTERNAL_SERVER_ERROR, TEXTS.fault.internal).into_response()
        }
    }
}

/// Where an operator is sent after something was done; `notice` is a code of the catalogue's notices.
pub(super) fn see(path: &str, notice: &'static str) -> Response {
    let separator = if path.contains('?') { '&' } else { '?' };
    redirect(&format!("{path}{separator}note={notice}"))
}

/// The answer to a form: the browser goes on with a GET.
pub(super) fn redirect(path: &str) -> Response {
    match axum::http::HeaderValue::from_str(path) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => Fault::no_page().into_response(),
    }
}
