//! What tests of this room share: a seeded database in a temporary folder, a registry whose jobs stay queued, and two
//! tenants with a key each.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header::HeaderMap};
use actix_web::middleware::from_fn;
use actix_web::{App, test, web};
use async_trait::async_trait;
use diesel::prelude::*;
use serde_json::Value;

use super::{Limits, Parts, State, routes};
use crate::access::signature::dated;
use crate::access::{Access, seal_api_secret};
use crate::cloud::Clouds;
use crate::crypto::{Key, KeyRing};
use crate::jobs::ports::{Ask, Keys, Leased, Liveness, NoLease, Ports};
use crate::jobs::{Changes, SqlStore, SystemClock, machine};
use crate::model::{Boot, CustomerId, Generation, Micros, ServerStatus};
use crate::mq::{Announce, Embedded};
use crate::ops::{Health, Metrics};
use crate::registry::{Registry, RegistryActor, Running, Spec};
use crate::store::provisioning::access::{
    self as rows, ApiKeyRow, AssignmentRow, GroupRow, PersonRow, RoleRow,
};
use crate::store::provisioning::seed::{self, Catalogue, Secrets, SeedImage, SeedProduct, SeedRegion};
use crate::store::provisioning::sequence::Sequencer;
use crate::store::provisioning::server::{self, ServerRow};
use crate::store::{AnyConnection, Manager, PROVISIONING, Settings, Store};
use crate::supervision::{Options, Supervisor};

/// Secret of every key made here.
pub(crate) const SECRET: &str = "not a secret, a test";
/// Key of the seeded administrator.
pub(crate) const KEY: &str = "ADMINKEY";
/// Key of a reader of the seeded tenant.
pub(crate) const READER: &str = "READERKEY";
/// Key of another tenant's administrator.
pub(crate) const OTHER: &str = "OTHERKEY";
/// The other tenant.
pub(crate) const OTHER_CUSTOMER: CustomerId = CustomerId(900);

struct Nothing;

#[async_trait(?Send)]
impl Keys for Nothing {
    async fn lease(&self, _: Ask) -> Result<Leased, NoLease> {
        Err(NoLease::Later("there is no key manager in this test".to_owned()))
    }
}

impl Liveness for Nothing {
    fn may_start(&self) -> bool {
        false
    }
}

/// A running room.
pub(crate) struct Rig {
    pub(crate) state: State,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("provisioning.db").display());
        let settings = Settings::new(Manager::new(&url).expect("a good url"));
        let store = Store::open(PROVISIONING, &settings, Arc::new(|_, _| {})).expect("opens");
        let ring = Arc::new(KeyRing::new(Key::from_bytes([7; 32])));
        let sealing = Arc::clone(&ring);
        store.write(move |c| fill(c, &sealing)).await.expect("seeded");
        let access = Access::new(store.clone(), Arc::clone(&ring));
        let metrics = Metrics::new();
        let supervisor = Supervisor::new(Health::new());
        let registry = registry(&store, &metrics, &ring, &supervisor);
        let health = Health::new();
        let sequencer = Sequencer::new(store.clone());
        let parts = Parts {
            store,
            sequencer,
            registry,
            agents: None,
            access,
            user_data: ring,
            health,
            metrics,
            supervisor,
        };
        Self { state: State::new(parts, limits), _folder: folder }
    }

    /// Sends a request through the whole listener, but for the socket.
    pub(crate) async fn send(&self, request: test::TestRequest) -> Answer {
        let app = App::new()
            .app_data(web::Data::new(self.state.clone()))
            .wrap(from_fn(super::server::gated))
            .wrap(from_fn(super::server::named))
            .configure(routes::api);
        let app = test::init_service(app).await;
        let response = match test::try_call_service(&app, request.to_request()).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status, headers, json: serde_json::from_slice(&body).unwrap_or(Value::Null), text }
    }

    /// Sends a signed request of the dated API.
    pub(crate) async fn call(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        self.send(signed(key, method, path, body)).await
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut AnyConnection) -> QueryResult<T> + Send + 'static,
    ) -> T {
        self.state.store.write(f).await.expect("written")
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }
}

