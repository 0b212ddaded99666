//! The cloud through its door: tokens, faults, credentials, crashes of its disk. What a caller sees is the same
//! whether the cloud is in its process or behind the server in another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use futures_util::future::join_all;

use super::journal::Journal;
use super::machine::{Effect, World};
use super::{Account, Fault, Operation, Settings, Simulated};
use crate::cloud::remote::{self, Remote};
use crate::cloud::{CallContext, CallError, Credential, LaunchRequest, Machine, Provider, TokenClass};
use crate::crypto::Secret;
use crate::model::{ErrorClass, ServerStatus};

const LIMIT: Duration = Duration::from_secs(20);

/// How a caller reaches the cloud.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// In its own process.
    Direct,
    /// Over the wire.
    Remote,
}

/// One caller with its own cloud in its own folder.
pub(super) struct Site {
    pub(super) cloud: Arc<Simulated>,
    door: Arc<dyn Provider>,
    server: Option<ServerHandle>,
    secret: Secret,
    limit: Duration,
}

impl Site {
    pub(super) async fn open(settings: Settings) -> Self {
        Self::open_as(Form::Direct, settings).await
    }

    async fn open_as(form: Form, settings: Settings) -> Self {
        let cloud = Arc::new(Simulated::open(with_account(settings)).await.expect("the cloud opens"));
        let mut server = None;
        let door = match form {
            Form::Direct => Arc::clone(&cloud) as Arc<dyn Provider>,
            Form::Remote => {
                let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
                let url = format!("http://{}", listener.local_addr().expect("bound"));
                let serving = remote::serve(Arc::clone(&cloud), listener).expect("a server");
                server = Some(serving.handle());
                actix_rt::spawn(serving);
                Arc::new(Remote::connect(&url, LIMIT).await.expect("it answers"))
            }
        };
        Self { cloud, door, server, secret: Secret::from("right".to_owned()), limit: LIMIT }
    }

    async fn of(form: Form, folder: &tempfile::TempDir, class: TokenClass) -> Self {
        Self::open_as(form, settings(folder.path(), class)).await
    }

    /// Ends the server, so that another cloud may take the folder.
    async fn close(mut self) {
        if let Some(server) = self.server.take() {
            server.stop(false).await;
        }
    }

    pub(super) fn context(&self) -> CallContext<'_> {
        CallContext {
            account_number: "4711",
            region: "sim-east-1",
            credential: Credential { access_key: "AK", secret: &self.secret },
            limit: self.limit,
        }
    }

    pub(super) async fn launch(&self, request: &LaunchRequest) -> Result<Machine, CallError> {
        self.door.launch(&self.context(), request).await
    }

    async fn state_of(&self, id: &str) -> Option<ServerStatus> {
        self.door.machine(&self.context(), id).await.expect("a look").map(|machine| machine.state)
    }

    async fn runs(&self, id: &str) {
        wait_for("the server runs", async || self.state_of(id).await == Some(ServerStatus::Running)).await;
    }
}

pub(super) fn with_account(mut settings: Settings) -> Settings {
    let secret = Secret::from("right".to_owned());
    settings.accounts = vec![Account { number: "4711".into(), access_key: "AK".into(), secret }];
    settings
}

pub(super) fn settings(data: &std::path::Path, class: TokenClass) -> Settings {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    let port = free.expect("a free port").port();
    let short = Duration::from_millis(20);
    Settings { guest_port: port, boot_time: short, stop_time: short, ..Settings::new(data, class) }
}

