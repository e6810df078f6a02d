//! The fields of forms: each with its label, what it is for, and what is wrong with it beside it.
//!
//! Templates of their own, which pages name by [`Errors`]' methods: written into every page anew, they were most of what
//! some pages are.

use askama::Template;

use super::form::{Choice, Errors};

/// A field of one line.
#[derive(Debug, Template)]
#[template(path = "console/field/input.html")]
pub(super) struct Input<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
    label: &'a str,
    value: &'a str,
    kind: &'a str,
    hint: &'a str,
    required: bool,
}

/// A field of several lines.
#[derive(Debug, Template)]
#[template(path = "console/field/area.html")]
pub(super) struct Area<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
    label: &'a str,
    value: &'a str,
    hint: &'a str,
}

/// A choice of one.
#[derive(Debug, Template)]
#[template(path = "console/field/select.html")]
pub(super) struct Select<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
    label: &'a str,
    options: &'a [Choice],
    hint: &'a str,
}

/// Boxes to tick.
#[derive(Debug, Template)]
#[template(path = "console/field/boxes.html")]
pub(super) struct Boxes<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
    label: &'a str,
    options: &'a [Choice],
    hint: &'a str,
}

/// A file, which is always called so.
#[derive(Debug, Template)]
#[template(path = "console/field/file.html")]
pub(super) struct File<'a> {
    wrong: Option<&'a str>,
    label: &'a str,
    hint: &'a str,
    required: bool,
}

/// A secret that is typed; it is never shown again, and no browser keeps it as the operator's own.
#[derive(Debug, Template)]
#[template(path = "console/field/password.html")]
pub(super) struct Password<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
    label: &'a str,
    hint: &'a str,
}

/// What is wrong with a form as a whole, said first and read out.
#[derive(Debug, Template)]
#[template(path = "console/field/whole.html")]
pub(super) struct Whole<'a> {
    wrong: Option<&'a str>,
}

/// What is wrong with one field.
#[derive(Debug, Template)]
#[template(path = "console/field/beside.html")]
pub(super) struct Beside<'a> {
    wrong: Option<&'a str>,
    name: &'a str,
}

impl Errors {
    /// A field of one line; `kind` is the input's type.
    pub(super) fn input<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
        value: &'a str,
        kind: &'a str,
        hint: &'a str,
        required: bool,
    ) -> Input<'a> {
        Input {
            wrong: self.of(name),
            name,
            label,
            value,
            kind,
            hint,
            required,
        }
    }

    /// A field of several lines.
    pub(super) fn area<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
        value: &'a str,
        hint: &'a str,
    ) -> Area<'a> {
        Area {
            wrong: self.of(name),
            name,
            label,
            value,
            hint,
        }
    }

    /// A choice of one of `options`.
    pub(super) fn select<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
        options: &'a [Choice],
        hint: &'a str,
    ) -> Select<'a> {
        Select {
            wrong: self.of(name),
            name,
            label,
            options,
            hint,
        }
    }

    /// A box to tick for each of `options`.
    pub(super) fn boxes<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
        options: &'a [Choice],
        hint: &'a str,
    ) -> Boxes<'a> {
        Boxes {
            wrong: self.of(name),
            name,
            label,
            options,
            hint,
        }
    }

    /// A file.
    pub(super) fn file<'a>(&'a self, label: &'a str, hint: &'a str, required: bool) -> File<'a> {
        File {
            wrong: self.of("file"),
            label,
            hint,
            required,
        }
    }

    /// A secret that is typed.
    pub(super) fn password<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
        hint: &'a str,
    ) -> Password<'a> {
        Password {
            wrong: self.of(name),
            name,
            label,
            hint,
        }
    }

    /// What is wrong with the form as a whole.
    pub(super) fn whole(&self) -> Whole<'_> {
        Whole { wrong: self.of("") }
    }

    /// What is wrong with a field that the page writes itself.
    pub(super) fn beside<'a>(&'a self, name: &'a str) -> Beside<'a> {
        Beside {
            wrong: self.of(name),
            name,
        }
    }
}
