//! `headgate task report` and `headgate task check`: the proof of a task, and whether it holds.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{DETAILS, path};
use crate::{
    cli::{
        EXIT_FAILURE,
        client::ClientError,
        remote::{Context, Outcome},
    },
    model::{
        Delivery, Id, Millis,
        history::{HistoryCheck, Verdict},
    },
};

/// Faults that are shown; the others are counted.
const SHOWN: usize = 20;

/// What a report has.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The task's id
    pub task: String,
    /// One row for each delivery, as CSV
    #[arg(long)]
    pub csv: bool,
    /// One row for each attempt instead
    #[arg(long, requires = "csv")]
    pub all_attempts: bool,
}

pub(super) async fn show(context: &Context, args: ReportArgs) -> Result<(), ClientError> {
    let Context { client, output } = context;
    if args.csv {
        let attempts = if args.all_attempts { "all" } else { "latest" };
        let path = format!("{}/report.csv", path(&args.task));
        let query = [("attempts", Some(attempts.to_owned()))];
        return output.save(client, &path, &query, None, None).await;
    }
    output.one(&client.get(&path(&args.task)).await?, DETAILS)
}

pub(super) async fn check(context: &Context, task: &str) -> Outcome {
    let id = task
        .parse()
        .map_err(|_| ClientError::Usage(format!("{task:?} is not a task's id")))?;
    let mut csv = Vec::new();
    let path = format!("{}/report.csv?attempts=all", path(task));
    context
        .client
        .stream(&path, |piece| {
            csv.extend_from_slice(&piece);
            Ok(())
        })
        .await?;
    let verdict = judge(id, &csv)?;
    let faults = verdict.faults.iter().map(|fault| {
        json!({"delivery": fault.delivery.to_string(), "attempt": fault.attempt, "what": fault.what.to_string()})
    });
    let found = json!({
        "deliveries": verdict.deliveries,
        "attempts": verdict.attempts,
        "delivered": verdict.delivered,
        "failed": verdict.failed,
        "open": verdict.open,
        "faults": faults.collect::<Vec<_>>(),
    });
    context.output.done(&found, describe(&verdict).trim_end())?;
    Ok(if verdict.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// Judges the attempts of a report.
fn judge(task: Id, csv: &[u8]) -> Result<Verdict, ClientError> {
    let mut check = HistoryCheck::default();
    let mut reader = csv::Reader::from_reader(csv);
    let wrong = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
    let heading = reader.headers().map_err(|error| wrong(&error))?.clone();
    for row in reader.records() {
        let row = row.map_err(|error| wrong(&error))?;
        let cell = |name: &str| {
            let column = heading.iter().position(|known| known == name);
            column
                .and_then(|column| row.get(column))
                .unwrap_or_default()
        };
        let attempt = attempt_of(task, cell);
        check.take(attempt.ok_or_else(|| wrong(&format!("row {row:?}")))?);
    }
    Ok(check.verdict())
}

/// The attempt that a row of a report shows.
fn attempt_of<'r>(task: Id, cell: impl Fn(&str) -> &'r str) -> Option<Delivery> {
    let text = |name: &str| Some(cell(name)).filter(|text| !text.is_empty());
    let time =
        |name: &str| -> Option<Option<Millis>> { text(name).map(str::parse).transpose().ok() };
    Some(Delivery {
        id: cell("delivery_id").parse().ok()?,
        task_id: task,
        device_id: cell("device_id").parse().ok()?,
        node_id: cell("DeviceName").parse().ok()?,
        attempt: cell("attempt").parse().ok()?,
        state: cell("state").parse().ok()?,
        reason: text("reason").map(str::to_owned),
        detail: text("detail").map(str::to_owned),
        created_at: time("created_at")??,
        pushed_at: time("pushed_at")?,
        delivering_at: time("delivering_at")?,
        finished_at: time("finished_at")?,
    })
}

fn describe(verdict: &Verdict) -> String {
    let mut text = format!(
        "{} deliveries, {} attempts: {} delivered, {} failed, {} open\n",
        verdict.deliveries, verdict.attempts, verdict.delivered, verdict.failed, verdict.open
    );
    for fault in verdict.faults.iter().take(SHOWN) {
        // Writing to a string does not fail.
        let _ok = writeln!(
            text,
            "delivery {} attempt {}: {}",
            fault.delivery, fault.attempt, fault.what
        );
    }
    let _ok = match verdict.faults.len() {
        0 => writeln!(text, "every history is in order"),
        faults => writeln!(text, "{faults} faults"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_judged_row_by_row() {
        let id: Id = Id::from_i64(77).expect("positive");
        let heading = "delivery_id,device_id,DeviceName,attempt,state,percent,waiting,reason,detail,\
                       created_at,pushed_at,delivering_at,finished_at\n";
        let time = |second: u32| format!("2026-01-31T12:00:{second:02}.000Z");
        let failed = format!(
            "{id},p_d,d,1,failed,,,device,\"-4: md5, again\",{},{},{},{}\n",
            time(1),
            time(2),
            time(3),
            time(4)
        );
        let good = format!(
            "{id},p_d,d,2,delivered,,,,,{},{},,{}\n",
            time(4),
            time(5),
            time(6)
        );
        let verdict = judge(id, format!("{heading}{failed}{good}").as_bytes()).expect("readable");
        assert_eq!((verdict.delivered, verdict.attempts), (1, 2));
        assert_eq!(verdict.faults, []);
        let twice = judge(id, format!("{heading}{failed}{failed}").as_bytes()).expect("readable");
        assert!(!twice.faults.is_empty());
        let text = describe(&twice);
        assert!(
            text.contains("there twice") && text.ends_with("faults\n"),
            "{text}"
        );
        assert!(judge(id, format!("{heading}x,y\n").as_bytes()).is_err());
    }
}
