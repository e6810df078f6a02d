//! Grammar and matching of topics.

use proptest::prelude::*;

use super::*;

#[test]
fn names_are_any_text_without_wildcards() {
    for name in [
        "a",
        "/",
        "//",
        " ",
        "$",
        "$SYS/x",
        "é/1",
        "中/文",
        "🚀",
        "\u{feff}a",
        "a b",
        "\u{1}",
    ] {
        assert_eq!(name.parse::<TopicName>().as_deref(), Ok(name));
    }
    for (name, violation) in [
        ("", Violation::EmptyTopicName),
        ("+", Violation::WildcardInTopicName),
        ("a/#", Violation::WildcardInTopicName),
        ("a+b", Violation::WildcardInTopicName),
        ("é#", Violation::WildcardInTopicName),
        ("a\0b", Violation::NullCharacter),
    ] {
        assert_eq!(name.parse::<TopicName>(), Err(violation), "{name:?}");
    }
}

#[test]
fn topics_have_at_most_65535_bytes() {
    let (fits, exceeds) = ("x".repeat(65_535), "x".repeat(65_536));
    assert!(TopicName::try_from(fits.as_str()).is_ok());
    assert!(TopicFilter::try_from(fits).is_ok());
    assert_eq!(
        TopicName::try_from(exceeds.as_str()),
        Err(Violation::TopicTooLong)
    );
    assert_eq!(TopicFilter::try_from(exceeds), Err(Violation::TopicTooLong));
}

#[test]
fn filters_have_wildcards_that_fill_a_level() {
    for filter in [
        "#", "+", "a/#", "/#", "+/#", "+/+", "/+/", "a/+/b", "$SYS/#", "$share", "é/+",
    ] {
        assert_eq!(filter.parse::<TopicFilter>().as_deref(), Ok(filter));
    }
    for (filter, violation) in [
        ("", Violation::EmptyTopicFilter),
        ("a/#/b", Violation::MultiLevelWildcardMisplaced),
        ("#/", Violation::MultiLevelWildcardMisplaced),
        ("a#", Violation::MultiLevelWildcardMisplaced),
        ("#a", Violation::MultiLevelWildcardMisplaced),
        ("##", Violation::MultiLevelWildcardMisplaced),
        ("a/#b", Violation::MultiLevelWildcardMisplaced),
        ("#/#", Violation::MultiLevelWildcardMisplaced),
        ("a+", Violation::SingleLevelWildcardMisplaced),
        ("+a", Violation::SingleLevelWildcardMisplaced),
        ("++", Violation::SingleLevelWildcardMisplaced),
        ("a/b+/c", Violation::SingleLevelWildcardMisplaced),
        ("a\0", Violation::NullCharacter),
    ] {
        assert_eq!(filter.parse::<TopicFilter>(), Err(violation), "{filter:?}");
    }
}

#[test]
fn shared_filters_have_a_name_and_a_pattern() {
    for (filter, name, pattern) in [
        ("$share/g/a", "g", "a"),
        ("$share/g/#", "g", "#"),
        ("$share/g//", "g", "/"),
        ("$share/é/+/b", "é", "+/b"),
        ("$share/g/$share/h/a", "g", "$share/h/a"),
    ] {
        let filter: TopicFilter = filter.parse().unwrap();
        assert!(filter.is_shared());
        assert_eq!(
            (filter.share_name(), filter.pattern()),
            (Some(name), pattern)
        );
    }
    for (filter, violation) in [
        ("$share/", Violation::ShareNameEmpty),
        ("$share//a", Violation::ShareNameEmpty),
        ("$share/g", Violation::ShareNameInvalid),
        ("$share/g/", Violation::ShareNameInvalid),
        ("$share/+/a", Violation::ShareNameInvalid),
        ("$share/#/a", Violation::ShareNameInvalid),
        ("$share/g#/a", Violation::ShareNameInvalid),
        ("$share/g/a+", Violation::SingleLevelWildcardMisplaced),
        ("$share/g/#/a", Violation::MultiLevelWildcardMisplaced),
    ] {
        assert_eq!(filter.parse::<TopicFilter>(), Err(violation), "{filter:?}");
    }
    let plain: TopicFilter = "$shared/g/a".parse().unwrap();
    assert_eq!((plain.share_name(), plain.pattern()), (None, "$shared/g/a"));
}

