//! A whole small world around one job: real rows, and everything else under the script.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::cloud::{FakeCloud, machine};
use super::script::{Fault, Script};
use crate::cloud::{Clouds, Provider, TokenClass};
use crate::crypto::{Key, KeyRing, Secret};
use crate::jobs::machine::Limits;
use crate::jobs::ports::{
    Applied, Ask, Change, Enrolment, JobStore, Keys, Leased, Liveness, NoLease, Place, Ports,
};
use crate::jobs::{Changes, SqlStore};
use crate::model::{
    AccountId, Boot, CommandParams, CustomerId, DataCenterId, Epoch, ErrorClass, Generation, GroupParams,
    ImageId, JobId, JobKind, JobParams, JobState, JobUid, LaunchParams, Micros, NoopParams, ProductId,
    RegionId, ServerId, ServerParams, ServerStatus, TakeBackParams, Uid, WatchUid,
};
use crate::mq::{Announce, Nudge, Queue, Topic};
use crate::ops::Metrics;
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::provisioning::group;
use crate::store::provisioning::job::{self, History, Job};
use crate::store::provisioning::sequence::{Sequence, Sequencer};
use crate::store::provisioning::server::{self, ServerRow};
use crate::store::provisioning::{agent, node, seed, transition};
use crate::store::testing::Bed;
use crate::store::{self, PROVISIONING, Settings, Store};

pub(crate) const REGION: RegionId = RegionId(1000);

pub(super) struct World {
    pub(super) store: Store,
    pub(super) sequencer: Sequencer,
    pub(super) script: Arc<Script>,
    pub(super) cloud: Arc<FakeCloud>,
    install: Arc<Key>,
    ring: Arc<KeyRing>,
    _bed: Bed,
}

struct Rows {
    inner: SqlStore,
    script: Arc<Script>,
}

/// A read that fails leaves nothing behind; a write may be stored or not.
fn down(fault: &Fault) -> bool {
    matches!(fault, Fault::Refuse(_) | Fault::Unknown | Fault::Stall)
}

#[async_trait(?Send)]
impl JobStore for Rows {
    async fn history(&self, job: JobUid) -> Result<Option<History>, store::Error> {
        match self.script.pass("history").await {
            Some(fault) if down(&fault) => Err(store::Error::Busy),
            Some(Fault::KillAfter) => self.script.die().await,
            _ => self.inner.history(job).await,
        }
    }

    async fn apply(&self, change: Change) -> Result<Applied, store::Error> {
        match self.script.pass("apply").await {
            Some(Fault::Refuse(_)) => Err(store::Error::Busy),
            Some(Fault::Unknown | Fault::Stall) => Err(store::Error::Unknown),
            Some(Fault::Answer) => self.inner.apply(change).await.and(Err(store::Error::Unknown)),
            Some(Fault::KillAfter) => {
                self.inner.apply(change).await?;
                self.script.die().await
            }
            _ => self.inner.apply(change).await,
        }
    }

    async fn place(
        &self,
        account: AccountId,
        region: Option<RegionId>,
    ) -> Result<Option<Place>, store::Error> {
        self.inner.place(account, region).await
    }

    async fn server(&self, customer: CustomerId, id: ServerId) -> Result<Option<ServerRow>, store::Error> {
        self.inner.server(customer, id).await
    }

    async fn new_number(&self) -> Result<i64, store::Error> {
        self.inner.new_number().await
    }
}

struct Lender(Arc<Script>);

#[async_trait(?Send)]
impl Keys for Lender {
    async fn lease(&self, _: Ask) -> Result<Leased, NoLease> {
        match self.0.pass("lease").await {
            Some(Fault::Refuse(ErrorClass::Auth)) => return Err(NoLease::Denied("on demand".into())),
            Some(Fault::Refuse(_) | Fault::Unknown | Fault::Answer | Fault::Stall) => {
                return Err(NoLease::Later("on demand".into()));
            }
            Some(Fault::KillAfter) => return self.0.die().await,
            Some(Fault::Hang) => return std::future::pending().await,
            _ => {}
        }
        Ok(Leased { access_key: "AK".into(), secret: Secret::from("s".to_owned()), shown: "{}".into() })
    }
}

struct Silent;

impl Queue for Silent {
    fn publish(&self, _: Nudge) {}

    fn subscribe(&self, _: Topic) -> mpsc::Receiver<Nudge> {
        mpsc::channel(1).1
    }
}

struct Alive;

impl Liveness for Alive {
    fn may_start(&self) -> bool {
        true
    }
}

