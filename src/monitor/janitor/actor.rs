//! The actor: sweeps the rows for looks that are due, and says what needs a person.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;

use super::Limits;
use crate::cloud::Clouds;
use crate::jobs::Changes;
use crate::jobs::ports::{Clock, JobStore, Keys};
use crate::model::{Boot, ObligationState};
use crate::mq::Queue;
use crate::ops::{Health, Metrics, State};
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::{obligation, tag_sweep};
use crate::store::{self, Store};
use crate::supervision::{Life, Supervised};

/// Name of the part in health.
const PART: &str = "janitor";
/// Accounts and regions entered in one sweep.
const ENTERED: i64 = 100;
/// How long closed obligations are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Links of a janitor.
#[derive(Clone)]
pub struct Spec {
    /// Rows.
    pub store: Store,
    /// Numbers for jobs and audit records.
    pub sequencer: Sequencer,
    /// Accounts and regions.
    pub rows: Arc<dyn JobStore>,
    /// Credentials.
    pub keys: Arc<dyn Keys>,
    /// Clouds.
    pub clouds: Clouds,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Nudges for jobs that take back.
    pub queue: Arc<dyn Queue>,
    /// News for readers of jobs.
    pub changes: Changes,
    /// Counts looks and what came of them.
    pub metrics: Metrics,
    /// Where it is said that something needs a person.
    pub health: Health,
    /// This life.
    pub boot: Boot,
    /// How often and how long it looks.
    pub limits: Limits,
    /// How often the rows are swept.
    pub sweep: Duration,
    /// Looks at the same time.
    pub together: usize,
}

/// The actor. See the module.
pub struct Janitor {
    spec: Spec,
    life: Life,
}

impl Supervised for Janitor {
    type Spec = Spec;
    const KIND: &'static str = "janitor";

    fn key(spec: &Spec) -> String {
        format!("janitor/{}", spec.boot)
    }

    fn fresh(spec: Spec, life: Life) -> Self {
        Self { spec, life }
    }
}

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let spec = self.spec.clone();
        let sweeping = async move { spec.run().await };
        ctx.spawn(sweeping.into_actor(self).map(|(), actor, _| actor.life.fail("the janitor's loop ended")));
    }
}

impl Spec {
    async fn run(self) {
        let mut sweep = tokio::time::interval(self.sweep);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ill = false;
        loop {
            sweep.tick().await;
            match self.round().await {
                Ok(needs) => ill = self.say(needs, ill),
                Err(error) => {
                    log::warn!("the janitor cannot read the rows, the next sweep tries again: {error}");
                }
            }
        }
    }

    /// One sweep: a bounded number of looks. How much needs a person after it.
    pub(super) async fn round(&self) -> Result<usize, store::Error> {
        let limit = i64::try_from(self.together).unwrap_or(i64::MAX);
        let due = self.store.read(move |c| obligation::due(c, limit)).await?;
        join_all(due.into_iter().map(|row| self.serve(row))).await;
        self.all_tags().await?;
        let counts = self.store.read(obligation::counts).await?;
        let count = |state: &ObligationState| {
            let found = counts.iter().find(|(word, _)| word == state.as_str()).map_or(0, |(_, n)| *n);
            usize::try_from(found).unwrap_or(0)
        };
        for state in ObligationState::ALL.iter().filter(|state| **state != ObligationState::Closed) {
            self.metrics.obligations(state.as_str(), count(state));
        }
        Ok(count(&ObligationState::NeedsYou))
    }

    /// The daily look at everything that carries a tag; one account and region a sweep.
    async fn all_tags(&self) -> Result<(), store::Error> {
        let due = self.store.read(|c| tag_sweep::due(c, 1)).await?;
        let Some(row) = due.into_iter().next() else {
            if self.store.read(tag_sweep::missing).await? {
                self.store.write(|c| tag_sweep::enter(c, ENTERED)).await?;
            }
            return Ok(());
        };
        self.sweep_tags(row).await;
        self.store.write(|c| obligation::forget(c, KEPT)).await.map(drop)
    }

    /// Says in health whether something needs a person; whether it does.
    fn say(&self, needs: usize, ill: bool) -> bool {
        match (needs, ill) {
            (0, false) => {}
            (0, true) => self.health.set(PART, State::Ok, ""),
            (n, _) => {
                let text = format!(
                    "{n} found at a cloud or not to be looked for; see \"dispatcher obligations --state needs-you\""
                );
                self.health.set(PART, State::Degraded, text);
            }
        }
        needs > 0
    }
}