pub(super) fn request(token: &str) -> LaunchRequest {
    LaunchRequest {
        token: token.into(),
        tag: format!("dispatcher-job={token}.launch"),
        name: "web".into(),
        product: "m1.small".into(),
        image: "sim-ubuntu-64".into(),
        data_center: "sim-east-1a".into(),
        user_data: Some(br#"{"enrolment":"one-time"}"#.to_vec()),
        keypair: None,
    }
}

pub(super) async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < until, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ledger(folder: &std::path::Path) -> Vec<Effect> {
    let text = std::fs::read_to_string(folder.join("cloud/journal.jsonl")).expect("the ledger");
    text.lines().map(|line| serde_json::from_str(line).expect("an effect")).collect()
}

/// Each of these twice: with the cloud in the caller's process, and over the wire.
macro_rules! in_both_forms {
    ($($name:ident)*) => {
        mod direct {
            $(#[actix_rt::test] async fn $name() { super::$name(super::Form::Direct).await; })*
        }
        mod remote_process {
            $(#[actix_rt::test] async fn $name() { super::$name(super::Form::Remote).await; })*
        }
    };
}

in_both_forms! {
    equal_requests_of_one_token_make_one_server_and_other_requests_are_refused
    other_classes_ignore_tokens_and_class_n_ignores_tags
    user_data_stays_in_its_own_file_and_goes_with_the_server
    a_lost_answer_is_found_by_tag_and_by_token
    faults_before_the_effect_leave_no_trace
    a_late_launch_lands_after_its_caller_gave_up
    a_hidden_server_is_not_found_at_first
    servers_change_as_asked_and_repeats_are_harmless
    only_the_right_credential_in_a_known_region_is_let_in
    wrong_requests_are_refused_with_the_fault_named
    a_torn_tail_and_stray_folders_go_and_damage_elsewhere_is_named
    after_a_failed_write_the_cloud_goes_back_to_its_disk_and_on
}

async fn equal_requests_of_one_token_make_one_server_and_other_requests_are_refused(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    let same = request("t1");
    let calls = join_all((0..32).map(|_| site.launch(&same))).await;
    let ids: Vec<String> = calls.into_iter().map(|call| call.expect("launched").id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = LaunchRequest { user_data: None, ..request("t1") };
    let error = site.launch(&other).await.expect_err("another request");
    assert!(matches!(&error, CallError::Refused { class: ErrorClass::Conflict, code, .. }
        if code == "IdempotentParameterMismatch"));
    assert_eq!(ledger(folder.path()).len(), 1);
    let folders = std::fs::read_dir(folder.path().join("guests")).expect("there").count();
    assert_eq!(folders, 1, "launches that lost the race leave nothing behind");

    site.close().await;
    let again = Site::of(form, &folder, TokenClass::K).await;
    assert_eq!(again.launch(&same).await.expect("known").id, ids[0], "the token survives a restart");
}

async fn other_classes_ignore_tokens_and_class_n_ignores_tags(form: Form) {
    for class in [TokenClass::S, TokenClass::T, TokenClass::N] {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Site::of(form, &folder, class).await;
        let first = site.launch(&request("t")).await.expect("launched");
        let second = site.launch(&request("t")).await.expect("launched");
        assert_ne!(first.id, second.id, "{class}");
        let found = site.door.find_by_tag(&site.context(), &request("t").tag).await.expect("a look");
        assert_eq!(found.len(), if class == TokenClass::N { 0 } else { 2 }, "{class}");
        let all = site.door.list(&site.context(), "").await.expect("a look");
        assert_eq!(all.len(), 2, "{class}");
    }
}

async fn user_data_stays_in_its_own_file_and_goes_with_the_server(form: Form) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let site =
        Site::open_as(form, Settings { guest_processes: 0, ..settings(folder.path(), TokenClass::K) }).await;
    let made = site.launch(&request("t")).await.expect("launched");
    let file = site.cloud.folder_of(&made.id).join("user-data.json");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    assert_eq!(json, serde_json::json!({"enrolment": "one-time", "instanceId": made.id}));
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(folder.path().join("cloud/journal.jsonl")).expect("the ledger");
    assert!(!text.contains("one-time") && text.contains(r#""effect":"launch""#), "{text}");
    site.door.terminate(&site.context(), &made.id).await.expect("terminated");
    assert!(!file.exists());
}

async fn a_lost_answer_is_found_by_tag_and_by_token(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    site.cloud.faults().next(Operation::Launch, 1, Fault::LoseAnswer);
    assert!(!site.launch(&request("t")).await.expect_err("no answer").is_definite());
    let found = site.door.find_by_tag(&site.context(), &request("t").tag).await.expect("a look");
    assert_eq!(found.len(), 1);
    assert_eq!(site.launch(&request("t")).await.expect("known").id, found[0].id);
    assert_eq!(ledger(folder.path()).len(), 1);
}

async fn faults_before_the_effect_leave_no_trace(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut site = Site::of(form, &folder, TokenClass::K).await;
    let faults = site.cloud.faults();
    faults.next(Operation::Launch, 1, Fault::Refuse(ErrorClass::Quota));
    faults.next(Operation::Launch, 1, Fault::Throttle(Duration::from_secs(7)));
    faults.next(Operation::Launch, 1, Fault::FailBefore);
    faults.next(Operation::Launch, 1, Fault::Stall(Duration::from_secs(3600)));
    assert_eq!(site.launch(&request("t")).await.expect_err("refused").class(), ErrorClass::Quota);
    let throttled = site.launch(&request("t")).await.expect_err("throttled");
    assert!(matches!(throttled, CallError::Refused { retry_after: Some(wait), .. } if wait.as_secs() == 7));
    assert!(!site.launch(&request("t")).await.expect_err("a fault").is_definite());
    site.limit = Duration::from_secs(2);
    assert!(!site.launch(&request("t")).await.expect_err("out of time").is_definite());
    assert_eq!(faults.remaining(Operation::Launch), 0);
    assert!(ledger(folder.path()).is_empty());
}

async fn a_late_launch_lands_after_its_caller_gave_up(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::T).await;
    site.cloud.faults().next(Operation::Launch, 1, Fault::LandLate(Duration::from_millis(50)));
    assert!(!site.launch(&request("t")).await.expect_err("no answer").is_definite());
    assert_eq!(site.cloud.look(World::launches), 0);
    wait_for("it landed", async || site.cloud.look(World::launches) == 1).await;
}

async fn a_hidden_server_is_not_found_at_first(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    site.cloud.faults().next(Operation::Launch, 1, Fault::Hide(Duration::from_secs(2)));
    let made = site.launch(&request("t")).await.expect("launched");
    assert_eq!(site.state_of(&made.id).await, None);
    let stop = site.door.stop(&site.context(), &made.id).await.expect_err("not seen yet");
    assert_eq!(stop.class(), ErrorClass::NotFound);
    site.runs(&made.id).await;
}

async fn servers_change_as_asked_and_repeats_are_harmless(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    let (cloud, context) = (&site.door, site.context());
    let id = site.launch(&request("t")).await.expect("launched").id;
    site.runs(&id).await;
    cloud.pause(&context, &id).await.expect("paused");
    assert_eq!(site.state_of(&id).await, Some(ServerStatus::Paused));
    cloud.start(&context, &id).await.expect("thawed");
    cloud.stop(&context, &id).await.expect("stopping");
    cloud.stop(&context, &id).await.expect("a repeat");
    wait_for("it stopped", async || site.state_of(&id).await == Some(ServerStatus::Stopped)).await;
    cloud.start(&context, &id).await.expect("started");
    site.runs(&id).await;
    assert!(
        site.cloud.lose(&id).await.expect("journalled") && !site.cloud.lose(&id).await.expect("no effect")
    );
    assert_eq!(site.state_of(&id).await, Some(ServerStatus::Terminated));
    cloud.terminate(&context, &id).await.expect("nothing to do");
    let start = cloud.start(&context, &id).await.expect_err("gone");
    assert_eq!(start.class(), ErrorClass::Conflict);
    assert_eq!(ledger(folder.path()).len(), 6, "launch, pause, start, stop, start, lose");
}

async fn only_the_right_credential_in_a_known_region_is_let_in(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    site.door.check(&site.context()).await.expect("valid");
    let wrong = Secret::from("wrong".to_owned());
    let wrong_secret = Credential { access_key: "AK", secret: &wrong };
    let wrong_key = Credential { access_key: "A", ..site.context().credential };
    let bad = [
        CallContext { credential: wrong_secret, ..site.context() },
        CallContext { credential: wrong_key, ..site.context() },
        CallContext { account_number: "4712", ..site.context() },
    ];
    for context in bad {
        let error = site.door.launch(&context, &request("t")).await.expect_err("refused");
        assert_eq!(error.class(), ErrorClass::Auth, "{error}");
    }
    let nowhere = CallContext { region: "sim-north-1", ..site.context() };
    assert_eq!(site.door.check(&nowhere).await.expect_err("no region").class(), ErrorClass::NotFound);
    let west = CallContext { region: "sim-west-1", ..site.context() };
    let id = site.launch(&request("t")).await.expect("launched").id;
    assert_eq!(site.door.machine(&west, &id).await, Ok(None), "another region");
    assert!(ledger(folder.path()).len() == 1);
}

async fn wrong_requests_are_refused_with_the_fault_named(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    let good = || request("t");
    let cases = [
        (LaunchRequest { token: String::new(), ..good() }, ErrorClass::Bug, "client token"),
        (LaunchRequest { name: "x".repeat(256), ..good() }, ErrorClass::Bug, "name"),
        (LaunchRequest { user_data: Some(vec![0; 65_537]), ..good() }, ErrorClass::Bug, "65537"),
        (LaunchRequest { product: "m9".into(), ..good() }, ErrorClass::NotFound, "product \"m9\""),
        (LaunchRequest { image: "i9".into(), ..good() }, ErrorClass::NotFound, "image \"i9\""),
        (LaunchRequest { data_center: "sim-west-1a".into(), ..good() }, ErrorClass::NotFound, "data centre"),
    ];
    for (wrong, class, named) in cases {
        let error = site.launch(&wrong).await.expect_err("refused");
        assert_eq!(error.class(), class);
        assert!(error.to_string().contains(named), "{error}");
    }
    assert!(ledger(folder.path()).is_empty());
}

/// Opens a cloud, launches a server and closes it again.
async fn first_server(form: Form, folder: &tempfile::TempDir) -> String {
    let site = Site::of(form, folder, TokenClass::K).await;
    let id = site.launch(&request("t")).await.expect("launched").id;
    site.close().await;
    id
}

async fn a_torn_tail_and_stray_folders_go_and_damage_elsewhere_is_named(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let id = first_server(form, &folder).await;
    let path = folder.path().join("cloud/journal.jsonl");
    let whole = std::fs::read_to_string(&path).expect("the ledger");
    let torn = whole.replace(&id, "i-0000").trim_end().to_owned();
    std::fs::write(&path, format!("{whole}{torn}")).expect("written");
    let stray = folder.path().join("guests/i-stray");
    std::fs::create_dir(&stray).expect("made");
    let site = Site::of(form, &folder, TokenClass::K).await;
    assert_eq!(site.cloud.look(World::launches), 1);
    assert!(!stray.exists());
    assert_eq!(std::fs::read_to_string(&path).expect("the ledger"), whole);
    site.close().await;
    std::fs::write(&path, format!("garbage\n{whole}")).expect("written");
    let opened = Simulated::open(with_account(settings(folder.path(), TokenClass::K))).await;
    let error = opened.err().expect("damaged").to_string();
    assert!(error.contains("line 1 of") && error.contains("journal.jsonl"), "{error}");
}

async fn after_a_failed_write_the_cloud_goes_back_to_its_disk_and_on(form: Form) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::of(form, &folder, TokenClass::K).await;
    let first = site.launch(&request("t1")).await.expect("launched");
    let path = folder.path().join("cloud/journal.jsonl");
    let unwritable = std::fs::File::open(&path).expect("there");
    site.cloud.core.state().journal = Journal::start(unwritable).expect("a thread");
    let error = site.launch(&request("t2")).await.expect_err("not durable");
    assert!(!error.is_definite(), "{error}");
    let again = site.launch(&request("t2")).await.expect("the file is well");
    assert_eq!(site.launch(&request("t1")).await.expect("known").id, first.id);
    let made: Vec<String> = ledger(folder.path()).iter().map(|e| e.instance().to_owned()).collect();
    assert_eq!(made, [first.id, again.id]);
}

#[tokio::test]
async fn many_launches_share_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Arc::new(Site::of(Form::Direct, &folder, TokenClass::K).await);
    let start = Instant::now();
    let callers = (0..64).map(|caller| {
        let site = Arc::clone(&site);
        async move {
            for n in 0..8 {
                site.launch(&request(&format!("t{caller}-{n}"))).await.expect("launched");
            }
        }
    });
    join_all(callers).await;
    let took = start.elapsed();
    println!("512 launches in {took:?}");
    assert_eq!(ledger(folder.path()).len(), 512);
    assert!(took < Duration::from_secs(5), "512 launches took {took:?}; the aim is 1 s");
}
