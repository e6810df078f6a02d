//! The page that shows something secret once: it answers the form that had it made, and nothing keeps it.

use askama::Template;
use axum::response::Response;

use super::{
    layout::{Layout, Place, render},
    session::Visit,
    text::{TEXTS, Texts},
};

/// What is shown.
#[derive(Debug, Template)]
#[template(path = "console/shown_once.html")]
pub(super) struct ShownOnce<'a> {
    t: &'static Texts,
    layout: Layout,
    /// What was done.
    done: String,
    /// What it is called.
    label: &'static str,
    secret: &'a str,
    /// What belongs to it and is no secret.
    facts: Vec<(&'static str, String)>,
    /// Where to go on, and the words of that.
    next: (String, &'static str),
}

impl<'a> ShownOnce<'a> {
    /// The page of a secret that is called `label`; `next` is where to go on.
    pub(super) fn new(
        visit: &Visit,
        place: Place,
        (label, secret): (&'static str, &'a str),
        done: String,
        next: (String, &'static str),
    ) -> Self {
        Self {
            t: &TEXTS,
            layout: Layout::new(visit, place, TEXTS.common.shown_once),
            done,
            label,
            secret,
            facts: Vec::new(),
            next,
        }
    }

    /// The same page with something that is no secret.
    #[must_use]
    pub(super) fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.facts.push((label, value.into()));
        self
    }

    /// The answer.
    pub(super) fn response(&self) -> Response {
        render(self)
    }
}
