//! Many seeds, each twice; and the proof that what is wrong is found.

use std::time::Instant;

use super::faults::Figures;
use super::run::{Outcome, run, run_in};
use super::wrong::Wrong;
use crate::cloud::TokenClass::{self, K, S};

/// Steps within which a deliberate fault must be found.
const FOUND_WITHIN: u64 = 1_000_000;

fn number_from(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

fn report(seed: u64, outcome: &Outcome) -> String {
    let what = outcome.violation.as_deref().unwrap_or_default();
    format!(
        "seed {seed}: {what}\n--- the last of the trace; DISPATCHER_TEST_SIM_SEED={seed} replays it ---\n{}",
        outcome.tail
    )
}

/// Says which seed was played when something panics on the way, such as an assertion of the core itself.
struct Played(u64);

impl Drop for Played {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the seed played last was {}", self.0);
        }
    }
}

#[test]
fn a_million_steps_break_no_invariant_and_every_seed_repeats_itself() {
    let first = number_from("DISPATCHER_TEST_SIM_SEED", 1);
    let one = std::env::var_os("DISPATCHER_TEST_SIM_SEED").is_some();
    let wanted = number_from("DISPATCHER_TEST_SIM_STEPS", if one { 1 } else { 1_000_000 });
    let go_on = std::env::var_os("DISPATCHER_TEST_SIM_GO_ON").is_some();
    let (began, mut all, mut seed, mut broken) = (Instant::now(), Figures::default(), first, 0);
    while all.steps < wanted {
        let _played = Played(seed);
        let outcome = run(seed, None);
        if outcome.violation.is_some() {
            assert!(go_on, "{}", report(seed, &outcome));
            println!("{}", report(seed, &outcome).lines().next().unwrap_or_default());
            broken += 1;
        }
        let again = run(seed, None);
        assert_eq!(outcome.hash, again.hash, "seed {seed} does not repeat itself");
        all.add(&outcome.figures);
        seed += 1;
    }
    println!("seeds {first} to {}, each twice, in {:.1} s\n{all}", seed - 1, began.elapsed().as_secs_f64());
    assert_eq!(broken, 0, "seeds that broke an invariant");
}

/// Runs seeds with a deliberate fault until a check names it.
fn is_found(wrong: Wrong, classes: &[TokenClass], names: &[&str]) {
    let (mut steps, mut seed) = (0, 0);
    while steps < FOUND_WITHIN {
        seed += 1;
        let _played = Played(seed);
        let class = classes[usize::try_from(seed).expect("small") % classes.len()];
        let outcome = run_in(seed, class, Some(wrong));
        steps += outcome.figures.steps;
        if let Some(what) = &outcome.violation {
            assert!(names.iter().any(|name| what.starts_with(name)), "{wrong:?}: {}", report(seed, &outcome));
            let told: String = what.lines().next().unwrap_or_default().chars().take(160).collect();
            println!("{wrong:?} is found after {steps} steps, in seed {seed}: {told}");
            return;
        }
    }
    panic!("{wrong:?} is not found within {steps} steps: the checks are blind to it");
}

#[test]
fn found_an_epoch_in_the_token() {
    is_found(Wrong::EpochInToken, &[K], &["effects:"]);
}

#[test]
fn found_rows_without_a_fence() {
    is_found(Wrong::NoFence, &[K, S], &["fence:"]);
}

#[test]
fn found_a_look_that_is_believed_at_a_cancel() {
    is_found(Wrong::LookBelievedAtCancel, &[K], &["false cancelled:"]);
}

#[test]
fn found_a_verdict_that_is_fenced_by_the_epoch() {
    is_found(Wrong::VerdictFencedByEpoch, &[K, S], &["liveness:"]);
}

#[test]
fn found_a_verdict_of_another_try_that_is_believed() {
    is_found(Wrong::VerdictOfAnyTry, &[K, S], &["I7:"]);
}

#[test]
fn found_a_sweep_by_confirm() {
    is_found(Wrong::SweepByConfirm, &[K, S], &["liveness:"]);
}

#[test]
fn found_a_retry_without_a_look() {
    is_found(Wrong::RetryWithoutLook, &[S], &["effects:"]);
}

#[test]
fn found_an_undo_before_its_state_is_committed() {
    is_found(Wrong::UndoBeforeCommit, &[K, S], &["undo:"]);
}

#[test]
fn found_a_call_before_its_intent() {
    is_found(Wrong::CallBeforeIntent, &[K, S], &["I4:"]);
}

#[test]
fn found_a_journal_that_is_written_after_the_start() {
    is_found(Wrong::JournalAfterStart, &[K, S], &["I9:"]);
}
