//! The console through the whole listener: the door, pages, forms, headers.

use actix_web::cookie::Cookie;
use actix_web::test::TestRequest;
use diesel::prelude::*;

use crate::access::password;
use crate::ops::State;
use crate::store::provisioning::schema::{job, person};
use crate::store::provisioning::seed;
use crate::web::rest::tests::submit;
use crate::web::testing::{Answer, KEY, Rig};

const PASSWORD: &str = "correct horse";

pub(super) async fn rig() -> Rig {
    let rig = Rig::new().await;
    let hash = password::hash(PASSWORD).expect("short");
    rig.write(move |c| {
        diesel::update(person::table.find(seed::ADMIN.0)).set(person::password_hash.eq(&hash)).execute(c)
    })
    .await;
    rig
}

pub(super) fn form(path: &str, body: &str) -> TestRequest {
    let request = TestRequest::post().uri(path).peer_addr(([127, 0, 0, 1], 4000).into());
    request.insert_header(("content-length", body.len().to_string())).set_payload(body.to_owned())
}

pub(super) fn cookie_of(answer: &Answer) -> Cookie<'static> {
    let text = answer.headers.get("set-cookie").expect("a cookie").to_str().expect("text").to_owned();
    Cookie::parse(text).expect("a cookie")
}

pub(super) async fn log_in(rig: &Rig) -> Cookie<'static> {
    let answer = rig.send(form("/login", "login=admin&password=correct+horse&next=%2Fjobs%2F1")).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_eq!(answer.headers.get("location").expect("set"), "/jobs/1");
    cookie_of(&answer)
}

pub(super) fn csrf_of(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"csrf\" value=\"").expect("a form");
    rest.chars().take_while(|c| *c != '"').collect()
}

pub(super) async fn page(rig: &Rig, cookie: &Cookie<'static>, path: &str) -> Answer {
    rig.send(TestRequest::get().uri(path).cookie(cookie.clone())).await
}

#[actix_rt::test]
async fn only_a_password_opens_the_door_and_only_so_many_tries() {
    let rig = rig().await;
    let there = rig.send(TestRequest::get().uri("/jobs/7")).await;
    assert_eq!(there.status, 303);
    assert_eq!(there.headers.get("location").expect("set"), "/login?next=/jobs/7");
    let session = log_in(&rig).await;
    assert!(session.http_only() == Some(true) && session.path() == Some("/"), "{session}");
    assert_eq!(session.same_site(), Some(actix_web::cookie::SameSite::Strict));
    assert_eq!(page(&rig, &session, "/").await.status, 200);
    let forged = Cookie::new("dispatcher-session", "0".repeat(64));
    assert_eq!(page(&rig, &forged, "/").await.status, 303);
    for _ in 0..10 {
        assert_eq!(rig.send(form("/login", "login=admin&password=wrong")).await.status, 403);
    }
    let enough = rig.send(form("/login", "login=admin&password=correct+horse")).await;
    assert_eq!(enough.status, 429);
    assert!(enough.headers.contains_key("retry-after"));
}

#[actix_rt::test]
async fn the_overview_names_the_mode_what_works_and_what_waits() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let calm = page(&rig, &session, "/").await.text;
    assert!(calm.contains("All parts are up.") && calm.contains(">All parts up</span>"), "{calm}");
    rig.state.health.set("queue", State::Degraded, "amqp: no connection to <b>");
    rig.state.health.set("analytics", State::Degraded, "gone");
    let down = page(&rig, &session, "/").await.text;
    assert!(down.contains("2 parts are not well: queue away and 1 more."), "{down}");
    for wanted in [
        "<strong>Queue away</strong>",
        "<strong>Analytics database away</strong>",
        ">Queue away and 1 more</span>",
        "Works: health and metrics, reads, submits",
        "in the outbox, published after",
        "no connection to &#60;b&#62;",
    ] {
        assert!(down.contains(wanted), "{wanted}: {down}");
    }
    assert!(!down.contains("id=\"stale\""), "rows can be read");
    rig.state.health.set("queue", State::Ok, "");
    rig.state.health.set("analytics", State::Ok, "");
    assert!(page(&rig, &session, "/").await.text.contains("All parts are up."));
}

