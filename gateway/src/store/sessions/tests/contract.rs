//! What every store of sessions must do: each case on SQLite by itself, and all of them on one Redis server, where each
//! has a prefix of its own.

use std::sync::Arc;

use super::{cursors, mail, persistent, queue, redis::server::Redis, retained};
use crate::store::contract::{contract, failures};

tokio::task_local! {
    /// The server of the case that runs; none: it runs on SQLite.
    pub(super) static SERVER: Arc<Redis>;
}

#[tokio::test]
async fn redis_does_the_same() {
    let failed = failures(&SERVER, Redis::start(), cases()).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

contract! {
    cursors {
        cursors_survive_a_reopening,
        a_later_cursor_replaces_an_earlier_one_but_no_greater_attempt,
        more_than_a_block_is_saved_and_deleted,
    }
    mail {
        mail_comes_in_the_order_of_its_storing,
        mail_is_taken_out_once,
        mail_whose_time_is_over_is_not_given_and_goes,
        mail_is_counted_for_each_device,
    }
    persistent {
        a_session_is_made_found_again_and_ended,
        an_older_connection_changes_nothing,
        what_is_under_way_keeps_its_order,
        one_identifier_is_one_exchange,
        a_session_whose_time_is_over_is_gone,
        a_start_finds_every_session,
    }
    queue {
        a_message_waits_for_each_of_its_sessions,
        a_queue_is_read_in_pages_and_by_ids,
        what_waits_of_a_device_is_taken_out,
        messages_expire_for_all_sessions,
        what_waited_for_a_session_that_ended_is_purged,
    }
    retained {
        one_is_kept_for_each_device_and_topic,
        retained_messages_expire,
        wills_are_stored_replaced_and_deleted,
    }
}