/// A request of the dated API, signed now.
pub(crate) fn signed(key: &str, method: &str, path: &str, body: &str) -> test::TestRequest {
    signed_at(key, method, path, body, Micros::wall().millis())
}

/// The same, signed at a time of one's own.
pub(crate) fn signed_at(key: &str, method: &str, path: &str, body: &str, ms: i64) -> test::TestRequest {
    let uri = format!("/api/enstratus/{path}");
    let bare = uri.split('?').next().unwrap_or_default().to_owned();
    let timestamp = ms.to_string();
    let parts =
        dated::Parts { access_key: key, method, path: &bare, timestamp: &timestamp, user_agent: "mixcoatl" };
    let signature = dated::sign(SECRET.as_bytes(), &parts);
    let mut request = test::TestRequest::default()
        .method(Method::from_bytes(method.as_bytes()).expect("a method"))
        .uri(&uri)
        .insert_header(("user-agent", "mixcoatl"))
        .insert_header(("x-esauth-access", key))
        .insert_header(("x-esauth-timestamp", timestamp))
        .insert_header(("x-esauth-signature", signature));
    if !body.is_empty() {
        request =
            request.insert_header(("content-length", body.len().to_string())).set_payload(body.to_owned());
    }
    request
}

fn registry(store: &Store, metrics: &Metrics, ring: &Arc<KeyRing>, supervisor: &Supervisor) -> Registry {
    let (boot, changes, queue) = (Boot::random(), Changes::new(), Arc::new(Embedded::new()));
    let sequencer = Sequencer::new(store.clone());
    let ports = Ports {
        metrics: metrics.clone(),
        clock: Arc::new(SystemClock),
        store: Arc::new(SqlStore::new(store.clone(), sequencer, boot, changes.clone(), Announce::nothing())),
        queue: queue.clone(),
        keys: Arc::new(Nothing),
        clouds: Clouds::new(),
        liveness: Arc::new(Nothing),
        boot,
        generation: Generation(0),
        install: Arc::new(Key::from_bytes([8; 32])),
        ring: Arc::clone(ring),
        limits: machine::Limits::default(),
        call_limit: Duration::from_secs(1),
        command_wait: Duration::from_secs(1),
        enrolment: None,
    };
    let spec = Spec {
        store: store.clone(),
        queue,
        changes: changes.clone(),
        metrics: metrics.clone(),
        supervisor: supervisor.clone(),
        jobs: supervisor.here(),
        ports,
        sweep: Duration::from_secs(3600),
        died: Arc::default(),
        // No job is taken into work: it stays as it was accepted.
        running: Running::new(0),
        set_aside: Duration::from_secs(60),
        keep_keys: Duration::from_secs(3600),
        keep_replays: Duration::from_secs(3600),
    };
    let mailbox = supervisor.spawn::<RegistryActor>(&supervisor.here(), spec, Options::permanent());
    Registry::new(mailbox, changes, Duration::from_secs(10))
}

fn fill(c: &mut AnyConnection, ring: &KeyRing) -> QueryResult<()> {
    let product = |id: &str| SeedProduct {
        id: id.to_owned(),
        name: id.to_owned(),
        cpu_count: 1,
        cpu_mhz: 1000,
        ram_mb: 512,
        disk_gb: 10,
        hourly_rate: 0.1,
    };
    let region = |n: i32| SeedRegion {
        id: format!("sim-{n}"),
        name: format!("Simulated {n}"),
        jurisdiction: "US".to_owned(),
        data_centers: vec![(format!("sim-{n}a"), "A".to_owned()), (format!("sim-{n}b"), "B".to_owned())],
    };
    let catalogue = Catalogue {
        regions: vec![region(1), region(2)],
        products: vec![product("m1.small"), product("m1.large")],
        images: vec![SeedImage {
            id: "ami-1".to_owned(),
            name: "Ubuntu".to_owned(),
            platform: "UBUNTU".to_owned(),
            architecture: "I64".to_owned(),
        }],
    };
    let secrets = Secrets {
        account_number: "000000000001".to_owned(),
        credential: "cred-1".to_owned(),
        access_key: KEY.to_owned(),
        sealed_secret: seal_api_secret(ring, seed::CUSTOMER, KEY, SECRET.as_bytes()),
        login: "admin".to_owned(),
        password_hash: String::new(),
    };
    seed::seed(c, &catalogue, &secrets)?;
    person(c, ring, (seed::CUSTOMER, READER), (510, 610), "READ")?;
    person(c, ring, (OTHER_CUSTOMER, OTHER), (910, 911), "ANY")?;
    add_server(c, seed::CUSTOMER.0, SERVER)?;
    add_server(c, OTHER_CUSTOMER.0, OTHER_SERVER)
}

