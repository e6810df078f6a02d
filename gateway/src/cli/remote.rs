//! The commands that ask a running gateway.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    EXIT_FAILURE,
    client::{Client, ClientArgs, ClientError},
    complain,
    output::Output,
};

/// What to ask a running gateway.
#[derive(Debug, Subcommand)]
pub enum Remote {
    /// Devices: add, import, list, reset, freeze, delete, kick
    Device(Group<super::device::DeviceCommand>),
    /// Products: add, list, show, delete
    Product(Group<super::product::ProductCommand>),
    /// Resources: add, list, show, download, remove
    Resource(Group<super::resource::ResourceCommand>),
    /// Tasks: deliver a resource, and watch and steer how that goes
    Task(Group<super::task::TaskCommand>),
    /// What devices uploaded: list, download, remove
    Upload(Group<super::upload::UploadCommand>),
    /// Applications, and the devices that are bound to them
    App(Group<super::app::AppCommand>),
    /// Who is connected by MQTT: list, end
    Session(Group<super::session::SessionCommand>),
    /// Nodes: health, drain, reload of certificates
    Node(Group<super::node::NodeCommand>),
    /// API tokens: create, list, revoke
    Token(Group<super::token::TokenCommand>),
    /// Operators of the console: add, list, change, lock out
    Operator(Group<super::operator::OperatorCommand>),
    /// Who changed what, and when
    Audit(super::node::AuditArgs),
    /// Say whether every node is ready; ends with 1 where one is not
    Health(super::node::HealthArgs),
}

/// Commands about one kind of thing.
#[derive(Debug, Args)]
pub struct Group<C: Subcommand> {
    /// What to do.
    #[command(subcommand)]
    pub command: C,
    /// The gateway.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What a command works with.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) output: Output,
}

impl Context {
    pub(super) fn new(args: &ClientArgs) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::new(args)?,
            output: Output { is_json: args.json },
        })
    }
}

/// What a command came to; a command may end well and still have found something wrong.
pub(super) type Outcome = Result<ExitCode, ClientError>;

/// Runs a command.
pub fn run(command: Remote) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no runtime: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match runtime.block_on(carry_out(command)) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            error.exit_code()
        }
    }
}

async fn carry_out(command: Remote) -> Outcome {
    let context = Context::new(match &command {
        Remote::Device(group) => &group.client,
        Remote::Product(group) => &group.client,
        Remote::Resource(group) => &group.client,
        Remote::Task(group) => &group.client,
        Remote::Upload(group) => &group.client,
        Remote::App(group) => &group.client,
        Remote::Session(group) => &group.client,
        Remote::Node(group) => &group.client,
        Remote::Token(group) => &group.client,
        Remote::Operator(group) => &group.client,
        Remote::Audit(args) => &args.client,
        Remote::Health(args) => &args.client,
    })?;
    match command {
        Remote::Device(group) => super::device::run(&context, group.command).await,
        Remote::Product(group) => super::product::run(&context, group.command).await,
        Remote::Resource(group) => super::resource::run(&context, group.command).await,
        Remote::Task(group) => super::task::run(&context, group.command).await,
        Remote::Upload(group) => super::upload::run(&context, group.command).await,
        Remote::App(group) => super::app::run(&context, group.command).await,
        Remote::Session(group) => super::session::run(&context, group.command).await,
        Remote::Node(group) => super::node::run(&context, group.command).await,
        Remote::Token(group) => super::token::run(&context, group.command).await,
        Remote::Operator(group) => super::operator::run(&context, group.command).await,
        Remote::Audit(args) => super::node::audit(&context, args).await,
        Remote::Health(_) => super::node::health(&context).await,
    }
}
