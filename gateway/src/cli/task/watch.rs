//! `headgate task watch`: a roll-out as it goes.
//!
//! On a terminal a bar with how many deliveries are in which state; else a line whenever that changes, and with
//! `--json` every event. A stream that breaks off is opened again: the first event says how the task stands by now.

use std::{process::ExitCode, time::Duration};

use indicatif::ProgressBar;
use serde_json::Value;

use super::{path, standing};
use crate::cli::{
    EXIT_FAILURE,
    client::{ClientError, Event, Events},
    output::{Output, deliveries_bar, line, printable},
    remote::{Context, Outcome},
};

/// Pause before a stream that broke off is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Streams in a row that break off before they say anything, until it is given up.
const MAX_SILENT: u32 = 5;

/// Run states after which nothing of a task changes any more.
const OVER: [&str; 3] = ["finished", "canceled", "aborted"];

pub(super) async fn run(context: &Context, task: &str) -> Outcome {
    let mut watch = Watch {
        output: context.output,
        bar: deliveries_bar(),
        last: Value::Null,
        line: String::new(),
        is_over: false,
        has_spoken: false,
    };
    let path = format!("{}/events", path(task));
    let mut silent = 0;
    while !watch.is_over {
        watch.has_spoken = false;
        let mut events = Events::default();
        let streamed = context
            .client
            .stream(&path, |piece| {
                let found = events
                    .take(&piece)
                    .ok_or_else(|| ClientError::Answer("an event is too long".to_owned()))?;
                found.iter().try_for_each(|event| watch.take(event))
            })
            .await;
        silent = if watch.has_spoken { 0 } else { silent + 1 };
        match streamed {
            Ok(()) if silent < MAX_SILENT => {}
            Ok(()) => return Err(ClientError::Answer("the stream says nothing".to_owned())),
            Err(error @ (ClientError::Refused { .. } | ClientError::Output(_))) => {
                return Err(error);
            }
            Err(error) if silent >= MAX_SILENT || watch.last.is_null() => return Err(error),
            Err(_broken_off) => {}
        }
        if !watch.is_over {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
    watch.bar.finish_and_clear();
    watch.output.say(&standing(&watch.last))?;
    let failed = watch.last["counts"]["failed"].as_u64().unwrap_or(0);
    let was_finished = watch.last["run"] == "finished" && failed == 0;
    Ok(if was_finished {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// What was seen of a task.
struct Watch {
    output: Output,
    bar: ProgressBar,
    /// The task as it stood last.
    last: Value,
    /// What was said last.
    line: String,
    is_over: bool,
    has_spoken: bool,
}

impl Watch {
    fn take(&mut self, event: &Event) -> Result<(), ClientError> {
        self.has_spoken = true;
        if event.name == "end" {
            self.is_over = true;
        }
        let Ok(mut data) = serde_json::from_str::<Value>(&event.data) else {
            return Ok(());
        };
        if self.output.is_json {
            line(&data)?;
        }
        let task = data["task"].take();
        if task.is_null() {
            return Ok(());
        }
        self.is_over |= OVER.iter().any(|over| task["run"] == *over);
        self.show(&task)?;
        self.last = task;
        Ok(())
    }

    fn show(&mut self, task: &Value) -> Result<(), ClientError> {
        let count = |state: &str| task["counts"][state].as_u64().unwrap_or(0);
        let shown = standing(task);
        self.bar.set_length(task["total"].as_u64().unwrap_or(0));
        self.bar.set_position(count("delivered") + count("failed"));
        self.bar.set_message(printable(&shown));
        if self.bar.is_hidden() && shown != self.line {
            self.output.say(&shown)?;
        }
        self.line = shown;
        Ok(())
    }
}
