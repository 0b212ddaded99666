//! A small house: rows, a simulated cloud, a monitor, and as many janitors as a test wants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel::prelude::*;

use crate::cloud::simulated::{Account, CATALOGUE, Fault, Operation, Settings as CloudSettings, Simulated};
use crate::cloud::{CallContext, Clouds, Credential, LaunchRequest, Provider, TokenClass};
use crate::crypto::{Key, KeyRing, Secret};
use crate::jobs::machine::Limits as JobLimits;
use crate::jobs::ports::{Ask, Keys, Leased, Liveness, NoLease, Ports};
use crate::jobs::{Changes, JobActor, Spec as JobSpec, SqlStore, SystemClock};
use crate::model::{
    Boot, DataCenterId, Generation, ImageId, JobId, JobParams, JobState, JobUid, LaunchParams, ProductId,
    RegionId, ServerStatus, Uid,
};
use crate::monitor::janitor::{Limits, Spec};
use crate::monitor::{CloudLook, Monitor};
use crate::mq::{Announce, Embedded};
use crate::ops::{Health, Metrics};
use crate::store::provisioning::accept::{self, Entry, Submit};
use crate::store::provisioning::job::{self, History};
use crate::store::provisioning::obligation::{Filter, ObligationRow};
use crate::store::provisioning::schema::{audit, job as jobs};
use crate::store::provisioning::sequence::{Sequence, Sequencer};
use crate::store::provisioning::{node, obligation, seed, server, transition};
use crate::store::testing::Bed;
use crate::store::{PROVISIONING, Settings, Store};
use crate::supervision::{Options, Supervisor};

/// Q of the cloud here.
const QUIET: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(60);
const REGION: RegionId = RegionId(1000);

struct Lender;

#[async_trait(?Send)]
impl Keys for Lender {
    async fn lease(&self, _: Ask) -> Result<Leased, NoLease> {
        Ok(Leased { access_key: "AK".into(), secret: Secret::from("s".to_owned()), shown: "{}".into() })
    }
}

struct Alive;

impl Liveness for Alive {
    fn may_start(&self) -> bool {
        true
    }
}

pub(super) struct House {
    pub(super) store: Store,
    pub(super) cloud: Arc<Simulated>,
    supervisor: Supervisor,
    install: Arc<Key>,
    ring: Arc<KeyRing>,
    secret: Secret,
    _folder: tempfile::TempDir,
    _bed: Bed,
}

