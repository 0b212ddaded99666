//! `dispatcher db restored`: a new generation of epochs, for rows that were put back to an older state.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::client::Error;
use super::db::TO_DO;
use super::jobs::print;
use crate::ops::Chain;
use crate::store::provisioning::generation::{self, Raised};
use crate::store::provisioning::node::Node;
use crate::store::{self, Manager};

/// What is added to the time a beat must stand still, for the reading itself.
const MARGIN: Duration = Duration::from_secs(1);

/// Watches the beats of lives that the rows call alive for `still`, and raises the generation when none moved.
pub(super) async fn run(
    manager: &Manager,
    still: Duration,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    let fault = |error: store::Error| Error::Usage(Chain(&error).to_string());
    let rows = |error: diesel::result::Error| fault(store::Error::of(error));
    let mut connection = manager.open().map_err(fault)?;
    let seen = generation::alive(&mut connection).map_err(rows)?;
    if !seen.is_empty() {
        let (count, wait) = (seen.len(), still + MARGIN);
        if !as_json {
            writeln!(out, "{count} processes are written down as alive; watching their beats for {wait:?}")?;
            out.flush()?;
        }
        tokio::time::sleep(wait).await;
    }
    let raised = generation::raise(&mut connection, &seen).map_err(rows)?;
    tell(&raised, as_json, out)
}

fn tell(raised: &Raised, as_json: bool, out: &mut dyn Write) -> Result<u8, Error> {
    match raised {
        Raised::To { generation, open_jobs, declared_dead } => {
            if as_json {
                let told = json!({
                    "raised": true, "generation": generation, "openJobs": open_jobs, "declaredDead": declared_dead,
                });
                print(out, &told)?;
            } else {
                writeln!(
                    out,
                    "generation {} from now on: {open_jobs} open jobs are claimed under epochs that no guest has seen.\n\
                     Now start the dispatcher: it looks at once for everything at the clouds that carries its tag.\n\
                     What the lost rows knew is not brought back; \"dispatcher obligations --state needs-you\" shows servers without a job.",
                    generation.0
                )?;
            }
            Ok(0)
        }
        Raised::Living(lives) => {
            if as_json {
                print(
                    out,
                    &json!({ "raised": false, "alive": lives.iter().map(shown).collect::<Vec<_>>() }),
                )?;
            } else {
                writeln!(out, "nothing was changed: these processes work on the database; stop them first")?;
                for life in lives {
                    writeln!(out, "- {} {}", life.role, life.boot)?;
                }
            }
            Ok(TO_DO)
        }
    }
}

fn shown(life: &Node) -> serde_json::Value {
    json!({ "role": life.role, "boot": life.boot })
}
