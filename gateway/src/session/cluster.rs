//! Which clients are with this node, as the nodes agree on it: claims, clients that went elsewhere, dead nodes' clients.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use headgate_protocol::identity::AppId;

use super::{
    application::ApplicationHandle,
    handle::{CloseReason, SessionHandle},
    node::Node,
};
use crate::{
    model::{Id, WillKey},
    service::{
        cluster::{Cluster, Handler, Member, NodeNumber, Telling},
        uplink::{Came, ClientPlace, Opening, SessionKey, StoreError},
    },
};

/// A client came to another node. Told by the store.
const CAME: &str = "came";
/// Clients that are said again at once.
const BLOCK: usize = 500;

impl Node {
    /// Has clients that are here come and go over all nodes; before anybody is let in.
    pub fn connect_cluster(self: &Arc<Self>, cluster: &Cluster) {
        self.table.connect_departures(self.uplink.clone());
        let moves = Arc::new(Moves {
            node: Arc::clone(self),
            cluster: cluster.clone(),
        });
        cluster.on(CAME, Arc::<Moves>::clone(&moves));
        cluster.enlist(moves);
    }

    /// A device was claimed for a session; says whether another node had it.
    pub(super) fn placed(&self, handle: &SessionHandle, place: Option<ClientPlace>) -> bool {
        let Some(place) = place else { return false };
        handle.claimed(place.epoch);
        if place.mail > 0 {
            self.uplink.mailbox().note(&handle.device_id);
        }
        place.is_moved
    }

    /// Claims a device for a session that keeps nothing. Where that cannot be, the device is served all the same, and
    /// other nodes do not know.
    pub(super) async fn place(&self, handle: &SessionHandle) {
        let opening = Opening {
            key: SessionKey::Device(handle.device_id.clone()),
            is_clean: false,
            expiry_secs: 0,
        };
        match self.uplink.sessions().open(opening).await {
            Ok(opened) => {
                self.placed(handle, opened.place);
                if opened.place.is_some_and(|place| place.mail > 0) {
                    handle.mail_waits();
                }
            }
            Err(error) => {
                tracing::warn!(%error, device_id = %handle.device_id, "a device could not be claimed");
            }
        }
    }

    /// The session of an application ends here.
    pub(super) fn leave_application(&self, app: &AppId, handle: &ApplicationHandle) {
        if self.applications.leave(handle) {
            self.give_up_application(app, handle);
        }
    }

    /// The claim of an application that is not here, or not let in, ends.
    pub(super) fn give_up_application(&self, app: &AppId, handle: &ApplicationHandle) {
        if self.uplink.sessions().is_shared() {
            let key = SessionKey::Application(app.clone(), handle.client_id().into());
            self.uplink.left(key, handle.epoch());
        }
    }
}

/// Follows clients from node to node.
#[derive(Debug)]
struct Moves {
    node: Arc<Node>,
    cluster: Cluster,
}

impl Moves {
    /// A client is with another node: what it has here ends.
    async fn came(&self, came: &Came) {
        let node = &self.node;
        let will = match &came.key {
            SessionKey::Device(device) => {
                if let Some(handle) = node.table.of(device)
                    && handle.epoch() < came.epoch
                {
                    handle.close(CloseReason::Takeover);
                }
                WillKey::Device(device.clone())
            }
            SessionKey::Application(app, client_id) => {
                if let Some(handle) = node.applications.of(client_id)
                    && handle.epoch() < came.epoch
                {
                    handle.end(CloseReason::Takeover);
                }
                WillKey::Application(app.clone(), client_id.clone())
            }
        };
        node.uplink.sessions().came(came);
        node.wills.came_elsewhere(&will, came.is_present).await;
    }

    /// Says again who is here, under this node's new number; who is elsewhere by now goes.
    async fn say_again(&self) -> Result<(), StoreError> {
        let node = &self.node;
        let sessions = node.uplink.sessions();
        let kept = |key: SessionKey, epoch: i64| -> (SessionKey, i64, Option<Id>) {
            let session = sessions.session_of(&key, epoch);
            (key, epoch, session)
        };
        for handles in node.table.all().chunks(BLOCK) {
            let clients: Vec<_> = handles
                .iter()
                .map(|handle| kept(SessionKey::Device(handle.device_id.clone()), handle.epoch()))
                .collect();
            let is_here = self.cluster.reclaim(&clients).await?;
            for (handle, _) in handles.iter().zip(is_here).filter(|(_, is_here)| !is_here) {
                handle.close(CloseReason::Takeover);
            }
        }
        for handles in node.applications.all().chunks(BLOCK) {
            let clients: Vec<_> = handles
                .iter()
                .filter_map(|handle| {
                    let app = handle.client_id().split(':').nth(1)?.parse().ok()?;
                    let key = SessionKey::Application(app, handle.client_id().into());
                    Some(kept(key, handle.epoch()))
                })
                .collect();
            let is_here = self.cluster.reclaim(&clients).await?;
            for (handle, _) in handles.iter().zip(is_here).filter(|(_, is_here)| !is_here) {
                handle.end(CloseReason::Takeover);
            }
        }
        node.wills.store_again();
        Ok(())
    }
}

impl Handler for Moves {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match Came::read(&telling.body) {
                Ok(came) => self.came(&came).await,
                Err(error) => tracing::warn!(%error, "another node said something unknown"),
            }
        })
    }
}

impl Member for Moves {
    fn rejoined(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.say_again().await {
                tracing::warn!(%error, "the other nodes do not know who is here");
            }
        })
    }

    fn died(&self, node: NodeNumber) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            while self.cluster.reap(node).await? > 0 {}
            loop {
                let wills = self.cluster.adopt(node).await?;
                if wills.is_empty() {
                    return Ok(());
                }
                self.node.wills.adopt(wills);
            }
        })
    }
}