pub(super) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl House {
    pub(super) async fn new(bed: Bed, class: TokenClass) -> Self {
        let settings = Settings::new(bed.manager());
        let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("a database");
        let region = CATALOGUE.regions[0];
        let catalogue = seed::Catalogue {
            regions: vec![seed::SeedRegion {
                id: region.id.into(),
                name: region.id.into(),
                jurisdiction: "EU".into(),
                data_centers: vec![(region.data_centers[0].id.into(), "d".into())],
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
        let folder = tempfile::tempdir().expect("a folder");
        let mut of_cloud = CloudSettings::new(folder.path(), class);
        of_cloud.guest_processes = 0;
        of_cloud.boot_time = Duration::from_millis(1);
        let secret = || Secret::from("s".to_owned());
        of_cloud.accounts = vec![Account { number: "1".into(), access_key: "AK".into(), secret: secret() }];
        let promised = &mut of_cloud.capabilities;
        (promised.t_call, promised.t_sig, promised.t_land) = (QUIET, Duration::ZERO, Duration::ZERO);
        promised.t_vis = Duration::ZERO;
        let cloud = Arc::new(Simulated::open(of_cloud).await.expect("a cloud"));
        Self {
            store,
            cloud,
            supervisor: Supervisor::new(Health::new()),
            install: Arc::new(Key::random()),
            ring: Arc::new(KeyRing::new(Key::random())),
            secret: secret(),
            _folder: folder,
            _bed: bed,
        }
    }

    pub(super) async fn life(&self) -> Boot {
        let boot = Boot::random();
        self.store.write(move |c| node::register(c, boot, "monitor")).await.expect("alive");
        boot
    }

    pub(super) fn clouds(&self) -> Clouds {
        let mut clouds = Clouds::new();
        clouds.insert(seed::CLOUD, Arc::clone(&self.cloud) as Arc<dyn Provider>);
        clouds
    }

    pub(super) fn rows(&self, boot: Boot) -> Arc<SqlStore> {
        let sequencer = Sequencer::new(self.store.clone());
        Arc::new(SqlStore::new(self.store.clone(), sequencer, boot, Changes::new(), Announce::nothing()))
    }

    pub(super) fn janitor(&self, boot: Boot) -> Spec {
        Spec {
            store: self.store.clone(),
            sequencer: Sequencer::new(self.store.clone()),
            rows: self.rows(boot),
            keys: Arc::new(Lender),
            clouds: self.clouds(),
            clock: Arc::new(SystemClock),
            queue: Arc::new(Embedded::new()),
            changes: Changes::new(),
            metrics: Metrics::new(),
            health: Health::new(),
            boot,
            limits: Limits {
                later: Duration::from_millis(300),
                keep: Duration::from_secs(2),
                again: Duration::from_millis(20),
                daily: Duration::from_millis(50),
                take_back: Duration::from_secs(30),
                call: Duration::from_secs(10),
            },
            sweep: Duration::from_millis(20),
            together: 4,
        }
    }

    pub(super) fn ports(&self, boot: Boot) -> Ports {
        Ports {
            metrics: Metrics::new(),
            clock: Arc::new(SystemClock),
            store: self.rows(boot),
            queue: Arc::new(Embedded::new()),
            keys: Arc::new(Lender),
            clouds: self.clouds(),
            liveness: Arc::new(Alive),
            boot,
            generation: Generation(0),
            install: Arc::clone(&self.install),
            ring: Arc::clone(&self.ring),
            limits: JobLimits {
                grace: Duration::from_millis(100),
                look_after: Duration::from_secs(2),
                ..JobLimits::default()
            },
            call_limit: Duration::from_secs(10),
            command_wait: Duration::from_secs(1),
            enrolment: None,
        }
    }

    /// Looks at watches as a monitor does.
    pub(super) fn monitor(&self, boot: Boot) {
        let look = CloudLook {
            store: self.rows(boot),
            keys: Arc::new(Lender),
            clouds: self.clouds(),
            clock: Arc::new(SystemClock),
            first: Duration::from_millis(5),
            most: Duration::from_millis(20),
            call_limit: Duration::from_secs(10),
        };
        let spec = crate::jobs::watching::Spec {
            look: Arc::new(look),
            store: self.store.clone(),
            queue: Arc::new(Embedded::new()),
            changes: Changes::new(),
            metrics: Metrics::new(),
            source: format!("monitor/{boot}"),
            sweep: Duration::from_millis(20),
            together: 16,
        };
        let _monitor = self.supervisor.spawn::<Monitor>(&self.supervisor.here(), spec, Options::permanent());
    }

    pub(super) async fn accept_launch(&self) -> JobUid {
        let uid = JobUid::random();
        let id = Sequencer::new(self.store.clone()).next(Sequence::Job).await.expect("a number");
        let region = CATALOGUE.regions[0];
        let params = JobParams::LaunchServer(LaunchParams {
            name: "web".into(),
            description: String::new(),
            account: seed::ACCOUNT,
            cloud: seed::CLOUD,
            region: REGION,
            data_center: DataCenterId(2000),
            provider_data_center: region.data_centers[0].id.into(),
            product: ProductId(1),
            provider_product: CATALOGUE.products[0].id.into(),
            image: ImageId(1),
            provider_image: CATALOGUE.images[0].id.into(),
            platform: "UBUNTU".into(),
            architecture: "I64".into(),
            budget: seed::BUDGET,
            label: None,
            keypair: None,
            sealed_user_data: None,
            groups: Vec::new(),
        });
        let submit = Submit {
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
            params,
            description: "Launch".into(),
            priority: 0,
            delay: Duration::ZERO,
            limit: Duration::from_secs(600),
            server: None,
        };
        self.store.write(move |c| accept::accept(c, &submit)).await.expect("accepted");
        uid
    }

    pub(super) async fn history(&self, uid: JobUid) -> History {
        self.store.read(move |c| job::history(c, uid)).await.expect("a read").expect("a job")
    }

    /// Works at a job until it needs nobody, as the registry would.
    pub(super) async fn work(&self, ports: &Ports, uid: JobUid) {
        let spec = JobSpec::new(uid, ports.clone(), None);
        let mailbox =
            self.supervisor.spawn::<JobActor>(&self.supervisor.here(), spec, Options::transient(None));
        wait_until("a job's actor ends", async || mailbox.is_closed()).await;
    }

    pub(super) async fn work_to_the_end(&self, ports: &Ports, uid: JobUid) -> History {
        wait_until("a job ends", async || {
            self.work(ports, uid).await;
            self.history(uid).await.job.ended_at.is_some()
        })
        .await;
        self.history(uid).await
    }

    /// A launch whose create lands long after Q, when the job has ended by its cancel.
    pub(super) async fn late(&self, ports: &Ports) -> JobUid {
        self.cloud.faults().next(Operation::Launch, 1, Fault::LandLate(QUIET * 8));
        let uid = self.accept_launch().await;
        self.work(ports, uid).await;
        self.store.write(move |c| transition::cancel_asked(c, uid, "ann")).await.expect("asked");
        let ended = self.work_to_the_end(ports, uid).await;
        assert_eq!(ended.job.state, JobState::Cancelled, "the cloud broke its word");
        wait_until("it lands", async || self.alive().len() == 1).await;
        uid
    }

    pub(super) fn alive(&self) -> Vec<(String, Option<String>)> {
        let now = self.cloud.now();
        self.cloud.look(|world| {
            let living = world.instances().filter(|i| i.status(now) != ServerStatus::Terminated);
            living.map(|i| (i.launched.instance.clone(), i.launched.tag.clone())).collect()
        })
    }

    pub(super) async fn owed(&self) -> Vec<ObligationRow> {
        let all = Filter { closed: true, limit: 100, ..Filter::default() };
        self.store.read(move |c| obligation::list(c, seed::CUSTOMER, &all)).await.expect("a list")
    }

    pub(super) async fn takings(&self) -> Vec<(JobUid, JobState)> {
        let rows: Vec<(String, String)> = self
            .store
            .read(|c| {
                jobs::table
                    .filter(jobs::kind.eq("take-back"))
                    .select((jobs::uid, jobs::state))
                    .order(jobs::id.asc())
                    .load(c)
            })
            .await
            .expect("a list");
        rows.iter()
            .map(|(uid, state)| (uid.parse().expect("a uid"), state.parse().expect("a state")))
            .collect()
    }

    pub(super) async fn audited(&self) -> Vec<String> {
        self.store
            .read(|c| audit::table.select(audit::action).order(audit::id.asc()).load(c))
            .await
            .expect("a list")
    }

    /// I8: whatever carries a tag of ours has an open job, a server's row, or somebody who looks for it.
    pub(super) async fn nothing_is_forgotten(&self) {
        let owed = self.owed().await;
        for (id, tag) in self.alive() {
            let tag = tag.expect("tagged");
            let watched = owed.iter().any(|row| row.tag == tag && row.closed_at.is_none());
            let (uid, _) = crate::jobs::of_tag(&tag).expect("ours");
            let wanted = id.clone();
            let (row, servers) = self
                .store
                .read(move |c| Ok((job::by_uid(c, uid)?, server::list(c, seed::CUSTOMER, None, true)?)))
                .await
                .expect("a read");
            let owned = servers.iter().any(|server| server.provider_id == wanted);
            let open = row.is_some_and(|row| row.ended_at.is_none());
            assert!(watched || owned || open, "nobody knows of {id}");
        }
    }

    /// Makes something at the cloud that no job of ours sent.
    pub(super) async fn plant(&self, tag: &str) -> String {
        let region = CATALOGUE.regions[0];
        let context = CallContext {
            account_number: "1",
            region: region.id,
            credential: Credential { access_key: "AK", secret: &self.secret },
            limit: LIMIT,
        };
        let request = LaunchRequest {
            token: "t".into(),
            tag: tag.into(),
            name: "web".into(),
            product: CATALOGUE.products[0].id.into(),
            image: CATALOGUE.images[0].id.into(),
            data_center: region.data_centers[0].id.into(),
            user_data: None,
            keypair: None,
        };
        self.cloud.launch(&context, &request).await.expect("made").id
    }

    pub(super) async fn settle(&self, janitors: &[Spec], ports: &Ports) {
        wait_until("nothing is owed any more", async || {
            self.nothing_is_forgotten().await;
            futures_util::future::join_all(
                janitors.iter().map(|one| async { one.round().await.expect("a round") }),
            )
            .await;
            for (uid, state) in self.takings().await {
                if !state.is_end() {
                    self.work(ports, uid).await;
                }
            }
            self.owed().await.iter().all(|row| row.closed_at.is_some())
        })
        .await;
    }
}
