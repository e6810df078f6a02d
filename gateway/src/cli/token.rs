//! `headgate token`: what programs come in with.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    client::{Method, encoded},
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("TOKEN", "id"),
    ("NAME", "name"),
    ("ROLE", "role"),
    ("MADE", "created_at"),
    ("ENDS", "expires_at"),
    ("LAST USED", "last_used_at"),
];

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown this once
    Create(CreateArgs),
    /// List tokens
    List,
    /// Revoke a token
    Revoke(TokenArgs),
}

/// What someone may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Role {
    /// Read.
    Viewer,
    /// Change devices, resources and tasks too.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A token to be made.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it is called; the audit shows it
    pub name: String,
    /// What it may do
    #[arg(long, value_enum)]
    pub role: Role,
    /// When it ends, such as `2027-01-01T00:00:00Z` [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<String>,
}

/// Which token.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The token's id
    pub token: String,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: TokenCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        TokenCommand::Create(args) => {
            let mut body = json!({"name": args.name, "role": args.role.as_str()});
            if let Some(end) = args.expires_at {
                body["expires_at"] = Value::String(end);
            }
            let made = client.json(Method::POST, "/tokens", body).await?;
            let columns = &[
                ("id", "id"),
                ("name", "name"),
                ("role", "role"),
                ("ends", "expires_at"),
                ("token", "secret"),
            ];
            output.one(&made, columns)?;
        }
        TokenCommand::List => output.list(client, "/tokens", &[], COLUMNS).await?,
        TokenCommand::Revoke(TokenArgs { token }) => {
            let path = format!("/tokens/{}", encoded(&token));
            let gone = client.act(Method::DELETE, &path).await?;
            output.done(&gone, &format!("{token} is revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
