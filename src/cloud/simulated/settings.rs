//! How a simulated cloud is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, SteadyClock};
use crate::cloud::{Capabilities, TokenClass};
use crate::crypto::Secret;

/// An account the cloud knows.
pub struct Account {
    /// Account number.
    pub number: String,
    /// Public half of its credential.
    pub access_key: String,
    /// Secret half.
    pub secret: Secret,
}

/// Settings of a simulated cloud.
pub struct Settings {
    /// Data folder; the cloud keeps `cloud/` and `guests/` in it.
    pub data: PathBuf,
    /// Executable that is run as `agent` for each guest.
    pub guest_program: PathBuf,
    /// Most real guests at a time; later servers run without one.
    pub guest_processes: usize,
    /// Port on which guests listen.
    pub guest_port: u16,
    /// How long a guest may take to end after it was asked to, before it is killed.
    pub guest_grace: Duration,
    /// How long a server takes to boot.
    pub boot_time: Duration,
    /// How long a server takes to stop.
    pub stop_time: Duration,
    /// How long each call takes before anything is done.
    pub latency: Duration,
    /// How long a destroyed server is still shown.
    pub terminated_kept: Duration,
    /// Most calls at a time; more are throttled.
    pub calls_at_once: usize,
    /// Accounts that may call.
    pub accounts: Vec<Account>,
    /// What the cloud promises, its token class first. Times are for callers; only `class`, `token_kept`, `pause`,
    /// `start_stop` and the sizes change what the cloud does.
    pub capabilities: Capabilities,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Settings {
    /// Settings for this folder and class, with no account yet; guests are run from the running executable.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, class: TokenClass) -> Self {
        Self {
            data: data.into(),
            guest_program: std::env::current_exe().unwrap_or_default(),
            guest_processes: 16,
            guest_port: 2003,
            guest_grace: Duration::from_secs(3),
            boot_time: Duration::from_millis(150),
            stop_time: Duration::from_millis(100),
            latency: Duration::ZERO,
            terminated_kept: Duration::from_secs(3600),
            calls_at_once: 1024,
            accounts: Vec::new(),
            capabilities: capabilities_of(class),
            clock: Arc::new(SteadyClock::new()),
        }
    }
}

/// The promises of a simulated cloud of this class. Its own times are short, because nothing travels; a test that
/// needs longer ones sets them.
#[must_use]
pub const fn capabilities_of(class: TokenClass) -> Capabilities {
    const DAY: Duration = Duration::from_secs(86_400);
    let (t_sig, token_kept) = match class {
        TokenClass::K => (Duration::ZERO, DAY),
        TokenClass::S => (Duration::from_secs(300), Duration::ZERO),
        TokenClass::T | TokenClass::N => (Duration::ZERO, Duration::ZERO),
    };
    Capabilities {
        class,
        t_call: Duration::from_secs(60),
        t_sig,
        t_land: Duration::from_secs(5),
        t_vis: Duration::from_secs(60),
        token_kept,
        start_stop: true,
        pause: true,
        max_user_data: 64 * 1024,
        max_name: 255,
    }
}
