//! How long after a node was killed another goes on with the jobs it held.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use serde_json::json;

use super::house::{House, database};
use super::load::{Load, percentile};
use crate::cli::client::{Client, Error};
use crate::store::AnyConnection;
use crate::store::provisioning::schema::job;

/// How often a node is killed.
const KILLS: usize = 3;
/// Submits on their way at the same time, so that jobs are in the middle of their steps.
const SENDERS: usize = 200;
/// So many jobs are held before the kill, or what is held after [`WARM`].
const HELD: usize = 50;
const WARM: Duration = Duration::from_secs(5);
/// Longest wait for the next step of all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the rows are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// From the kill to the first commit by another node about each job that was held, in milliseconds.
pub(super) struct TakeOver {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) jobs: usize,
    /// The same until the job had ended.
    pub(super) ended_p99: f64,
}

/// Kills one of two nodes, again and again by turns.
pub(super) async fn measure(house: &mut House) -> Result<TakeOver, Error> {
    let mut connection = house.schema.open()?;
    let (mut moved, mut ended) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        let killed = kill % 2;
        let stopped = burst(house, killed, &mut connection).await?;
        let held = held_by(&mut connection, &house.life(killed)?).map_err(|e| database(&e))?;
        follow(&mut connection, stopped, held, (&mut moved, &mut ended)).await?;
        Load::of(house.client_of(1 - killed)?).drained().await?;
        if let Some(node) = house.nodes.get_mut(killed) {
            node.start(&[]).await?;
        }
    }
    let jobs = moved.len();
    Ok(TakeOver {
        p50: percentile(&mut moved, 50),
        p99: percentile(&mut moved, 99),
        jobs,
        ended_p99: percentile(&mut ended, 99),
    })
}

/// Submits to a node until it holds jobs, and kills it; when that was.
async fn burst(house: &mut House, node: usize, connection: &mut AnyConnection) -> Result<Instant, Error> {
    let (client, life) = (Rc::new(house.client_of(node)?), house.life(node)?);
    let senders: Vec<_> =
        (0..SENDERS).map(|_| actix_rt::spawn(submit_until_gone(Rc::clone(&client)))).collect();
    let began = Instant::now();
    while began.elapsed() < WARM {
        let held = held_by(connection, &life).map_err(|e| database(&e))?;
        if held.len() >= HELD {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    if let Some(process) = house.nodes.get_mut(node) {
        process.crash().await?;
    }
    let killed = Instant::now();
    for sender in senders {
        drop(sender.await);
    }
    Ok(killed)
}

/// One submit after the other, until nobody answers.
async fn submit_until_gone(client: Rc<Client>) {
    let body = json!({ "kind": "noop", "params": {} });
    loop {
        match client.post("/api/v1/jobs", &body, None).await {
            // Too busy is an answer.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(_) => return,
        }
    }
}

/// Open jobs of a life, with their epochs.
fn held_by(connection: &mut AnyConnection, life: &str) -> QueryResult<HashMap<String, i64>> {
    let rows: Vec<(String, i64)> = job::table
        .filter(job::ended_at.is_null().and(job::owner.eq(life)))
        .select((job::uid, job::epoch))
        .load(connection)?;
    Ok(rows.into_iter().collect())
}

/// Notes when each job was first moved by somebody else, and when it had ended.
async fn follow(
    connection: &mut AnyConnection,
    killed: Instant,
    held: HashMap<String, i64>,
    (moved, ended): (&mut Vec<Duration>, &mut Vec<Duration>),
) -> Result<(), Error> {
    let (mut unmoved, mut open) = (held.clone(), held);
    while !open.is_empty() {
        if killed.elapsed() > PATIENCE {
            let text = format!("{} jobs of a killed node do not go on within {PATIENCE:?}", open.len());
            return Err(Error::Usage(text));
        }
        tokio::time::sleep(LOOK).await;
        let asked: Vec<&String> = open.keys().collect();
        let rows: Vec<(String, i64, Option<i64>)> = job::table
            .filter(job::uid.eq_any(asked))
            .select((job::uid, job::epoch, job::ended_at))
            .load(connection)
            .map_err(|e| database(&e))?;
        let now = killed.elapsed();
        for (uid, epoch, end) in rows {
            if (end.is_some() || unmoved.get(&uid).is_some_and(|seen| epoch > *seen))
                && unmoved.remove(&uid).is_some()
            {
                moved.push(now);
            }
            if end.is_some() && open.remove(&uid).is_some() {
                ended.push(now);
            }
        }
    }
    Ok(())
}
