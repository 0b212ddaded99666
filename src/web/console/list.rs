//! The overview: what waits for a person, counts of jobs, the newest ones, which come in by themselves while nobody is
//! in the list.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::answer::Answer;
use super::facets::Facets;
use super::frame::{Me, with};
use super::page;
use super::show::Row;
use crate::access::{Action, Resource, Verb};
use crate::model::query::Query;
use crate::store::provisioning::job::Job;
use crate::store::provisioning::search::{self, Search};
use crate::store::provisioning::view;
use crate::web::{Fault, State};

/// Jobs on the page.
const ROWS: i64 = 50;

#[derive(Template)]
#[template(path = "feed.html")]
struct Overview {
    me: Me,
    answer: Answer,
    facets: Facets,
    rows: Vec<Row>,
    newest: i64,
}

/// The page.
pub(super) async fn overview(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
        let all = Search::all(visitor.principal.customer);
        let read = state.store.read(move |c| {
            let (page, counts) = (search::page(c, &all, None, ROWS)?, search::counts(c, &all)?);
            Ok((page, counts, view::oldest_open(c, all.customer)?, view::now(c)?))
        });
        let (found, counts, oldest, now) = read.await?;
        let jobs: Vec<Job> = found.rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let shown = Overview {
            me: Me::of(&visitor, now, "overview"),
            answer: Answer::of(&counts.states, oldest, now, true),
            facets: Facets::of(&counts, &Query::default()),
            rows: jobs.iter().map(|job| Row::of(job, now)).collect(),
            newest: jobs.first().map_or(0, |job| job.id.0),
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}
