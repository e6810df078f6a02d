//! `headgate node`, `headgate health` and `headgate audit`: the gateway itself.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    EXIT_FAILURE,
    client::{ClientArgs, Method, encoded},
    output::Column,
    remote::{Context, Outcome},
};

const COLUMNS: &[Column] = &[
    ("NODE", "id"),
    ("STATE", "state"),
    ("VERSION", "version"),
    ("STARTED", "started_at"),
    ("DEVICES", "devices"),
    ("APPS", "applications"),
];

const AUDIT: &[Column] = &[
    ("WHEN", "at"),
    ("WHO", "actor"),
    ("FROM", "origin"),
    ("WHAT", "action"),
    ("TO", "subject"),
    ("DETAIL", "detail"),
];

/// What to do about nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes
    List,
    /// Have a node drain and stop; nothing takes it back
    Drain(NodeArgs),
    /// Have clients of a node go to other nodes, while it goes on
    Evacuate(EvacuateArgs),
    /// Have a node look at its certificates now
    Reload(NodeArgs),
}

/// Which clients go from which node.
#[derive(Debug, Args)]
pub struct EvacuateArgs {
    /// The node's id
    pub node: String,
    /// How many of each hundred clients
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub percent: u8,
    /// Clients told in a second; as when the node stops unless given
    #[arg(long, value_name = "N")]
    pub per_second: Option<u32>,
}

/// Which node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node's id
    pub node: String,
}

/// Whose health is asked for.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The gateway.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which entries of the audit are listed.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what this operator or token did
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only this, such as `device.freeze`, or all of a kind, such as `device`
    #[arg(long)]
    pub action: Option<String>,
    /// Only what was done to this
    #[arg(long)]
    pub subject: Option<String>,
    /// Only what was done at this time or later, such as `2026-12-01T20:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what was done before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The gateway.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Runs the command.
pub(super) async fn run(context: &Context, command: NodeCommand) -> Outcome {
    let Context { client, output } = context;
    match command {
        NodeCommand::List => output.list(client, "/nodes", &[], COLUMNS).await?,
        NodeCommand::Drain(NodeArgs { node }) => {
            let path = format!("/nodes/{}/drain", encoded(&node));
            let after = client.act(Method::POST, &path).await?;
            output.done(&after, &format!("{node} drains and will stop"))?;
        }
        NodeCommand::Evacuate(EvacuateArgs {
            node,
            percent,
            per_second,
        }) => {
            let path = format!("/nodes/{}/evacuate", encoded(&node));
            let mut body = json!({"percent": percent});
            if let Some(per_second) = per_second {
                body["per_second"] = per_second.into();
            }
            let after = client.json(Method::POST, &path, body).await?;
            output.done(
                &after,
                &format!("{node} sends {percent} % of its clients away"),
            )?;
        }
        NodeCommand::Reload(NodeArgs { node }) => {
            let path = format!("/nodes/{}/reload", encoded(&node));
            let after = client.act(Method::POST, &path).await?;
            let changed = &after["certificates_changed"];
            output.done(&after, &format!("{changed} certificates had changed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says whether every node is ready.
pub(super) async fn health(context: &Context) -> Outcome {
    let Context { client, output } = context;
    let mut nodes = Vec::new();
    client
        .list("/nodes", &[], |node| {
            nodes.push(node);
            Ok(())
        })
        .await?;
    let mut are_ready = !nodes.is_empty();
    for node in &nodes {
        are_ready &= node["state"] == "ready";
        let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
        output.say(&format!("{}: {}", text("id"), text("state")))?;
        for check in node["checks"].as_array().into_iter().flatten() {
            let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
            if check["ok"] != true {
                output.say(&format!("  {}: {}", text("name"), text("reason")))?;
            }
        }
    }
    if output.is_json {
        super::output::json(&nodes.into())?;
    }
    Ok(if are_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// Lists what was changed.
pub(super) async fn audit(context: &Context, args: AuditArgs) -> Outcome {
    let query = [
        ("actor", args.actor),
        ("action", args.action),
        ("subject", args.subject),
        ("since", args.since),
        ("until", args.until),
    ];
    let Context { client, output } = context;
    output.list(client, "/audit", &query, AUDIT).await?;
    Ok(ExitCode::SUCCESS)
}
