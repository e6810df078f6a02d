//! A task as it is filled in: texts by the names of their fields, and the task that they make.

use std::{collections::BTreeMap, str::FromStr};

use crate::{
    edge::{console::form::Errors, console::text::TEXTS, http::problem::RowProblem},
    model::{
        Millis, TargetFilter, TaskPolicy,
        policy::{Abort, Attempts, Canary, DailyWindow, Pace, Ramp, Timers},
    },
    service::delivery::{NewTask, RowError, RowErrorCode, TargetRow, Targets},
};

/// The fields of the form, before its file.
pub(super) const FIELDS: &[&str] = &[
    "resource",
    "to",
    "device",
    "filter.name",
    "filter.app",
    "name",
    "policy.max_in_progress",
    "policy.bytes_per_sec",
    "policy.pace.per_minute",
    "policy.pace.ramp.factor",
    "policy.pace.ramp.every_succeeded",
    "policy.pace.ramp.max_per_minute",
    "policy.canary.devices",
    "policy.canary.percent",
    "policy.canary.success_percent",
    "policy.abort.failed_percent",
    "policy.abort.min_finished",
    "policy.start_at",
    "policy.window.from",
    "policy.window.to",
    "policy.window.utc_offset",
    "policy.attempts.max",
    "policy.attempts.backoff_secs",
    "policy.attempts.max_backoff_secs",
    "policy.timers.step_timeout_secs",
    "policy.timers.in_progress_timeout_secs",
    "policy.timers.confirm_timeout_secs",
];

/// The devices of a CSV, one a line, between the preview and the start.
const NAMES: &str = "names";

/// How the devices are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One device.
    One,
    /// The rows of a CSV.
    Csv,
    /// Those that a filter lets through.
    Filter,
}

/// What was filled in.
#[derive(Debug, Default)]
pub(super) struct Draft(BTreeMap<&'static str, String>);

impl Draft {
    /// Fills in a field; empty is as good as not.
    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.0.insert(name, value.to_owned());
        }
    }

    /// A field; empty where it is not filled in.
    pub(super) fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// How the devices are named.
    pub(super) fn kind(&self) -> Kind {
        match self.of("to") {
            "csv" => Kind::Csv,
            "filter" => Kind::Filter,
            _ => Kind::One,
        }
    }

    /// Whether the devices are named so; for templates.
    pub(super) fn is(&self, to: &str) -> bool {
        match self.kind() {
            Kind::One => to == "one",
            Kind::Csv => to == "csv",
            Kind::Filter => to == "filter",
        }
    }

    /// Whether any rule of the policy is filled in, or the name.
    pub(super) fn has_policy(&self) -> bool {
        let mut names = self.0.keys();
        names.any(|name| name.starts_with("policy.") || *name == "name")
    }

    /// Everything that is filled in, to be sent back.
    pub(super) fn filled(&self) -> Vec<(&'static str, String)> {
        let fields = self.0.iter().map(|(name, value)| (*name, value.clone()));
        fields.collect()
    }

    /// The task that is filled in.
    ///
    /// # Errors
    /// Every field that cannot be used.
    pub(super) fn task(&self) -> Result<NewTask, Errors> {
        let t = &TEXTS.deliver;
        let mut reader = Reader {
            draft: self,
            errors: Errors::default(),
        };
        let resource_id = self.of("resource").parse();
        if resource_id.is_err() {
            reader.errors.add("resource", t.resource_missing);
        }
        let targets = reader.targets();
        let policy = reader.policy();
        if let Err(error) = policy.validate() {
            reader.errors.add(error.field, error.reason);
        }
        match resource_id {
            Ok(resource_id) if reader.errors.is_empty() => Ok(NewTask {
                name: self.0.get("name").cloned(),
                resource_id,
                targets,
                policy,
            }),
            _ => Err(reader.errors),
        }
    }
}

/// Reads fields and notes those that cannot be used.
struct Reader<'a> {
    draft: &'a Draft,
    errors: Errors,
}