fn check(filter: &str, topic: &str, matches: bool) {
    let parsed: TopicFilter = filter.parse().unwrap();
    assert_eq!(parsed.matches(topic), matches, "{filter:?} and {topic:?}");
}

#[test]
fn wildcards_match_as_the_standard_shows() {
    for topic in [
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "sport/tennis/player1/a/b",
    ] {
        check("sport/tennis/player1/#", topic, true);
    }
    check("sport/#", "sport", true);
    check("sport/#", "sports", false);
    check("#", "a/b/c", true);
    check("#", "/", true);
    check("sport/tennis/+", "sport/tennis/player1", true);
    check("sport/tennis/+", "sport/tennis/player1/ranking", false);
    check("sport/+", "sport", false);
    check("sport/+", "sport/", true);
    check("+/+", "/finance", true);
    check("/+", "/finance", true);
    check("+", "/finance", false);
    check("+/tennis/#", "sport/tennis", true);
    check("+", "é", true);
    check("é/+", "é/1", true);
    check("a/b", "a/b", true);
    check("a/b", "a/b/", false);
    check("a/b", "A/b", false);
    check("a/b/c", "a/b", false);
    check("a//b", "a//b", true);
    check("a/+/b", "a//b", true);
}

#[test]
fn wildcards_in_front_do_not_reach_dollar_topics() {
    check("#", "$SYS/x", false);
    check("+/x", "$SYS/x", false);
    check("+", "$SYS", false);
    check("$SYS/#", "$SYS/x", true);
    check("$SYS/+", "$SYS/x", true);
    check("a/#", "a/$SYS", true);
    check("a/+", "a/$SYS", true);
    check("$share/g/#", "$SYS/x", false);
    check("$share/g/#", "a", true);
    check("$share/g/$SYS/#", "$SYS/x", true);
}

#[test]
fn a_filter_without_wildcard_is_one_topic() {
    let filter: TopicFilter = "$share/g/a/b".parse().unwrap();
    assert!(!filter.has_wildcard());
    assert!("a/+".parse::<TopicFilter>().unwrap().has_wildcard());
}

/// Matching by recursion over levels, as one would explain it.
fn naive_matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => naive_matches(filter, topic),
        ([part, filter @ ..], [level, topic @ ..]) => part == level && naive_matches(filter, topic),
        _ => false,
    }
}

/// The grammar, character by character.
fn naive_is_filter(filter: &str) -> bool {
    let chars: Vec<char> = filter.chars().collect();
    let alone = |index: usize| {
        let before = index == 0 || chars[index - 1] == '/';
        before && chars.get(index + 1).is_none_or(|next| *next == '/')
    };
    !chars.is_empty()
        && chars.iter().enumerate().all(|(index, char)| match char {
            '#' => alone(index) && index + 1 == chars.len(),
            '+' => alone(index),
            _ => *char != '\0',
        })
}

proptest! {
    #[test]
    fn matching_agrees_with_the_naive_way(filter in "[a$]?([ab+]?/){0,4}[ab+#]?", topic in "[a$]?([ab]?/){0,4}[ab]?") {
        if let (Ok(filter), Ok(topic)) = (filter.parse::<TopicFilter>(), topic.parse::<TopicName>()) {
            let levels: Vec<&str> = topic.split('/').collect();
            let parts: Vec<&str> = filter.split('/').collect();
            let hidden = topic.starts_with('$') && matches!(parts[0], "+" | "#");
            prop_assert_eq!(filter.matches(&topic), !hidden && naive_matches(&parts, &levels));
        }
    }

    #[test]
    fn the_grammar_agrees_with_the_naive_way(filter in "[aé/+#\0$]{0,6}") {
        prop_assert_eq!(TopicFilter::check(&filter).is_ok(), naive_is_filter(&filter));
        let is_name = naive_is_filter(&filter) && !filter.contains(['+', '#']);
        prop_assert_eq!(TopicName::check(&filter).is_ok(), is_name);
    }

    #[test]
    fn a_name_matches_itself_as_a_filter(topic in "[a-cé/$]{1,12}") {
        if let Ok(filter) = topic.parse::<TopicFilter>() {
            prop_assert!(filter.matches(&topic));
        }
    }
}
