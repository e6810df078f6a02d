//! `headgate operator`: who may sign in to the console.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{ClientError, Method, encoded},
    device::from_stdin,
    output::Column,
    remote::{Context, Outcome},
    token::Role,
};

const COLUMNS: &[Column] = &[
    ("OPERATOR", "name"),
    ("ROLE", "role"),
    ("ENABLED", "enabled"),
    ("MADE", "created_at"),
    ("PASSWORD SET", "password_set_at"),
];

const DETAILS: &[Column] = &[
    ("operator", "name"),
    ("role", "role"),
    ("enabled", "enabled"),
    ("password", "password"),
    ("made", "created_at"),
    ("changed", "updated_at"),
    ("password set", "password_set_at"),
];

/// What to do about operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make an operator; a password that is made is shown this once
    Add(AddArgs),
    /// List operators
    List,
    /// Show an operator
    Show(OperatorArgs),
    /// Give an operator another role
    Role(RoleArgs),
    /// Replace an operator's password; one that is made is shown this once
    ResetPassword(PasswordArgs),
    /// Lock an operator out
    Disable(OperatorArgs),
    /// Let an operator in again
    Enable(OperatorArgs),
    /// Delete an operator
    Delete(OperatorArgs),
}

/// Which operator.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// The operator's name
    pub operator: String,
}

/// An operator to be made.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The name that it signs in with
    pub operator: String,
    /// What it may do
    #[arg(long, value_enum)]
    pub role: Role,
    /// Read its password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// A role to be given.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The operator's name
    pub operator: String,
    /// What it may do
    #[arg(value_enum)]
    pub role: Role,
}

/// A password to be set.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// The operator's name
    pub operator: String,
    /// Read it from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: OperatorCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        OperatorCommand::Add(args) => {
            let mut body = json!({"name": args.operator, "role": args.role.as_str()});
            if args.password_stdin {
                body["password"] = Value::String(from_stdin()?);
            }
            let made = client.json(Method::POST, "/operators", body).await?;
            output.one(&made, DETAILS)?;
        }
        OperatorCommand::List => output.list(client, "/operators", &[], COLUMNS).await?,
        OperatorCommand::Show(OperatorArgs { operator }) => {
            output.one(&client.get(&path(&operator)).await?, DETAILS)?;
        }
        OperatorCommand::Role(args) => {
            let body = json!({"role": args.role.as_str()});
            let text = format!("{} is {} now", args.operator, args.role.as_str());
            patch(context, &args.operator, body, &text).await?;
        }
        OperatorCommand::ResetPassword(args) => {
            let mut body = json!({});
            if args.password_stdin {
                body["password"] = Value::String(from_stdin()?);
            }
            let path = format!("{}/password", path(&args.operator));
            let set = client.json(Method::POST, &path, body).await?;
            output.one(&set, DETAILS)?;
        }
        OperatorCommand::Disable(OperatorArgs { operator }) => {
            let text = format!("{operator} may not come in");
            patch(context, &operator, json!({"enabled": false}), &text).await?;
        }
        OperatorCommand::Enable(OperatorArgs { operator }) => {
            let text = format!("{operator} may come in again");
            patch(context, &operator, json!({"enabled": true}), &text).await?;
        }
        OperatorCommand::Delete(OperatorArgs { operator }) => {
            let gone = client.act(Method::DELETE, &path(&operator)).await?;
            output.done(&gone, &format!("{operator} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn patch(
    context: &Context,
    operator: &str,
    body: Value,
    text: &str,
) -> Result<(), ClientError> {
    let path = path(operator);
    let after = context.client.json(Method::PATCH, &path, body).await?;
    context.output.done(&after, text)
}

fn path(operator: &str) -> String {
    format!("/operators/{}", encoded(operator))
}
