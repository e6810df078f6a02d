//! What other nodes are asked of their sessions, and what they are answered.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use headgate_protocol::identity::DeviceId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Directory, FoundSession, Inner, SessionFilter, here::Part};
use crate::{
    model::Page,
    service::{
        cluster::{Answers, Cluster, LiveNode, MAX_ANSWER_BYTES},
        uplink::StoreError,
    },
    session::inspect::SessionInfo,
    shutdown::Shutdown,
};

/// By which other nodes are asked.
const SESSIONS: &str = "sessions";
/// What a part has beside its entries, in bytes: names are no longer.
const PART_BYTES: usize = 4 * 1024;

/// What another node is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    /// For its part of a page.
    List {
        filter: SessionFilter,
        after: Option<String>,
        limit: usize,
    },
    /// How the session of a device is.
    Device(DeviceId),
    /// Whether an application's client is there.
    Application(String),
    /// To end the connection of an application's client, and whether it had one.
    End(String),
}

impl Directory {
    /// Answers what other nodes ask; before this node hears them.
    pub fn connect(&self, shutdown: &Shutdown) {
        if let Some(cluster) = &self.inner.cluster {
            let asked = Asked(Arc::clone(&self.inner));
            cluster.answer(SESSIONS, Arc::new(asked), shutdown);
        }
    }
}

impl Inner {
    /// The other nodes that live; of a name, where one is given.
    fn others(&self, name: Option<&str>) -> Vec<LiveNode> {
        let Some(cluster) = &self.cluster else {
            return Vec::new();
        };
        let (live, here) = (cluster.live(), cluster.number());
        let is_asked = |node: &&LiveNode| {
            node.number != here && name.is_none_or(|name| node.record.name == name)
        };
        live.iter().filter(is_asked).cloned().collect()
    }

    /// The answers of nodes, `None` of those that gave none.
    async fn asked<T: DeserializeOwned>(
        &self,
        nodes: Vec<LiveNode>,
        question: &Question,
    ) -> Vec<(LiveNode, Option<T>)> {
        let numbers: Vec<_> = nodes.iter().map(|node| node.number).collect();
        let mut answers = match (&self.cluster, serde_json::to_vec(question)) {
            (Some(cluster), Ok(question)) => query(cluster, &numbers, &question).await,
            _ => Vec::new(),
        };
        let mut of = |number| {
            let at = answers.iter().position(|(from, _)| *from == number)?;
            serde_json::from_slice(&answers.swap_remove(at).1).ok()
        };
        nodes
            .into_iter()
            .map(|node| {
                let answer = of(node.number);
                (node, answer)
            })
            .collect()
    }

    /// The session of a device that another node has, by what the store says.
    pub(super) async fn look_elsewhere(
        &self,
        id: &DeviceId,
    ) -> Result<Option<FoundSession>, StoreError> {
        let Some(cluster) = &self.cluster else {
            return Ok(None);
        };
        let held = cluster.holders(std::slice::from_ref(id)).await?;
        let holder = held.into_iter().flatten().next();
        let mut others = self.others(None).into_iter();
        // A node that is not among them is this one, which the device has just left, or has died with it.
        let Some(node) = others.find(|node| Some(node.number) == holder) else {
            return Ok(None);
        };
        let name = node.record.name.clone();
        let question = Question::Device(id.clone());
        let answers: Vec<(_, Option<DeviceAnswer>)> = self.asked(vec![node], &question).await;
        let info = match answers.into_iter().next().and_then(|(_, answer)| answer) {
            Some(DeviceAnswer::Gone) => return Ok(None),
            Some(DeviceAnswer::Here(info)) => info,
            None => None,
        };
        Ok(Some(FoundSession { node: name, info }))
    }

    /// What other nodes have of a page, and those that do not say.
    pub(super) async fn list_elsewhere(
        &self,
        filter: &SessionFilter,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Part>, Vec<String>) {
        let question = Question::List {
            filter: filter.clone(),
            after: after.map(str::to_owned),
            limit,
        };
        let (mut parts, mut silent) = (Vec::new(), Vec::new());
        let others = self.others(filter.node.as_deref());
        for (node, part) in self.asked(others, &question).await {
            match part {
                Some(part) => parts.push(part),
                None => silent.push(node.record.name.clone()),
            }
        }
        (parts, silent)
    }

