//! `headgate task create`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{DETAILS, standing, watch};
use crate::cli::{
    client::{ClientError, FileBody, Method, Payload},
    product,
    remote::{Context, Outcome},
};

/// Stands between the parts of a form.
const BOUNDARY: &str = "headgate-5d9f6c2a8b7e4f02";

/// What is delivered, to whom and how.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The resource's id
    pub resource: String,
    /// To whom.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// A label [default: name and version of the resource]
    #[arg(long)]
    pub name: Option<String>,
    /// How.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Follow it until it is over
    #[arg(long)]
    pub watch: bool,
}

/// To whom.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct TargetArgs {
    /// To this device, by its id in the whole gateway; may be given many times
    #[arg(long, value_name = "ID", conflicts_with_all = ["csv", "all", "matching", "app"])]
    pub device: Vec<String>,
    /// To the devices of a CSV with the column `DeviceName`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "matching", "app"])]
    pub csv: Option<PathBuf>,
    /// To every device of the resource's product
    #[arg(long, conflicts_with_all = ["matching", "app"])]
    pub all: bool,
    /// To those whose node id or name matches: `*` any characters, `?` one
    #[arg(long, value_name = "PATTERN")]
    pub matching: Option<String>,
    /// To those that are bound to this application
    #[arg(long)]
    pub app: Option<String>,
}

/// How.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// JSON file with the policy, as in the API; the options below win over it
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Deliveries in progress at once
    #[arg(long, value_name = "NUMBER")]
    pub max_in_progress: Option<u32>,
    /// Bytes a second over all devices
    #[arg(long, value_name = "NUMBER")]
    pub bytes_per_sec: Option<u64>,
    /// Devices that begin in a minute
    #[arg(long, value_name = "NUMBER")]
    pub per_minute: Option<u32>,
    /// Devices that go first, in hundredths; the rest waits for `promote`, or for `--canary-success`
    #[arg(long, value_name = "PERCENT")]
    pub canary: Option<u8>,
    /// Go on by itself once so many hundredths of the first were delivered
    #[arg(long, value_name = "PERCENT", requires = "canary")]
    pub canary_success: Option<u8>,
    /// Begin nothing before this time, such as `2026-12-01T20:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,
}

impl PolicyArgs {
    fn into_json(self) -> Result<Value, ClientError> {
        let mut policy = match &self.policy {
            Some(file) => product::read(file)?,
            None => Value::Object(Map::new()),
        };
        let pace = self
            .per_minute
            .map(|per_minute| json!({"per_minute": per_minute}));
        let canary = self.canary.map(|percent| match self.canary_success {
            Some(success) => json!({"percent": percent, "success_percent": success}),
            None => json!({"percent": percent}),
        });
        for (field, value) in [
            ("max_in_progress", self.max_in_progress.map(Value::from)),
            ("bytes_per_sec", self.bytes_per_sec.map(Value::from)),
            ("pace", pace),
            ("canary", canary),
            ("start_at", self.start_at.map(Value::from)),
        ] {
            if let Some(value) = value {
                policy[field] = value;
            }
        }
        Ok(policy)
    }
}

pub(super) async fn run(context: &Context, args: CreateArgs) -> Outcome {
    let Context { client, output } = context;
    let policy = args.policy.into_json()?;
    let made = if let Some(csv) = &args.targets.csv {
        let policy = policy.to_string();
        let mut fields = vec![
            ("resource_id", args.resource.as_str()),
            ("policy", policy.as_str()),
        ];
        if let Some(name) = &args.name {
            fields.push(("name", name));
        }
        let file = FileBody::of(csv, |_| {})?.in_form(BOUNDARY, &fields);
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        client
            .send(Method::POST, "/tasks", Payload::File(kind, file))
            .await?
    } else {
        let mut body = json!({"resource_id": args.resource, "policy": policy});
        if let Some(name) = args.name {
            body["name"] = Value::String(name);
        }
        if args.targets.device.is_empty() {
            let mut filter = Map::new();
            for (field, value) in [("name", args.targets.matching), ("app", args.targets.app)] {
                if let Some(value) = value {
                    filter.insert(field.to_owned(), Value::String(value));
                }
            }
            body["filter"] = Value::Object(filter);
        } else {
            body["device_ids"] = json!(args.targets.device);
        }
        client.json(Method::POST, "/tasks", body).await?
    };
    let id = made["id"].as_str().unwrap_or_default();
    if args.watch {
        output.say(&format!("task {id}: {}", standing(&made)))?;
        return watch::run(context, id).await;
    }
    output.one(&made, DETAILS)?;
    Ok(ExitCode::SUCCESS)
}
