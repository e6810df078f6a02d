//! The page that asks before something is taken away for good.

use askama::Template;
use axum::{http::StatusCode, response::Response};

use super::{
    fault::Fault,
    form::Errors,
    layout::{Layout, Place, render_with, see},
    session::Visit,
    text::{TEXTS, Texts, fill},
};
use crate::service::registry::RegistryError;

/// What is asked, and what happens then.
pub(super) struct Question {
    /// Where in the navigation it stands.
    pub(super) place: Place,
    /// What is about to be done.
    pub(super) title: &'static str,
    /// The question.
    pub(super) text: String,
    /// The list that the thing is in: its address and its title.
    pub(super) list: (&'static str, &'static str),
    /// The page of the thing, if it has one: its address and its name.
    pub(super) thing: Option<(String, String)>,
    /// Where the answer is sent.
    pub(super) action: String,
    /// The word of the button that does it.
    pub(super) yes: &'static str,
}

#[derive(Template)]
#[template(path = "console/question.html")]
struct QuestionPage {
    t: &'static Texts,
    layout: Layout,
    question: Question,
    errors: Errors,
}

impl Question {
    /// The page.
    pub(super) fn ask(self, visit: &Visit) -> Response {
        self.page(visit, StatusCode::OK, Errors::default())
    }

    /// What came of deleting the thing: its list; or the page again, where it is in use `by` something.
    pub(super) fn answer(
        self,
        visit: &Visit,
        deleted: Result<(), RegistryError>,
        in_use: &str,
    ) -> Result<Response, Fault> {
        match deleted {
            Ok(()) => Ok(see(self.list.0, "deleted")),
            Err(RegistryError::InUse { by, .. }) => {
                let errors = Errors::one("", fill(in_use, &[("by", &by)]));
                Ok(self.page(visit, StatusCode::CONFLICT, errors))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn page(self, visit: &Visit, status: StatusCode, errors: Errors) -> Response {
        let page = QuestionPage {
            t: &TEXTS,
            layout: Layout::new(visit, self.place, self.title),
            question: self,
            errors,
        };
        render_with(status, &page)
    }

    /// Where nothing was done.
    fn back(&self) -> &str {
        match &self.thing {
            Some((address, _)) => address,
            None => self.list.0,
        }
    }
}
