//! What a term means to the database.

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::{Backend, Search};
use crate::model::query::{Compare, Pattern, Test};
use crate::model::{AttemptOutcome, JobKind, Micros};
use crate::store::provisioning::schema::{attempt, job, person, server};

diesel::define_sql_function! {
    /// Small letters, so that nobody has to know how a title is written.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

/// A condition on a row of `job`; never null, so that its opposite is the rest.
pub(super) type Cond = Box<dyn BoxableExpression<job::table, Backend, SqlType = Bool>>;

/// The condition of a test; none where lanes take care of it.
pub(super) fn of(search: &Search, test: &Test, now: Micros) -> Option<Cond> {
    Some(match test {
        Test::States(_) => return None,
        Test::Ids(ids) => Box::new(job::id.eq_any(ids.clone())),
        Test::Text(text) => {
            let title = lower(job::description).like(beginning(text)).escape('!');
            Box::new(title.or(target(&Pattern { text: text.clone(), open: true })))
        }
        Test::Kinds(kinds) => {
            Box::new(job::kind.eq_any(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()))
        }
        Test::Classes(classes) => {
            let words: Vec<&'static str> = classes.iter().map(|class| class.as_str()).collect();
            Box::new(exists(
                attempt::table.filter(attempt::job.eq(job::uid).and(attempt::class.eq_any(words))),
            ))
        }
        Test::Waits(codes) => Box::new(job::ended_at.is_null().and(job::why_code.eq_any(codes.clone()))),
        Test::Accounts(accounts) => Box::new(job::account.eq_any(accounts.clone())),
        Test::Parents(parents) => {
            Box::new(job::parent.is_not_null().and(job::parent.assume_not_null().eq_any(parents.clone())))
        }
        Test::NoParent => Box::new(job::parent.is_null()),
        Test::Servers(servers) => {
            Box::new(job::server.is_not_null().and(job::server.assume_not_null().eq_any(servers.clone())))
        }
        Test::Targets(patterns) => any(patterns.iter().map(target)),
        Test::By(patterns) => any(patterns.iter().map(|pattern| by(search, pattern))),
        Test::Nodes(patterns) => any(patterns.iter().map(node)),
        Test::Older(age) => Box::new(job::created_at.lt(now.minus(*age).0)),
        Test::Newer(age) => Box::new(job::created_at.ge(now.minus(*age).0)),
        Test::From(at) => Box::new(job::created_at.ge(at.0)),
        Test::To(at) => Box::new(job::created_at.lt(at.0)),
        Test::Took(compare, time) => {
            let time = Micros(0).plus(*time).0;
            took(*compare, time, now.0.saturating_sub(time))
        }
        Test::Attempts(compare, n) => attempts(*compare, *n),
        Test::OutcomeUnknown => {
            let open = attempt::outcome.eq(AttemptOutcome::Open.as_str());
            Box::new(exists(attempt::table.filter(attempt::job.eq(job::uid).and(open))))
        }
    })
}

fn any(conds: impl Iterator<Item = Cond>) -> Cond {
    let nothing: Cond = Box::new(false.into_sql::<Bool>());
    conds.fold(nothing, |all, one| Box::new(all.or(one)))
}

/// A pattern of `like` for texts that begin so, in small letters; `!` escapes.
fn beginning(text: &str) -> String {
    like(&Pattern { text: text.to_owned(), open: true })
}

fn like(pattern: &Pattern) -> String {
    let mut done = String::with_capacity(pattern.text.len() + 1);
    for c in pattern.text.chars() {
        if matches!(c, '%' | '_' | '!') {
            done.push('!');
        }
        done.push(c.to_ascii_lowercase());
    }
    if pattern.open {
        done.push('%');
    }
    done
}

/// The server's name; before there is one, what the launch says.
fn target(pattern: &Pattern) -> Cond {
    let named = server::table.filter(
        server::id.nullable().eq(job::server).and(lower(server::name).like(like(pattern)).escape('!')),
    );
    let launch = Pattern { text: format!("launch server {}", pattern.text), open: pattern.open };
    let asked = job::kind
        .eq(JobKind::LaunchServer.as_str())
        .and(lower(job::description).like(like(&launch)).escape('!'));
    Box::new(exists(named).or(asked))
}

fn by(search: &Search, pattern: &Pattern) -> Cond {
    if pattern.text == "me" && !pattern.open {
        return Box::new(job::person.eq(search.person.0));
    }
    let login = lower(person::login).like(like(pattern)).escape('!');
    Box::new(exists(person::table.filter(person::id.eq(job::person).and(login))))
}

fn node(pattern: &Pattern) -> Cond {
    let boot = lower(job::owner.assume_not_null()).like(like(pattern)).escape('!');
    Box::new(job::owner.is_not_null().and(boot))
}

/// `since` is when an open job was made that has taken `time` by now.
fn took(compare: Compare, time: i64, since: i64) -> Cond {
    let end = job::ended_at.assume_not_null();
    let (ended, open) = (job::ended_at.is_not_null(), job::ended_at.is_null());
    match compare {
        Compare::More => {
            Box::new(ended.and((job::created_at + time).lt(end)).or(open.and(job::created_at.lt(since))))
        }
        Compare::Less | Compare::Same => {
            Box::new(ended.and((job::created_at + time).gt(end)).or(open.and(job::created_at.gt(since))))
        }
    }
}

fn attempts(compare: Compare, n: i64) -> Cond {
    let made = attempt::table.filter(attempt::job.eq(job::uid)).count().single_value().assume_not_null();
    match compare {
        Compare::More => Box::new(made.gt(n)),
        Compare::Less => Box::new(made.lt(n)),
        Compare::Same => Box::new(made.eq(n)),
    }
}
