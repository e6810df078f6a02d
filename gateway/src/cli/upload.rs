//! `headgate upload`: what devices sent.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{
    client::{Method, encoded},
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("UPLOAD", "id"),
    ("DEVICE", "device_id"),
    ("NAME", "name"),
    ("VERSION", "version"),
    ("STATE", "state"),
    ("SIZE", "size"),
    ("RECEIVED", "received"),
    ("ANNOUNCED", "created_at"),
];

/// What to do about uploads.
#[derive(Debug, Subcommand)]
pub enum UploadCommand {
    /// List uploads, newest first
    List(ListArgs),
    /// Download an upload
    Get(GetArgs),
    /// Delete an upload and its bytes
    Rm(UploadArgs),
}

/// Which upload.
#[derive(Debug, Args)]
pub struct UploadArgs {
    /// The upload's id
    pub upload: String,
}

/// Which uploads are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only what this device sent
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Only what devices of this product sent
    #[arg(long)]
    pub product: Option<String>,
    /// Only those of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only those that are whole
    #[arg(long)]
    pub stored: bool,
}

/// What is downloaded, and where to.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The upload's id
    pub upload: String,
    /// Save it in this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: UploadCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        UploadCommand::List(args) => {
            let query = [
                ("device", args.device),
                ("product", args.product),
                ("name", args.name),
                ("state", args.stored.then(|| "stored".to_owned())),
            ];
            output.list(client, "/uploads", &query, COLUMNS).await?;
        }
        UploadCommand::Get(args) => {
            let found = client.get(&path(&args.upload)).await?;
            let content = format!("{}/content", path(&args.upload));
            let size = found["size"].as_u64();
            let file = args.output.as_deref();
            output.save(client, &content, &[], file, size).await?;
        }
        UploadCommand::Rm(UploadArgs { upload }) => {
            let gone = client.act(Method::DELETE, &path(&upload)).await?;
            output.done(&gone, &format!("{upload} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(upload: &str) -> String {
    format!("/uploads/{}", encoded(upload))
}
