//! `headgate device`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    EXIT_FAILURE,
    client::{ClientError, FileBody, Method, Payload, encoded},
    output::{Column, bar},
    remote::{Context, Outcome},
};

/// How often it is asked how far a batch is.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// Most bytes of a secret on standard input.
const MAX_SECRET_BYTES: u64 = 4_096;

const COLUMNS: &[Column] = &[
    ("DEVICE", "device_id"),
    ("PRODUCT", "product_id"),
    ("NODE", "node_id"),
    ("NAME", "name"),
    ("AUTH", "auth"),
    ("ENABLED", "enabled"),
    ("LAST SEEN", "last_seen_at"),
];

const DETAILS: &[Column] = &[
    ("device", "device_id"),
    ("product", "product_id"),
    ("node", "node_id"),
    ("name", "name"),
    ("description", "description"),
    ("auth", "auth"),
    ("psk encoding", "psk_encoding"),
    ("enabled", "enabled"),
    ("secret", "secret"),
    ("fingerprint", "fingerprint"),
    ("second fingerprint", "secondary_fingerprint"),
    ("has second secret", "has_secondary_secret"),
    ("registered", "created_at"),
    ("changed", "updated_at"),
    ("last seen", "last_seen_at"),
];

const BATCH: &[Column] = &[
    ("batch", "id"),
    ("state", "state"),
    ("rows", "total"),
    ("created", "counts.created"),
    ("unchanged", "counts.unchanged"),
    ("failed", "counts.failed"),
];

/// What to do about devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Register a device; a secret that is made is shown this once
    Add(AddArgs),
    /// Register the devices of a CSV and wait until all rows are done
    Import(ImportArgs),
    /// List devices
    List(ListArgs),
    /// Show a device
    Show(DeviceArgs),
    /// Replace a device's secret or certificate; a secret that is made is shown this once
    Reset(ResetArgs),
    /// Let a device in no more, and end its connection
    Freeze(DeviceArgs),
    /// Let a frozen device in again
    Unfreeze(DeviceArgs),
    /// Delete a device
    Delete(DeviceArgs),
    /// End a device's connection; it may come back
    Kick(DeviceArgs),
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device's id in the whole gateway
    pub device: String,
}

/// A device to be registered.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its product
    pub product: String,
    /// Its id within the product
    pub node: String,
    /// Its id in the whole gateway [default: `{product}_{node}`]
    #[arg(long, value_name = "ID")]
    pub device_id: Option<String>,
    /// A label
    #[arg(long)]
    pub name: Option<String>,
    /// What people should know about it
    #[arg(long)]
    pub description: Option<String>,
    /// How it proves who it is [default: as its product says]
    #[arg(long, value_enum)]
    pub auth: Option<Auth>,
    /// What it proves it with.
    #[command(flatten)]
    pub credential: CredentialArgs,
}

/// How a device proves who it is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Auth {
    /// By a secret.
    Secret,
    /// By a certificate.
    X509,
    /// Not at all, by plain `CoAP` alone.
    None,
}

/// A credential that is given instead of made.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct CredentialArgs {
    /// Read its secret from standard input
    #[arg(long)]
    pub secret_stdin: bool,
    /// SHA-256 of its certificate
    #[arg(long, value_name = "HEX")]
    pub fingerprint: Option<String>,
    /// PEM file with its certificate
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
}

/// Devices to be registered.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// CSV with the columns `node_id` and `product_id`
    pub file: PathBuf,
    /// Save the result, with the secrets that were made, in this file
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,
    /// Do not wait until the rows are done
    #[arg(long, conflicts_with = "result")]
    pub no_wait: bool,
}

/// Which devices are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this product
    #[arg(long)]
    pub product: Option<String>,
    /// Only those that are bound to this application
    #[arg(long)]
    pub app: Option<String>,
    /// Only those whose name, node id or device id holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Only those that are frozen
    #[arg(long)]
    pub frozen: bool,
}

