//! What keeps pages live: one stream a page, of a list or of one job. It carries rendered parts.

use std::collections::{HashMap, HashSet};

use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use askama::Template as _;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{Duration, Instant, timeout_at};

use super::acts;
use super::answer::Answer;
use super::door;
use super::facets::{Facets, FacetsPart, counted};
use super::jobs as lists;
use super::show::{self, Card, JobLive, Row, RowPart};
use crate::access::{Action, Resource, Verb};
use crate::model::{JobId, JobUid, Micros};
use crate::ops::Health;
use crate::ops::mode::modes;
use crate::store::provisioning::job::{self, Job, JobRow};
use crate::store::provisioning::search::{self, Search};
use crate::store::provisioning::{catalog, obligation, view};
use crate::store::{self, Store};
use crate::web::live::{Gone, Line, Woken};
use crate::web::rest::{Problem, jobs as api};
use crate::web::{Fault, State};

/// Rows read again at once; when more changed, the page is told to load anew.
const BATCH: i64 = 200;
/// Commits may become visible later than the time they carry: so far back is read again.
const OVERLAP: Duration = Duration::from_secs(5);
/// Counts of states are read at most this often.
const COUNTS: Duration = Duration::from_secs(2);
/// Versions remembered, so that a row is not sent twice.
const REMEMBERED: usize = 2000;

/// The stream of a page.
pub(super) async fn events(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    match opened(&request, &state).await {
        Ok(answer) => Ok(answer),
        Err(problem) => Ok(problem.of(&request).error_response()),
    }
}

async fn opened(request: &HttpRequest, state: &State) -> Result<HttpResponse, Problem> {
    let visitor = door::visitor(request, state).await?;
    let visitor =
        visitor.ok_or_else(|| Fault::forbidden("no-session", "the session is over; log in again"))?;
    visitor.principal.must(Action::new(Verb::Read, Resource::Job))?;
    let (store, changes) = (state.store.clone(), state.registry.changes());
    let query = web::Query::<HashMap<String, String>>::from_query(request.query_string());
    let query = query.map(web::Query::into_inner).unwrap_or_default();
    let (one, feed, small) =
        (query.get("job").cloned(), query.contains_key("feed"), query.contains_key("card"));
    let Some(one) = one else {
        let typed = lists::typed(request).asked;
        let (line, answer) = Line::open(state.streams.seat(&visitor.seat())?);
        let list = List {
            store,
            search: lists::search_of(&visitor, typed.query),
            sent: HashMap::new(),
            counted: None,
            owed: false,
            feed,
            health: state.health.clone(),
            mode: mode_now(&state.health),
        };
        actix_web::rt::spawn(async move { list.run(line, changes).await.is_err() });
        return Ok(answer);
    };
    let id = one.parse().ok().map(JobId).ok_or_else(|| Problem::absent("job", "there is no such job"))?;
    let uid = api::find(state, visitor.principal.customer, id).await?.job.uid;
    let (line, answer) = Line::open(state.streams.seat(&visitor.seat())?);
    actix_web::rt::spawn(async move { follow(store, (uid, small), line, changes).await.is_err() });
    Ok(answer)
}

/// Sends the live part of one job's page at each change, until the job ends; or its small card.
async fn follow(
    store: Store,
    (uid, small): (JobUid, bool),
    mut line: Line,
    mut changes: broadcast::Receiver<JobUid>,
) -> Result<(), Gone> {
    let mut sent: Option<(i64, usize)> = None;
    loop {
        let read = store.read(move |c| {
            let history = job::history(c, uid)?;
            let owed = match &history {
                Some(history) if history.job.ended_at.is_some() => {
                    obligation::list(c, history.job.customer, &show::owed_by(uid))?
                }
                _ => Vec::new(),
            };
            Ok((history, owed, view::now(c)?))
        });
        if let Ok((Some(history), owed, now)) = read.await {
            // Evidence may come without a change of the job's own row.
            let mark = (history.job.version, history.evidence.len());
            let ended = history.job.ended_at.is_some();
            if sent.replace(mark) != Some(mark) {
                let job = &history.job;
                let html = match small {
                    true => rendered(Card { job: Row::of(job, now) }.render()),
                    false => rendered(JobLive::of(&history, &owed, now).render()),
                };
                let data = json!({ "now": now.millis(), "id": job.id, "version": mark.0, "html": html,
                                   "ended": ended, "legal": acts::legal(job) });
                line.event("job", None, &data).await?;
            }
            if ended {
                return Ok(());
            }
        }
        while let Woken::Changed(found) = line.next(&mut changes).await? {
            if found.contains(&uid) {
                break;
            }
        }
    }
}

fn rendered(html: Result<String, askama::Error>) -> Option<String> {
    html.inspect_err(|error| log::error!("a part of a page could not be rendered: {error}")).ok()
}

/// Jobs that changed of late.
struct News {
    rows: Vec<JobRow>,
    /// Numbers of those the list is about.
    fits: HashSet<i64>,
    attempts: HashMap<String, i64>,
    /// Names of accounts.
    accounts: HashMap<i64, String>,
}

