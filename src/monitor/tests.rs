//! A look whose answer comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::CloudLook;
use crate::cloud::{
    CallContext, CallError, Capabilities, Clouds, LaunchRequest, Machine, Provider, TokenClass,
};
use crate::crypto::Secret;
use crate::jobs::battery::{machine, params_of};
use crate::jobs::ports::{Applied, Ask, Change, Clock, JobStore, Keys, Leased, NoLease, Place};
use crate::jobs::watching::Look as _;
use crate::model::{
    AccountId, CloudId, CustomerId, JobKind, JobUid, Micros, RegionId, ServerId, ServerStatus, Verdict,
    WatchKind, WatchUid,
};
use crate::store;
use crate::store::provisioning::job::History;
use crate::store::provisioning::server::ServerRow;
use crate::store::provisioning::watch::Watch;

/// A cloud that shows a server three seconds after it was made, and whose first answer takes four.
struct Slow {
    now: AtomicI64,
    history: History,
    capabilities: Capabilities,
}

impl Slow {
    fn pass(&self, secs: i64) {
        self.now.fetch_add(secs * 1_000_000, Ordering::SeqCst);
    }
}

#[async_trait(?Send)]
impl Clock for Slow {
    fn now(&self) -> Micros {
        Micros(self.now.load(Ordering::SeqCst))
    }

    async fn sleep(&self, _: Duration) {
        self.pass(1);
    }
}

#[async_trait(?Send)]
impl JobStore for Slow {
    async fn history(&self, _: JobUid) -> Result<Option<History>, store::Error> {
        Ok(Some(self.history.clone()))
    }

    async fn apply(&self, _: Change) -> Result<Applied, store::Error> {
        Ok(Applied::Fenced)
    }

    async fn place(&self, _: AccountId, _: Option<RegionId>) -> Result<Option<Place>, store::Error> {
        let (account_number, credential, region) = ("1".into(), "c".into(), "r".into());
        Ok(Some(Place { account_number, credential, cloud: CloudId(1), region }))
    }

    async fn server(&self, _: CustomerId, _: ServerId) -> Result<Option<ServerRow>, store::Error> {
        Ok(None)
    }

    async fn new_number(&self) -> Result<i64, store::Error> {
        Ok(1)
    }
}

#[async_trait(?Send)]
impl Keys for Slow {
    async fn lease(&self, _: Ask) -> Result<Leased, NoLease> {
        Ok(Leased { access_key: "AK".into(), secret: Secret::from("s".to_owned()), shown: "{}".into() })
    }
}

#[async_trait(?Send)]
impl Provider for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn check(&self, _: &CallContext<'_>) -> Result<(), CallError> {
        Ok(())
    }

    async fn launch(&self, _: &CallContext<'_>, _: &LaunchRequest) -> Result<Machine, CallError> {
        Err(CallError::unknown("not asked"))
    }

    async fn machine(&self, _: &CallContext<'_>, id: &str) -> Result<Option<Machine>, CallError> {
        let shown = self.now().0 >= 3_000_000;
        if !shown {
            self.pass(4);
        }
        Ok(shown.then(|| machine(id, ServerStatus::Running, None)))
    }

    async fn find_by_tag(&self, _: &CallContext<'_>, _: &str) -> Result<Vec<Machine>, CallError> {
        Ok(Vec::new())
    }

    async fn list(&self, _: &CallContext<'_>, _: &str) -> Result<Vec<Machine>, CallError> {
        Ok(Vec::new())
    }

    async fn start(&self, _: &CallContext<'_>, _: &str) -> Result<(), CallError> {
        Ok(())
    }

    async fn stop(&self, _: &CallContext<'_>, _: &str) -> Result<(), CallError> {
        Ok(())
    }

    async fn pause(&self, _: &CallContext<'_>, _: &str) -> Result<(), CallError> {
        Ok(())
    }

    async fn terminate(&self, _: &CallContext<'_>, _: &str) -> Result<(), CallError> {
        Ok(())
    }
}

fn watch_of(history: &History) -> Watch {
    Watch {
        uid: WatchUid::random(),
        job: history.job.uid,
        customer: history.job.customer,
        step: "create".into(),
        try_no: 1,
        kind: WatchKind::Cloud,
        target: "i-1".into(),
        expectation: "RUNNING".into(),
        due_at: Micros(0),
        deadline: Micros(60_000_000),
        made_at: Micros(0),
        done_at: None,
    }
}

#[actix_rt::test]
async fn absence_counts_by_when_it_was_asked_for_however_late_the_answer_comes() {
    let secs = Duration::from_secs;
    let slow = Arc::new(Slow {
        now: AtomicI64::new(0),
        history: crate::jobs::battery::alone(params_of(JobKind::LaunchServer, ServerId(0))),
        capabilities: Capabilities {
            class: TokenClass::K,
            t_call: secs(2),
            t_sig: Duration::ZERO,
            t_land: secs(1),
            t_vis: secs(3),
            token_kept: secs(3600),
            start_stop: true,
            pause: true,
            max_user_data: 1,
            max_name: 1,
        },
    });
    let mut clouds = Clouds::new();
    clouds.insert(CloudId(1), Arc::clone(&slow) as Arc<dyn Provider>);
    let look = CloudLook {
        store: Arc::clone(&slow) as _,
        keys: Arc::clone(&slow) as _,
        clouds,
        clock: Arc::clone(&slow) as _,
        first: secs(1),
        most: secs(1),
        call_limit: secs(30),
    };
    let sight = look.follow(&watch_of(&slow.history), &Notify::new()).await.expect("decided");
    assert_eq!(sight.verdict, Verdict::Reached, "{}", sight.text);
}
