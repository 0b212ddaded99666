//! `POST /jobs`: what is asked for is checked and resolved, made durable, and only then answered with 202.

use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use diesel::QueryResult;
use serde_json::Value;

use super::fields::{Fields, nearest};
use super::launch::{Catalog, Wish};
use super::{LONGEST_JOB, Problem, admit, group, show};
use crate::access::{Action, Principal, Resource, Verb};
use crate::crypto::{Aad, base64};
use crate::model::{
    CommandParams, CustomerId, JobId, JobKind, JobParams, JobUid, LaunchParams, NoopParams, ServerId,
    ServerParams,
};
use crate::store::AnyConnection;
use crate::store::provisioning::accept::{Entry, Submit};
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::{catalog, job, server};
use crate::web::State;
use crate::web::auth::Caller;

/// Longest run of a guest's command, in seconds.
const LONGEST_COMMAND: i64 = 86_400;
/// Longest a job may be put off, in seconds: a year.
const LONGEST_DELAY: i64 = 366 * 24 * 3600;
/// Time a job is given when the client names none, beyond the run of its command.
const USUAL: Duration = Duration::from_secs(3600);

/// What a client asks for, understood but not looked up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    what: What,
    terms: Terms,
    /// What names the server: a field, or a part of the path.
    server: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Noop(String),
    Launch(Box<Wish>),
    Server(JobKind, ServerId, String),
    Run(ServerId, Vec<String>, u32),
    Group(Box<group::Wish>),
}

impl Asked {
    /// Reads the body of a submit.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"kind\": …, \"params\": {…}}")?;
        let kind = fields.needed_text("kind", 64)?;
        let params = fields.value("params").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let terms = Terms::read(&mut fields)?;
        fields.end()?;
        let kind: JobKind = kind.parse().map_err(|e: crate::model::InvalidKind| {
            let words: Vec<&str> = JobKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let meant =
                nearest(&kind, &words).map_or_else(String::new, |word| format!("; did you mean {word}?"));
            Problem::field("kind", format!("{e}{meant}"))
        })?;
        let what = What::read(kind, Fields::of(params, "params.")?)?;
        Ok(Self { what, terms, server: "params.server" })
    }

    /// Reads the body of `POST /agents/{server}/commands`.
    pub(super) fn command(server: ServerId, bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"argv\": [\"program\", …]}")?;
        let terms = Terms::read(&mut fields)?;
        let (argv, secs) = command_of(&mut fields, "argv")?;
        fields.end()?;
        Ok(Self { what: What::Run(server, argv, secs), terms, server: "server" })
    }

    /// Reads the body of `POST /servers/{id}/…`, which may be left out.
    pub(super) fn operation(kind: JobKind, server: ServerId, bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"reason\": …} or nothing")?;
        let terms = Terms::read(&mut fields)?;
        let reason = fields.text("reason", 1024)?.unwrap_or_default();
        fields.end()?;
        Ok(Self { what: What::Server(kind, server, reason), terms, server: "id" })
    }

    fn kind(&self) -> JobKind {
        match &self.what {
            What::Noop(_) => JobKind::Noop,
            What::Launch(_) => JobKind::LaunchServer,
            What::Server(kind, ..) => *kind,
            What::Run(..) => JobKind::RunCommand,
            What::Group(_) => JobKind::Group,
        }
    }

    /// Whether it is many jobs.
    pub(super) const fn is_group(&self) -> bool {
        matches!(self.what, What::Group(_))
    }

    /// The priority that was asked for.
    pub(super) const fn priority(&self) -> Option<i32> {
        self.terms.priority
    }

    /// Whether it starts later than it is accepted.
    pub(super) const fn is_put_off(&self) -> bool {
        !self.terms.delay.is_zero()
    }

    fn limit(&self) -> Duration {
        let run = match &self.what {
            What::Run(_, _, secs) => Duration::from_secs(u64::from(*secs)),
            What::Noop(_) | What::Launch(_) | What::Server(..) | What::Group(_) => Duration::ZERO,
        };
        self.terms.limit.unwrap_or(USUAL + run).min(LONGEST_JOB)
    }
}

