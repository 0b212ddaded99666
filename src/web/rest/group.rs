//! `POST /jobs` of kind `group`: many jobs accepted as one, or none of them; and the retry of such a group.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::Fields;
use super::submit::{self, Asked, Plain, Terms};
use super::{LONGEST_JOB, Problem};
use crate::access::Principal;
use crate::model::{GroupParams, JobId, JobParams, JobState, JobUid};
use crate::registry::SubmitGroup;
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::group::{self, MOST, Which};
use crate::store::provisioning::job::Job;
use crate::store::provisioning::sequence::Sequence;
use crate::web::{Fault, State};

/// A group as it was asked for, not looked up yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    children: Vec<Asked>,
    together: Option<u32>,
    stop_on_failure: bool,
    note: String,
}

impl Wish {
    /// Reads the parameters of a group.
    pub(super) fn read(mut fields: Fields) -> Result<Self, Problem> {
        let children = fields.value("children");
        let together = fields.integer("together", 1, i64::try_from(MOST).unwrap_or(1))?;
        let stop = fields.value("stopOnFailure").unwrap_or(Value::Bool(false)).as_bool();
        let note = fields.text("note", 200)?.unwrap_or_default();
        fields.end()?;
        let stop_on_failure = stop.ok_or_else(|| {
            Problem::field("params.stopOnFailure", "field params.stopOnFailure must be true or false")
        })?;
        let Some(Value::Array(children)) = children.filter(is_list) else {
            let text = format!(
                "field params.children must be a list of 1 to {MOST} jobs, each {{\"kind\": …, \"params\": {{…}}}}"
            );
            return Err(Problem::field("params.children", text));
        };
        let children: Result<_, Problem> =
            children.into_iter().enumerate().map(|(n, child)| read_child(n, &child)).collect();
        let together = together.and_then(|n| u32::try_from(n).ok());
        Ok(Self { children: children?, together, stop_on_failure, note })
    }
}

fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| (1..=MOST).contains(&list.len()))
}

fn read_child(n: usize, child: &Value) -> Result<Asked, Problem> {
    let at = |problem: &Problem| within(n, problem);
    let asked = Asked::read(child.to_string().as_bytes()).map_err(|problem| at(&problem))?;
    if asked.is_group() {
        let text = "a group holds single jobs; ask for another group instead";
        return Err(at(&Problem::field("kind", text)));
    }
    if asked.is_put_off() {
        let text = "put the whole group off by its own delaySeconds, or leave it out";
        return Err(at(&Problem::field("delaySeconds", text)));
    }
    Ok(asked)
}

/// A problem of a child, with the place of the child.
fn within(n: usize, problem: &Problem) -> Problem {
    let place = format!("params.children[{n}]");
    let field = match problem.at_fault() {
        Some(field) if !field.is_empty() => format!("{place}.{field}"),
        _ => place.clone(),
    };
    problem.moved(field, format!("in {place}: {}", problem.detail()))
}

/// Looks a group up and makes it durable, as a whole.
pub(super) async fn made(
    state: &State,
    who: &Principal,
    entry: Entry,
    (wish, terms): (Wish, Terms),
) -> Result<Job, Problem> {
    let mut children = Vec::with_capacity(wish.children.len());
    for (n, child) in wish.children.into_iter().enumerate() {
        let priority = child.priority().or(terms.priority).unwrap_or(0);
        let plain = submit::plain(state, who, child).await.map_err(|problem| within(n, &problem))?;
        children.push(Plain { priority, delay: terms.delay, ..plain });
    }
    let params = GroupParams {
        children: u32::try_from(children.len()).unwrap_or(u32::MAX),
        together: wish.together,
        stop_on_failure: wish.stop_on_failure,
        retry_of: None,
    };
    let description = match wish.note.as_str() {
        "" => format!("Group of {}", many(children.len())),
        note => format!("Group of {}: {note}", many(children.len())),
    };
    let group = Plain {
        params: JobParams::Group(params),
        description,
        delay: terms.delay,
        limit: terms.limit.unwrap_or(LONGEST_JOB),
        priority: terms.priority.unwrap_or(0),
    };
    stored(state, who, entry, (group, children)).await
}

