//! Wrong use of `dispatcher verify-crash`. That it proves what it promises is a step of `tests/run`, which calls it.

use std::process::Command;

use crate::harness::PROGRAM;

#[test]
fn wrong_use_is_said_before_anything_is_begun() {
    for (words, said) in [
        (&["--database", "mysql://u@h"][..], "--queue"),
        (&["--kills", "0"][..], "--kills"),
        (&["--class", "N"][..], "K, S, T"),
    ] {
        let done =
            Command::new(PROGRAM).arg("verify-crash").args(words).output().expect("the program starts");
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}