#[actix_rt::test]
async fn pages_show_jobs_escaped_and_under_a_strict_policy() {
    let rig = rig().await;
    let made = submit(&rig, KEY, &serde_json::json!({"kind": "noop"})).await;
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.json["id"].as_i64().expect("a number");
    let session = log_in(&rig).await;
    rig.write(|c| {
        diesel::update(job::table).set(job::description.eq("<script>alert(1)</script>")).execute(c)
    })
    .await;
    let list = page(&rig, &session, "/").await;
    assert_eq!(list.status, 200);
    let policy = list.headers.get("content-security-policy").expect("set").to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(list.text.contains("data-live=\"/console/events?feed=1\""), "{}", list.text);
    assert!(list.text.contains(&format!("data-job=\"{id}\"")), "{}", list.text);
    let one = page(&rig, &session, &format!("/jobs/{id}")).await;
    assert!(one.status == 200 && one.text.contains("data-what=\"accepted\""), "{}", one.text);
    for html in [&list.text, &one.text] {
        assert!(
            !html.contains("<script>alert") && !html.contains(" style=") && !html.contains("onclick"),
            "{html}"
        );
        assert!(html.contains("&#60;script&#62;alert"), "{html}");
    }
    let filtered = page(&rig, &session, "/jobs?state=%3Cb%3E").await;
    assert!(filtered.text.contains("role=\"alert\"") && !filtered.text.contains("<b>"), "{}", filtered.text);
    let absent = page(&rig, &session, "/jobs/99999999").await;
    assert!(absent.status == 404 && absent.text.contains("there is no job"), "{}", absent.text);
}

#[actix_rt::test]
async fn leaving_needs_the_form_of_this_session() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let csrf = csrf_of(&page(&rig, &session, "/").await.text);
    let wrong = rig.send(form("/logout", "csrf=0").cookie(session.clone())).await;
    assert_eq!(wrong.status, 403);
    let foreign = form("/logout", &format!("csrf={csrf}")).insert_header(("sec-fetch-site", "cross-site"));
    assert_eq!(rig.send(foreign.cookie(session.clone())).await.status, 403);
    let gone = rig.send(form("/logout", &format!("csrf={csrf}")).cookie(session.clone())).await;
    assert_eq!(gone.status, 303);
    assert_eq!(page(&rig, &session, "/").await.status, 303);
}

async fn noop(rig: &Rig) -> i64 {
    let made = submit(rig, KEY, &serde_json::json!({"kind": "noop"})).await;
    assert_eq!(made.status, 202, "{}", made.text);
    made.json["id"].as_i64().expect("a number")
}

async fn set(rig: &Rig, id: i64, state: &'static str, ended: Option<i64>) {
    rig.write(move |c| {
        diesel::update(job::table.filter(job::id.eq(id)))
            .set((job::state.eq(state), job::ended_at.eq(ended)))
            .execute(c)
    })
    .await;
}

#[actix_rt::test]
async fn a_list_is_searched_what_needs_a_person_stands_first_and_nothing_is_explained() {
    let rig = rig().await;
    let (first, second, third) = (noop(&rig).await, noop(&rig).await, noop(&rig).await);
    set(&rig, first, "quarantined", None).await;
    set(&rig, second, "failed", Some(9)).await;
    let session = log_in(&rig).await;
    let all = page(&rig, &session, "/jobs").await;
    let order: Vec<usize> = [first, third, second]
        .iter()
        .map(|id| {
            all.text.find(&format!("data-job=\"{id}\"")).unwrap_or_else(|| panic!("{id}: {}", all.text))
        })
        .collect();
    assert!(order.is_sorted(), "what needs a person, then newest: {order:?}");
    assert!(
        all.text.contains("aria-label=\"Select job") && all.text.contains("/assets/jobs.js"),
        "{}",
        all.text
    );
    let failed = page(&rig, &session, "/jobs?q=state:failed").await;
    assert!(failed.text.contains(&format!("data-job=\"{second}\"")), "{}", failed.text);
    assert!(!failed.text.contains(&format!("data-job=\"{third}\"")), "{}", failed.text);
    assert!(failed.text.contains("dispatcher jobs list --q &#39;state:failed&#39;"), "{}", failed.text);
    let old = page(&rig, &session, "/jobs?state=failed").await;
    assert!(old.text.contains("value=\"state:failed\""), "{}", old.text);
    let none = page(&rig, &session, "/jobs?q=kind:noop+account:1").await;
    assert!(
        none.text.contains("Without its last term 3 match: <a href=\"/jobs?q=kind:noop\">"),
        "{}",
        none.text
    );
    let bad = page(&rig, &session, "/jobs?q=stat:failed").await;
    assert!(
        bad.text.contains("did you mean state?") && bad.text.contains("value=\"stat:failed\""),
        "{}",
        bad.text
    );
    let jump = page(&rig, &session, &format!("/jobs?q={first}")).await;
    assert_eq!(jump.headers.get("location").expect("set"), &format!("/jobs/{first}"));
    let going_on = page(&rig, &session, "/console/suggest?q=kind:noop+state:fa").await;
    assert_eq!(going_on.json[0]["text"], "kind:noop state:failed", "{}", going_on.text);
}