fn many(children: usize) -> String {
    if children == 1 { "1 job".to_owned() } else { format!("{children} jobs") }
}

/// Takes up what of an ended group did not end complete: a new group, which names the old one.
pub(super) async fn again(
    state: &State,
    who: &Principal,
    entry: Entry,
    (old, terms): (&Job, Terms),
) -> Result<Job, Problem> {
    let JobParams::Group(params) = &old.params else {
        return Err(Fault::conflict(format!("job {} is no group", old.id)).into());
    };
    let (id, most) = (old.id, i64::try_from(MOST).unwrap_or(i64::MAX));
    let rows = state.store.read(move |c| group::children(c, id.0, Which::NotComplete, most)).await?;
    if rows.is_empty() {
        let text = format!("every child of group {id} is complete; there is nothing to retry");
        return Err(Fault::conflict(text).into());
    }
    let mut children = Vec::with_capacity(rows.len());
    for row in rows {
        let child = Job::try_from(row)?;
        who.must(submit::action(child.params.kind()))?;
        children.push(Plain {
            description: super::acts::described(&child.description, child.id),
            delay: terms.delay,
            limit: super::acts::given(&child),
            priority: terms.priority.unwrap_or(child.priority),
            params: child.params,
        });
    }
    let count = u32::try_from(children.len()).unwrap_or(u32::MAX);
    let group = Plain {
        description: super::acts::described(&format!("Group of {}", many(children.len())), id),
        delay: terms.delay,
        limit: terms.limit.unwrap_or_else(|| super::acts::given(old)),
        priority: terms.priority.unwrap_or(old.priority),
        params: JobParams::Group(GroupParams { children: count, retry_of: Some(id), ..params.clone() }),
    };
    stored(state, who, entry, (group, children)).await
}

async fn stored(
    state: &State,
    who: &Principal,
    entry: Entry,
    (group, children): (Plain, Vec<Plain>),
) -> Result<Job, Problem> {
    let group = one(state, who, &entry, group).await?;
    let mut jobs = Vec::with_capacity(children.len());
    for child in children {
        jobs.push(one(state, who, &entry, child).await?);
    }
    let ask = SubmitGroup { group: Box::new(group), children: jobs };
    let accepted = state.registry.submit_group(ask).await?;
    Ok(Job::try_from(*accepted.row)?)
}

async fn one(state: &State, who: &Principal, entry: &Entry, plain: Plain) -> Result<Submit, Problem> {
    Ok(Submit {
        entry: entry.clone(),
        uid: JobUid::random(),
        id: JobId(state.sequencer.next(Sequence::Job).await?),
        account: who.account,
        person: who.person,
        server: plain.params.server(),
        description: plain.description,
        priority: plain.priority,
        delay: plain.delay,
        limit: plain.limit.max(Duration::from_secs(1)),
        params: plain.params,
    })
}

/// How far a group is: its children by state. None for a job that is no group.
pub(in crate::web) async fn progress(state: &State, job: &Job) -> Result<Option<Progress>, Problem> {
    let JobParams::Group(params) = &job.params else { return Ok(None) };
    let id = job.id.0;
    let found = state.store.read(move |c| group::states(c, id)).await?;
    let states = found.into_iter().filter_map(|(word, many)| Some((word.parse().ok()?, many))).collect();
    Ok(Some(Progress { children: i64::from(params.children), states }))
}

/// The children of a group by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::web) struct Progress {
    /// All of them.
    pub(in crate::web) children: i64,
    /// How many are in each state.
    pub(in crate::web) states: Vec<(JobState, i64)>,
}

impl Progress {
    /// How many have ended.
    pub(in crate::web) fn ended(&self) -> i64 {
        self.states.iter().filter(|(state, _)| state.is_end()).map(|(_, many)| many).sum()
    }

    /// As the API shows it.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({ "total": self.children, "ended": self.ended() });
        if let Some(fields) = shown.as_object_mut() {
            for state in JobState::ALL {
                let many = self.states.iter().find(|(found, _)| found == state).map_or(0, |(_, many)| *many);
                fields.insert(state.to_string(), many.into());
            }
        }
        shown
    }
}
