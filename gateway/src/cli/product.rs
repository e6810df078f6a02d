//! `headgate product`.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{ClientError, Method, encoded},
    output::{Column, json},
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("PRODUCT", "id"),
    ("NAME", "name"),
    ("AUTH", "auth_kinds"),
    ("FORMS", "credential_forms"),
    ("MQTT", "transports.mqtt"),
    ("COAP", "transports.coap"),
    ("CONFIRM", "confirm"),
];

/// What to do about products.
#[derive(Debug, Subcommand)]
pub enum ProductCommand {
    /// Make a product
    Add(AddArgs),
    /// Replace everything that is said of a product
    Set(SetArgs),
    /// List products
    List,
    /// Show a product as JSON, as `set` takes it
    Show(ProductArgs),
    /// Delete a product that has neither devices nor resources
    Delete(ProductArgs),
}

/// Which product.
#[derive(Debug, Args)]
pub struct ProductArgs {
    /// The product's id
    pub product: String,
}

/// A product to be made.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its id: 1 to 36 letters, digits, `_` and `-`
    pub product: String,
    /// A label [default: the id]
    #[arg(long)]
    pub name: Option<String>,
    /// JSON file with everything else, as in the API
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// A product to be replaced.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The product's id
    pub product: String,
    /// JSON file, as in the API
    pub file: PathBuf,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: ProductCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        ProductCommand::Add(args) => {
            let mut body = match &args.file {
                Some(file) => read(file)?,
                None => json!({}),
            };
            if let Some(name) = args.name {
                body["name"] = Value::String(name);
            } else if body.get("name").is_none() {
                body["name"] = Value::String(args.product.clone());
            }
            body["id"] = Value::String(args.product.clone());
            let made = client.json(Method::POST, "/products", body).await?;
            output.done(&made, &format!("{} is made", args.product))?;
        }
        ProductCommand::Set(args) => {
            let mut body = read(&args.file)?;
            // What `show` prints can be edited and given back.
            for field in ["created_at", "updated_at"] {
                body.as_object_mut().map(|fields| fields.remove(field));
            }
            let set = client.json(Method::PUT, &path(&args.product), body).await?;
            output.done(&set, &format!("{} is changed", args.product))?;
        }
        ProductCommand::List => output.list(client, "/products", &[], COLUMNS).await?,
        ProductCommand::Show(args) => json(&client.get(&path(&args.product)).await?)?,
        ProductCommand::Delete(args) => {
            let gone = client.act(Method::DELETE, &path(&args.product)).await?;
            output.done(&gone, &format!("{} is deleted", args.product))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A JSON object out of a file.
pub(super) fn read(file: &std::path::Path) -> Result<Value, ClientError> {
    let failed = |source| ClientError::File {
        path: file.display().to_string(),
        source,
    };
    let text = fs::read(file).map_err(failed)?;
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ClientError::Settings {
            path: file.display().to_string(),
            why: "is no JSON object".to_owned(),
        }),
        Err(error) => Err(ClientError::Settings {
            path: file.display().to_string(),
            why: error.to_string(),
        }),
    }
}

fn path(product: &str) -> String {
    format!("/products/{}", encoded(product))
}
