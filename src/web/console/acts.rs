//! What can be done about a job from its page: cancel it, ask for it again, say how it ended.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::door::Visitor;
use super::forms::{self, Filled, SENT_BEFORE};
use super::frame::with;
use super::{see_other, words};
use crate::access::{Action, Resource, Verb};
use crate::model::{JobParams, JobState};
use crate::store::provisioning::job::Job;
use crate::web::rest::{Problem, acts as api, jobs, submit};
use crate::web::{Fault, State};

/// An action on a job.
pub(super) struct Act {
    pub(super) word: &'static str,
    /// Whether it is possible now.
    pub(super) legal: bool,
    /// Whether the visitor may ask for it at all.
    pub(super) may: bool,
    pub(super) once: String,
}

/// What is possible in a job's present state, as words a page knows.
pub(super) fn legal(job: &Job) -> Vec<&'static str> {
    let open = job.ended_at.is_none();
    let mut words = Vec::new();
    if open && job.cancel_by.is_none() {
        words.push("cancel");
    }
    if !open {
        words.push("retry");
    }
    if job.state == JobState::Quarantined {
        words.push("resolve");
    }
    words
}

/// Every action for somebody.
pub(super) fn of(job: &Job, visitor: &Visitor) -> Vec<Act> {
    let legal = legal(job);
    let rights = [
        ("retry", submit::action(job.params.kind())),
        ("resolve", Action::new(Verb::Update, Resource::Job)),
        ("cancel", Action::new(Verb::Cancel, Resource::Job)),
    ];
    let act = |(word, right): (&'static str, Action)| Act {
        word,
        legal: legal.contains(&word),
        may: visitor.principal.can(right),
        once: forms::once(),
    };
    rights.into_iter().map(act).collect()
}

/// The command line that asks for the same.
pub(super) fn command(job: &Job) -> String {
    let quoted = |text: &str| words::shell(text);
    let server = |word: &str, params: &crate::model::ServerParams| {
        let reason = if params.reason.is_empty() {
            String::new()
        } else {
            format!(" --reason {}", quoted(&params.reason))
        };
        format!("dispatcher jobs submit {word} {}{reason}", params.server)
    };
    let line = match &job.params {
        JobParams::Noop(params) if params.note.is_empty() => "dispatcher jobs submit noop".to_owned(),
        JobParams::Noop(params) => format!("dispatcher jobs submit noop --note {}", quoted(&params.note)),
        JobParams::StartServer(params) => server("start", params),
        JobParams::StopServer(params) => server("stop", params),
        JobParams::PauseServer(params) => server("pause", params),
        JobParams::TerminateServer(params) => server("terminate", params),
        JobParams::TakeBack(_) => format!("dispatcher jobs retry {}", job.id),
        JobParams::RunCommand(params) => {
            let argv: Vec<String> = params.argv.iter().map(|arg| quoted(arg)).collect();
            format!(
                "dispatcher agents run {} --limit {}s -- {}",
                params.server,
                params.timeout_secs,
                argv.join(" ")
            )
        }
        // Its children are not in its parameters; what did not end complete is taken up by a retry.
        JobParams::Group(_) => format!("dispatcher jobs retry {}", job.id),
        JobParams::LaunchServer(params) => {
            let mut line = format!(
                "dispatcher jobs submit launch --region {} --data-center {} --product {} --image {} --budget {}",
                params.region, params.data_center, params.product, params.image, params.budget
            );
            for (flag, value) in
                [("description", Some(&params.description)), ("keypair", params.keypair.as_ref())]
            {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    line.push_str(&format!(" --{flag} {}", quoted(value)));
                }
            }
            if params.sealed_user_data.is_some() {
                line.push_str(" --user-data FILE");
            }
            format!("{line} -- {}", quoted(&params.name))
        }
    };
    words::plain(&line)
}

fn told(problem: Problem) -> Problem {
    if forms::sent_before(&problem) { Fault::conflict(SENT_BEFORE).into() } else { problem }
}

/// Asks for a cancel, then shows the job.
pub(super) async fn cancel(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let who = &visitor.principal;
        who.must(Action::new(Verb::Cancel, Resource::Job))?;
        let (id, entry) = (jobs::id_of(&request)?, typed.entry(&request, &visitor)?);
        state.registry.cancel_once(entry, id, who.name.clone()).await.map_err(|e| told(e.into()))?;
        Ok(see_other(&format!("/jobs/{id}")))
    })
    .await
}

/// Asks for the same once more, then shows the new job.
pub(super) async fn retry(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let who = &visitor.principal;
        who.must(Action::new(Verb::Read, Resource::Job))?;
        let (id, entry) = (jobs::id_of(&request)?, typed.entry(&request, &visitor)?);
        let job = api::repeat(&state, who, entry, id).await.map_err(told)?;
        Ok(see_other(&format!("/jobs/{}", job.id)))
    })
    .await
}

/// Writes a person's word, then shows the job.
pub(super) async fn resolve(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let typed = Filled::of(&request, payload, &state, &visitor).await?;
        let who = &visitor.principal;
        who.must(Action::new(Verb::Update, Resource::Job))?;
        let (id, entry) = (jobs::id_of(&request)?, typed.entry(&request, &visitor)?);
        let body = json!({ "outcome": typed.text("outcome"), "reason": typed.text("reason").trim() });
        let said = api::said(body.to_string().as_bytes())?;
        api::word(&state, who, entry, (id, said)).await.map_err(told)?;
        Ok(see_other(&format!("/jobs/{id}")))
    })
    .await
}

/// The address of an action, opened as a page: the job has the form.
pub(super) async fn back(request: HttpRequest) -> Result<HttpResponse, Fault> {
    let id: String = request.match_info().query("id").chars().filter(char::is_ascii_digit).take(20).collect();
    Ok(see_other(&format!("/jobs/{id}")))
}