impl World {
    pub(super) async fn new(bed: Bed, class: TokenClass) -> Self {
        let settings = Settings { readers: 1, ..Settings::new(bed.manager()) };
        let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database");
        let catalogue = seed::Catalogue {
            regions: vec![seed::SeedRegion {
                id: "r".into(),
                name: "r".into(),
                jurisdiction: "EU".into(),
                data_centers: vec![("d".into(), "d".into())],
            }],
            products: Vec::new(),
            images: Vec::new(),
        };
        let secrets = seed::Secrets {
            account_number: "1".into(),
            credential: "c".into(),
            access_key: "AK".into(),
            sealed_secret: Vec::new(),
            login: "l".into(),
            password_hash: String::new(),
        };
        store.write(move |c| seed::seed(c, &catalogue, &secrets)).await.expect("seeded");
        let script = Arc::new(Script::default());
        Self {
            sequencer: Sequencer::new(store.clone()),
            cloud: Arc::new(FakeCloud::new(Arc::clone(&script), class)),
            install: Arc::new(Key::random()),
            ring: Arc::new(KeyRing::new(Key::random())),
            store,
            script,
            _bed: bed,
        }
    }

    /// A new life; every other one is dead.
    pub(super) async fn life(&self) -> Ports {
        let boot = Boot::random();
        self.store
            .write(move |c| {
                node::register(c, boot, "test")?;
                node::only_i_live(c, boot)?;
                transition::take_over(c, boot, Generation(1), 100)
            })
            .await
            .expect("a life");
        let mut clouds = Clouds::new();
        clouds.insert(seed::CLOUD, Arc::clone(&self.cloud) as Arc<dyn Provider>);
        let inner = SqlStore::new(
            self.store.clone(),
            self.sequencer.clone(),
            boot,
            Changes::new(),
            Announce::nothing(),
        );
        Ports {
            metrics: Metrics::new(),
            clock: Arc::clone(&self.script) as _,
            store: Arc::new(Rows { inner, script: Arc::clone(&self.script) }),
            queue: Arc::new(Silent),
            keys: Arc::new(Lender(Arc::clone(&self.script))),
            clouds,
            liveness: Arc::new(Alive),
            boot,
            generation: Generation(1),
            install: Arc::clone(&self.install),
            ring: Arc::clone(&self.ring),
            limits: Limits::default(),
            // Of real time: only a call that never returns takes so long.
            call_limit: Duration::from_millis(30),
            command_wait: Duration::from_secs(60),
            enrolment: Some(Arc::new(Enrolment {
                urls: vec!["https://localhost".into()],
                root: "pem".into(),
                token_life: Duration::from_secs(900),
            })),
        }
    }

    /// A server for a job that needs one, in the state from which the job moves it.
    async fn server_for(&self, kind: JobKind) -> ServerId {
        let id = self.sequencer.next(Sequence::Resource).await.expect("a number");
        let provider_id = format!("i-{id}");
        let state = if kind == JobKind::StartServer { ServerStatus::Stopped } else { ServerStatus::Running };
        self.cloud.place(&provider_id, state);
        let row = server_row(id, &machine(&provider_id, state, None));
        let enrolled = agent::NewAgent {
            id: crate::model::AgentId(id),
            customer: seed::CUSTOMER,
            job: JobUid::random(),
            token_hash: format!("{id}"),
            token_expires: Micros(0),
        };
        let binding = agent::Enrolled {
            id: crate::model::AgentId(id),
            server: ServerId(id),
            address: "127.0.0.1:1".into(),
            version: 1,
            platform: "linux".into(),
            instance: None,
            serial: "1".into(),
            expires_at: Micros(i64::MAX),
        };
        self.store
            .write(move |c| {
                server::insert(c, &row)?;
                agent::insert(c, &enrolled)?;
                agent::enrol(c, &binding)
            })
            .await
            .expect("a server");
        ServerId(id)
    }

    /// Accepts a job of this kind.
    pub(super) async fn submit(&self, kind: JobKind) -> JobUid {
        let server = match kind {
            JobKind::Group => return self.group(3, Some(2)).await,
            JobKind::Noop | JobKind::LaunchServer => None,
            // Its own server is one of the cloud's only.
            JobKind::TakeBack => {
                let id = self.sequencer.next(Sequence::Resource).await.expect("a number");
                self.cloud.place(&format!("i-{id}"), ServerStatus::Running);
                return self.accept_with(take_back(id), None).await;
            }
            _ => Some(self.server_for(kind).await),
        };
        self.accept(kind, server).await
    }

    /// Accepts a job on this server.
    pub(super) async fn submit_on(&self, kind: JobKind, server: ServerId) -> JobUid {
        self.accept(kind, Some(server)).await
    }

    async fn accept(&self, kind: JobKind, server: Option<ServerId>) -> JobUid {
        self.accept_with(params_of(kind, server.unwrap_or(ServerId(0))), server).await
    }

    async fn accept_with(&self, params: JobParams, server: Option<ServerId>) -> JobUid {
        let submit = self.wish(params, server).await;
        let uid = submit.uid;
        self.store.write(move |c| accept::accept(c, &submit)).await.expect("accepted");
        uid
    }

    /// Accepts a group of jobs that do nothing.
    pub(super) async fn group(&self, children: u32, together: Option<u32>) -> JobUid {
        let params = GroupParams { children, together, stop_on_failure: false, retry_of: None };
        let group = self.wish(JobParams::Group(params), None).await;
        let mut jobs = Vec::new();
        for _ in 0..children {
            jobs.push(self.wish(JobParams::Noop(NoopParams::default()), None).await);
        }
        let (uid, watch) = (group.uid, WatchUid::random());
        self.store.write(move |c| group::accept(c, &group, &jobs, watch)).await.expect("accepted");
        uid
    }