/// The stream of a list.
struct List {
    store: Store,
    search: Search,
    /// Last version sent of each job.
    sent: HashMap<String, i64>,
    counted: Option<Instant>,
    /// Whether counts changed since they were told.
    owed: bool,
    /// Whether the page shows more than the list.
    feed: bool,
    health: Health,
    /// The mode that was told last.
    mode: String,
}

/// Which parts are down, and how badly.
fn mode_now(health: &Health) -> String {
    let modes = modes(&health.ready().1);
    modes.iter().map(|mode| format!("{} {:?}; ", mode.name, mode.state)).collect()
}

impl List {
    async fn run(mut self, mut line: Line, mut changes: broadcast::Receiver<JobUid>) -> Result<(), Gone> {
        let now = self.store.read(view::now).await.unwrap_or_else(|_| Micros::wall());
        let mut since = now;
        // Everything up to now is on the page already, but for what is committed late.
        line.event("hello", None, &json!({ "now": now.millis() })).await?;
        loop {
            match self.counted.filter(|_| self.owed) {
                // What was told last is old by now; it is told anew even when nothing else happens.
                Some(at) => match timeout_at(at + COUNTS, line.next(&mut changes)).await {
                    Ok(woken) => drop(woken?),
                    Err(_) => self.counts(&mut line).await?,
                },
                None => drop(line.next(&mut changes).await?),
            }
            let changed = self.changed(since).await;
            self.tell_mode(&mut line).await?;
            match changed {
                Ok((news, now)) => {
                    since = now;
                    self.tell(&mut line, &news, now).await?;
                }
                Err(error) => log::debug!("a stream of jobs could not be read: {error}"),
            }
        }
    }

    async fn changed(&self, since: Micros) -> Result<(News, Micros), store::Error> {
        let (search, from) = (self.search.clone(), since.minus(OVERLAP));
        let read = self.store.read(move |c| {
            let rows = job::changed_since(c, search.customer, from, BATCH)?;
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            let uids: Vec<String> = rows.iter().map(|row| row.uid.clone()).collect();
            let fits = search::among(c, &search, &ids)?.into_iter().collect();
            let attempts = search::attempts(c, &uids)?;
            let accounts = catalog::accounts(c, search.customer, None)?;
            let accounts = accounts.into_iter().map(|row| (row.id, row.name)).collect();
            Ok((News { rows, fits, attempts, accounts }, view::now(c)?))
        });
        read.await
    }

    /// A page that shows more than the list is told when a part goes down or comes back.
    async fn tell_mode(&mut self, line: &mut Line) -> Result<(), Gone> {
        let now = mode_now(&self.health);
        if !self.feed || now == self.mode {
            return Ok(());
        }
        self.mode = now;
        line.event("mode", None, &json!({ "mode": self.mode })).await
    }

    async fn tell(&mut self, line: &mut Line, news: &News, now: Micros) -> Result<(), Gone> {
        let many = i64::try_from(news.rows.len()).is_ok_and(|n| n >= BATCH);
        let shown: Vec<Value> = news.rows.iter().filter_map(|row| self.part(row, news, now)).collect();
        if !shown.is_empty() || many {
            let data = json!({ "now": now.millis(), "rows": shown, "many": many });
            line.event("rows", None, &data).await?;
            self.owed = true;
            self.counts(line).await?;
        }
        Ok(())
    }

    /// A row rendered, unless this version was sent.
    fn part(&mut self, row: &JobRow, news: &News, now: Micros) -> Option<Value> {
        if self.sent.len() >= REMEMBERED {
            self.sent.clear();
        }
        if self.sent.insert(row.uid.clone(), row.version) == Some(row.version) {
            return None;
        }
        let job = Job::try_from(row.clone()).ok()?;
        let fits = news.fits.contains(&row.id);
        let mut shown = Row::of(&job, now);
        if !self.feed {
            let account = news.accounts.get(&row.account).map_or("", String::as_str);
            shown = shown.listed(news.attempts.get(&row.uid).copied().unwrap_or(0), account);
        }
        let html = rendered(RowPart { job: shown }.render())?;
        Some(json!({ "id": job.id, "version": job.version, "fits": fits, "html": html }))
    }

    async fn counts(&mut self, line: &mut Line) -> Result<(), Gone> {
        if self.counted.is_some_and(|at| at.elapsed() < COUNTS) {
            return Ok(());
        }
        self.counted = Some(Instant::now());
        self.owed = false;
        let query = counted(&self.search.query);
        let search = Search { query, ..self.search.clone() };
        let read =
            self.store.read(move |c| Ok((search::counts(c, &search)?, view::counts(c, search.customer)?)));
        let Ok((some, all)) = read.await else { return Ok(()) };
        let answer = rendered(Answer::of(&all).render());
        let facets = Facets::of(&some, &self.search.query);
        let html = rendered(FacetsPart { facets }.render());
        line.event("counts", None, &json!({ "html": html, "answer": answer })).await
    }
}
