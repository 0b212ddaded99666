//! Keys, first rows and the simulated cloud of an installation.

use std::sync::Arc;
use std::time::Duration;

use super::credentials::{CloudCredential, REFERENCE};
use super::folder::{Folder, derived};
use super::{Error, adapters};
use crate::access;
use crate::cloud::simulated::{Account, Fault, Operation, Settings, Simulated, capabilities_of};
use crate::cloud::{Capabilities, Provider, TokenClass};
use crate::config::{self, ms};
use crate::crypto::{Key, KeyRing, Secret};
use crate::store::Store;
use crate::store::provisioning::seed;

/// Number of the seeded account at the simulated cloud.
const ACCOUNT_NUMBER: &str = "1234-5678";
/// Console login of the seeded administrator.
pub(super) const LOGIN: &str = "admin";

/// Keys of the installation and what is made from them: the same for one data folder.
pub(super) struct Keys {
    pub(super) install: Arc<Key>,
    pub(super) ring: Arc<KeyRing>,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) password: String,
    pub(super) cloud: CloudCredential,
}

impl Keys {
    pub(super) fn of(install: Key, seal: &Key) -> Self {
        Self {
            ring: Arc::new(KeyRing::new(seal.derive("at-rest"))),
            access_key: derived(&install, "dev.access-key", 10).to_uppercase(),
            secret_key: derived(&install, "dev.secret-key", 20),
            password: derived(&install, "dev.console-password", 8),
            cloud: CloudCredential {
                access_key: derived(&install, "dev.cloud-access-key", 10),
                secret: derived(&install, "dev.cloud-secret-key", 20),
            },
            install: Arc::new(install),
        }
    }
}

/// Writes the first rows where they are missing.
pub(super) async fn plant(store: &Store, keys: &Keys) -> Result<(), Error> {
    let fault = |source| Error::Database { name: "provisioning", source };
    if store.read(seed::is_seeded).await.map_err(fault)? {
        return Ok(());
    }
    let password_hash = access::hash_password(&keys.password)
        .ok_or_else(|| Error::Part { part: "seeds", text: "the password cannot be hashed".to_owned() })?;
    let secrets = seed::Secrets {
        account_number: ACCOUNT_NUMBER.to_owned(),
        credential: REFERENCE.to_owned(),
        access_key: keys.access_key.clone(),
        sealed_secret: access::seal_api_secret(
            &keys.ring,
            seed::CUSTOMER,
            &keys.access_key,
            keys.secret_key.as_bytes(),
        ),
        login: LOGIN.to_owned(),
        password_hash,
    };
    let catalogue = adapters::catalogue();
    store.write(move |c| seed::seed(c, &catalogue, &secrets)).await.map_err(fault)
}

/// Opens the simulated cloud of the folder.
pub(super) async fn cloud(
    folder: &Folder,
    keys: &Keys,
    settings: &config::Simulated,
    guest_processes: usize,
) -> Result<Arc<Simulated>, Error> {
    let class = match settings.class.as_str() {
        "S" => TokenClass::S,
        "T" => TokenClass::T,
        "N" => TokenClass::N,
        _ => TokenClass::K,
    };
    let account = Account {
        number: ACCOUNT_NUMBER.to_owned(),
        access_key: keys.cloud.access_key.clone(),
        secret: Secret::from(keys.cloud.secret.clone()),
    };
    let usual = Settings::new(&folder.path, class);
    let guest_program = match settings.guest_program.as_str() {
        "" => usual.guest_program.clone(),
        path => path.into(),
    };
    let opening = Settings {
        guest_program,
        guest_processes,
        boot_time: ms(settings.boot_ms),
        latency: ms(settings.latency_ms),
        accounts: vec![account],
        capabilities: capabilities(class, settings.quiet_ms),
        ..usual
    };
    let cloud = Simulated::open(opening).await.map_err(|e| Error::part("simulated cloud", &e))?;
    cloud.faults().next(Operation::Launch, settings.lose_answers, Fault::LoseAnswer);
    let cloud = Arc::new(cloud);
    if settings.lose_launched > 0 {
        actix_rt::spawn(lose(Arc::clone(&cloud), settings.lose_launched));
    }
    Ok(cloud)
}

/// A shorter Q, for installations that show how a class waits.
fn capabilities(class: TokenClass, quiet_ms: Option<u64>) -> Capabilities {
    let usual = capabilities_of(class);
    match quiet_ms {
        Some(quiet) => Capabilities {
            t_call: usual.t_call.min(ms(quiet / 2)),
            t_sig: Duration::ZERO,
            t_land: Duration::ZERO,
            t_vis: ms(quiet / 2),
            ..usual
        },
        None => usual,
    }
}

/// Loses the next so many servers as soon as they exist, as a failed host would.
async fn lose(cloud: Arc<Simulated>, mut left: u32) {
    let known: std::collections::BTreeSet<String> =
        cloud.look(|world| world.instances().map(|i| i.launched.instance.clone()).collect());
    let mut lost = known;
    while left > 0 {
        let fresh: Vec<String> = cloud.look(|world| {
            world.instances().map(|i| i.launched.instance.clone()).filter(|id| !lost.contains(id)).collect()
        });
        for id in fresh {
            if left > 0 && matches!(cloud.lose(&id).await, Ok(true)) {
                left -= 1;
                log::warn!("the simulated cloud lost server {id}, as its settings ask");
            }
            lost.insert(id);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The driver of the simulated cloud that is a process of its own.
#[expect(clippy::unused_async, reason = "it asks the cloud what it can do")]
pub(super) async fn driver(settings: &config::Simulated) -> Result<Arc<dyn Provider>, Error> {
    let text = format!("simulated.url is \"{}\"; name a cloud that is a process of its own", settings.url);
    Err(Error::Part { part: "cloud", text })
}
