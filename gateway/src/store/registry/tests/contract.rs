//! What every database must do: each case on SQLite by itself, and all of them on one PostgreSQL server, where each
//! has a database of its own.

use std::sync::Arc;

use super::{devices, postgres::server::Postgres, records, resources, tasks, uploads};
use crate::store::contract::{contract, failures};

tokio::task_local! {
    /// The server of the case that runs; none: it runs on SQLite.
    pub(super) static SERVER: Arc<Postgres>;
}

#[tokio::test]
async fn postgresql_does_the_same() {
    let failed = failures(&SERVER, Postgres::start(), cases()).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

contract! {
    records {
        a_database_is_opened_again_and_migrated_once,
        a_database_of_a_later_version_is_refused,
        readers_cannot_write,
        products_are_stored_as_they_are,
        lists_go_from_page_to_page,
        a_change_and_its_audit_entry_are_one,
        a_cursor_of_another_list_is_refused,
        settings_keep_their_first_value_or_are_set,
    }
    devices {
        devices_are_stored_changed_and_deleted,
        a_name_that_another_device_has_is_refused_naming_it,
        a_product_that_allows_more_gives_its_devices_more_names,
        names_that_would_clash_keep_a_product_as_it_is,
        one_query_finds_many_devices_with_both_credentials,
        a_replaced_credential_leaves_the_other,
        devices_are_filtered,
        last_seen_only_moves_on,
        debug_shows_no_sealed_secret,
        a_certificate_device_is_found_with_its_fingerprints,
    }
    resources {
        resources_are_stored_and_read,
        a_name_is_taken_once_in_a_product,
        equal_bytes_are_kept_once_until_the_last_goes,
        the_quota_is_checked_with_the_change_and_counts_current_versions,
        old_versions_stay_while_a_task_delivers_them,
        resources_are_listed_newest_first_and_filtered,
    }
    uploads {
        quotas_hold_per_device_and_in_all_and_a_refusal_holds_up_no_other,
        a_stored_upload_takes_the_place_of_the_one_of_its_name,
        equal_bytes_are_kept_once_whoever_has_them,
        what_an_older_claim_wants_is_refused,
        lists_are_cut_by_what_is_asked_and_go_on_where_they_ended,
    }
    tasks {
        a_task_of_ten_thousand_is_stored_whole,
        deliveries_to_a_device_are_listed_newest_first,
        a_task_without_its_resource_or_with_a_broken_row_stores_nothing,
        a_task_for_a_device_that_is_gone_stores_nothing,
        a_task_is_made_in_blocks_or_leaves_nothing,
        devices_of_a_filter_come_in_blocks_in_their_order,
        what_is_old_is_deleted_in_blocks_and_counts_stay,
        an_attempt_that_an_operator_asked_for_begins_a_round,
        tasks_are_listed_newest_first_with_their_counts,
        a_final_run_state_is_stamped,
        steps_never_lead_back,
        a_failure_keeps_its_reason_and_a_new_attempt_begins_without,
        one_batch_may_hold_several_attempts,
        a_delivered_delivery_begins_no_attempt,
        many_steps_are_one_transaction,
        a_device_with_an_open_delivery_is_not_deleted,
        a_change_that_is_dropped_half_way_is_whole_or_nothing_and_blocks_nobody,
    }
}
