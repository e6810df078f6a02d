//! `headgate session`: who is connected by MQTT.

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
    ("SINCE", "since"),
    ("PROTOCOL", "connection.protocol"),
    ("FROM", "connection.address"),
];

/// What to do about sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List who is connected
    List(ListArgs),
    /// End a session's connection; its client may come back
    End(SessionArgs),
}

/// Which session.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The session's name as in the list
    pub session: String,
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
        SessionCommand::End(SessionArgs { session }) => {
            let path = format!("/sessions/{}", encoded(&session));
            let ended = client.act(Method::DELETE, &path).await?;
            output.done(&ended, &format!("{session} is ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
