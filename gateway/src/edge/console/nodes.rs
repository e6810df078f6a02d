//! `/nodes`: whether the gateway is well, and what can be asked of it as a process.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};

use super::{
    Console,
    call::Routes,
    fault::Fault,
    form::{Errors, PathOf, Posted},
    layout::{Layout, Place, render_with, see},
    question::Question,
    session::{Admin, Visit},
    show,
    text::{TEXTS, Texts, fill},
};
use crate::service::node::{NodeError, NodeHealth};

/// The routes of this file.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/nodes", list)
        .get("/nodes/{id}/drain", drain_page)
        .post("/nodes/{id}/drain", drain)
        .post("/nodes/{id}/reload", reload)
}

#[derive(Template)]
#[template(path = "console/nodes/list.html")]
struct ListPage {
    t: &'static Texts,
    layout: Layout,
    nodes: Vec<Node>,
    errors: Errors,
}

/// A node as it is shown.
struct Node {
    id: String,
    version: String,
    state: &'static str,
    started: String,
    checks: Vec<(String, Option<String>)>,
    devices: String,
    applications: String,
}

impl Node {
    fn new(node: NodeHealth) -> Self {
        let count = |number: usize| show::grouped(u64::try_from(number).unwrap_or(u64::MAX));
        let checks = node.checks.into_iter();
        Self {
            id: node.id,
            version: node.version,
            state: node.state.as_str(),
            started: show::time(node.started_at),
            checks: checks.map(|check| (check.name, check.failure)).collect(),
            devices: count(node.load.devices),
            applications: count(node.load.applications),
        }
    }
}

async fn list(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Fault> {
    Ok(list_of(&console, &visit, StatusCode::OK, Errors::default()))
}

fn list_of(console: &Console, visit: &Visit, status: StatusCode, errors: Errors) -> Response {
    let nodes = console.services.nodes.nodes().into_iter();
    let page = ListPage {
        t: &TEXTS,
        layout: Layout::new(visit, Place::Nodes, TEXTS.nodes.title),
        nodes: nodes.map(Node::new).collect(),
        errors,
    };
    render_with(status, &page)
}

async fn drain_page(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<String>,
) -> Result<Response, Fault> {
    let t = &TEXTS.nodes;
    let node = console.services.nodes.node(&id)?;
    let question = Question {
        place: Place::Nodes,
        title: t.drain_title,
        text: fill(t.drain_question, &[("id", &node.id)]),
        list: ("/nodes", t.title),
        thing: None,
        action: format!("/nodes/{}/drain", node.id),
        yes: t.drain_yes,
    };
    Ok(question.ask(&visit))
}

async fn drain(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<String>,
    _form: Posted,
) -> Result<Response, Fault> {
    let nodes = &console.services.nodes;
    nodes.drain(&visit.session.actor, &id).await?;
    Ok(list_of(&console, &visit, StatusCode::OK, Errors::default()))
}

async fn reload(
    State(console): State<Arc<Console>>,
    Admin(visit): Admin,
    PathOf(id): PathOf<String>,
    _form: Posted,
) -> Result<Response, Fault> {
    let t = &TEXTS.nodes;
    let nodes = &console.services.nodes;
    match nodes.reload(&visit.session.actor, &id).await {
        Ok(0) => Ok(see("/nodes", "certificates-same")),
        Ok(_) => Ok(see("/nodes", "certificates-read")),
        Err(NodeError::Certificate(reason)) => {
            let errors = Errors::one("", fill(t.reload_failed, &[("reason", &reason)]));
            Ok(list_of(&console, &visit, StatusCode::CONFLICT, errors))
        }
        Err(error) => Err(error.into()),
    }
}