    /// The node with an application's client.
    pub(super) async fn application_elsewhere(&self, client_id: &str) -> Option<String> {
        let question = Question::Application(client_id.to_owned());
        let answers: Vec<(_, Option<bool>)> = self.asked(self.others(None), &question).await;
        let mut there = answers.into_iter().filter(|(_, has)| *has == Some(true));
        there.next().map(|(node, _)| node.record.name.clone())
    }

    /// Has another node end the connection of an application's client.
    pub(super) async fn end_elsewhere(&self, node: &str, client_id: &str) -> bool {
        let question = Question::End(client_id.to_owned());
        let answers: Vec<(_, Option<bool>)> = self.asked(self.others(Some(node)), &question).await;
        answers.into_iter().any(|(_, ended)| ended == Some(true))
    }
}

async fn query(
    cluster: &Cluster,
    nodes: &[crate::service::cluster::NodeNumber],
    question: &[u8],
) -> Vec<(crate::service::cluster::NodeNumber, Bytes)> {
    let answers = cluster.query(nodes, SESSIONS, question).await;
    answers
        .inspect_err(
            |error| tracing::warn!(%error, "other nodes could not be asked for their sessions"),
        )
        .unwrap_or_default()
}

/// What a node says of a device's session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeviceAnswer {
    /// It is there; without how it is where it did not say so in time.
    Here(Option<SessionInfo>),
    /// It is not there any more.
    Gone,
}

/// Answers for this node.
struct Asked(Arc<Inner>);

impl Asked {
    async fn reply(&self, question: Question) -> Option<Vec<u8>> {
        let inner = &self.0;
        let reply = match question {
            Question::List {
                filter,
                after,
                limit,
            } => {
                let limit = limit.min(Page::MAX_LIMIT as usize);
                let part = inner.list_here(&filter, after.as_deref(), limit).await;
                serde_json::to_vec(&bounded(part))
            }
            Question::Device(id) => {
                let answer = match inner.look_here(&id).await.flatten() {
                    Some(found) => DeviceAnswer::Here(found.info),
                    None => DeviceAnswer::Gone,
                };
                serde_json::to_vec(&answer)
            }
            Question::Application(client_id) => {
                serde_json::to_vec(&inner.applications.of(&client_id).is_some())
            }
            Question::End(client_id) => serde_json::to_vec(&inner.end_here(&client_id)),
        };
        reply.ok()
    }
}

impl Answers for Asked {
    fn answer(&self, question: Bytes) -> BoxFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move { self.reply(serde_json::from_slice(&question).ok()?).await })
    }
}

/// As much of a part as an answer may have: the page is shorter then, and goes on behind it.
fn bounded(mut part: Part) -> Part {
    let mut left = MAX_ANSWER_BYTES - PART_BYTES;
    let fitting = part.entries.iter().take_while(|entry| {
        let bytes = serde_json::to_vec(entry).map_or(usize::MAX, |entry| entry.len() + 1);
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    });
    // One always, so that the list goes on.
    let count = fitting.count().max(1);
    if count < part.entries.len() {
        part.entries.truncate(count);
        part.reached = part.entries.last().map(|entry| entry.name.clone());
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Millis, session::directory::SessionEntry};

    #[test]
    fn an_answer_is_bounded_and_says_how_far_it_goes() {
        let entry = |number: usize| SessionEntry {
            name: format!("device:{number:03}"),
            node: "n".repeat(4_096),
            since: Millis::from_i64(1),
            connection: None,
        };
        let part = Part {
            entries: (0..500).map(entry).collect(),
            reached: None,
        };
        let cut = bounded(part);
        let bytes = serde_json::to_vec(&cut).expect("written").len();
        assert!(bytes <= MAX_ANSWER_BYTES, "{bytes}");
        let last = cut.entries.last().expect("some fit").name.clone();
        assert_eq!(cut.reached, Some(last));
    }
}
