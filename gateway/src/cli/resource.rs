//! `headgate resource`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{
    client::{ClientError, FileBody, Method, Payload, encoded},
    output::{Column, bar},
    remote::{Context, Outcome},
};

/// Stands between the parts of a form; a file may hold it only on a line of its own with dashes in front.
const BOUNDARY: &str = "headgate-5d9f6c2a8b7e4f01";

const COLUMNS: &[Column] = &[
    ("RESOURCE", "id"),
    ("PRODUCT", "product_id"),
    ("NAME", "name"),
    ("VERSION", "version"),
    ("SIZE", "size"),
    ("SHA-256", "sha256"),
    ("CHANGED", "updated_at"),
];

const DETAILS: &[Column] = &[
    ("resource", "id"),
    ("product", "product_id"),
    ("name", "name"),
    ("description", "description"),
    ("version", "version"),
    ("size", "size"),
    ("sha-256", "sha256"),
    ("md5", "md5"),
    ("made", "created_at"),
    ("changed", "updated_at"),
];

/// What to do about resources.
#[derive(Debug, Subcommand)]
pub enum ResourceCommand {
    /// Upload a file as a new resource
    Add(AddArgs),
    /// Upload a file as the next version of a resource
    Replace(ReplaceArgs),
    /// List resources
    List(ListArgs),
    /// Show a resource, and how its deliveries stand
    Show(ResourceArgs),
    /// Download the current version
    Get(GetArgs),
    /// Delete a resource that no open task delivers
    Rm(ResourceArgs),
}

/// Which resource.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// The resource's id
    pub resource: String,
}

/// A resource to be made.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The product whose devices it is for
    pub product: String,
    /// Its name, unique in the product
    pub name: String,
    /// The file
    pub file: PathBuf,
    /// What people should know about it
    #[arg(long)]
    pub description: Option<String>,
    /// SHA-256 that the bytes must have
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
}

/// A version to be made.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The resource's id
    pub resource: String,
    /// The file
    pub file: PathBuf,
    /// SHA-256 that the bytes must have
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
}

/// Which resources are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this product
    #[arg(long)]
    pub product: Option<String>,
    /// Only those whose name or description holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

/// What is downloaded, and where to.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The resource's id
    pub resource: String,
    /// Save it in this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: ResourceCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        ResourceCommand::Add(args) => add(context, args).await?,
        ResourceCommand::Replace(args) => replace(context, args).await?,
        ResourceCommand::List(args) => {
            let query = [("product", args.product), ("filter", args.filter)];
            output.list(client, "/resources", &query, COLUMNS).await?;
        }
        ResourceCommand::Show(ResourceArgs { resource }) => {
            let mut found = client.get(&path(&resource)).await?;
            let statistics = format!("{}/statistics", path(&resource));
            found["deliveries"] = client.get(&statistics).await?;
            let mut columns = DETAILS.to_vec();
            columns.extend([
                ("pending", "deliveries.pending"),
                ("pushed", "deliveries.pushed"),
                ("delivering", "deliveries.delivering"),
                ("delivered", "deliveries.delivered"),
                ("failed", "deliveries.failed"),
            ]);
            output.one(&found, &columns)?;
        }
        ResourceCommand::Get(args) => {
            let found = client.get(&path(&args.resource)).await?;
            let content = format!("{}/content", path(&args.resource));
            let size = found["size"].as_u64();
            let file = args.output.as_deref();
            output.save(client, &content, &[], file, size).await?;
        }
        ResourceCommand::Rm(ResourceArgs { resource }) => {
            let gone = client.act(Method::DELETE, &path(&resource)).await?;
            output.done(&gone, &format!("{resource} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(context: &Context, args: AddArgs) -> Result<(), ClientError> {
    let progress = bar(0, context.output.is_json);
    let shown = progress.clone();
    let file = FileBody::of(&args.file, move |sent| shown.set_position(sent))?;
    progress.set_length(file.size());
    let size = file.size().to_string();
    let mut fields = vec![
        ("product", args.product.as_str()),
        ("name", args.name.as_str()),
        ("size", size.as_str()),
    ];
    for (field, value) in [("description", &args.description), ("sha256", &args.sha256)] {
        if let Some(value) = value {
            fields.push((field, value));
        }
    }
    // A line break would end its part early.
    if fields.iter().any(|(_, value)| value.contains(['\r', '\n'])) {
        let what = "names and descriptions have no line breaks here".to_owned();
        return Err(ClientError::Usage(what));
    }
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let payload = Payload::File(kind, file.in_form(BOUNDARY, &fields));
    let made = context
        .client
        .send(Method::POST, "/resources", payload)
        .await;
    progress.finish_and_clear();
    context.output.one(&made?, DETAILS)
}

async fn replace(context: &Context, args: ReplaceArgs) -> Result<(), ClientError> {
    let progress = bar(0, context.output.is_json);
    let shown = progress.clone();
    let file = FileBody::of(&args.file, move |sent| shown.set_position(sent))?;
    progress.set_length(file.size());
    let path = format!("{}/content", path(&args.resource));
    let path = super::client::with_query(&path, &[("sha256", args.sha256)]);
    let payload = Payload::File("application/octet-stream".to_owned(), file);
    let set = context.client.send(Method::PUT, &path, payload).await;
    progress.finish_and_clear();
    context.output.one(&set?, DETAILS)
}

fn path(resource: &str) -> String {
    format!("/resources/{}", encoded(resource))
}
