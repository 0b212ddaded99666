//! The monitor: looks at clouds until the effect of a job is seen, and writes the verdict with its evidence; its
//! [`janitor`] looks for what turns up after jobs ended.
//!
//! It never changes a cloud and never moves a job: a verdict is a row that whoever holds the job decides by, and what is
//! to be taken back becomes a job of its own.

pub mod janitor;
mod judge;
mod reach;
#[cfg(test)]
mod tests;

pub use janitor::Janitor;
pub use judge::{Age, judge};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use self::reach::{Line, Reach, Wanted};
use crate::cloud::Clouds;
use crate::jobs::ports::{Clock, JobStore, Keys, within};
use crate::jobs::steps::{Effect, step_of};
use crate::jobs::watching::{Look, Sight, Watcher};
use crate::model::{AccountId, AttemptUid, JobParams, Micros, RegionId, ServerStatus, WatchKind};
use crate::mq::Topic;
use crate::store::provisioning::job::Job;
use crate::store::provisioning::watch::Watch;

/// The monitor's actor.
pub type Monitor = Watcher<CloudLook>;

/// Looks at a server at its cloud.
pub struct CloudLook {
    /// Rows.
    pub store: Arc<dyn JobStore>,
    /// Credentials.
    pub keys: Arc<dyn Keys>,
    /// Clouds.
    pub clouds: Clouds,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Pause after the first look; doubles.
    pub first: Duration,
    /// Longest pause between looks.
    pub most: Duration,
    /// Longest call.
    pub call_limit: Duration,
}

/// How long one lease serves the looks of one watch.
const LEASE_LIFE: Duration = Duration::from_secs(30);

#[async_trait(?Send)]
impl Look for CloudLook {
    const ROLE: &'static str = "monitor";
    const KINDS: &'static [WatchKind] = &[WatchKind::Cloud];
    const TOPIC: Topic = Topic::Watches;

    async fn follow(&self, watch: &Watch, news: &Notify) -> Option<Sight> {
        let expected: ServerStatus = watch.expectation.parse().ok()?;
        let mut line = None;
        let mut pause = self.first;
        while self.clock.now() < watch.deadline {
            match self.look(watch, expected, &mut line).await {
                Ok(Some(sight)) => return Some(sight),
                Ok(None) => {}
                Err(cause) => {
                    log::info!("look failed, the next follows: {cause}; job={}", watch.job);
                    line = None;
                }
            }
            tokio::select! {
                biased;
                () = news.notified() => {}
                () = self.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(self.most);
        }
        None
    }
}

impl CloudLook {
    async fn look(
        &self,
        watch: &Watch,
        expected: ServerStatus,
        line: &mut Option<(Line, Micros)>,
    ) -> Result<Option<Sight>, String> {
        let history = self.store.history(watch.job).await.map_err(|e| e.to_string())?;
        let job = history.ok_or("its job is gone")?.job;
        let (account, region) = self.where_is(&job).await?;
        let now = self.clock.now();
        if line.as_ref().is_none_or(|(_, since)| now.since(*since) > LEASE_LIFE) {
            let ask = Wanted {
                job: job.uid,
                attempt: AttemptUid(watch.uid.0),
                customer: job.customer,
                account,
                region,
                purpose: "watch",
            };
            let reach =
                Reach { store: &*self.store, keys: &*self.keys, clouds: &self.clouds, clock: &*self.clock };
            *line = Some((reach.at(ask, self.call_limit).await?, now));
        }
        let Some((line, _)) = line else { return Ok(None) };
        let provider = &line.provider;
        let context = line.context();
        // What a look shows counts by when it was asked, however late the answer comes.
        let age = self.clock.now().since(watch.made_at);
        // Whatever the driver makes of the limit: a look that never ends would hold up the watch for ever.
        let seen = within(&*self.clock, self.call_limit, provider.machine(&context, &watch.target)).await;
        let seen = seen.map_err(|late| late.to_string())?.map_err(|e| e.to_string())?;
        let moves = matches!(step_of(job.params.kind()).effect, Effect::Move(to) if to.can_be_taken_back());
        Ok(judge(&watch.target, expected, seen.as_ref(), Age::of(age, provider.capabilities(), moves)))
    }

    async fn where_is(&self, job: &Job) -> Result<(AccountId, Option<RegionId>), String> {
        if let JobParams::TakeBack(params) = &job.params {
            return Ok((job.account, Some(params.region)));
        }
        let Some(id) = job.server.or_else(|| job.params.server()) else { return Ok((job.account, None)) };
        let row = self.store.server(job.customer, id).await.map_err(|e| e.to_string())?;
        Ok((job.account, row.map(|server| RegionId(server.region))))
    }
}
