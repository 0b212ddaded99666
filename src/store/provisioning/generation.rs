//! The generation of the rows: raised by an operator after they were put back to an older state.
//!
//! Guests refuse who comes with an epoch below one they have seen. After a restore, or a failover that lost commits, the
//! rows know lower epochs than the guests; a new generation puts every claim above them.

use diesel::prelude::*;

use super::node::{self, Node};
use super::schema::{job, setting, tag_sweep};
use crate::model::Generation;
use crate::store::{AnyConnection, Error};

/// Name of the row.
const NAME: &str = "generation";

/// What a raise found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It is raised.
    To {
        /// From now on.
        generation: Generation,
        /// Open jobs, which are claimed under it.
        open_jobs: i64,
        /// Lives that stood still and were declared dead.
        declared_dead: usize,
    },
    /// Nothing was changed: these live.
    Living(Vec<Node>),
}

/// The generation now; the first one is 0 and has no row.
///
/// # Errors
/// What the database reports.
pub fn read(connection: &mut AnyConnection) -> QueryResult<Generation> {
    let text: Option<String> =
        setting::table.find(NAME).select(setting::value).first(connection).optional()?;
    let Some(text) = text else { return Ok(Generation::default()) };
    let corrupt =
        |_other| super::corrupt(Error::Corrupt { column: "setting.generation", text: text.clone() });
    text.parse().map(Generation).map_err(corrupt)
}

/// The lives that are not known to have ended.
///
/// # Errors
/// What the database reports.
pub fn alive(connection: &mut AnyConnection) -> QueryResult<Vec<Node>> {
    Ok(node::all(connection)?.into_iter().filter(Node::is_alive).collect())
}

/// Raises the generation by one, in a transaction of its own. Lives seen before that still stand at the same beat are
/// declared dead first; with any other life nothing is changed.
///
/// Everything at the clouds that carries a tag is looked at anew by the next life: what was made after the copy has no row.
///
/// # Errors
/// What the database reports.
pub fn raise(connection: &mut AnyConnection, seen: &[Node]) -> QueryResult<Raised> {
    connection.begin()?;
    let raised = raise_within(connection, seen);
    match raised {
        Ok(Raised::To { .. }) => connection.commit()?,
        Ok(Raised::Living(_)) | Err(_) => connection.rollback()?,
    }
    raised
}

fn raise_within(connection: &mut AnyConnection, seen: &[Node]) -> QueryResult<Raised> {
    let mut declared_dead = 0;
    for life in seen {
        declared_dead += usize::from(node::declare_dead(connection, &life.boot, life.beat)?);
    }
    let living = alive(connection)?;
    if !living.is_empty() {
        return Ok(Raised::Living(living));
    }
    let generation = Generation(read(connection)?.0.saturating_add(1));
    let value = generation.0.to_string();
    let rows =
        diesel::update(setting::table.find(NAME)).set(setting::value.eq(&value)).execute(connection)?;
    if rows == 0 {
        let row = (setting::name.eq(NAME), setting::value.eq(&value));
        diesel::insert_into(setting::table).values(row).execute(connection)?;
    }
    diesel::delete(tag_sweep::table).execute(connection)?;
    let open_jobs = job::table.filter(job::ended_at.is_null()).count().get_result(connection)?;
    Ok(Raised::To { generation, open_jobs, declared_dead })
}

#[cfg(test)]
mod tests {
    use super::{Raised, alive, raise, read};
    use crate::model::{Boot, Generation};
    use crate::store::PROVISIONING;
    use crate::store::provisioning::node;
    use crate::store::testing::{Bed, on_both};

    on_both!(it_rises_only_while_nobody_lives);

    async fn it_rises_only_while_nobody_lives(bed: Bed) {
        let mut c = bed.manager().open().expect("a database");
        PROVISIONING.migrate(&mut c).expect("tables");
        assert_eq!(read(&mut c).expect("read"), Generation(0));
        let boot = Boot::random();
        node::register(&mut c, boot, "serve").expect("alive");
        let seen = alive(&mut c).expect("read");
        assert!(node::beat(&mut c, boot, 7).expect("a beat"));
        let Raised::Living(living) = raise(&mut c, &seen).expect("asked") else { panic!("a life beat") };
        assert_eq!((living.len(), living[0].beat), (1, 7));
        assert_eq!(read(&mut c).expect("read"), Generation(0), "nothing was changed");
        let seen = alive(&mut c).expect("read");
        let raised = raise(&mut c, &seen).expect("asked");
        let wanted = Raised::To { generation: Generation(1), open_jobs: 0, declared_dead: 1 };
        assert_eq!(raised, wanted);
        assert!(!node::beat(&mut c, boot, 8).expect("a beat"), "it has to begin anew");
        assert!(matches!(raise(&mut c, &[]), Ok(Raised::To { generation: Generation(2), .. })));
        assert_eq!(read(&mut c).expect("read"), Generation(2));
    }
}
