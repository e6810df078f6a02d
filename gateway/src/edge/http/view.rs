//! What the API shows and takes, apart from the model: its JSON stays as it is when the model
//! changes.

mod app;
mod batch;
mod delivery;
mod policy;
mod registry;
mod upload;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use self::{
    app::{
        AppPatchBody, AppSecretView, AppView, BindBody, BindReportView, BindingView,
        CreatedAppView, DroppedView, MessageView, NewAppBody, NewMessageBody, ResetAppSecretBody,
        SentView, WaitingView,
    },
    batch::{BatchRowErrorView, BatchRowView, BatchView, RowCountsView},
    delivery::{
        ChosenBody, CountsView, DeliveryView, NewResourceForm, NewTaskBody, NewTaskForm,
        ResourcePatchBody, ResourceView, TaskEventView, TaskPatchBody, TaskView, TimelineEntryView,
    },
    policy::{TargetFilterView, TaskPolicyView},
    registry::{
        ClearQuery, CreatedDeviceView, DeviceDetailView, DevicePatchBody, DeviceView,
        FingerprintView, NewDeviceBody, ProductBody, ProductView, ResetFingerprintBody,
        ResetSecretBody, SecretView, TopicPolicyView, TransportsView,
    },
    upload::UploadView,
};
use super::problem::{Kind, Problem};
use crate::model::{InvalidPage, Page, Paged};

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageView<T> {
    /// The entries, in the list's order.
    pub(super) items: Vec<T>,
    /// What to give as `cursor` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> PageView<T> {
    /// A page of the model's, each entry as it is shown.
    pub(super) fn of<M: Into<T>>(page: Paged<M>) -> Self {
        Self {
            items: page.items.into_iter().map(Into::into).collect(),
            next: page.next,
        }
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries at most, 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<u32>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

impl PageQuery {
    /// The page that is asked for.
    pub(super) fn page(self) -> Result<Page, Problem> {
        let page = Page::new(self.limit, self.cursor).map_err(invalid_page)?;
        page.after().map_err(invalid_page)?;
        Ok(page)
    }
}

/// What is wrong with a page, as the API says it.
pub(super) fn invalid_page(error: InvalidPage) -> Problem {
    let field = match error {
        InvalidPage::Limit => "limit",
        InvalidPage::Cursor => "cursor",
    };
    Problem::new(Kind::InvalidQuery, error.to_string()).with_field(field)
}
