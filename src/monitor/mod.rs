//! The monitor: looks at clouds until the effect of a job is seen, and writes the verdict with its evidence.
//!
//! It never changes a cloud and never moves a job; a verdict is a row that whoever holds the job decides by.

mod judge;
#[cfg(test)]
mod tests;

pub use judge::judge;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::cloud::{CallContext, Clouds, Credential};
use crate::jobs::ports::{Ask, Clock, JobStore, Keys, Leased, NoLease, within};
use crate::jobs::watching::{Look, Sight, Watcher};
use crate::model::{AccountId, AttemptUid, Micros, RegionId, ServerStatus, WatchKind};
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
        let mut lease = None;
        let mut pause = self.first;
        while self.clock.now() < watch.deadline {
            match self.look(watch, expected, &mut lease).await {
                Ok(Some(sight)) => return Some(sight),
                Ok(None) => {}
                Err(cause) => {
                    log::info!("look failed, the next follows: {cause}; job={}", watch.job);
                    lease = None;
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
        lease: &mut Option<(Leased, Micros)>,
    ) -> Result<Option<Sight>, String> {
        let history = self.store.history(watch.job).await.map_err(|e| e.to_string())?;
        let job = history.ok_or("its job is gone")?.job;
        let (account, region) = self.where_is(&job).await?;
        let place = self.store.place(account, region).await.map_err(|e| e.to_string())?;
        let place = place.ok_or_else(|| format!("account {account} is gone"))?;
        let provider =
            self.clouds.get(place.cloud).ok_or_else(|| format!("cloud {} is gone", place.cloud))?;
        let now = self.clock.now();
        if lease.as_ref().is_none_or(|(_, since)| now.since(*since) > LEASE_LIFE) {
            let ask = Ask {
                job: job.uid,
                attempt: AttemptUid(watch.uid.0),
                customer: job.customer,
                account,
                credential: place.credential.clone(),
                purpose: "watch".to_owned(),
            };
            let leased = within(&*self.clock, self.call_limit, self.keys.lease(ask)).await;
            let leased = leased.map_err(|late| format!("key manager: {late}"))?.map_err(|e| match e {
                NoLease::Later(cause) => format!("key manager: {cause}"),
                NoLease::Denied(cause) => format!("key manager denied the credential: {cause}"),
            })?;
            *lease = Some((leased, now));
        }
        let Some((leased, _)) = lease else { return Ok(None) };
        let context = CallContext {
            account_number: &place.account_number,
            region: &place.region,
            credential: Credential { access_key: &leased.access_key, secret: &leased.secret },
            limit: self.call_limit,
        };
        // Absence means something only if it was old enough when it was asked, however late the answer comes.
        let age = self.clock.now().since(watch.made_at);
        // Whatever the driver makes of the limit: a look that never ends would hold up the watch for ever.
        let seen = within(&*self.clock, self.call_limit, provider.machine(&context, &watch.target)).await;
        let seen = seen.map_err(|late| late.to_string())?.map_err(|e| e.to_string())?;
        Ok(judge(&watch.target, expected, seen.as_ref(), age > provider.capabilities().t_vis))
    }

    async fn where_is(&self, job: &Job) -> Result<(AccountId, Option<RegionId>), String> {
        let Some(id) = job.server.or_else(|| job.params.server()) else { return Ok((job.account, None)) };
        let row = self.store.server(job.customer, id).await.map_err(|e| e.to_string())?;
        Ok((job.account, row.map(|server| RegionId(server.region))))
    }
}