/// A server of the seeded tenant.
pub(crate) const SERVER: i64 = 7000;
/// A server of the other tenant.
pub(crate) const OTHER_SERVER: i64 = 7900;

/// A person with a group, a role of one verb and a key.
fn person(
    c: &mut AnyConnection,
    ring: &KeyRing,
    (customer, key): (CustomerId, &str),
    (id, group): (i64, i64),
    verb: &str,
) -> QueryResult<()> {
    let (text, account) = (key.to_lowercase(), seed::ACCOUNT.0 + customer.0 - seed::CUSTOMER.0);
    let status = "ACTIVE".to_owned();
    let acl = format!(r#"[{{"resourceType":"ANY","action":"{verb}","qualifier":"ANY"}}]"#);
    rows::add_group(
        c,
        &GroupRow {
            id: group,
            customer: customer.0,
            name: text.clone(),
            description: String::new(),
            status: status.clone(),
        },
    )?;
    rows::add_role(
        c,
        &RoleRow {
            id: group,
            customer: customer.0,
            name: text.clone(),
            description: String::new(),
            status: status.clone(),
            acl,
        },
    )?;
    rows::assign(c, &AssignmentRow { customer: customer.0, user_group: group, account, role: group })?;
    rows::add_person(
        c,
        &PersonRow {
            id,
            customer: customer.0,
            account,
            given_name: "Bo".to_owned(),
            family_name: text.clone(),
            email: format!("{text}@example.com"),
            login: text.clone(),
            password_hash: String::new(),
            time_zone: "UTC".to_owned(),
            status: status.clone(),
        },
    )?;
    rows::join(c, crate::model::UserId(id), crate::model::GroupId(group))?;
    let key = ApiKeyRow {
        access_key: key.to_owned(),
        customer: customer.0,
        account,
        person: id,
        name: text,
        description: String::new(),
        sealed_secret: seal_api_secret(ring, customer, key, SECRET.as_bytes()),
        state: status,
        activated_at: 0,
        expires_at: None,
    };
    rows::add_api_key(c, &key).map(|_| ())
}

/// A running server.
pub(crate) fn add_server(c: &mut AnyConnection, customer: i64, id: i64) -> QueryResult<()> {
    let row = ServerRow {
        id,
        customer,
        account: seed::ACCOUNT.0,
        cloud: 1,
        region: 1000,
        data_center: 2000,
        product: 3000,
        provider_product: "m1.small".to_owned(),
        image: 4000,
        name: format!("server-{id}"),
        description: "a server".to_owned(),
        provider_id: format!("i-{id}"),
        job: format!("{id:032}"),
        status: ServerStatus::Running.to_string(),
        platform: "UBUNTU".to_owned(),
        architecture: "I64".to_owned(),
        agent_version: 0,
        budget: 400,
        label: None,
        keypair: None,
        owner: if customer == seed::CUSTOMER.0 { seed::ADMIN.0 } else { 910 },
        user_groups: "[600]".to_owned(),
        private_ip: Some("10.0.0.1".to_owned()),
        public_ip: None,
        started_at: 1_357_680_562_733_000,
        stopped_at: None,
        terminate_after: None,
        pause_after: None,
        last_contact: None,
        busy_by: None,
        changed_at: 0,
        version: 1,
    };
    server::insert(c, &row).map(|_| ())
}
