//! Forms: what was sent, whether it may be used, and what is wrong with it.
//!
//! [`Posted`] is the only way to the fields of a form, and [`Upload`] to a form with a file; both refuse what was not
//! made for the session that sends it.

use std::borrow::Cow;

use axum::{body::Body, extract::Request, http::Uri};
use http_body_util::Limited;
use multer::Field;
use serde::de::{DeserializeOwned, IntoDeserializer as _, value::StrDeserializer};

use super::{
    call::{Call, Part},
    fault::Fault,
    session::Visit,
    text::TEXTS,
};
use crate::{
    edge::http::{
        extract::{buffer, media_type},
        form::{Fields, Form},
        problem::{Kind, Problem},
    },
    model::InvalidField,
};

/// The field that shows for which session a form was made.
const TOKEN: &str = "csrf";

/// The fields of a form.
#[derive(Debug)]
pub(super) struct Posted(Vec<(String, String)>);

impl Posted {
    /// A field without the blanks around it; empty where it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// A field as it was sent.
    pub(super) fn raw(&self, name: &str) -> &str {
        let mut fields = self.0.iter();
        fields
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .unwrap_or_default()
    }

    /// Every value of a field that may be there several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.0.iter().filter(move |(key, _)| key == name);
        fields.map(|(_, value)| value.as_str())
    }

    /// Reads a form that may have so many bytes.
    ///
    /// # Errors
    /// The fault of a form that was not made for this session, or is too large.
    pub(super) async fn of(
        request: Request,
        visit: &Visit,
        max_bytes: usize,
    ) -> Result<Self, Fault> {
        let request = request.map(|body| Body::new(Limited::new(body, max_bytes)));
        Self::of_session(request, visit).await
    }

    /// Reads a form, within the limit of its route.
    ///
    /// # Errors
    /// The fault of a form that was not made for this session, or is too large.
    pub(super) async fn of_session(request: Request, visit: &Visit) -> Result<Self, Fault> {
        let form = Self::read(request).await?;
        if visit.session.made(form.raw(TOKEN)) {
            Ok(form)
        } else {
            Err(Fault::forged())
        }
    }

    /// Reads a body of `application/x-www-form-urlencoded`.
    pub(super) async fn read(request: Request) -> Result<Self, Fault> {
        let is_form =
            media_type(request.headers()).as_deref() == Some("application/x-www-form-urlencoded");
        if !is_form {
            return Err(Fault::bad_request(TEXTS.fault.no_form));
        }
        let body = buffer(request, &()).await?;
        Ok(Self(form_urlencoded::parse(&body).into_owned().collect()))
    }
}

/// A form with a file, of which the fields have been read.
#[derive(Debug)]
pub(super) struct Upload {
    /// The fields before the file.
    pub(super) fields: Fields,
    /// The file, to be streamed.
    pub(super) file: Field<'static>,
}

impl Upload {
    /// Reads the fields of `allowed`; the file may have `max_file_bytes`.
    ///
    /// # Errors
    /// The fault of a form that was not made for this session; else what is wrong with the form.
    pub(super) async fn read(
        request: Request,
        visit: &Visit,
        allowed: &[&'static str],
        max_file_bytes: u64,
    ) -> Result<Result<Self, Problem>, Fault> {
        let names: Vec<&'static str> = [TOKEN].into_iter().chain(allowed.iter().copied()).collect();
        let read = match Form::of(request, max_file_bytes) {
            Ok(form) => form.fields(&names).await,
            Err(problem) => Err(problem),
        };
        let (mut fields, file) = match read {
            Ok(read) => read,
            Err(problem) if problem.kind() == Kind::Incomplete => return Err(problem.into()),
            Err(problem) => return Ok(Err(problem)),
        };
        if visit
            .session
            .made(&fields.optional(TOKEN).unwrap_or_default())
        {
            Ok(Ok(Self { fields, file }))
        } else {
            Err(Fault::forged())
        }
    }
}

/// What is wrong with the fields of a form, to be shown beside them.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<(Cow<'static, str>, String)>);

impl Errors {
    /// One field and what is wrong with it; `""` is the form as a whole.
    pub(super) fn one(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self(vec![(field.into(), message.into())])
    }

