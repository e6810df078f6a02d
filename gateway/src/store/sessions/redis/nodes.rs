//! The nodes: their leases, and what they tell each other.
//!
//! Each node has a stream that the others write to, by the number that it has for as long as its lease lasts. Every
//! message has the next number of its receiver's, so one that is missing is noticed.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use ::redis::{Script, Value};
use bytes::Bytes;
use headgate_protocol::identity::DeviceId;
use tokio::time::Instant;

use super::{RedisSessions, form, persistent::named, refused};
use crate::{
    model::{Id, Message, Millis},
    store::{
        StoreError,
        sessions::{Beat, NodeNumber, NodeRow, SessionKey, StoredWill, Told},
    },
};

impl RedisSessions {
    /// Becomes a node. One that died with this name holds its lease for a while, so that is waited for; one that
    /// renews it is alive.
    pub(super) async fn join_at_start(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.node.lease + JOIN_MARGIN;
        while let Some(wait) = self.join(&[]).await? {
            if Instant::now() + wait > deadline {
                return Err(refused(&format!(
                    "another node is called {:?}: give this one a name of its own (cluster.node)",
                    self.node.name
                )));
            }
            tokio::time::sleep(wait.min(JOIN_INTERVAL)).await;
        }
        Ok(())
    }

    /// Takes a lease under a new number; `None`, unless another node of this name has one for so long.
    pub(in super::super) async fn join(
        &self,
        record: &[u8],
    ) -> Result<Option<Duration>, StoreError> {
        self.own(self.tag.trim_matches(['{', '}'])).await?;
        let script: &Script = &self.scripts.join;
        let mut connection = self.connection.clone();
        let (number, left, place): (i64, u64, u16) = script
            .key(&self.tag)
            .arg(&self.node.name)
            .arg(&self.node.instance)
            .arg(millis(self.node.lease))
            .arg(self.node.inbox_messages)
            .arg(record)
            .arg(self.place())
            .invoke_async(&mut connection)
            .await?;
        if number == 0 {
            return Ok(Some(Duration::from_millis(left)));
        }
        self.number.store(number, Ordering::Release);
        self.place.store(place, Ordering::Release);
        Ok(None)
    }

    pub(in super::super) fn node_number(&self) -> NodeNumber {
        NodeNumber(self.number())
    }

    pub(in super::super) fn place(&self) -> u16 {
        self.place.load(Ordering::Acquire)
    }

    pub(in super::super) async fn beat(
        &self,
        record: &[u8],
        seen: &str,
    ) -> Result<Beat, StoreError> {
        let mut call = self.call(&self.scripts.beat);
        call.arg(millis(self.node.lease)).arg(record).arg(seen);
        let (waiting, nodes, time, process): (usize, Vec<NodeAnswer>, i64, String) =
            call.run().await?;
        let row = |(number, name, record, is_alive)| NodeRow {
            number: NodeNumber(number),
            name,
            record,
            is_alive,
        };
        Ok(Beat {
            waiting,
            nodes: nodes.into_iter().map(row).collect(),
            time: Millis::from_i64(time),
            process,
        })
    }

    pub(in super::super) async fn part(&self) -> Result<(), StoreError> {
        self.call(&self.scripts.part).run().await
    }

    pub(in super::super) async fn tell(
        &self,
        nodes: &[NodeNumber],
        kind: &str,
        ask: u64,
        body: &[u8],
    ) -> Result<Vec<NodeNumber>, StoreError> {
        let mut call = self.call(&self.scripts.tell);
        call.arg(kind).arg(ask).arg(body);
        for node in nodes {
            call.arg(node.0);
        }
        let told: Vec<i64> = call.run().await?;
        Ok(told.into_iter().map(NodeNumber).collect())
    }