/// Which credential is replaced.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The device's id in the whole gateway
    pub device: String,
    /// The second of its two credentials
    #[arg(long)]
    pub secondary: bool,
    /// End its connection, so that it must come with the new one
    #[arg(long)]
    pub disconnect: bool,
    /// What it proves itself with.
    #[command(flatten)]
    pub credential: CredentialArgs,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: DeviceCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        DeviceCommand::Add(args) => add(context, args).await?,
        DeviceCommand::Import(args) => return import(context, args).await,
        DeviceCommand::List(args) => {
            let query = [
                ("product", args.product),
                ("app", args.app),
                ("filter", args.filter),
                ("enabled", args.frozen.then(|| "false".to_owned())),
            ];
            output.list(client, "/devices", &query, COLUMNS).await?;
        }
        DeviceCommand::Show(DeviceArgs { device }) => {
            let found = client.get(&path(&device)).await?;
            output.one(&found, DETAILS)?;
        }
        DeviceCommand::Reset(args) => reset(context, args).await?,
        DeviceCommand::Freeze(DeviceArgs { device }) => {
            let path = format!("{}/freeze", path(&device));
            let frozen = client.act(Method::POST, &path).await?;
            output.done(&frozen, &format!("{device} is frozen"))?;
        }
        DeviceCommand::Unfreeze(DeviceArgs { device }) => {
            let path = format!("{}/unfreeze", path(&device));
            let enabled = client.act(Method::POST, &path).await?;
            output.done(&enabled, &format!("{device} may come in again"))?;
        }
        DeviceCommand::Delete(DeviceArgs { device }) => {
            let gone = client.act(Method::DELETE, &path(&device)).await?;
            output.done(&gone, &format!("{device} is deleted"))?;
        }
        DeviceCommand::Kick(DeviceArgs { device }) => {
            let path = format!("{}/session", path(&device));
            let ended = client.act(Method::DELETE, &path).await?;
            output.done(&ended, &format!("the connection of {device} is ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(context: &Context, args: AddArgs) -> Result<(), ClientError> {
    let mut body = json!({"product_id": args.product, "node_id": args.node});
    let auth = args.auth.map(|auth| match auth {
        Auth::Secret => "secret",
        Auth::X509 => "x509",
        Auth::None => "none",
    });
    for (field, value) in [
        ("device_id", args.device_id),
        ("name", args.name),
        ("description", args.description),
        ("auth", auth.map(str::to_owned)),
    ] {
        if let Some(value) = value {
            body[field] = Value::String(value);
        }
    }
    if let Some((field, value)) = credential(args.credential)? {
        body[field] = Value::String(value);
    }
    let made = context.client.json(Method::POST, "/devices", body).await?;
    context.output.one(&made, DETAILS)
}

async fn reset(context: &Context, args: ResetArgs) -> Result<(), ClientError> {
    let which = if args.secondary {
        "secondary"
    } else {
        "primary"
    };
    let mut body = json!({"which": which, "disconnect": args.disconnect});
    let mut what = "secret";
    if let Some((field, value)) = credential(args.credential)? {
        body[field] = Value::String(value);
        if field != "secret" {
            what = "fingerprint";
        }
    }
    let path = format!("{}/{what}", path(&args.device));
    let set = context.client.json(Method::POST, &path, body).await?;
    let columns = &[
        ("device", "device_id"),
        ("which", "which"),
        ("secret", "secret"),
        ("fingerprint", "fingerprint"),
        ("subject", "certificate.subject"),
        ("ends", "certificate.not_after"),
        ("warnings", "certificate.warnings"),
    ];
    context.output.one(&set, columns)
}

/// The field of the API that a credential goes into, and its value.
fn credential(args: CredentialArgs) -> Result<Option<(&'static str, String)>, ClientError> {
    if args.secret_stdin {
        return Ok(Some(("secret", from_stdin()?)));
    }
    if let Some(fingerprint) = args.fingerprint {
        return Ok(Some(("fingerprint", fingerprint)));
    }
    let Some(file) = args.certificate else {
        return Ok(None);
    };
    let pem = fs::read_to_string(&file).map_err(|source| ClientError::File {
        path: file.display().to_string(),
        source,
    })?;
    Ok(Some(("certificate", pem)))
}

/// One line of standard input, for what must not be on the command line.
pub(super) fn from_stdin() -> Result<String, ClientError> {
    let mut text = String::new();
    let input = std::io::stdin().lock();
    let read = input.take(MAX_SECRET_BYTES).read_to_string(&mut text);
    read.map_err(|source| ClientError::File {
        path: "standard input".to_owned(),
        source,
    })?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        let what = "standard input is empty".to_owned();
        return Err(ClientError::Usage(what));
    }
    Ok(line.to_owned())
}

async fn import(context: &Context, args: ImportArgs) -> Outcome {
    let Context { client, output } = context;
    let sending = bar(0, output.is_json);
    let shown = sending.clone();
    let file = FileBody::of(&args.file, move |sent| shown.set_position(sent))?;
    sending.set_length(file.size());
    let payload = Payload::File("text/csv".to_owned(), file);
    let mut batch = client
        .send(Method::POST, "/device-batches", payload)
        .await?;
    sending.finish_and_clear();
    let id = batch["id"].as_str().unwrap_or_default().to_owned();
    if !args.no_wait {
        batch = wait(context, &id).await?;
    }
    output.one(&batch, BATCH)?;
    let failed = batch["counts"]["failed"].as_u64().unwrap_or(0);
    if let Some(file) = args.result.as_deref() {
        save_result(context, &id, file).await?;
    } else if failed > 0 && !output.is_json {
        let columns = &[
            ("LINE", "line"),
            ("NODE", "node_id"),
            ("CODE", "error.code"),
            ("WHAT IS WRONG", "error.message"),
        ];
        let path = format!("/device-batches/{id}/rows");
        let query = [("state", Some("failed".to_owned()))];
        output.list(client, &path, &query, columns).await?;
    }
    let is_whole = failed == 0 && batch["state"] != "failed";
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// The result has secrets: it is for this user only.
async fn save_result(context: &Context, id: &str, file: &Path) -> Result<(), ClientError> {
    let path = format!("/device-batches/{id}/result.csv");
    super::process::keep_files_private();
    let saved = context
        .output
        .save(&context.client, &path, &[], Some(file), None);
    saved.await?;
    context
        .output
        .say(&format!("the result is in {}", file.display()))
}

/// Asks how far a batch is until it is done.
async fn wait(context: &Context, id: &str) -> Result<Value, ClientError> {
    let progress = super::output::deliveries_bar();
    loop {
        let batch = context.client.get(&format!("/device-batches/{id}")).await?;
        progress.set_length(batch["total"].as_u64().unwrap_or(0));
        progress.set_position(batch["done"].as_u64().unwrap_or(0));
        if matches!(batch["state"].as_str(), Some("finished" | "failed")) {
            progress.finish_and_clear();
            return Ok(batch);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn path(device: &str) -> String {
    format!("/devices/{}", encoded(device))
}
