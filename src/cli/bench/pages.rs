//! Lists and searches as people ask for them, over HTTP, while jobs are open.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{Load, percentile};
use crate::cli::client::{Client, Error};

/// Jobs that are open meanwhile.
const OPEN: usize = 5000;
/// How often each page is asked for.
const ROUNDS: usize = 40;

/// What is asked for; `{middle}` is the number of a job half-way back.
const PAGES: [&str; 9] = [
    "/api/v1/jobs?limit=50",
    "/api/v1/jobs?limit=50&before={middle}",
    "/api/v1/jobs?limit=50&state=open",
    "/api/v1/jobs?limit=50&state=failed",
    "/api/v1/jobs?limit=50&q=state:complete%20older:6h",
    "/api/v1/jobs?limit=50&q=newer:1h",
    "/api/v1/jobs?limit=50&q=class:quota",
    "/api/v1/jobs?limit=50&q=by:me%20-state:complete",
    "/api/v1/jobs/{middle}",
];

/// How long pages took, in milliseconds.
pub(super) struct Pages {
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// The 99th percentile of each.
    pub(super) each: BTreeMap<String, f64>,
}

/// Opens jobs, and asks for every page again and again.
pub(super) async fn measure(client: Client, clients: usize) -> Result<Pages, Error> {
    let client = Rc::new(client);
    Load::sharing(&client).pile(clients, OPEN).await?;
    let middle = middle(&client).await?.to_string();
    let (mut all, mut each) = (Vec::new(), BTreeMap::new());
    for page in PAGES {
        let path = page.replace("{middle}", &middle);
        // The first look warms up what every later one finds.
        client.get(&path).await?;
        let mut took: Vec<Duration> = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            client.get(&path).await?;
            took.push(began.elapsed());
        }
        all.extend_from_slice(&took);
        each.insert(page.trim_start_matches("/api/v1").to_owned(), percentile(&mut took, 99));
    }
    Ok(Pages { p50: percentile(&mut all, 50), p99: percentile(&mut all, 99), each })
}

/// The number of a job half-way between the first and the last.
async fn middle(client: &Client) -> Result<i64, Error> {
    let number = |listed: &Value| listed.get("jobs")?.get(0)?.get("id")?.as_i64();
    let newest = number(&client.get("/api/v1/jobs?limit=1").await?).unwrap_or_default();
    let half = super::history::FIRST.into();
    let before = i64::midpoint(newest, half);
    let listed = client.get(&format!("/api/v1/jobs?limit=1&before={}", before.max(1) + 1)).await?;
    Ok(number(&listed).unwrap_or(newest))
}