impl Reader<'_> {
    fn targets(&mut self) -> Targets {
        let t = &TEXTS.deliver;
        match self.draft.kind() {
            Kind::One => {
                let name = self.draft.of("device");
                if name.is_empty() {
                    self.errors.add("device", t.device_missing);
                }
                Targets::DeviceNames(rows([name].into_iter()))
            }
            Kind::Csv => {
                let names = self.draft.of(NAMES);
                if names.is_empty() {
                    self.errors.add("file", t.file_missing);
                }
                Targets::DeviceNames(rows(names.lines()))
            }
            Kind::Filter => Targets::Filter(TargetFilter {
                name: self.parsed("filter.name", t.pattern_rule),
                app: self.parsed("filter.app", t.app_rule),
            }),
        }
    }

    fn policy(&mut self) -> TaskPolicy {
        TaskPolicy {
            max_in_progress: self.number("policy.max_in_progress"),
            bytes_per_sec: self.number("policy.bytes_per_sec"),
            pace: self.pace(),
            canary: self.canary(),
            abort: self.abort(),
            start_at: self.start(),
            window: self.window(),
            timers: Timers {
                step_timeout_secs: self.number("policy.timers.step_timeout_secs"),
                in_progress_timeout_secs: self.number("policy.timers.in_progress_timeout_secs"),
                confirm_timeout_secs: self.number("policy.timers.confirm_timeout_secs"),
            },
            attempts: Attempts {
                max: self.number("policy.attempts.max"),
                backoff_secs: self.number("policy.attempts.backoff_secs"),
                max_backoff_secs: self.number("policy.attempts.max_backoff_secs"),
            },
        }
    }

    fn pace(&mut self) -> Option<Pace> {
        let per_minute = self.number("policy.pace.per_minute");
        let ramp = self.together([
            "policy.pace.ramp.factor",
            "policy.pace.ramp.every_succeeded",
            "policy.pace.ramp.max_per_minute",
        ]);
        let ramp = ramp.then(|| self.ramp()).flatten();
        if per_minute.is_none() && ramp.is_some() {
            self.errors
                .add("policy.pace.per_minute", TEXTS.deliver.both_rule);
        }
        Some(Pace {
            per_minute: per_minute?,
            ramp,
        })
    }

    fn ramp(&mut self) -> Option<Ramp> {
        const FACTOR: &str = "policy.pace.ramp.factor";
        let factor: Option<f64> = self.number(FACTOR);
        let factor = factor.map(|value| serde_json::from_value(value.into()));
        let factor = match factor? {
            Ok(factor) => factor,
            Err(error) => {
                self.errors.add(FACTOR, error.to_string());
                return None;
            }
        };
        Some(Ramp {
            factor,
            every_succeeded: self.number("policy.pace.ramp.every_succeeded")?,
            max_per_minute: self.number("policy.pace.ramp.max_per_minute")?,
        })
    }

    fn canary(&mut self) -> Option<Canary> {
        let canary = Canary {
            devices: self.number("policy.canary.devices"),
            percent: self.number("policy.canary.percent"),
            success_percent: self.number("policy.canary.success_percent"),
        };
        match (canary.devices, canary.percent, canary.success_percent) {
            (None, None, None) => None,
            (None, None, Some(_)) => {
                self.errors
                    .add("policy.canary.devices", TEXTS.deliver.both_rule);
                None
            }
            _ => Some(canary),
        }
    }

    fn abort(&mut self) -> Option<Abort> {
        let (percent, least) = ("policy.abort.failed_percent", "policy.abort.min_finished");
        if !self.together([percent, least]) {
            return None;
        }
        Some(Abort {
            failed_percent: self.number(percent)?,
            min_finished: self.number(least)?,
        })
    }

    fn start(&mut self) -> Option<Millis> {
        let text = self.draft.of("policy.start_at");
        if text.is_empty() {
            return None;
        }
        // Browsers leave the seconds out.
        let seconds = if text.matches(':').count() == 1 {
            ":00"
        } else {
            ""
        };
        let start = format!("{text}{seconds}Z").parse().ok();
        if start.is_none() {
            self.errors.add("policy.start_at", TEXTS.deliver.time_rule);
        }
        start
    }

    fn window(&mut self) -> Option<DailyWindow> {
        let (from, to, offset) = (
            "policy.window.from",
            "policy.window.to",
            "policy.window.utc_offset",
        );
        if !self.together([from, to]) {
            return None;
        }
        let utc_offset = self.clock(offset).unwrap_or_default();
        Some(DailyWindow {
            from: self.clock(from)?,
            to: self.clock(to)?,
            utc_offset,
        })
    }

    /// Whether all of these fields are filled in; those that are missing beside others are noted.
    fn together<const N: usize>(&mut self, names: [&'static str; N]) -> bool {
        let empty: Vec<_> = names
            .into_iter()
            .filter(|name| self.draft.of(name).is_empty())
            .collect();
        if empty.len() == N {
            return false;
        }
        for name in &empty {
            self.errors.add(*name, TEXTS.deliver.both_rule);
        }
        empty.is_empty()
    }

    fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.parsed(name, TEXTS.deliver.number_rule)
    }

    fn clock<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.draft.of(name);
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.add(name, error.to_string());
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, name: &'static str, rule: &'static str) -> Option<T> {
        let text = self.draft.of(name);
        if text.is_empty() {
            return None;
        }
        let value = text.parse().ok();
        if value.is_none() {
            self.errors.add(name, rule);
        }
        value
    }
}

