use std::time::Duration;

use proptest::prelude::*;

use super::{Compare, Field, Pattern, Query, Test, suggest};
use crate::model::{JobKind, JobState, Micros};

fn read(text: &str) -> Query {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn tests(text: &str) -> Vec<Test> {
    read(text).terms.into_iter().map(|term| term.test).collect()
}

#[test]
fn terms_are_understood() {
    let star = |text: &str, open| vec![Pattern { text: text.to_owned(), open }];
    for (text, test) in [
        ("state:running,queued,running", Test::States(vec![JobState::Running, JobState::Queued])),
        ("needs:me", Test::States(vec![JobState::Quarantined, JobState::Unresolved])),
        ("kind:launch*", Test::Kinds(vec![JobKind::LaunchServer])),
        ("waits:queue,lock", Test::Waits(vec!["dispatch", "server-busy"])),
        ("account:42,43", Test::Accounts(vec![42, 43])),
        ("target:web-*", Test::Targets(star("web-", true))),
        ("target:\"my server\"", Test::Targets(star("my server", false))),
        ("by:me", Test::By(star("me", false))),
        ("older:1h", Test::Older(Duration::from_secs(3600))),
        ("newer:2d", Test::Newer(Duration::from_secs(172_800))),
        ("from:2026-11-22", Test::From(Micros(1_795_305_600_000_000))),
        ("to:2026-11-22T13:00", Test::To(Micros(1_795_352_400_000_000))),
        ("to:2026-11-22T13:00:00Z", Test::To(Micros(1_795_352_400_000_000))),
        ("took:>5m", Test::Took(Compare::More, Duration::from_secs(300))),
        ("attempts:>2", Test::Attempts(Compare::More, 2)),
        ("outcome:unknown", Test::OutcomeUnknown),
        ("10001", Test::Ids(vec![10001])),
        ("\"10001\"", Test::Text("10001".to_owned())),
        ("\"two words\"", Test::Text("two words".to_owned())),
        ("web", Test::Text("web".to_owned())),
    ] {
        assert_eq!(tests(text), [test], "{text}");
    }
    assert_eq!(tests("state:open").len(), 1);
    let query = read("  -state:failed   -web  account:42 ");
    let not: Vec<bool> = query.terms.iter().map(|term| term.negated).collect();
    assert_eq!(
        (not, query.to_string()),
        (vec![true, true, false], "-state:failed -web account:42".to_owned())
    );
    assert_eq!(
        (read("7").only_number(), read("-7").only_number(), read("id:7").only_number()),
        (Some(7), None, None)
    );
}

#[test]
fn what_is_refused_names_field_value_and_remedy() {
    for (text, field, value, remedy) in [
        ("stat:failed", Some("stat"), "failed", "did you mean state?"),
        ("zzzzzzz:1", Some("zzzzzzz"), "1", "known are state, needs"),
        ("state:done,failed", Some("state"), "done", "write queued, running"),
        ("state:fialed", Some("state"), "fialed", "did you mean state:failed?"),
        ("kind:server.*", Some("kind"), "server.*", "did you mean kind:"),
        ("class:atuh", Some("class"), "atuh", "did you mean class:auth?"),
        ("waits:budget", Some("waits"), "budget", "write queue, pause, lock"),
        ("needs:you", Some("needs"), "you", "me"),
        ("account:shop", Some("account"), "shop", "number of an account"),
        ("account:", Some("account"), "", "a value is missing"),
        ("account:1,,2", Some("account"), "1,,2", "a value is missing"),
        ("server:0", Some("server"), "0", "number of a server"),
        ("target:*web", Some("target"), "*web", "at the end only"),
        ("older:5", Some("older"), "5", "write 30s"),
        ("older:99999d", Some("older"), "99999d", "write 30s"),
        ("older:1h,2h", Some("older"), "1h,2h", "give one value"),
        ("from:yesterday", Some("from"), "yesterday", "2026-11-22"),
        ("from:2026-02-30", Some("from"), "2026-02-30", "2026-11-22"),
        ("took:5m", Some("took"), "5m", ">5m"),
        ("attempts:many", Some("attempts"), "many", ">2"),
        ("outcome:good", Some("outcome"), "good", "unknown"),
        ("region:us-east-1", Some("region"), "us-east-1", "there is no field region"),
        (":x", Some(""), "x", "there is no field"),
        ("-", None, "-", "write a field"),
        ("\"\"", None, "\"\"", "write a field"),
        ("\"open", None, "\"open", "close it"),
        ("99999999999999999999", None, "99999999999999999999", "no number of a job"),
    ] {
        let refused = text.parse::<Query>().expect_err(text);
        assert_eq!((refused.field.as_deref(), refused.value.as_str()), (field, value), "{text}: {refused}");
        let said = refused.to_string();
        assert!(said.contains(remedy) && said.contains(value) && said.contains("; "), "{text}: {said}");
    }
    assert!("x".repeat(2000).parse::<Query>().expect_err("long").to_string().contains("shorten"));
    assert!("a ".repeat(21).parse::<Query>().expect_err("many").to_string().contains("take some away"));
}

#[test]
fn a_query_can_be_changed_field_by_field() {
    let query = read("state:failed account:42");
    let changed = query.with(Field::State, Some("queued,running")).expect("good");
    assert_eq!(changed.to_string(), "account:42 state:queued,running");
    assert_eq!(changed.says(Field::State).as_deref(), Some("queued,running"));
    assert_eq!(query.with(Field::State, None).expect("good").to_string(), "account:42");
    assert!(query.with(Field::State, Some("done")).is_err());
    let (rest, last) = query.without_last().expect("two terms");
    assert_eq!((rest.to_string(), last), ("state:failed".to_owned(), "account:42".to_owned()));
    assert!(Query::default().without_last().is_none() && Query::default().is_empty());
}

#[test]
fn texts_go_on_with_fields_then_with_words() {
    let texts = |text: &str| suggest(text).into_iter().map(|s| s.text).collect::<Vec<_>>();
    assert_eq!(texts("st"), ["state:"]);
    assert_eq!(texts("kind:noop -st"), ["kind:noop -state:"]);
    assert_eq!(texts("state:fa"), ["state:failed"]);
    assert_eq!(texts("state:failed,qu"), ["state:failed,queued", "state:failed,quarantined"]);
    assert_eq!(texts("").len(), Field::ALL.len());
    assert!(texts("account:4").is_empty() && texts("nothing:x").is_empty());
    for field in Field::ALL {
        for word in field.words() {
            read(&format!("{}:{word}", field.as_str()));
        }
    }
}

/// Values that some field takes, so that whole queries are often good.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "failed",
            "open",
            "me",
            "noop",
            "launch*",
            "auth",
            "queue",
            "42",
            "web-*",
            "1h",
            "2026-11-22",
            ">5m",
            ">2",
            "unknown",
            "\"a b\"",
            "\"c,d\"",
            "a\\b",
            "\"\\\"\"",
        ])
        .prop_map(str::to_owned),
        "[ -~ü]{0,6}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    let field = prop::sample::select(Field::ALL.iter().map(|field| field.as_str()).collect::<Vec<_>>());
    let term = (any::<bool>(), prop::option::of(field), prop::collection::vec(value(), 1..3));
    let term = term.prop_map(|(not, field, values)| {
        let field = field.map_or_else(String::new, |field| format!("{field}:"));
        format!("{}{field}{}", if not { "-" } else { "" }, values.join(","))
    });
    prop::collection::vec(term, 0..4).prop_map(|terms| terms.join(" "))
}

proptest! {
    #[test]
    fn any_text_is_a_query_or_refused_with_its_reason(text in "\\PC{0,60}") {
        if let Err(refused) = text.parse::<Query>() {
            prop_assert!(!refused.remedy.is_empty());
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same_and_printed_alike(text in text()) {
        match text.parse::<Query>() {
            Ok(query) => {
                let printed = query.to_string();
                let again = printed.parse::<Query>();
                prop_assert_eq!(again.as_ref().map(ToString::to_string), Ok(printed), "{:?}", query);
                prop_assert_eq!(again, Ok(query));
            }
            Err(refused) => {
                prop_assert!(!refused.remedy.is_empty());
                prop_assert!(refused.field.is_some() || !refused.value.is_empty());
            }
        }
    }

    #[test]
    fn suggestions_never_fail_and_begin_as_typed(text in text()) {
        for suggestion in suggest(&text) {
            prop_assert!(suggestion.text.starts_with(&text), "{} from {}", suggestion.text, text);
        }
    }
}
