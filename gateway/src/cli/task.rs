//! `headgate task`: a resource delivered to devices, watched and steered.

mod create;
mod report;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

pub use self::{
    create::{CreateArgs, PolicyArgs, TargetArgs},
    report::ReportArgs,
};
use super::{
    client::{ClientError, Method, encoded},
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("TASK", "id"),
    ("NAME", "name"),
    ("PRODUCT", "product_id"),
    ("RUN", "run"),
    ("TOTAL", "total"),
    ("PENDING", "counts.pending"),
    ("UNDER WAY", "counts.delivering"),
    ("DELIVERED", "counts.delivered"),
    ("FAILED", "counts.failed"),
    ("MADE", "created_at"),
];

const DETAILS: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("resource", "resource_id"),
    ("version", "resource_version"),
    ("product", "product_id"),
    ("run", "run"),
    ("creation", "creation"),
    ("error", "creation_error"),
    ("total", "total"),
    ("pending", "counts.pending"),
    ("pushed", "counts.pushed"),
    ("delivering", "counts.delivering"),
    ("delivered", "counts.delivered"),
    ("failed", "counts.failed"),
    ("policy", "policy"),
    ("made", "created_at"),
    ("made by", "created_by"),
    ("ended", "finished_at"),
];

const DELIVERIES: &[Column] = &[
    ("DELIVERY", "id"),
    ("DEVICE", "device_id"),
    ("ATTEMPT", "attempt"),
    ("STATE", "state"),
    ("%", "percent"),
    ("WAITING FOR", "waiting"),
    ("REASON", "reason"),
    ("DETAIL", "detail"),
];

/// What to do about tasks.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Have a resource delivered
    Create(CreateArgs),
    /// List tasks
    List(ListArgs),
    /// Show how a task stands
    Show(TaskArgs),
    /// List the deliveries of a task
    Deliveries(DeliveriesArgs),
    /// Follow a task until it is over; ends with 1 where a delivery failed
    Watch(TaskArgs),
    /// Hold a task: nothing more of it is sent
    Pause(TaskArgs),
    /// Let a paused task go on
    Resume(TaskArgs),
    /// Let a task go on from its canary to all devices
    Promote(TaskArgs),
    /// Cancel what has not been delivered
    Cancel(ChosenArgs),
    /// Try what failed again
    Retry(ChosenArgs),
    /// Delete a task that has ended
    Delete(TaskArgs),
    /// Show how a task stands, or every delivery of it
    Report(ReportArgs),
    /// Check that the history of every delivery of a task is one that can be
    Check(TaskArgs),
}

/// Which task.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// The task's id
    pub task: String,
}

/// Which tasks are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those for devices of this product
    #[arg(long)]
    pub product: Option<String>,
    /// Only those that deliver this resource
    #[arg(long, value_name = "ID")]
    pub resource: Option<String>,
    /// Only those in this state: scheduled, running, paused, aborted, canceled or finished
    #[arg(long, value_name = "STATE")]
    pub run: Option<String>,
}

/// Which deliveries are listed.
#[derive(Debug, Args)]
pub struct DeliveriesArgs {
    /// The task's id
    pub task: String,
    /// Only those in this state
    #[arg(long, value_enum)]
    pub state: Option<State>,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    /// It waits.
    Pending,
    /// The device knows of it.
    Pushed,
    /// Bytes are on their way.
    Delivering,
    /// The device has it.
    Delivered,
    /// It failed.
    Failed,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pushed => "pushed",
            Self::Delivering => "delivering",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// Which deliveries of a task are meant.
#[derive(Debug, Args)]
pub struct ChosenArgs {
    /// The task's id
    pub task: String,
    /// Ids of deliveries [default: all of the task]
    pub deliveries: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: TaskCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        TaskCommand::Create(args) => return create::run(context, args).await,
        TaskCommand::Watch(TaskArgs { task }) => return watch::run(context, &task).await,
        TaskCommand::Report(args) => report::show(context, args).await?,
        TaskCommand::Check(TaskArgs { task }) => return report::check(context, &task).await,
        TaskCommand::List(args) => {
            let query = [
                ("product", args.product),
                ("resource", args.resource),
                ("run", args.run),
            ];
            output.list(client, "/tasks", &query, COLUMNS).await?;
        }
        TaskCommand::Show(TaskArgs { task }) => {
            output.one(&client.get(&path(&task)).await?, DETAILS)?;
        }
        TaskCommand::Deliveries(args) => {
            let path = format!("{}/deliveries", path(&args.task));
            let state = args.state.map(|state| state.as_str().to_owned());
            let query = [("state", state)];
            output.list(client, &path, &query, DELIVERIES).await?;
        }
        TaskCommand::Pause(TaskArgs { task }) => act(context, &task, "pause", None).await?,
        TaskCommand::Resume(TaskArgs { task }) => act(context, &task, "resume", None).await?,
        TaskCommand::Promote(TaskArgs { task }) => act(context, &task, "promote", None).await?,
        TaskCommand::Cancel(args) => {
            let chosen = chosen(&args.deliveries);
            act(context, &args.task, "cancel", chosen).await?;
        }
        TaskCommand::Retry(args) => {
            let chosen = chosen(&args.deliveries);
            act(context, &args.task, "retry", chosen).await?;
        }
        TaskCommand::Delete(TaskArgs { task }) => {
            let gone = client.act(Method::DELETE, &path(&task)).await?;
            output.done(&gone, &format!("{task} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(deliveries: &[String]) -> Option<Value> {
    (!deliveries.is_empty()).then(|| json!({"delivery_ids": deliveries}))
}

async fn act(
    context: &Context,
    task: &str,
    what: &str,
    body: Option<Value>,
) -> Result<(), ClientError> {
    let path = format!("{}/{what}", path(task));
    let after = match body {
        None => context.client.act(Method::POST, &path).await?,
        Some(body) => context.client.json(Method::POST, &path, body).await?,
    };
    context.output.done(&after, &standing(&after))
}

/// How a task stands, in one line.
fn standing(task: &Value) -> String {
    let count = |state: &str| task["counts"][state].as_u64().unwrap_or(0);
    format!(
        "{}: {} pending, {} pushed, {} delivering, {} delivered, {} failed",
        task["run"].as_str().unwrap_or_default(),
        count("pending"),
        count("pushed"),
        count("delivering"),
        count("delivered"),
        count("failed"),
    )
}

fn path(task: &str) -> String {
    format!("/tasks/{}", encoded(task))
}
