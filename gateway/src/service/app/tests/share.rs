//! Shared subscriptions: one member of each group has a message.

use super::message::{publish, two_apps};

#[tokio::test]
async fn members_of_a_group_share_and_groups_and_applications_do_not() {
    let (stage, a, b) = two_apps().await;
    let (_one, of_one) = stage.session("a", &a, &["$share/g/#"]).await;
    let (_two, of_two) = stage.session("a", &a, &["$share/g/#"]).await;
    let (_h, of_h) = stage.session("a", &a, &["$share/h/P/+/x"]).await;
    let (_all, of_all) = stage.session("a", &a, &["#"]).await;
    let (_b, of_b) = stage.session("b", &b, &["$share/g/#"]).await;
    for _ in 0..4 {
        assert_eq!(publish(&stage, "d0", "P/d0/x").await, 3);
        assert_eq!(
            publish(&stage, "d2", "P/d2/x").await,
            4,
            "d2 is also the other's"
        );
    }
    assert_eq!(of_one.topics().len() + of_two.topics().len(), 8);
    assert_eq!((of_one.topics().len(), of_two.topics().len()), (4, 4));
    assert_eq!((of_h.topics().len(), of_all.topics().len()), (8, 8));
    assert_eq!(of_b.topics().len(), 4, "its own group of that name");
}

#[tokio::test]
async fn a_member_without_room_or_gone_is_passed_over() {
    let (stage, a, _) = two_apps().await;
    let (one, of_one) = stage.session("a", &a, &["$share/g/#"]).await;
    let (mut two, of_two) = stage.session("a", &a, &["$share/g/#"]).await;
    *of_one.capacity.lock() = Some(1);
    for _ in 0..5 {
        assert_eq!(publish(&stage, "d0", "P/d0/x").await, 1);
    }
    assert_eq!((of_one.topics().len(), of_two.topics().len()), (1, 4));
    drop(one);
    publish(&stage, "d0", "P/d0/x").await;
    assert_eq!(of_two.topics().len(), 5);
    assert!(two.unsubscribe(&"$share/g/#".parse().expect("a filter")));
    assert_eq!(publish(&stage, "d0", "P/d0/x").await, 0);
}