    /// Adds one.
    pub(super) fn add(&mut self, field: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.0.push((field.into(), message.into()));
    }

    /// A rule that a field breaks, beside it where the form has it; else beside the whole.
    pub(super) fn invalid(shown: &[&'static str], error: &InvalidField) -> Self {
        let name = error.field.rsplit('.').next().unwrap_or_default();
        let field = shown.iter().find(|known| **known == name);
        Self::one(
            field.copied().unwrap_or_default(),
            sentence(&error.to_string()),
        )
    }

    /// What is wrong with a field.
    pub(super) fn of(&self, field: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find_map(|(name, message)| (*name == field).then_some(message.as_str()))
    }

    /// Whether nothing is wrong.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The part of an address that names a thing; what cannot name one leads to no page.
#[derive(Debug)]
pub(super) struct PathOf<T>(pub(super) T);

impl<T: DeserializeOwned> Part for PathOf<T> {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        word(call.named()).map(Self).ok_or_else(Fault::no_page)
    }
}

/// One of several values that can be chosen.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) is_chosen: bool,
}

/// The values that can be chosen, each with its words; those are chosen that `is_chosen` says.
pub(super) fn choices<V: Into<String>, L: Into<String>>(
    all: impl IntoIterator<Item = (V, L)>,
    is_chosen: impl Fn(&str) -> bool,
) -> Vec<Choice> {
    let all = all.into_iter().map(|(value, label)| {
        let value = value.into();
        Choice {
            is_chosen: is_chosen(&value),
            label: label.into(),
            value,
        }
    });
    all.collect()
}

/// What a form calls a value of `T`; `None` for other words.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    let source: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(source).ok()
}

/// A service's reason as a sentence: `node_id is empty` becomes `Node id is empty.`
pub(super) fn sentence(reason: &str) -> String {
    let (field, rest) = reason.split_once(' ').unwrap_or((reason, ""));
    let field = field.replace(['_', '.'], " ");
    let mut letters = field.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let mut text = String::with_capacity(reason.len() + 1);
    text.extend(first);
    text.push_str(letters.as_str());
    if !rest.is_empty() {
        text.push(' ');
        text.push_str(rest);
    }
    text.push('.');
    text
}

/// A value of a query; the first where there are several.
pub(super) fn query_value(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == name && !value.is_empty()).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AuthKind;

    #[test]
    fn reasons_become_sentences() {
        for (reason, text) in [
            ("name is empty", "Name is empty."),
            ("node_id is taken by P_n", "Node id is taken by P_n."),
            ("topic_policy.publish has", "Topic policy publish has."),
            ("éa b", "éa b."),
            ("", "."),
        ] {
            assert_eq!(sentence(reason), text);
        }
    }

    #[test]
    fn a_rule_stands_beside_its_field_or_the_form() {
        let error = InvalidField::new("topic_policy.publish", "is odd");
        let errors = Errors::invalid(&["publish"], &error);
        assert_eq!(errors.of("publish"), Some("Topic policy publish is odd."));
        let errors = Errors::invalid(&["name"], &error);
        assert_eq!(errors.of(""), Some("Topic policy publish is odd."));
    }

    #[test]
    fn words_are_those_of_the_api() {
        assert_eq!(word("x509"), Some(AuthKind::X509));
        assert_eq!(word::<AuthKind>("X509"), None);
        let all = choices([("a", "A"), ("b", "B")], |value| value == "b");
        let chosen: Vec<bool> = all.iter().map(|one| one.is_chosen).collect();
        assert_eq!(chosen, [false, true]);
    }
}