#[actix_rt::test]
async fn a_view_is_kept_under_its_name_and_forgotten() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let csrf = csrf_of(&page(&rig, &session, "/jobs").await.text);
    let send = |body: String| rig.send(form("/jobs/views", &body).cookie(session.clone()));
    let kept = send(format!("csrf={csrf}&act=keep&name=Bad+%3Cb%3E&q=state:failed")).await;
    assert_eq!(kept.headers.get("location").expect("set"), "/jobs?q=state:failed", "{}", kept.text);
    let list = page(&rig, &session, "/jobs").await;
    assert!(list.text.contains("/jobs?q=state:failed\">Bad &#60;b&#62;</a>"), "{}", list.text);
    assert_eq!(send(format!("csrf={csrf}&act=keep&name=&q=state:failed")).await.status, 400);
    assert_eq!(send(format!("csrf={csrf}&act=keep&name=x&q=stat:failed")).await.status, 400);
    assert_eq!(send("csrf=0&act=keep&name=x&q=".to_owned()).await.status, 403);
    send(format!("csrf={csrf}&act=forget&name=Bad+%3Cb%3E")).await;
    assert!(!page(&rig, &session, "/jobs").await.text.contains("Bad &#60;"));
}

#[actix_rt::test]
async fn a_plan_shows_what_will_happen_does_it_once_and_is_refused_when_the_world_changed() {
    let rig = rig().await;
    let (first, second) = (noop(&rig).await, noop(&rig).await);
    set(&rig, second, "failed", Some(9)).await;
    let session = log_in(&rig).await;
    let csrf = csrf_of(&page(&rig, &session, "/jobs").await.text);
    let make = |act: &str| {
        let body = format!("csrf={csrf}&act={act}&id={first}&id={second}");
        rig.send(form("/plans", &body).cookie(session.clone()))
    };
    let run = |plan: String| {
        rig.send(form(&format!("{plan}/run"), &format!("csrf={csrf}")).cookie(session.clone()))
    };
    let there = |answer: &Answer| {
        assert_eq!(answer.status, 303, "{}", answer.text);
        answer.headers.get("location").expect("set").to_str().expect("text").to_owned()
    };
    let retry = there(&make("retry").await);
    let shown = page(&rig, &session, &retry).await;
    assert!(
        shown.text.contains("Nothing has been done yet") && shown.text.contains("Retry 1 job<"),
        "{}",
        shown.text
    );
    assert!(shown.text.contains("skipped: is queued and goes on"), "{}", shown.text);
    let cancel = there(&make("cancel").await);
    for _ in 0..2 {
        assert_eq!(there(&run(retry.clone()).await), retry);
    }
    let done = page(&rig, &session, &retry).await;
    assert!(done.text.contains("Carried out") && done.text.contains("asked for again"), "{}", done.text);
    let jobs: i64 = rig.write(|c| job::table.count().get_result(c)).await;
    assert_eq!(jobs, 3, "one job was asked for again, once");
    set(&rig, first, "failed", Some(9)).await;
    let refused = run(cancel.clone()).await;
    assert!(refused.status == 409 && refused.text.contains("no longer holds"), "{}", refused.text);
    set(&rig, first, "queued", None).await;
    there(&run(cancel).await);
    let asked: Option<String> =
        rig.write(move |c| job::table.filter(job::id.eq(first)).select(job::cancel_by).first(c)).await;
    assert!(asked.is_some());
    let all = format!("csrf={csrf}&act=retry&all=1&q=state:failed&newest={second}");
    let plan = there(&rig.send(form("/plans", &all).cookie(session.clone())).await);
    assert!(page(&rig, &session, &plan).await.text.contains("Retry 1 job<"));
    assert_eq!(
        rig.send(form("/plans", &format!("csrf={csrf}&act=cancel")).cookie(session.clone())).await.status,
        400
    );
    assert_eq!(page(&rig, &session, "/plans/0").await.status, 404);
}

#[actix_rt::test]
async fn actors_are_shown_by_kind_and_one_in_full() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let all = page(&rig, &session, "/actors").await;
    assert!(all.text.contains("/actors?kind=registry") && all.text.contains("Handler p99"), "{}", all.text);
    let key = rig.state.supervisor.snapshots().into_iter().find(|a| a.kind == "registry").expect("runs").key;
    let one = page(&rig, &session, &format!("/actors/registry/{key}")).await;
    assert!(one.status == 200 && one.text.contains("of 5 restarts of the last 60 s"), "{}", one.text);
    assert!(one.text.contains("the process itself"), "{}", one.text);
    assert_eq!(page(&rig, &session, "/actors/registry/nobody").await.status, 404);
    assert_eq!(page(&rig, &session, "/actors?kind=nothing").await.status, 400);
    let other = page(&rig, &session, "/actors?node=zz").await;
    assert!(other.text.contains("There is no process zz"), "{}", other.text);
}
