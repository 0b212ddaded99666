//! Points in time as the databases keep them: microseconds since 1970, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Microseconds since 1970-01-01 UTC. Databases keep it as `BIGINT`, because timestamp columns lose digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// The wall clock of this process. Rows take the database's clock instead.
    #[must_use]
    pub fn wall() -> Self {
        #[cfg(test)]
        if let Some(still) = super::dice::wall() {
            return still;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This point plus a duration; stops at the largest value.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This point minus a duration; stops at the smallest value.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The text of the dated API, such as `2013-01-08T21:29:22.733+0000`.
    #[must_use]
    pub fn enstratus(self) -> String {
        self.utc().format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
    }

    /// RFC 3339 with microseconds, such as `2013-01-08T21:29:22.733000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.utc().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }

    fn utc(self) -> chrono::DateTime<chrono::Utc> {
        chrono::DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

/// Microseconds since this machine was started, in the clock that goes on while it sleeps and that nobody sets.
#[must_use]
pub fn boot_time_micros() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |at| at.tv_sec().saturating_mul(1_000_000).saturating_add(at.tv_nsec() / 1000))
}

#[cfg(test)]
mod tests {
    use super::Micros;
    use std::time::Duration;

    #[test]
    fn texts_are_those_of_the_contract() {
        let at = Micros(1_357_680_562_733_000);
        assert_eq!(at.enstratus(), "2013-01-08T21:29:22.733+0000");
        assert_eq!(at.rfc3339(), "2013-01-08T21:29:22.733000Z");
        assert_eq!(at.plus(Duration::from_millis(1)).millis(), 1_357_680_562_734);
        assert_eq!(at.since(at.plus(Duration::from_secs(1))), Duration::ZERO);
    }
}
