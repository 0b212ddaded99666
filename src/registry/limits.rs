//! Limits of accounts: setting them, clearing them, and the net under their lines.

use std::collections::HashSet;

use actix::prelude::*;

use super::Error;
use super::actor::Spec;
use super::person::is_fresh;
use crate::model::{AccountId, JobUid};
use crate::mq::Nudge;
use crate::store::provisioning::accept::{self, Answer, Entered, Entry};
use crate::store::provisioning::limit::{self, LimitRow, MOST, Wish};
use crate::store::provisioning::{audit, transition};
use crate::store::{self, AnyConnection};

/// Set the limit of an account, or of a kind within it, in the place of what was set before.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<LimitRow, Error>")]
pub struct SetLimit {
    /// Who asks, and what makes the request unique.
    pub entry: Entry,
    /// The account.
    pub account: AccountId,
    /// The kind; empty for any.
    pub kind: String,
    /// What is set.
    pub wish: Wish,
    /// Number of the audit record.
    pub audit: i64,
}

/// Take a limit away, with what was learned under it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct ClearLimit {
    /// Who asks, and what makes the request unique.
    pub entry: Entry,
    /// The account.
    pub account: AccountId,
    /// The kind; empty for the account's own.
    pub kind: String,
    /// Who, for the audit record.
    pub who: String,
    /// Number of the audit record.
    pub audit: i64,
}

fn subject(account: AccountId, kind: &str) -> String {
    if kind.is_empty() { format!("account/{account}") } else { format!("account/{account}/{kind}") }
}

/// What was set, in words.
fn told(wish: &Wish) -> String {
    let together = wish.together.map(|n| format!("{n} together"));
    let pace = wish.pace.map(|(starts, secs, burst)| format!("{starts} in {secs} s, {burst} at once"));
    let what: Vec<String> = [together, pace].into_iter().flatten().collect();
    let what = what.join(", ");
    if wish.reason.is_empty() { what } else { format!("{what}: {}", wish.reason) }
}

const fn answer(account: AccountId, status: i32) -> Answer {
    Answer { job: None, status, created: Some(account.0) }
}

fn known(c: &mut AnyConnection, entry: &Entry) -> diesel::QueryResult<bool> {
    match &entry.idem {
        Some(key) => Ok(accept::earlier(c, entry, key)?.is_some()),
        None => Ok(false),
    }
}

pub(super) async fn set(spec: Spec, ask: SetLimit) -> Result<LimitRow, Error> {
    let (customer, account, kind) = (ask.entry.customer, ask.account, ask.kind.clone());
    let announce = spec.queue.announce();
    let item = move |c: &mut AnyConnection| {
        let there = limit::list(c, customer)?;
        let same = |row: &LimitRow| row.account == ask.account.0 && row.kind == ask.kind;
        let full = i64::try_from(there.len()).unwrap_or(MOST) >= MOST;
        if full && !there.iter().any(same) && !known(c, &ask.entry)? {
            return Ok((Entered::Fresh, None));
        }
        let entered = accept::enter(c, &ask.entry, &answer(ask.account, 200))?;
        if entered != Entered::Fresh {
            return Ok((entered, None));
        }
        let row = limit::set(c, (customer, ask.account, &ask.kind), &ask.wish)?;
        let called = transition::limit_set(c, &row)?;
        let detail = told(&ask.wish);
        let (actor, action) = (ask.wish.made_by.as_str(), "limit.set");
        let subject = subject(ask.account, &ask.kind);
        audit::record(
            c,
            ask.audit,
            customer,
            &audit::Line { actor, action, subject: &subject, detail: &detail },
        )?;
        note_all(c, &announce, &called)?;
        Ok((entered, Some((row, called))))
    };
    match spec.store.write(item).await? {
        (Entered::Fresh, Some((row, called))) => {
            tell(&spec, &called);
            Ok(row)
        }
        (Entered::Fresh, None) => Err(Error::TooManyLimits(MOST)),
        (Entered::Same(_), _) => {
            let rows = spec.store.read(move |c| limit::list(c, customer)).await?;
            let row = rows.into_iter().find(|row| row.account == account.0 && row.kind == kind);
            row.ok_or(Error::NoSuchLimit(account, kind))
        }
        (other, _) => is_fresh(&other).and(Err(Error::Conflict)),
    }
}

