//! The look at everything that carries a tag of ours: finds what no obligation speaks of, above all after a database
//! was restored from an older copy. It decides nothing; what seems to have no owner becomes an obligation that is due.

use std::collections::{BTreeMap, BTreeSet};

use super::actor::Spec;
use crate::cloud::{Machine, TokenClass};
use crate::jobs::{TAG_PREFIX, of_tag};
use crate::model::{AccountId, AttemptUid, CustomerId, JobUid, RegionId, ServerStatus};
use crate::monitor::reach::{Reach, Wanted};
use crate::store::provisioning::obligation::{self, Stray};
use crate::store::provisioning::tag_sweep::{self, SweepRow};
use crate::store::{self, AnyConnection};
use crate::supervision::limited;

/// Strays one sweep notices; with more the next one follows soon.
const MOST: usize = 200;
/// Rows asked for in one read.
const PAGE: usize = 500;
/// Longest tag a row can hold.
const LONGEST: usize = 128;

impl Spec {
    /// Looks at one account and region, unless somebody else does.
    pub(super) async fn sweep_tags(&self, seen: SweepRow) {
        let at = format!("account={}, region={}", seen.account, seen.region);
        if let Err(error) = self.swept(seen).await {
            log::warn!("a sweep by tag is not written, it is repeated: {error}; {at}");
        }
    }

    async fn swept(&self, seen: SweepRow) -> Result<(), store::Error> {
        let boot = self.boot;
        let Some(held) = self.store.write(move |c| tag_sweep::claim(c, boot, &seen)).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let (next, answered, strays) = match self.tagged(&held).await {
            Ok(machines) => {
                let mut strays = self.strays(&held, &machines).await?;
                let more = strays.len() > MOST;
                strays.truncate(MOST);
                (if more { self.limits.again } else { self.limits.daily }, true, strays)
            }
            Err(cause) => {
                log::info!(
                    "cannot list what carries our tags, it is repeated: {cause}; account={}, region={}",
                    held.account,
                    held.region
                );
                self.metrics.janitor("failed");
                (self.limits.later.min(self.limits.daily), false, Vec::new())
            }
        };
        let item = move |c: &mut AnyConnection| {
            if !tag_sweep::done(c, &held, (now.plus(next), answered))? {
                return Ok(0);
            }
            let mut noticed = 0;
            for stray in &strays {
                noticed += usize::from(obligation::noticed(c, stray)?);
            }
            Ok(noticed)
        };
        let noticed = self.store.write(item).await?;
        if noticed > 0 {
            log::warn!("{noticed} tags at a cloud have no owner that the rows know; they are looked at now");
        }
        Ok(())
    }

    async fn tagged(&self, held: &SweepRow) -> Result<Vec<Machine>, String> {
        let reach =
            Reach { store: &*self.rows, keys: &*self.keys, clouds: &self.clouds, clock: &*self.clock };
        let wanted = Wanted {
            job: JobUid::random(),
            attempt: AttemptUid::random(),
            customer: CustomerId(held.customer),
            account: AccountId(held.account),
            region: Some(RegionId(held.region)),
            purpose: "janitor",
        };
        let line = reach.at(wanted, self.limits.call).await?;
        if line.provider.capabilities().class == TokenClass::N {
            return Ok(Vec::new());
        }
        let context = line.context();
        let look = line.provider.list(&context, TAG_PREFIX);
        let found = limited(self.limits.call, look).await.map_err(|late| late.to_string())?;
        found.map_err(|e| e.to_string())
    }

    /// Tags of what lives, has no server's row and is not of an open job.
    async fn strays(&self, held: &SweepRow, machines: &[Machine]) -> Result<Vec<Stray>, store::Error> {
        let mut strays = BTreeMap::new();
        for page in machines.chunks(PAGE) {
            let alive = page.iter().filter(|machine| machine.state != ServerStatus::Terminated);
            let alive: Vec<(String, String)> = alive
                .filter_map(|machine| Some((machine.id.clone(), machine.tag.clone()?)))
                .filter(|(_, tag)| tag.starts_with(TAG_PREFIX))
                .collect();
            let jobs: BTreeSet<JobUid> =
                alive.iter().filter_map(|(_, tag)| of_tag(tag).map(|(job, _)| job)).collect();
            let jobs: Vec<JobUid> = jobs.into_iter().collect();
            let resources: Vec<String> = alive.iter().map(|(id, _)| id.clone()).collect();
            let customer = CustomerId(held.customer);
            let read = move |c: &mut AnyConnection| obligation::owners(c, customer, (&resources, &jobs));
            let (servers, jobs) = self.store.read(read).await?;
            for (id, tag) in alive {
                let job = of_tag(&tag).map(|(job, _)| job);
                let owned = servers.iter().any(|server| server.resource == id && !server.gone);
                let open = jobs.iter().any(|row| Some(row.uid) == job && row.ended_at.is_none());
                if owned || open {
                    continue;
                }
                if tag.len() > LONGEST {
                    log::warn!("{id} carries a tag that begins as ours do and is too long to be one");
                    continue;
                }
                let stray = Stray {
                    tag: tag.clone(),
                    job,
                    customer,
                    account: AccountId(held.account),
                    region: RegionId(held.region),
                };
                strays.insert(tag, stray);
            }
        }
        Ok(strays.into_values().collect())
    }
}
