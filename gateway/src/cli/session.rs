//! `headgate session`: who is connected, to any node.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    client::{Method, encoded},
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("SESSION", "id"),
    ("KIND", "kind"),
    ("NODE", "node"),
    ("SINCE", "since"),
    ("PROTOCOL", "connection.protocol"),
    ("FROM", "connection.address"),
];

const DETAILS: &[Column] = &[
    ("node", "node"),
    ("since", "since"),
    ("protocol", "protocol"),
    ("from", "address"),
    ("listener", "listener"),
    ("client id", "client_id"),
    ("keep-alive (s)", "keep_alive"),
    ("outlives it by (s)", "session_expiry"),
    ("messages waiting", "outbox_messages"),
];

/// What to do about sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List who is connected, to any node
    List(ListArgs),
    /// Show the connection of a device: at which node, since when
    Show(ShowArgs),
    /// End a session's connection; its client may come back
    End(SessionArgs),
}

/// Which session.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The session's name as in the list
    pub session: String,
}

/// Which device.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The device's id
    pub device: String,
}

/// Whose session it is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// A device's.
    Device,
    /// An application's.
    Application,
}

/// Which sessions are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of devices, or of applications
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Only devices of this product
    #[arg(long)]
    pub product: Option<String>,
    /// Only those on this node
    #[arg(long, value_name = "ID")]
    pub node: Option<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: SessionCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        SessionCommand::List(args) => {
            let kind = args.kind.map(|kind| match kind {
                Kind::Device => "device".to_owned(),
                Kind::Application => "application".to_owned(),
            });
            let query = [
                ("kind", kind),
                ("product", args.product),
                ("node", args.node),
            ];
            output.list(client, "/sessions", &query, COLUMNS).await?;
        }
        SessionCommand::Show(ShowArgs { device }) => {
            let path = format!("/devices/{}/session", encoded(&device));
            output.one(&client.get(&path).await?, DETAILS)?;
        }
        SessionCommand::End(SessionArgs { session }) => {
            let path = format!("/sessions/{}", encoded(&session));
            let ended = client.act(Method::DELETE, &path).await?;
            output.done(&ended, &format!("{session} is ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