/// What a role must grant before such a job is accepted.
pub(in crate::web) const fn action(kind: JobKind) -> Action {
    match kind {
        JobKind::Noop => Action::new(Verb::Create, Resource::Job),
        JobKind::LaunchServer => Action::new(Verb::Create, Resource::Server),
        JobKind::TerminateServer | JobKind::TakeBack => Action::new(Verb::Delete, Resource::Server),
        JobKind::StartServer | JobKind::StopServer | JobKind::PauseServer => {
            Action::new(Verb::Operate, Resource::Server)
        }
        JobKind::RunCommand => Action::new(Verb::Execute, Resource::Server),
        // Each of its children needs its own.
        JobKind::Group => Action::new(Verb::Read, Resource::Job),
    }
}

/// What may be said of any job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) limit: Option<Duration>,
    pub(super) delay: Duration,
    pub(super) priority: Option<i32>,
}

impl Terms {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let most = i64::try_from(LONGEST_JOB.as_secs()).unwrap_or(i64::MAX);
        let delay = fields.integer("delaySeconds", 0, LONGEST_DELAY)?.unwrap_or(0);
        let limit = fields.integer("deadlineSeconds", 1, most)?;
        let priority = fields.integer("priority", -100, 100)?;
        Ok(Self {
            limit: limit.and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs),
            delay: Duration::from_secs(u64::try_from(delay).unwrap_or(0)),
            priority: priority.and_then(|priority| i32::try_from(priority).ok()),
        })
    }
}

/// The fields of a body; none at all is an object without fields. `example` shows what to send.
pub(super) fn body(bytes: &[u8], example: &str) -> Result<Fields, Problem> {
    if bytes.is_empty() {
        return Fields::of(Value::Object(serde_json::Map::new()), "");
    }
    let value = serde_json::from_slice(bytes)
        .map_err(|e| Problem::field("", format!("the body is no JSON: {e}; send {example}")))?;
    Fields::of(value, "")
}

/// Program, arguments and longest run of a command.
fn command_of(fields: &mut Fields, name: &'static str) -> Result<(Vec<String>, u32), Problem> {
    let argv = fields.texts("argv", 256, 64 * 1024)?;
    if argv.first().is_none_or(String::is_empty) || argv.iter().any(|arg| arg.contains('\0')) {
        return Err(Problem::field(name, format!("{name} must begin with a program and hold no zero byte")));
    }
    let secs = fields.integer("timeoutSecs", 1, LONGEST_COMMAND)?.unwrap_or(300);
    Ok((argv, u32::try_from(secs).unwrap_or(300)))
}

impl What {
    fn read(kind: JobKind, mut fields: Fields) -> Result<Self, Problem> {
        let what = match kind {
            JobKind::Noop => Self::Noop(fields.text("note", 1024)?.unwrap_or_default()),
            JobKind::LaunchServer => return Wish::read(fields).map(|wish| Self::Launch(Box::new(wish))),
            JobKind::Group => return group::Wish::read(fields).map(|wish| Self::Group(Box::new(wish))),
            JobKind::RunCommand => {
                let server = ServerId(fields.needed_integer("server", 1, i64::MAX)?);
                let (argv, secs) = command_of(&mut fields, "params.argv")?;
                Self::Run(server, argv, secs)
            }
            JobKind::TerminateServer | JobKind::StartServer | JobKind::StopServer | JobKind::PauseServer => {
                let server = ServerId(fields.needed_integer("server", 1, i64::MAX)?);
                Self::Server(kind, server, fields.text("reason", 1024)?.unwrap_or_default())
            }
            // What it destroys has no row of its own, so nobody but who looked may name it.
            JobKind::TakeBack => {
                let text =
                    "take-back is submitted by the janitor, for what it found; see GET /api/v1/obligations";
                return Err(Problem::field("kind", text));
            }
        };
        fields.end()?;
        Ok(what)
    }
}

/// Accepts a job. Dropping the future takes nothing back.
pub(super) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    accepted(&request, payload, &state).await.map_err(|problem| problem.of(&request))
}

async fn accepted(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
) -> Result<HttpResponse, Problem> {
    // The weakest right first: who may not even look at jobs learns nothing about bodies.
    let (caller, bytes) = admit(request, payload, state, Action::new(Verb::Read, Resource::Job)).await?;
    take(state, &caller, Asked::read(&bytes)?).await
}

/// Looks up what is asked for and accepts it.
pub(super) async fn take(state: &State, caller: &Caller, asked: Asked) -> Result<HttpResponse, Problem> {
    Ok(told(&made(state, &caller.principal, caller.entry(), asked).await?))
}