pub(super) async fn clear(spec: Spec, ask: ClearLimit) -> Result<(), Error> {
    let (customer, account, kind) = (ask.entry.customer, ask.account, ask.kind.clone());
    let announce = spec.queue.announce();
    let item = move |c: &mut AnyConnection| {
        let there = limit::list(c, customer)?;
        let found = there.iter().any(|row| row.account == ask.account.0 && row.kind == ask.kind);
        if !found && !known(c, &ask.entry)? {
            return Ok(None);
        }
        let entered = accept::enter(c, &ask.entry, &answer(ask.account, 204))?;
        if entered != Entered::Fresh || !limit::remove(c, (customer, ask.account, &ask.kind))? {
            return Ok(Some((entered, Vec::new())));
        }
        let called = transition::limit_gone(c, ask.account.0)?;
        let (actor, action) = (ask.who.as_str(), "limit.clear");
        let subject = subject(ask.account, &ask.kind);
        audit::record(c, ask.audit, customer, &audit::Line { actor, action, subject: &subject, detail: "" })?;
        note_all(c, &announce, &called)?;
        Ok(Some((entered, called)))
    };
    let done = spec.store.write(item).await?;
    let (entered, called) = done.ok_or(Error::NoSuchLimit(account, kind))?;
    is_fresh(&entered)?;
    tell(&spec, &called);
    Ok(())
}

/// Announces jobs that may go on, in the commit that lets them.
pub(super) fn note_all(
    c: &mut AnyConnection,
    announce: &crate::mq::Announce,
    called: &[String],
) -> diesel::QueryResult<()> {
    uids(called).try_for_each(|uid| announce.note(c, Nudge::Job(uid)))
}

fn uids(called: &[String]) -> impl Iterator<Item = JobUid> + '_ {
    called.iter().filter_map(|uid| uid.parse().ok())
}

/// Nudges jobs that may go on.
pub(super) fn tell(spec: &Spec, called: &[String]) {
    for uid in uids(called) {
        spec.changes.tell(uid);
        spec.queue.publish(Nudge::Job(uid));
    }
}

/// Puts lines and groups in order that a crash, or two moves at the same moment, left so that nobody is called.
pub(super) async fn sweep(spec: &Spec) -> Result<(), store::Error> {
    let (accounts, groups) = spec
        .store
        .read(|c| Ok((transition::limited_accounts(c)?, transition::unfinished_groups(c, GROUPS)?)))
        .await?;
    let accounts: HashSet<i64> = accounts.into_iter().collect();
    for account in accounts {
        let called = spec.store.write(move |c| transition::look_over(c, account)).await?;
        tell(spec, &called);
    }
    for group in groups {
        let mended = spec.store.write(move |c| {
            let mut called = Vec::new();
            transition::mend(c, group, &mut called)?;
            Ok(called)
        });
        tell(spec, &mended.await?);
    }
    Ok(())
}

/// Groups looked at in one sweep.
const GROUPS: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::{subject, told};
    use crate::model::AccountId;
    use crate::store::provisioning::limit::Wish;

    #[test]
    fn what_was_set_is_told_in_words() {
        let wish = Wish {
            together: Some(4),
            pace: Some((10, 60, 2)),
            made_by: "ann".into(),
            reason: "quota".into(),
        };
        assert_eq!(told(&wish), "4 together, 10 in 60 s, 2 at once: quota");
        assert_eq!(told(&Wish { together: Some(1), ..Wish::default() }), "1 together");
        assert_eq!(subject(AccountId(3), "noop"), "account/3/noop");
    }
}
