//! Every page in a browser.

use serde_json::Value;

use super::{Gateway, browse};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_sign_in_and_out() {
    let gateway = Gateway::start().await;
    browse(&gateway, "sign_in.mjs", &[]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_shows_how_all_is() {
    let gateway = Gateway::start().await;
    browse(&gateway, "overview.mjs", &[]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_added_found_edited_replaced_and_deleted() {
    let gateway = Gateway::start().await;
    gateway.product("P", &Value::Null).await;
    browse(&gateway, "resources.mjs", &["P"]).await;
    gateway.stop().await;
}