/// Understands a body, checks that `who` may ask for it, and makes the job durable: what the API and the console share.
pub(in crate::web) async fn put(
    state: &State,
    who: &Principal,
    entry: Entry,
    bytes: &[u8],
) -> Result<job::Job, Problem> {
    made(state, who, entry, Asked::read(bytes)?).await
}

async fn made(state: &State, who: &Principal, entry: Entry, asked: Asked) -> Result<job::Job, Problem> {
    if let What::Group(wish) = asked.what {
        who.must(action(JobKind::Group))?;
        return group::made(state, who, entry, (*wish, asked.terms)).await;
    }
    let plain = plain(state, who, asked).await?;
    stored(state, who, entry, plain).await
}

/// What is asked for with everything looked up, if `who` may ask for it.
pub(super) async fn plain(state: &State, who: &Principal, asked: Asked) -> Result<Plain, Problem> {
    who.must(action(asked.kind()))?;
    let (limit, delay, priority) = (asked.limit(), asked.terms.delay, asked.terms.priority.unwrap_or(0));
    let (params, description) = resolved(asked, who, state).await?;
    Ok(Plain { params, description, delay, limit, priority })
}

/// A job without anything left to look up.
pub(super) struct Plain {
    pub(super) params: JobParams,
    pub(super) description: String,
    pub(super) delay: Duration,
    pub(super) limit: Duration,
    pub(super) priority: i32,
}

/// Makes a job durable and answers 202 with it.
pub(super) async fn durable(state: &State, caller: &Caller, plain: Plain) -> Result<HttpResponse, Problem> {
    Ok(told(&stored(state, &caller.principal, caller.entry(), plain).await?))
}

pub(super) fn told(found: &job::Job) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((LOCATION, format!("/api/v1/jobs/{}", found.id)))
        .json(show::job(found))
}

pub(super) async fn stored(
    state: &State,
    who: &Principal,
    entry: Entry,
    plain: Plain,
) -> Result<job::Job, Problem> {
    let submit = Submit {
        entry,
        uid: JobUid::random(),
        id: JobId(state.sequencer.next(Sequence::Job).await?),
        account: who.account,
        person: who.person,
        server: plain.params.server(),
        description: plain.description,
        priority: plain.priority,
        delay: plain.delay,
        limit: plain.limit,
        params: plain.params,
    };
    let accepted = state.registry.submit(submit).await?;
    Ok(job::Job::try_from(*accepted.row)?)
}

/// Looks everything up that is named, among the tenant's own.
async fn resolved(asked: Asked, who: &Principal, state: &State) -> Result<(JobParams, String), Problem> {
    let (customer, place) = (who.customer, asked.server);
    match asked.what {
        What::Group(_) => Err(Problem::field("kind", "only single jobs can stand here, not a group")),
        What::Noop(note) => Ok((JobParams::Noop(NoopParams { note }), "Do nothing".to_owned())),
        What::Launch(wish) => {
            let params = launch(*wish, who, state).await?;
            let description = format!("Launch server {}", params.name);
            Ok((JobParams::LaunchServer(params), description))
        }
        What::Run(server, argv, timeout_secs) => {
            let name = name_of((customer, server), place, state).await?;
            let program: String = argv.first().map(|arg| arg.chars().take(100).collect()).unwrap_or_default();
            let params = CommandParams { server, argv, timeout_secs };
            Ok((JobParams::RunCommand(params), format!("Run {program} on {name}")))
        }
        What::Server(kind, server, reason) => {
            let name = name_of((customer, server), place, state).await?;
            let params = ServerParams { server, reason };
            let (params, verb) = match kind {
                JobKind::TerminateServer => (JobParams::TerminateServer(params), "Terminate"),
                JobKind::StartServer => (JobParams::StartServer(params), "Start"),
                JobKind::PauseServer => (JobParams::PauseServer(params), "Pause"),
                _ => (JobParams::StopServer(params), "Stop"),
            };
            Ok((params, format!("{verb} server {name}")))
        }
    }
}

async fn name_of(
    (customer, id): (CustomerId, ServerId),
    place: &'static str,
    state: &State,
) -> Result<String, Problem> {
    let row = state.store.read(move |c| server::by_id(c, customer, id)).await?;
    row.map(|row| row.name).ok_or_else(|| {
        Problem::absent(place, format!("there is no server {id}; list yours with GET /api/v1/servers"))
    })
}

