use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> TopicFilter {
    text.parse().expect("a filter")
}

fn matches(index: &SubscriptionIndex<u32, u8>, topic: &str) -> Vec<(u32, u8)> {
    let mut found = Vec::new();
    index.for_each_match(topic, |key, value| found.push((*key, *value)));
    found.sort_unstable();
    found
}

#[test]
fn filters_match_as_the_standard_says() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a/b", &["a/b"], &["a", "a/b/c", "a/c", "/a/b"]),
        ("a/#", &["a", "a/b", "a/b/c"], &["b", "ab"]),
        (
            "+/+/data",
            &["p/d/data", "//data"],
            &["p/data", "p/d/data/x", "$oc/d/data"],
        ),
        ("#", &["a", "a/b", "/"], &["$oc/devices/d", "$a"]),
        ("+", &["a"], &["$a", "a/b", "/a"]),
        (
            "$oc/devices/+/sys/#",
            &["$oc/devices/d/sys/x", "$oc/devices/d/sys"],
            &["oc/devices/d/sys/x"],
        ),
        ("+/a/#", &["x/a", "x/a/b"], &["$oc/a", "x/b"]),
    ];
    for (text, yes, no) in cases {
        let mut index = SubscriptionIndex::new();
        index.insert(&filter(text), 7, 1);
        for topic in *yes {
            assert_eq!(matches(&index, topic), [(7, 1)], "{text} {topic}");
        }
        for topic in *no {
            assert_eq!(matches(&index, topic), [], "{text} {topic}");
        }
    }
}

#[test]
fn a_subscription_is_replaced_and_leaves_nothing_behind() {
    let mut index = SubscriptionIndex::new();
    for text in ["a/b", "a/+/c", "#"] {
        assert_eq!(index.insert(&filter(text), 1, 0), None);
        assert_eq!(index.insert(&filter(text), 1, 1), Some(0));
        assert_eq!(index.insert(&filter(text), 2, 0), None);
    }
    assert_eq!(index.len(), 6);
    assert_eq!(matches(&index, "a/b"), [(1, 1), (1, 1), (2, 0), (2, 0)]);
    for text in ["a/b", "a/+/c", "#"] {
        assert_eq!(index.remove(&filter(text), &3), None);
        assert_eq!(index.remove(&filter(text), &1), Some(1));
        assert_eq!(index.remove(&filter(text), &1), None);
        assert_eq!(index.remove(&filter(text), &2), Some(0));
    }
    assert_eq!(index.remove(&filter("a/+/x"), &1), None);
    assert!(index.is_empty() && index.exact.is_empty() && index.filters.is_empty());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$c"])
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(part, 1..4), any::<bool>()).prop_filter_map(
        "a filter is not empty",
        |(parts, below)| {
            let mut text = parts.join("/");
            if below {
                text.push_str("/#");
            }
            TopicFilter::try_from(text.as_str()).is_ok().then_some(text)
        },
    )
}

fn groups(index: &SubscriptionIndex<u32, u8>, topic: &str) -> Vec<(String, Vec<(u32, u8)>)> {
    let mut found = Vec::new();
    index.for_each_group(topic, |group| {
        found.push((group.name().to_owned(), group.members().to_vec()));
    });
    found.sort_unstable();
    found
}

#[test]
fn shared_subscriptions_stand_apart_in_groups() {
    let mut index = SubscriptionIndex::new();
    for (text, key) in [
        ("$share/g/a/+", 1),
        ("$share/g/a/+", 2),
        ("$share/h/a/+", 1),
        ("$share/g/a/b", 3),
        ("a/+", 1),
    ] {
        assert_eq!(index.insert(&filter(text), key, 0), None, "{text}");
    }
    assert_eq!(index.insert(&filter("$share/g/a/+"), 1, 9), Some(0));
    assert_eq!(index.len(), 5);
    assert_eq!(
        matches(&index, "a/b"),
        [(1, 0)],
        "its own subscription only"
    );
    let (g, h) = ("g".to_owned(), "h".to_owned());
    assert_eq!(
        groups(&index, "a/b"),
        [
            (g.clone(), vec![(1, 9), (2, 0)]),
            (g.clone(), vec![(3, 0)]),
            (h.clone(), vec![(1, 0)]),
        ],
        "one name with two filters is two groups"
    );
    assert_eq!(groups(&index, "a/c").len(), 2);
    assert_eq!(index.remove(&filter("$share/g/a/+"), &1), Some(9));
    assert_eq!(index.remove(&filter("$share/g/a/+"), &1), None);
    assert_eq!(index.remove(&filter("$share/x/a/+"), &2), None);
    assert_eq!(
        groups(&index, "a/c"),
        [(g, vec![(2, 0)]), (h, vec![(1, 0)])]
    );
    for (text, key) in [
        ("$share/g/a/+", 2),
        ("$share/h/a/+", 1),
        ("$share/g/a/b", 3),
        ("a/+", 1),
    ] {
        assert_eq!(index.remove(&filter(text), &key), Some(0), "{text}");
    }
    assert!(index.is_empty() && index.exact.is_empty() && index.filters.is_empty());
}

proptest! {
    #[test]
    fn the_index_finds_what_each_filter_matches(
        patterns in prop::collection::vec((pattern(), 0_u32..4), 0..24),
        gone in prop::collection::vec(any::<bool>(), 24),
        topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..8),
    ) {
        let mut index = SubscriptionIndex::new();
        let mut model = HashMap::new();
        for (at, (text, key)) in patterns.iter().enumerate() {
            let value = u8::try_from(at).expect("few");
            prop_assert_eq!(
                index.insert(&filter(text), *key, value),
                model.insert((text.clone(), *key), value)
            );
        }
        for ((text, key), gone) in patterns.iter().zip(gone) {
            if gone {
                prop_assert_eq!(
                    index.remove(&filter(text), key),
                    model.remove(&(text.clone(), *key))
                );
            }
        }
        prop_assert_eq!(index.len(), model.len());
        for topic in topics {
            let topic = topic.join("/");
            let mut expected: Vec<_> = model
                .iter()
                .filter(|((text, _), _)| filter(text).matches(&topic))
                .map(|((_, key), value)| (*key, *value))
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(matches(&index, &topic), expected, "{}", topic);
        }
        for ((text, key), _) in model {
            index.remove(&filter(&text), &key);
        }
        prop_assert!(index.is_empty() && index.filters.is_empty());
    }
}
