//! The simulated cloud of an installation: inside this process, or a process of its own that the settings name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::credentials::CloudCredential;
use crate::cloud::remote::Remote;
use crate::cloud::simulated::{Account, Fault, Odds, Operation, Settings, Simulated, capabilities_of};
use crate::cloud::{Capabilities, Provider, TokenClass};
use crate::config::{self, ms};
use crate::crypto::Secret;

/// Number of the seeded account at the simulated cloud.
pub(super) const ACCOUNT_NUMBER: &str = "1234-5678";
/// How long a cloud of its own may take to answer when this process starts.
const PATIENCE: Duration = Duration::from_secs(20);

/// The cloud, wherever it is.
pub(super) enum Cloud {
    /// In this process; it ends with it.
    Here(Arc<Simulated>),
    /// In another, which lives on.
    Elsewhere(Arc<Remote>),
}

/// What a cloud inside this process is made of.
pub(super) struct Inside<'a> {
    pub(super) data: &'a Path,
    pub(super) credential: &'a CloudCredential,
    pub(super) guest_processes: usize,
}

impl Cloud {
    /// The cloud the settings name, or else one in this process.
    pub(super) async fn open(settings: &config::Simulated, inside: Inside<'_>) -> Result<Self, Error> {
        if settings.url.is_empty() {
            return Ok(Self::Here(here(settings, inside).await?));
        }
        Ok(Self::Elsewhere(elsewhere(&settings.url).await?))
    }

    /// What calls it.
    pub(super) fn provider(&self) -> Arc<dyn Provider> {
        match self {
            Self::Here(cloud) => Arc::clone(cloud) as Arc<dyn Provider>,
            Self::Elsewhere(cloud) => Arc::clone(cloud) as Arc<dyn Provider>,
        }
    }

    /// Begins to keep guests, where that is this process's business.
    pub(super) fn start_guests(&self) {
        if let Self::Here(cloud) = self {
            cloud.start_guests();
        }
    }

    /// Ends the guests, where they are this process's.
    pub(super) async fn shutdown(&self) {
        if let Self::Here(cloud) = self {
            cloud.shutdown().await;
        }
    }
}

/// What calls the cloud the settings name, for a role that has none inside.
pub(super) async fn driver(settings: &config::Simulated) -> Result<Arc<dyn Provider>, Error> {
    if settings.url.is_empty() {
        let text =
            "simulated.url is empty; start \"dispatcher simulated-cloud\" and write its address".to_owned();
        return Err(Error::Part { part: "cloud", text });
    }
    Ok(elsewhere(&settings.url).await?)
}

/// No cloud is named.
pub(super) fn unnamed() -> Error {
    let text =
        "simulated.url is empty; start \"dispatcher simulated-cloud\" and write its address".to_owned();
    Error::Part { part: "cloud", text }
}

/// The driver of a cloud in another process.
async fn elsewhere(url: &str) -> Result<Arc<Remote>, Error> {
    let cloud = Remote::connect(url, PATIENCE).await.map_err(|e| Error::part("simulated cloud", &e))?;
    log::info!("the simulated cloud at {url} is of class {}", cloud.capabilities().class);
    Ok(Arc::new(cloud))
}

/// Opens the simulated cloud of a folder in this process.
pub(super) async fn here(settings: &config::Simulated, inside: Inside<'_>) -> Result<Arc<Simulated>, Error> {
    let class = match settings.class.as_str() {
        "S" => TokenClass::S,
        "T" => TokenClass::T,
        "N" => TokenClass::N,
        _ => TokenClass::K,
    };
    let account = Account {
        number: ACCOUNT_NUMBER.to_owned(),
        access_key: inside.credential.access_key.clone(),
        secret: Secret::from(inside.credential.secret.clone()),
    };
    let usual = Settings::new(inside.data, class);
    let guest_program = match settings.guest_program.as_str() {
        "" => usual.guest_program.clone(),
        path => path.into(),
    };
    let opening = Settings {
        guest_program,
        guest_processes: inside.guest_processes,
        boot_time: ms(settings.boot_ms),
        latency: ms(settings.latency_ms),
        accounts: vec![account],
        capabilities: capabilities(class, settings.quiet_ms),
        ..usual
    };
    let cloud = Simulated::open(opening).await.map_err(|e| Error::part("simulated cloud", &e))?;
    cloud.faults().next(Operation::Launch, settings.lose_answers, Fault::LoseAnswer);
    if let Some(late) = settings.land_late_ms {
        cloud.faults().next(Operation::Launch, 1, Fault::LandLate(ms(late)));
    }
    cloud.faults().by_chance(Odds {
        seed: settings.fault_seed,
        lose: settings.lose_percent,
        fail: settings.fail_percent,
        late: settings.late_percent,
        late_for: ms(settings.late_ms),
        hide: settings.hide_percent,
        hide_for: ms(settings.hide_ms),
        forget: settings.forget_percent,
    });
    let cloud = Arc::new(cloud);
    if settings.lose_launched > 0 {
        actix_rt::spawn(lose(Arc::clone(&cloud), settings.lose_launched));
    }
    Ok(cloud)
}

/// A shorter Q, for installations that show how a class waits. Class S gives a part of it to the signatures, because a
/// cloud in another process checks their time.
fn capabilities(class: TokenClass, quiet_ms: Option<u64>) -> Capabilities {
    let usual = capabilities_of(class);
    let Some(quiet) = quiet_ms else { return usual };
    let t_sig = if class == TokenClass::S { ms(quiet / 4) } else { Duration::ZERO };
    Capabilities {
        t_call: usual.t_call.min(ms(quiet / 2)),
        t_sig,
        t_land: Duration::ZERO,
        t_vis: ms(quiet / 2).saturating_sub(t_sig),
        ..usual
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

#[cfg(test)]
mod tests {
    use super::capabilities;
    use crate::cloud::TokenClass;
    use std::time::Duration;

    #[test]
    fn a_shorter_quiet_time_is_the_sum_of_its_parts_and_leaves_signatures_a_life() {
        for class in [TokenClass::K, TokenClass::S, TokenClass::T, TokenClass::N] {
            let short = capabilities(class, Some(2000));
            assert_eq!(short.quiet(), Duration::from_secs(2), "{class}");
            assert_eq!(short.t_sig.is_zero(), class != TokenClass::S, "{class}");
        }
    }
}
