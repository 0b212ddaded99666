//! What a run gives, and the medians of several.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::client::Error;

/// What the machine gives, whatever runs on it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Machine {
    pub(super) fdatasync_per_second: Option<f64>,
    pub(super) fdatasync_p50_ms: Option<f64>,
    /// Confirmed messages a second, one in flight and a hundred.
    pub(super) broker_one_per_second: Option<f64>,
    pub(super) broker_many_per_second: Option<f64>,
    pub(super) program_mb: Option<f64>,
    pub(super) agent_program_mb: Option<f64>,
}

/// Figures of one kind of place: on embedded parts, or on MariaDB and RabbitMQ. None is what was not measured there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Figures {
    pub(super) group_commit_rows_per_second: Option<f64>,
    pub(super) one_commit_ms: Option<f64>,
    pub(super) submits_per_second: Option<f64>,
    pub(super) submit_p50_ms: Option<f64>,
    pub(super) submit_p99_ms: Option<f64>,
    pub(super) one_client_p50_ms: Option<f64>,
    pub(super) end_to_end_per_second: Option<f64>,
    /// Statements a server carried out or prepared for each of those jobs.
    pub(super) statements_per_job: Option<f64>,
    pub(super) paced_p50_ms: Option<f64>,
    pub(super) paced_p99_ms: Option<f64>,
    pub(super) idle_memory_kib: Option<f64>,
    pub(super) open_jobs: Option<f64>,
    pub(super) open_job_bytes: Option<f64>,
    pub(super) working_job_bytes: Option<f64>,
    pub(super) guests: Option<f64>,
    pub(super) guest_bytes: Option<f64>,
    pub(super) agent_kib: Option<f64>,
    pub(super) start_ms: Option<f64>,
    pub(super) restart_ms: Option<f64>,
    pub(super) restart_open_ms: Option<f64>,
    pub(super) takeover_p50_ms: Option<f64>,
    pub(super) takeover_p99_ms: Option<f64>,
    pub(super) takeover_ended_p99_ms: Option<f64>,
    pub(super) takeover_jobs: Option<f64>,
    pub(super) cancel_p50_ms: Option<f64>,
    pub(super) cancel_p95_ms: Option<f64>,
    pub(super) cancels: Option<f64>,
    pub(super) cancels_not_reached: Option<f64>,
    pub(super) page_p50_ms: Option<f64>,
    pub(super) page_p99_ms: Option<f64>,
    /// 99th percentile of each page in milliseconds.
    pub(super) pages: BTreeMap<String, f64>,
    /// Finished jobs that were put into the database first, and how long that took.
    pub(super) history: Option<f64>,
    pub(super) history_seconds: Option<f64>,
}

/// One run, or the medians of several.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) embedded: Figures,
    pub(super) embedded_with_history: Figures,
    pub(super) servers: Figures,
    pub(super) servers_with_history: Figures,
}

/// The median of each figure over the runs that have it.
pub(super) fn medians<T: Serialize + DeserializeOwned>(all: &[T]) -> Result<T, Error> {
    let fault = |e: serde_json::Error| Error::Usage(format!("figures cannot be put together: {e}"));
    let all = all.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    serde_json::from_value(median(&all.iter().collect::<Vec<_>>())).map_err(fault)
}

fn median(all: &[&Value]) -> Value {
    let keys: Vec<&String> = all.iter().filter_map(|one| one.as_object()).flat_map(Map::keys).collect();
    if !keys.is_empty() {
        let of = |key: &String| median(&all.iter().filter_map(|one| one.get(key)).collect::<Vec<_>>());
        return Value::Object(keys.into_iter().map(|key| (key.clone(), of(key))).collect());
    }
    let mut numbers: Vec<f64> = all.iter().filter_map(|one| one.as_f64()).collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.get(numbers.len() / 2) {
        Some(middle) => Value::from(*middle),
        // An empty object stays one.
        None => all.first().map_or(Value::Null, |one| (*one).clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, medians};

    #[test]
    fn a_median_is_the_middle_of_the_runs_that_have_it() {
        let run = |n: f64, takeover: Option<f64>| {
            let mut run = Run::default();
            run.embedded.submits_per_second = Some(n);
            run.servers.takeover_p50_ms = takeover;
            run.servers.pages.insert("/jobs".to_owned(), n * 2.0);
            run
        };
        let median = medians(&[run(9.0, Some(7.0)), run(1.0, None), run(5.0, None)]).expect("numbers");
        assert_eq!(median.embedded.submits_per_second, Some(5.0));
        assert_eq!(median.servers.takeover_p50_ms, Some(7.0));
        assert_eq!(median.servers.pages.get("/jobs"), Some(&10.0));
        assert_eq!(median.servers.submits_per_second, None);
        assert!(median.embedded.pages.is_empty());
    }
}
