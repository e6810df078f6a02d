//! `headgate app`: applications, and the devices that are bound to them.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    EXIT_FAILURE,
    client::{FileBody, Method, Payload, encoded, with_query},
    complain,
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("APP", "id"),
    ("NAME", "name"),
    ("ENABLED", "enabled"),
    ("MADE", "created_at"),
];

const DETAILS: &[Column] = &[
    ("app", "id"),
    ("name", "name"),
    ("enabled", "enabled"),
    ("devices", "devices"),
    ("secret", "secret"),
    ("made", "created_at"),
    ("changed", "updated_at"),
];

/// What to do about applications.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Make an application; its secret is shown this once
    Create(CreateArgs),
    /// List applications
    List(ListArgs),
    /// Show an application
    Show(AppArgs),
    /// List the devices of an application
    Devices(AppArgs),
    /// Bind devices to an application
    Bind(BindArgs),
    /// Unbind devices from an application
    Unbind(BindArgs),
    /// Replace an application's secret; the new one is shown this once
    Reset(ResetArgs),
    /// Let an application in no more, and end its sessions
    Disable(AppArgs),
    /// Let a disabled application in again
    Enable(AppArgs),
    /// Delete an application
    Delete(AppArgs),
}

/// Which application.
#[derive(Debug, Args)]
pub struct AppArgs {
    /// The application's id
    pub app: String,
}

/// An application to be made.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its id: 1 to 64 letters, digits, `_` and `-`
    pub app: String,
    /// A label [default: the id]
    #[arg(long)]
    pub name: Option<String>,
}

/// Which applications are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those whose name or id holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

/// Which devices.
#[derive(Debug, Args)]
pub struct BindArgs {
    /// The application's id
    pub app: String,
    /// Ids of devices
    #[arg(required_unless_present = "csv")]
    pub devices: Vec<String>,
    /// CSV with the column `device_id`
    #[arg(long, value_name = "FILE", conflicts_with = "devices")]
    pub csv: Option<PathBuf>,
}

/// Which secret is replaced.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The application's id
    pub app: String,
    /// The second of its two secrets
    #[arg(long)]
    pub secondary: bool,
    /// End its sessions, so that it must come with the new one
    #[arg(long)]
    pub disconnect: bool,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: AppCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        AppCommand::Create(args) => {
            let mut body = json!({"id": args.app});
            if let Some(name) = args.name {
                body["name"] = Value::String(name);
            }
            output.one(&client.json(Method::POST, "/apps", body).await?, DETAILS)?;
        }
        AppCommand::List(args) => {
            let query = [("filter", args.filter)];
            output.list(client, "/apps", &query, COLUMNS).await?;
        }
        AppCommand::Show(AppArgs { app }) => {
            output.one(&client.get(&path(&app)).await?, DETAILS)?;
        }
        AppCommand::Devices(AppArgs { app }) => {
            let columns = &[("DEVICE", "device_id"), ("SINCE", "bound_at")];
            let path = format!("{}/devices", path(&app));
            output.list(client, &path, &[], columns).await?;
        }
        AppCommand::Bind(args) => return bind(context, args, Method::POST).await,
        AppCommand::Unbind(args) => return bind(context, args, Method::DELETE).await,
        AppCommand::Reset(args) => {
            let which = if args.secondary {
                "secondary"
            } else {
                "primary"
            };
            let body = json!({"which": which, "disconnect": args.disconnect});
            let path = format!("{}/secret", path(&args.app));
            let set = client.json(Method::POST, &path, body).await?;
            let columns = &[("app", "app_id"), ("which", "which"), ("secret", "secret")];
            output.one(&set, columns)?;
        }
        AppCommand::Disable(AppArgs { app }) => enable(context, &app, false).await?,
        AppCommand::Enable(AppArgs { app }) => enable(context, &app, true).await?,
        AppCommand::Delete(AppArgs { app }) => {
            let gone = client.act(Method::DELETE, &path(&app)).await?;
            output.done(&gone, &format!("{app} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn enable(
    context: &Context,
    app: &str,
    enabled: bool,
) -> Result<(), super::client::ClientError> {
    let body = json!({"enabled": enabled});
    let after = context.client.json(Method::PATCH, &path(app), body).await?;
    let text = if enabled {
        "may come in again"
    } else {
        "may not come in"
    };
    context.output.done(&after, &format!("{app} {text}"))
}

async fn bind(context: &Context, args: BindArgs, method: Method) -> Outcome {
    let is_binding = method == Method::POST;
    let report = if let Some(csv) = &args.csv {
        let action = if is_binding { "bind" } else { "unbind" };
        let path = format!("{}/devices:csv", path(&args.app));
        let path = with_query(&path, &[("action", Some(action.to_owned()))]);
        let file = FileBody::of(csv, |_| {})?;
        let payload = Payload::File("text/csv".to_owned(), file);
        context.client.send(Method::POST, &path, payload).await?
    } else {
        let path = format!("{}/devices", path(&args.app));
        let body = json!({"device_ids": args.devices});
        context.client.json(method, &path, body).await?
    };
    let word = if is_binding { "bound" } else { "unbound" };
    let text = format!("{} of {} {word}", report["changed"], report["rows"]);
    context.output.done(&report, &text)?;
    let wrong = report["error_count"].as_u64().unwrap_or(0);
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for row in report["errors"].as_array().into_iter().flatten() {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let line = format!(
            "row {}: {}: {}",
            row["row"],
            text("device"),
            text("message")
        );
        complain(super::output::printable(&line));
    }
    Ok(ExitCode::from(EXIT_FAILURE))
}

fn path(app: &str) -> String {
    format!("/apps/{}", encoded(app))
}
