//! One delivery as a row of its task's page shows it, also while it changes.

use serde::Serialize;

use super::words::{why_failed, why_waits};
use crate::{
    edge::console::text::TEXTS,
    model::{DeliveryState, Id},
    service::delivery::DeliveryView,
};

/// A row. The script puts these words where the page has those of before.
#[derive(Debug, Serialize)]
pub(super) struct DeliveryRow {
    pub(super) id: String,
    #[serde(skip)]
    pub(super) device: String,
    pub(super) state: &'static str,
    /// The state in words.
    pub(super) word: &'static str,
    /// 0 to 100.
    pub(super) percent: u8,
    /// Why it waits or failed.
    pub(super) why: String,
    pub(super) attempt: u32,
}

impl From<&DeliveryView> for DeliveryRow {
    fn from(view: &DeliveryView) -> Self {
        let delivery = &view.delivery;
        let state = delivery.state;
        let why = match (state, view.waiting) {
            (DeliveryState::Failed, _) => {
                why_failed(delivery.reason.as_deref(), delivery.detail.as_deref())
            }
            (_, Some(reason)) => why_waits(reason).to_owned(),
            (_, None) => String::new(),
        };
        Self {
            id: delivery.id.to_string(),
            device: delivery.node_id.to_string(),
            state: state.as_str(),
            word: TEXTS.state.of(state.as_str()),
            percent: match state {
                DeliveryState::Delivered => 100,
                _ => view.percent.unwrap_or(0),
            },
            why,
            attempt: delivery.attempt,
        }
    }
}

/// The ids of rows that are looked at: those of one page, no more.
pub(super) fn ids(text: &str, most: usize) -> Vec<Id> {
    let ids = text.split(',').filter_map(|id| id.parse().ok());
    ids.take(most).collect()
}