    pub(in super::super) async fn holders(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<NodeNumber>>, StoreError> {
        let mut found = Vec::with_capacity(devices.len());
        for block in devices.chunks(PAGE) {
            let mut call = self.call(&self.scripts.holders);
            for device in block {
                call.arg(device.as_str());
            }
            let held: Vec<i64> = call.run().await?;
            let node = |number| (number != 0).then_some(NodeNumber(number));
            found.extend(held.into_iter().map(node));
        }
        Ok(found)
    }

    pub(in super::super) async fn may_see_off(&self, node: NodeNumber) -> Result<bool, StoreError> {
        let mut call = self.call(&self.scripts.see_off);
        call.arg(node.0).arg(millis(SEE_OFF));
        let may: u8 = call.run().await?;
        Ok(may == 1)
    }

    pub(in super::super) async fn reap(&self, node: NodeNumber) -> Result<usize, StoreError> {
        let mut call = self.call(&self.scripts.reap);
        call.arg(node.0).arg(PAGE);
        let gone: Vec<String> = call.run().await?;
        Ok(gone.len())
    }

    pub(in super::super) async fn adopt(
        &self,
        node: NodeNumber,
    ) -> Result<Vec<StoredWill>, StoreError> {
        let mut call = self.call(&self.scripts.adopt);
        call.arg(node.0).arg(PAGE);
        let found: Vec<(String, Vec<u8>)> = call.run().await?;
        found
            .into_iter()
            .map(|(name, stored)| super::will::decode(&name, &stored))
            .collect()
    }

    pub(in super::super) async fn reclaim(
        &self,
        clients: &[(SessionKey, i64, Option<Id>)],
    ) -> Result<Vec<bool>, StoreError> {
        let mut kept = Vec::with_capacity(clients.len());
        for block in clients.chunks(PAGE) {
            let mut call = self.call(&self.scripts.reclaim);
            for (key, epoch, session) in block {
                call.arg(named(key).0).arg(*epoch);
                call.arg(session.map(|id| id.to_string()).unwrap_or_default());
            }
            let found: Vec<u8> = call.run().await?;
            kept.extend(found.into_iter().map(|is_kept| is_kept == 1));
        }
        Ok(kept)
    }

    pub(in super::super) async fn once(&self, message: &Message) -> Result<bool, StoreError> {
        let mut call = self.call(&self.scripts.once);
        call.arg(message.device.device_id.as_str());
        call.arg(form::encode(message)?);
        let told: u8 = call.run().await?;
        Ok(told == 1)
    }

    pub(in super::super) async fn bury(&self, node: NodeNumber) -> Result<(), StoreError> {
        let mut call = self.call(&self.scripts.bury);
        call.arg(node.0);
        call.run().await
    }

    /// What this node was told after `seen`, and what it has seen then; waits for it for a while.
    pub(in super::super) async fn listen(
        &self,
        seen: &str,
    ) -> Result<(Vec<Told>, Option<String>), StoreError> {
        let mut connection = self.waiting.clone();
        let inbox = self.key(&format!("in:{}", self.number()));
        let mut command = ::redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE).arg("BLOCK");
        command.arg(millis(WAIT)).arg("STREAMS").arg(inbox);
        command.arg(if seen.is_empty() { "0" } else { seen });
        let streams: Option<HashMap<String, Vec<Entry>>> =
            command.query_async(&mut connection).await?;
        let entries = streams.into_iter().flatten().flat_map(|(_, all)| all);
        let (mut told, mut last) = (Vec::new(), None);
        for (entry, fields) in entries {
            told.push(read(fields)?);
            last = Some(entry);
        }
        Ok((told, last))
    }
}

/// What is known of a node: its number, name, words, and whether it lives.
type NodeAnswer = (i64, String, Vec<u8>, bool);
/// What stands in a stream under which id.
type Entry = (String, Vec<Value>);

/// One message as it stands in the stream: names of fields, each before its value.
fn read(fields: Vec<Value>) -> Result<Told, StoreError> {
    let mut values = fields.into_iter().skip(1).step_by(2);
    let mut next = || -> Result<Vec<u8>, StoreError> {
        let value = values
            .next()
            .ok_or_else(|| form::corrupt("told", "too short"))?;
        Ok(::redis::from_redis_value(value).map_err(::redis::RedisError::from)?)
    };
    let (seq, from) = (form::text("told", next()?)?, form::text("told", next()?)?);
    let (kind, ask) = (form::text("told", next()?)?, form::text("told", next()?)?);
    Ok(Told {
        seq: form::parsed("told", &seq)?,
        from: NodeNumber(form::parsed("told", &from)?),
        kind,
        ask: form::parsed("told", &ask)?,
        body: Bytes::from(next()?),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Messages that are read at once.
const PAGE: usize = 256;
/// How long the server is asked to wait for a message: well within what an answer may take.
const WAIT: Duration = Duration::from_secs(1);
/// How long after its lease a node of the same name is still waited for.
const JOIN_MARGIN: Duration = Duration::from_secs(2);
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// For how long the node that sees a dead one off has it for itself, unless it dies too.
const SEE_OFF: Duration = Duration::from_secs(30);