async fn launch(mut wish: Wish, who: &Principal, state: &State) -> Result<LaunchParams, Problem> {
    let (customer, account) = (who.customer, who.account);
    let user_data = wish.user_data.take();
    let catalog = state.store.read(move |c| all(c, customer, account)).await?;
    let mut params = wish.resolve(&catalog)?;
    params.sealed_user_data = user_data.map(|text| {
        let place = Aad::new(LaunchParams::USER_DATA).with("customer", customer.to_string());
        base64::encode(state.user_data.seal(&place, text.as_bytes()))
    });
    Ok(params)
}

/// Everything of a tenant that a launch can name.
pub(in crate::web) fn all(
    c: &mut AnyConnection,
    customer: CustomerId,
    account: crate::model::AccountId,
) -> QueryResult<Catalog> {
    Ok(Catalog {
        account: catalog::account(c, customer, account)?,
        regions: catalog::regions(c, customer)?,
        data_centers: catalog::data_centers(c, customer, None)?,
        products: catalog::products(c, customer, None)?,
        images: catalog::images(c, customer, None)?,
        budgets: catalog::billing_codes(c, customer)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Asked, What};
    use crate::model::{JobKind, ServerId};
    use serde_json::json;
    use std::time::Duration;

    fn read(body: &serde_json::Value) -> Result<Asked, super::Problem> {
        Asked::read(body.to_string().as_bytes())
    }

    #[test]
    fn good_bodies_are_understood() {
        let asked = read(&json!({"kind": "noop", "deadlineSeconds": 5, "priority": -3})).expect("good");
        assert_eq!((asked.limit(), asked.terms.priority), (Duration::from_secs(5), Some(-3)));
        let asked = read(&json!({"kind": "noop", "delaySeconds": 90})).expect("good");
        assert_eq!((asked.limit(), asked.terms.delay), (Duration::from_secs(3600), Duration::from_secs(90)));
        let asked =
            read(&json!({"kind": "run-command", "params": {"server": 7, "argv": ["ls"]}})).expect("good");
        assert_eq!(asked.what, What::Run(ServerId(7), vec!["ls".to_owned()], 300));
        assert_eq!(asked.limit(), Duration::from_secs(3900));
        let asked = read(&json!({"kind": "stop-server", "params": {"server": 7}})).expect("good");
        assert_eq!(asked.what, What::Server(JobKind::StopServer, ServerId(7), String::new()));
    }

    #[test]
    fn bad_bodies_name_the_field_and_what_was_meant() {
        for (body, field, said) in [
            (json!([]), "", "JSON object"),
            (json!({}), "kind", "missing"),
            (json!({"kind": "launch"}), "kind", "did you mean launch-server?"),
            (json!({"kind": "noop", "param": {}}), "param", "did you mean params?"),
            (json!({"kind": "noop", "params": []}), "params", "JSON object"),
            (json!({"kind": "noop", "params": {"notes": ""}}), "params.notes", "did you mean params.note?"),
            (json!({"kind": "noop", "deadlineSeconds": 0}), "deadlineSeconds", "from 1 to 604800"),
            (json!({"kind": "noop", "delaySeconds": -1}), "delaySeconds", "from 0 to 31622400"),
            (json!({"kind": "noop", "priority": "high"}), "priority", "whole number"),
            (json!({"kind": "stop-server"}), "params.server", "missing"),
            (json!({"kind": "stop-server", "params": {"server": "web"}}), "params.server", "whole number"),
            (json!({"kind": "run-command", "params": {"server": 1}}), "params.argv", "1 to 256"),
            (json!({"kind": "run-command", "params": {"server": 1, "argv": []}}), "params.argv", "1 to 256"),
            (json!({"kind": "run-command", "params": {"server": 1, "argv": [""]}}), "params.argv", "program"),
            (
                json!({"kind": "run-command", "params": {"server": 1, "argv": ["a\0"]}}),
                "params.argv",
                "zero byte",
            ),
            (
                json!({"kind": "run-command", "params": {"server": 1, "argv": ["a"], "timeoutSecs": 86401}}),
                "params.timeoutSecs",
                "86400",
            ),
            (json!({"kind": "launch-server", "params": {}}), "params.name", "missing"),
        ] {
            let problem = read(&body).expect_err(&body.to_string());
            assert_eq!(
                (problem.status().as_u16(), problem.at_fault()),
                (400, Some(field)),
                "{body}: {problem}"
            );
            assert!(problem.detail().contains(said), "{body}: {problem}");
        }
        assert!(Asked::read(b"{").expect_err("cut").detail().contains("no JSON"));
    }
}