/// Devices as rows; the first stands on line 2, below the heading.
fn rows<'a>(names: impl Iterator<Item = &'a str>) -> Vec<TargetRow> {
    let row = |(row, name): (u32, &str)| TargetRow {
        row,
        device_name: name.to_owned(),
    };
    (2..).zip(names).map(row).collect()
}

/// A row that cannot be used.
#[derive(Debug)]
pub(super) struct WrongRow {
    pub(super) line: u32,
    pub(super) device: String,
    pub(super) problem: &'static str,
}

impl From<&RowError> for WrongRow {
    fn from(row: &RowError) -> Self {
        let t = &TEXTS.deliver;
        Self {
            line: row.row,
            device: row.device.clone(),
            problem: match row.code {
                RowErrorCode::UnknownDevice => t.unknown_device,
                RowErrorCode::Duplicate => t.duplicate,
                RowErrorCode::WrongProduct => t.wrong_product,
                RowErrorCode::InvalidName => t.invalid_name,
            },
        }
    }
}

impl From<&RowProblem> for WrongRow {
    fn from(row: &RowProblem) -> Self {
        let t = &TEXTS.deliver;
        Self {
            line: row.row,
            device: row.device.clone(),
            problem: match &*row.code {
                "missing_name" => t.missing_name,
                _ => t.not_utf8,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(fields: &[(&'static str, &str)]) -> Draft {
        let mut draft = Draft::default();
        draft.set("resource", "0000000000001");
        for (name, value) in fields {
            draft.set(name, value);
        }
        draft
    }

    #[test]
    fn a_whole_policy_is_read() {
        let new = draft(&[
            ("device", "d1"),
            ("policy.pace.per_minute", "10"),
            ("policy.pace.ramp.factor", "1.5"),
            ("policy.pace.ramp.every_succeeded", "100"),
            ("policy.pace.ramp.max_per_minute", "1000"),
            ("policy.canary.percent", "5"),
            ("policy.abort.failed_percent", "20"),
            ("policy.abort.min_finished", "10"),
            ("policy.start_at", "2026-01-31T12:00"),
            ("policy.window.from", "22:00"),
            ("policy.window.to", "04:00"),
            ("policy.window.utc_offset", "+08:00"),
        ])
        .task()
        .expect("a task");
        let json = serde_json::to_value(&new.policy).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "pace": {"per_minute": 10, "ramp":
                    {"factor": 1.5, "every_succeeded": 100, "max_per_minute": 1000}},
                "canary": {"percent": 5},
                "abort": {"failed_percent": 20, "min_finished": 10},
                "start_at": "2026-01-31T12:00:00.000Z",
                "window": {"from": "22:00", "to": "04:00", "utc_offset": "+08:00"},
            })
        );
    }

    #[test]
    fn every_field_that_cannot_be_used_is_named() {
        for (fields, field) in [
            (&[("device", "")][..], "device"),
            (&[("to", "csv")], "file"),
            (
                &[("policy.max_in_progress", "many")],
                "policy.max_in_progress",
            ),
            (&[("policy.max_in_progress", "0")], "policy.max_in_progress"),
            (
                &[("policy.abort.failed_percent", "5")],
                "policy.abort.min_finished",
            ),
            (
                &[("policy.pace.ramp.factor", "2")],
                "policy.pace.ramp.every_succeeded",
            ),
            (&[("policy.window.from", "22:00")], "policy.window.to"),
            (&[("policy.start_at", "tomorrow")], "policy.start_at"),
            (
                &[("policy.canary.success_percent", "90")],
                "policy.canary.devices",
            ),
        ] {
            let errors = draft(fields).task().expect_err(field);
            assert!(errors.of(field).is_some(), "{field}: {errors:?}");
        }
    }
}
