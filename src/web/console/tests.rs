//! The console through the whole listener: the door, pages, forms, headers.

use actix_web::cookie::Cookie;
use actix_web::test::TestRequest;
use diesel::prelude::*;

use crate::access::password;
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
