//! How far transfers are.

use super::*;

fn cursor(delivery: i64, attempt: u32, acked: u64, ranges: &[(u64, u64)]) -> Cursor {
    Cursor {
        delivery: id(delivery),
        attempt,
        acked,
        ranges: ranges.to_vec(),
        updated_at: at(1_800_000_000_000),
        claim: None,
    }
}

pub(super) async fn cursors_survive_a_reopening() {
    let saved = [
        cursor(1, 1, 15_360, &[]),
        cursor(2, 3, 0, &[(30_720, 46_080), (61_440, 61_441)]),
    ];
    let fixture = Fixture::new().await;
    fixture.save_cursors(&saved).await.unwrap();
    let fixture = fixture.again().await;
    assert_eq!(fixture.load_cursors().await.unwrap(), saved);
}

pub(super) async fn a_later_cursor_replaces_an_earlier_one_but_no_greater_attempt() {
    let fixture = Fixture::new().await;
    for (saved, stored) in [
        (cursor(1, 1, 10, &[]), cursor(1, 1, 10, &[])),
        (cursor(1, 1, 20, &[(30, 40)]), cursor(1, 1, 20, &[(30, 40)])),
        (cursor(1, 2, 0, &[]), cursor(1, 2, 0, &[])),
        (cursor(1, 1, 50, &[]), cursor(1, 2, 0, &[])),
    ] {
        fixture.save_cursors(&[saved]).await.unwrap();
        assert_eq!(fixture.load_cursors().await.unwrap(), [stored]);
    }
}

pub(super) async fn more_than_a_block_is_saved_and_deleted() {
    let fixture = Fixture::new().await;
    let cursors: Vec<Cursor> = (1..=1_203).map(|id| cursor(id, 1, 7, &[])).collect();
    fixture.save_cursors(&cursors).await.unwrap();
    assert_eq!(fixture.load_cursors().await.unwrap(), cursors);
    let ids: Vec<Id> = cursors[..1_202].iter().map(|c| c.delivery).collect();
    fixture.delete_cursors(&ids).await.unwrap();
    assert_eq!(fixture.load_cursors().await.unwrap(), cursors[1_202..]);
    fixture.save_cursors(&[]).await.unwrap();
    fixture.delete_cursors(&[]).await.unwrap();
}
