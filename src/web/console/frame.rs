//! What every page has: who looks, the way to the door, and the page of what went wrong.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use askama::Template;

use super::door::{self, Visitor};
use super::taste::Taste;
use super::{page, words};
use crate::access::{Action, Resource, Verb};
use crate::model::Micros;
use crate::ops::mode::{Mode, modes};
use crate::web::rest::Problem;
use crate::web::{Fault, RequestId, State};

/// Who looks, and when.
pub(super) struct Me {
    pub(super) name: String,
    pub(super) csrf: String,
    pub(super) taste: Taste,
    /// The entry of the menu this page belongs to.
    pub(super) at: &'static str,
    pub(super) sees_servers: bool,
    pub(super) sees_actors: bool,
    pub(super) now: String,
    pub(super) clock: String,
}

impl Me {
    pub(super) fn of(visitor: &Visitor, now: Micros, at: &'static str) -> Self {
        let reads = |what| visitor.principal.can(Action::new(Verb::Read, what));
        Self {
            name: words::plain(&visitor.principal.name),
            csrf: visitor.csrf.clone(),
            taste: visitor.taste,
            at,
            sees_servers: reads(Resource::Server),
            sees_actors: reads(Resource::Customer),
            now: now.rfc3339(),
            clock: words::clock(now),
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Failed {
    me: Me,
    title: &'static str,
    text: String,
    /// What is known to have happened.
    known: &'static str,
    /// What is down, when it is not possible now.
    down: Vec<String>,
    request: String,
}

/// Lets a visitor in and runs `work`; sends others to the door. What goes wrong becomes a page.
pub(super) async fn with<F>(
    request: &HttpRequest,
    state: &State,
    work: impl FnOnce(Visitor) -> F,
) -> Result<HttpResponse, Fault>
where
    F: Future<Output = Result<HttpResponse, Problem>>,
{
    let id = RequestId::of(request);
    let found = door::visitor(request, state).await.map_err(|fault| fault.of(id))?;
    let Some(visitor) = found else { return Ok(door::to_the_door(request)) };
    let me = Me::of(&visitor, Micros::wall(), "");
    match work(visitor).await {
        Ok(answer) => Ok(answer),
        Err(problem) => {
            let status = problem.status_code();
            let title = match status.as_u16() {
                404 => "Not found",
                403 => "Not allowed",
                409 => "Not possible now",
                503 => "Busy",
                500.. => "Our fault",
                _ => "Not understood",
            };
            page(
                status,
                &Failed {
                    me,
                    title,
                    text: words::plain(problem.detail()),
                    known: known(request, &problem),
                    down: if status.as_u16() == 503 { down(state) } else { Vec::new() },
                    request: id.0.to_string(),
                },
            )
        }
    }
}

/// What is down and what that means, one sentence a part.
fn down(state: &State) -> Vec<String> {
    let now = Micros::wall();
    let said = |mode: Mode| {
        let since = words::took(now.since(mode.since));
        format!("{} for {since}: {}.", words::capital(mode.name), mode.sees)
    };
    modes(&state.health.ready().1).into_iter().map(said).collect()
}

/// What happened to a form that was answered with a problem.
fn known(request: &HttpRequest, problem: &Problem) -> &'static str {
    match (request.method() == Method::POST, problem.status().as_u16()) {
        (false, _) => "",
        (true, 503) if problem.detail().contains("unknown") => {
            "It may have been submitted. Look at the list of jobs; sending the same form again makes no second job."
        }
        (true, 500) => "It may have been submitted. Look at the list of jobs before you send it again.",
        (true, _) => "Nothing was submitted.",
    }
}
