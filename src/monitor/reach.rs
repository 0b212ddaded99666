//! How a look reaches a cloud: the place, the driver, a lent credential.

use std::sync::Arc;
use std::time::Duration;

use crate::cloud::{CallContext, Clouds, Credential, Provider};
use crate::jobs::ports::{Ask, Clock, JobStore, Keys, Leased, NoLease, Place, within};
use crate::model::{AccountId, AttemptUid, CustomerId, JobUid, RegionId};

/// For whom and what for.
pub(super) struct Wanted {
    pub(super) job: JobUid,
    /// Names this reach at the key manager.
    pub(super) attempt: AttemptUid,
    pub(super) customer: CustomerId,
    pub(super) account: AccountId,
    pub(super) region: Option<RegionId>,
    pub(super) purpose: &'static str,
}

/// By which means.
pub(super) struct Reach<'a> {
    pub(super) store: &'a dyn JobStore,
    pub(super) keys: &'a dyn Keys,
    pub(super) clouds: &'a Clouds,
    pub(super) clock: &'a dyn Clock,
}

/// All that a look needs.
pub(super) struct Line {
    pub(super) provider: Arc<dyn Provider>,
    place: Place,
    lease: Leased,
    limit: Duration,
}

impl Line {
    pub(super) const fn context(&self) -> CallContext<'_> {
        CallContext {
            account_number: self.place.account_number.as_str(),
            region: self.place.region.as_str(),
            credential: Credential { access_key: self.lease.access_key.as_str(), secret: &self.lease.secret },
            limit: self.limit,
        }
    }
}

impl Reach<'_> {
    /// Finds the place and lends a credential; what is missing is said in words.
    pub(super) async fn at(&self, wanted: Wanted, limit: Duration) -> Result<Line, String> {
        let account = wanted.account;
        let place = self.store.place(account, wanted.region).await.map_err(|e| e.to_string())?;
        let place = place.ok_or_else(|| format!("account {account} is gone"))?;
        let provider =
            self.clouds.get(place.cloud).ok_or_else(|| format!("cloud {} is gone", place.cloud))?;
        let ask = Ask {
            job: wanted.job,
            attempt: wanted.attempt,
            customer: wanted.customer,
            account,
            credential: place.credential.clone(),
            purpose: wanted.purpose.to_owned(),
        };
        let leased = within(self.clock, limit, self.keys.lease(ask)).await;
        let lease = leased.map_err(|late| format!("key manager: {late}"))?.map_err(|e| match e {
            NoLease::Later(cause) => format!("key manager: {cause}"),
            NoLease::Denied(cause) => format!("key manager denied the credential: {cause}"),
        })?;
        Ok(Line { provider, place, lease, limit })
    }
}
