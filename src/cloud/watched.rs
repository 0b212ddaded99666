//! Which accounts' clouds do not answer: a driver in front of a driver, that tells health and changes nothing.
//!
//! Health is read by every tenant, so it is told how many accounts are concerned and never which; a job says its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{CallContext, CallError, Capabilities, LaunchRequest, Machine, Provider};
use crate::model::ErrorClass;
use crate::ops::{Health, State};

/// Name of the part in health.
const PART: &str = "cloud";
/// So many calls in a row without an answer are no chance any more.
const ENOUGH: u32 = 2;
/// An account that nobody called for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Accounts remembered.
const MOST: usize = 10_000;

/// What became of the last calls, account by account. All clones are the same; one for all drivers of a process.
#[derive(Clone, Default)]
pub struct Answering {
    accounts: Arc<Mutex<BTreeMap<String, Last>>>,
    health: Health,
}

struct Last {
    at: Instant,
    /// Calls in a row that were not answered.
    failed: u32,
    cause: String,
}

impl Answering {
    /// Tells this health.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self { accounts: Arc::default(), health }
    }

    fn told(&self, account: &str, silent: Option<String>) {
        let mut accounts = self.lock();
        if accounts.len() >= MOST {
            accounts.retain(|_, last| last.at.elapsed() < FORGET);
        }
        if accounts.len() < MOST || accounts.contains_key(account) {
            let last = accounts.entry(account.to_owned()).or_insert_with(Last::new);
            last.at = Instant::now();
            last.failed = if silent.is_some() { last.failed.saturating_add(1) } else { 0 };
            last.cause = silent.unwrap_or_default();
        }
        let (state, reason) = sum(&accounts);
        drop(accounts);
        self.health.set(PART, state, reason);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Last>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    fn new() -> Self {
        Self { at: Instant::now(), failed: 0, cause: String::new() }
    }
}

/// How the clouds are, in words that name no tenant's account.
fn sum(accounts: &BTreeMap<String, Last>) -> (State, String) {
    let called: Vec<&Last> = accounts.values().filter(|last| last.at.elapsed() < FORGET).collect();
    let silent: Vec<&&Last> = called.iter().filter(|last| last.failed >= ENOUGH).collect();
    match silent.first() {
        None => (State::Ok, String::new()),
        Some(first) => {
            let (n, of) = (silent.len(), called.len());
            (State::Degraded, format!("calls for {n} of {of} accounts are not answered: {}", first.cause))
        }
    }
}

/// What an answer says about the cloud's being there; nothing when it answered, be it with a refusal.
fn silence(error: &CallError) -> Option<String> {
    match error {
        CallError::Unknown { text } => Some(text.clone()),
        CallError::Refused { class: ErrorClass::Transient, code, text, .. } => {
            Some(format!("{code}: {text}"))
        }
        CallError::Refused { .. } => None,
    }
}

/// See the module.
pub struct Watched {
    driver: Arc<dyn Provider>,
    answering: Answering,
}

/// One call under way; dropped before its end it was given up by who waited.
struct Call<'a> {
    watched: &'a Watched,
    account: String,
    ended: bool,
}

impl Watched {
    /// In front of this driver.
    #[must_use]
    pub fn new(driver: Arc<dyn Provider>, answering: Answering) -> Self {
        Self { driver, answering }
    }

    async fn call<T>(
        &self,
        context: &CallContext<'_>,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let account = format!("{} {}", self.driver.name(), context.account_number);
        let mut mark = Call { watched: self, account, ended: false };
        let outcome = call.await;
        mark.ended = true;
        self.answering.told(&mark.account, outcome.as_ref().err().and_then(silence));
        outcome
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.watched.answering.told(&self.account, Some("no answer within the limit".to_owned()));
        }
    }
}

#[async_trait(?Send)]
impl Provider for Watched {
    fn name(&self) -> &str {
        self.driver.name()
    }

    fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    async fn check(&self, context: &CallContext<'_>) -> Result<(), CallError> {
        self.call(context, self.driver.check(context)).await
    }

    async fn launch(&self, context: &CallContext<'_>, request: &LaunchRequest) -> Result<Machine, CallError> {
        self.call(context, self.driver.launch(context, request)).await
    }

    async fn machine(&self, context: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        self.call(context, self.driver.machine(context, id)).await
    }

    async fn find_by_tag(&self, context: &CallContext<'_>, tag: &str) -> Result<Vec<Machine>, CallError> {
        self.call(context, self.driver.find_by_tag(context, tag)).await
    }

    async fn list(&self, context: &CallContext<'_>, tag_prefix: &str) -> Result<Vec<Machine>, CallError> {
        self.call(context, self.driver.list(context, tag_prefix)).await
    }

    async fn start(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call(context, self.driver.start(context, id)).await
    }

    async fn stop(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call(context, self.driver.stop(context, id)).await
    }

    async fn pause(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call(context, self.driver.pause(context, id)).await
    }

    async fn terminate(&self, context: &CallContext<'_>, id: &str) -> Result<(), CallError> {
        self.call(context, self.driver.terminate(context, id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::{Answering, silence};
    use crate::cloud::CallError;
    use crate::model::ErrorClass;
    use crate::ops::{Health, State};

    fn state(health: &Health) -> (State, String) {
        let part = health.ready().1.remove(0);
        (part.state, part.reason)
    }

    #[test]
    fn one_silent_account_is_told_without_its_number_and_forgotten_when_it_answers() {
        let health = Health::new();
        let answering = Answering::new(health.clone());
        let silent = || Some("Unreachable: refused".to_owned());
        answering.told("sim 1234-5678", silent());
        answering.told("sim 9999", None);
        assert_eq!(state(&health).0, State::Ok, "once is chance");
        answering.told("sim 1234-5678", silent());
        let (shown, reason) = state(&health);
        assert_eq!(shown, State::Degraded);
        assert_eq!(reason, "calls for 1 of 2 accounts are not answered: Unreachable: refused");
        answering.told("sim 9999", None);
        assert_eq!(state(&health).0, State::Degraded, "another account's answer says nothing about it");
        answering.told("sim 1234-5678", None);
        assert_eq!(state(&health), (State::Ok, String::new()));
    }

    #[test]
    fn a_refusal_is_an_answer_and_what_was_never_reached_is_none() {
        assert!(silence(&CallError::unknown("cut")).is_some());
        assert!(silence(&CallError::refused(ErrorClass::Transient, "Unreachable", "x")).is_some());
        for class in [ErrorClass::Throttled, ErrorClass::Auth, ErrorClass::Quota, ErrorClass::NotFound] {
            assert!(silence(&CallError::refused(class, "c", "t")).is_none(), "{class:?}");
        }
    }
}