    /// The children of a group, then the group; of any other job the job.
    pub(super) async fn family(&self, uid: JobUid) -> Vec<JobUid> {
        let found = self.store.read(move |c| {
            let row = job::by_uid(c, uid)?.expect("the job");
            group::children(c, row.id, group::Which::All, 1000)
        });
        let children = found.await.expect("a read");
        children.iter().map(|row| row.uid.parse().expect("a uid")).chain([uid]).collect()
    }

    async fn wish(&self, params: JobParams, server: Option<ServerId>) -> Submit {
        let (uid, id) = (JobUid::random(), self.sequencer.next(Sequence::Job).await.expect("a number"));
        Submit {
            entry: Entry {
                customer: seed::CUSTOMER,
                access_key: "AK".into(),
                request: Uid::random(),
                replay: None,
                idem: None,
                repeat_by_key: false,
            },
            uid,
            id: JobId(id),
            account: seed::ACCOUNT,
            person: seed::ADMIN,
            description: params.kind().to_string(),
            params,
            priority: 0,
            delay: Duration::ZERO,
            limit: Duration::from_secs(600),
            server,
        }
    }
}

/// A job of which nothing but its row exists, just accepted.
pub(crate) fn alone(params: JobParams) -> History {
    let job = Job {
        uid: JobUid::random(),
        id: JobId(1),
        customer: seed::CUSTOMER,
        account: seed::ACCOUNT,
        person: seed::ADMIN,
        access_key: "AK".into(),
        request: String::new(),
        server: params.server(),
        params,
        description: String::new(),
        state: JobState::Queued,
        epoch: Epoch(0),
        owner: None,
        try_no: 1,
        crashes: 0,
        undo_begun: false,
        cancel_by: None,
        due_at: None,
        why_code: String::new(),
        why: String::new(),
        resource: None,
        message: None,
        priority: 0,
        created_at: Micros(0),
        claimed_at: None,
        changed_at: Micros(0),
        deadline: Micros(i64::MAX),
        ended_at: None,
        parent: None,
        limited: false,
        version: 1,
    };
    History { job, attempts: Vec::new(), evidence: Vec::new(), watches: Vec::new() }
}

pub(crate) fn server_row(id: i64, shown: &crate::cloud::Machine) -> ServerRow {
    ServerRow {
        id,
        customer: seed::CUSTOMER.0,
        account: seed::ACCOUNT.0,
        cloud: seed::CLOUD.0,
        region: REGION.0,
        data_center: 2000,
        product: 1,
        provider_product: "p".into(),
        image: 1,
        name: "web".into(),
        description: String::new(),
        provider_id: shown.id.clone(),
        job: JobUid::random().to_string(),
        status: shown.state.to_string(),
        platform: "UBUNTU".into(),
        architecture: "I64".into(),
        agent_version: 0,
        budget: seed::BUDGET.0,
        label: None,
        keypair: None,
        owner: seed::ADMIN.0,
        user_groups: "[]".into(),
        private_ip: None,
        public_ip: None,
        started_at: 0,
        stopped_at: None,
        terminate_after: None,
        pause_after: None,
        last_contact: None,
        busy_by: None,
        changed_at: 0,
        version: 1,
    }
}

fn take_back(id: i64) -> JobParams {
    JobParams::TakeBack(TakeBackParams {
        resource: format!("i-{id}"),
        region: REGION,
        tag: "dispatcher-job=x.create".into(),
        left_by: JobUid::random(),
    })
}

pub(crate) fn params_of(kind: JobKind, server: ServerId) -> JobParams {
    let moved = ServerParams { server, reason: String::new() };
    match kind {
        JobKind::Noop | JobKind::Group => JobParams::Noop(NoopParams::default()),
        JobKind::TerminateServer => JobParams::TerminateServer(moved),
        JobKind::StartServer => JobParams::StartServer(moved),
        JobKind::StopServer => JobParams::StopServer(moved),
        JobKind::PauseServer => JobParams::PauseServer(moved),
        JobKind::TakeBack => take_back(server.0),
        JobKind::RunCommand => {
            JobParams::RunCommand(CommandParams { server, argv: vec!["true".into()], timeout_secs: 5 })
        }
        JobKind::LaunchServer => JobParams::LaunchServer(LaunchParams {
            name: "web".into(),
            description: String::new(),
            account: seed::ACCOUNT,
            cloud: seed::CLOUD,
            region: REGION,
            data_center: DataCenterId(2000),
            provider_data_center: "d".into(),
            product: ProductId(1),
            provider_product: "p".into(),
            image: ImageId(1),
            provider_image: "m".into(),
            platform: "UBUNTU".into(),
            architecture: "I64".into(),
            budget: seed::BUDGET,
            label: None,
            keypair: None,
            sealed_user_data: None,
            groups: Vec::new(),
        }),
    }
}
