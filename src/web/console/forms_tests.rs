//! Forms through the whole listener: sent twice they make one job, what is wrong stands at its field, and nothing from
//! outside becomes markup.

use actix_web::cookie::Cookie;
use diesel::prelude::*;

use super::tests::{csrf_of, form, log_in, page, rig};
use crate::model::{AgentId, JobUid, Micros};
use crate::store::provisioning::agent::{self, NewAgent};
use crate::store::provisioning::schema::{agent as agents, job, person, server};
use crate::store::provisioning::seed;
use crate::web::testing::{Answer, OTHER_SERVER, Rig, SERVER};

const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=y>\"'&\u{202e}\u{1b}[31m\u{7}";

fn once_of(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"once\" value=\"").expect("a form with a key");
    rest.chars().take_while(|c| *c != '"').collect()
}

async fn jobs(rig: &Rig) -> i64 {
    rig.state.store.read(|c| job::table.count().get_result(c)).await.expect("counted")
}

async fn send(rig: &Rig, session: &Cookie<'static>, path: &str, body: &str) -> Answer {
    rig.send(form(path, body).cookie(session.clone())).await
}

fn place(answer: &Answer) -> String {
    answer.headers.get("location").expect("a way on").to_str().expect("text").to_owned()
}

/// An accepted agent of the seeded server; its number.
async fn joined(rig: &Rig) -> i64 {
    rig.write(|c| {
        let new = NewAgent {
            id: AgentId(77),
            customer: seed::CUSTOMER,
            job: JobUid::random(),
            token_hash: "token".to_owned(),
            token_expires: Micros(1),
        };
        agent::insert(c, &new)?;
        diesel::update(agents::table.find(77))
            .set((agents::server.eq(Some(SERVER)), agents::state.eq(agent::state::ACCEPTED)))
            .execute(c)
    })
    .await;
    77
}

#[actix_rt::test]
async fn a_form_sent_twice_makes_one_job_and_another_under_its_key_none() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let shown = page(&rig, &session, "/jobs/new/launch").await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    let (csrf, once) = (csrf_of(&shown.text), once_of(&shown.text));
    let body =
        format!("csrf={csrf}&once={once}&name=web-1&region=1000&dataCenter=2000&product=3000&image=4000");
    let first = send(&rig, &session, "/jobs/new/launch", &body).await;
    assert_eq!(first.status, 303, "{}", first.text);
    let again = send(&rig, &session, "/jobs/new/launch", &body).await;
    assert_eq!((again.status.as_u16(), place(&again)), (303, place(&first)));
    assert_eq!(jobs(&rig).await, 1);
    let other = send(&rig, &session, "/jobs/new/launch", &body.replace("web-1", "web-2")).await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert!(other.text.contains("sent before with other content"), "{}", other.text);
    assert!(other.text.contains("value=\"web-2\""), "what was typed is gone: {}", other.text);
    assert_ne!(once_of(&other.text), once);
    assert_eq!(jobs(&rig).await, 1);
    let foreign = send(&rig, &session, "/jobs/new/launch", &body.replace(&csrf, "0")).await;
    assert_eq!(foreign.status, 403);
    let bare = send(&rig, &session, "/jobs/new/launch", &format!("csrf={csrf}&name=x")).await;
    assert!(bare.status == 400 && bare.text.contains("lost its key"), "{}", bare.text);
    assert_eq!(jobs(&rig).await, 1);
}

#[actix_rt::test]
async fn what_is_wrong_stands_at_its_field_and_what_was_typed_stays() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let shown = page(&rig, &session, "/jobs/new/launch?region=1001").await;
    let (csrf, once) = (csrf_of(&shown.text), once_of(&shown.text));
    let body = format!("csrf={csrf}&once={once}&name=&region=1001&description=mine&userData=a%3Cb");
    let bad = send(&rig, &session, "/jobs/new/launch", &body).await;
    assert_eq!(bad.status, 400, "{}", bad.text);
    assert!(
        bad.text.contains("This is missing or empty") && bad.text.contains("aria-invalid=\"true\""),
        "{}",
        bad.text
    );
    assert!(bad.text.contains("value=\"mine\"") && bad.text.contains("a&#60;b"), "{}", bad.text);
    assert!(bad.text.contains("<option value=\"1001\" selected>"), "{}", bad.text);
    // The same form, mended, goes through under the same key.
    let mended = body.replace("name=&", "name=w&dataCenter=2003&product=3003&image=4001&");
    let made = send(&rig, &session, "/jobs/new/launch", &mended).await;
    assert!(made.status == 303 || made.text.contains("field"), "{}", made.text);
    let other =
        send(&rig, &session, "/jobs/new/launch", &body.replace("&description", "&act=region&description"))
            .await;
    assert!(other.status == 200 && other.text.contains("value=\"mine\""), "{}", other.text);
}

#[actix_rt::test]
async fn a_command_from_an_agents_page_comes_back_to_it() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let id = joined(&rig).await;
    let path = format!("/agents/{id}");
    let shown = page(&rig, &session, &path).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    for said in [
        "not asked",
        "Another process holds the sessions",
        "another process holds its session",
        "run-command",
    ] {
        assert!(shown.text.contains(said), "{said}: {}", shown.text);
    }
    let (csrf, once) = (csrf_of(&shown.text), once_of(&shown.text));
    let bad = format!("csrf={csrf}&once={once}&op=run-command&argv=%27a&timeoutSecs=300");
    let answer = send(&rig, &session, &path, &bad).await;
    assert!(
        answer.status == 400 && answer.text.contains("quote in the command is not closed"),
        "{}",
        answer.text
    );
    let late = bad.replace("%27a", "ls").replace("=300", "=86401");
    let answer = send(&rig, &session, &path, &late).await;
    assert!(answer.status == 400 && answer.text.contains("86400"), "{}", answer.text);
    let good = bad.replace("%27a", "%2Fbin%2Fls+-l");
    let made = send(&rig, &session, &path, &good).await;
    assert_eq!(made.status, 303, "{}", made.text);
    assert_eq!(place(&made), place(&send(&rig, &session, &path, &good).await));
    assert_eq!(jobs(&rig).await, 1);
    let there = place(&made);
    let shown = page(&rig, &session, there.split('#').next().expect("a path")).await;
    assert!(
        shown.text.contains("data-output=\"/jobs/") && shown.text.contains("/bin/ls -l"),
        "{}",
        shown.text
    );
    assert_eq!(page(&rig, &session, "/agents/78").await.status, 404);
}

#[actix_rt::test]
async fn moves_are_offered_where_legal_and_only_on_own_servers() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let shown = page(&rig, &session, &format!("/servers/{SERVER}")).await;
    assert!(shown.text.contains("Not start: it is running"), "{}", shown.text);
    assert!(shown.text.contains("No command: This server has no agent"), "{}", shown.text);
    let plan = page(&rig, &session, &format!("/servers/{SERVER}/terminate")).await;
    assert!(plan.status == 200 && plan.text.contains("nobody can bring them back"), "{}", plan.text);
    assert_eq!(page(&rig, &session, &format!("/servers/{OTHER_SERVER}/terminate")).await.status, 404);
    assert_eq!(page(&rig, &session, &format!("/servers/{SERVER}/explode")).await.status, 404);
    let body = format!("csrf={}&once={}&reason=old", csrf_of(&plan.text), once_of(&plan.text));
    let made = send(&rig, &session, &format!("/servers/{SERVER}/terminate"), &body).await;
    assert_eq!(made.status, 303, "{}", made.text);
    let job = page(&rig, &session, &place(&made)).await;
    assert!(job.text.contains("dispatcher jobs submit terminate 7000 --reason old"), "{}", job.text);
}

#[actix_rt::test]
async fn a_job_is_cancelled_retried_and_resolved_by_its_forms() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let plan = page(&rig, &session, &format!("/servers/{SERVER}/stop")).await;
    let csrf = csrf_of(&plan.text);
    let mark = |n: u8| format!("csrf={csrf}&once={n:032x}");
    let made = send(&rig, &session, &format!("/servers/{SERVER}/stop"), &mark(1)).await;
    let path = place(&made);
    let early = send(&rig, &session, &format!("{path}/retry"), &mark(2)).await;
    assert!(early.status == 409 && early.text.contains("Nothing was submitted"), "{}", early.text);
    for _ in 0..2 {
        let cancel = send(&rig, &session, &format!("{path}/cancel"), &mark(3)).await;
        assert_eq!((cancel.status.as_u16(), place(&cancel)), (303, path.clone()));
    }
    rig.write(|c| {
        diesel::update(job::table).set((job::state.eq("failed"), job::ended_at.eq(Some(5_i64)))).execute(c)
    })
    .await;
    let shown = page(&rig, &session, &path).await;
    assert!(
        shown.text.contains("data-act=\"retry\">") && shown.text.contains("data-act=\"cancel\" hidden>"),
        "{}",
        shown.text
    );
    let retry = send(&rig, &session, &format!("{path}/retry"), &mark(4)).await;
    assert!(retry.status == 303 && place(&retry) != path, "{}", retry.text);
    assert_eq!(place(&send(&rig, &session, &format!("{path}/retry"), &mark(4)).await), place(&retry));
    assert_eq!(jobs(&rig).await, 2);
    let silent =
        send(&rig, &session, &format!("{path}/resolve"), &format!("{}&outcome=failed&reason=", mark(5)))
            .await;
    assert!(silent.status == 400 && silent.text.contains("reason"), "{}", silent.text);
    let word = send(
        &rig,
        &session,
        &format!("{path}/resolve"),
        &format!("{}&outcome=failed&reason=looked", mark(6)),
    )
    .await;
    assert_eq!((word.status.as_u16(), place(&word)), (303, path.clone()));
    assert!(page(&rig, &session, &path).await.text.contains("looked"));
    assert_eq!(place(&page(&rig, &session, &format!("{path}/cancel")).await), path);
}

#[actix_rt::test]
async fn whatever_a_row_holds_it_stays_text_on_every_page() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let id = joined(&rig).await;
    rig.write(|c| {
        diesel::update(server::table)
            .set((server::name.eq(HOSTILE), server::status.eq("RUNNING")))
            .execute(c)?;
        diesel::update(agents::table)
            .set((
                agents::platform.eq(HOSTILE),
                agents::instance.eq(Some(HOSTILE)),
                agents::address.eq(Some(HOSTILE)),
            ))
            .execute(c)
    })
    .await;
    let plan = page(&rig, &session, &format!("/servers/{SERVER}/stop")).await;
    let body = format!("csrf={}&once={}&reason=%3Cscript%3E", csrf_of(&plan.text), once_of(&plan.text));
    let made = send(&rig, &session, &format!("/servers/{SERVER}/stop"), &body).await;
    rig.write(|c| {
        let texts = (
            job::why.eq(HOSTILE),
            job::why_code.eq(HOSTILE),
            job::state.eq("quarantined"),
            job::due_at.eq(None::<i64>),
        );
        diesel::update(job::table).set(texts).execute(c)
    })
    .await;
    let pages = [
        "/",
        "/servers",
        "/agents",
        "/jobs/new/command",
        &format!("/agents/{id}"),
        &format!("/servers/{SERVER}"),
        &format!("/servers/{SERVER}/terminate"),
        &place(&made),
        "/jobs/new/launch?name=%3Cscript%3Ealert&keypair=%22%3E%3Cimg",
    ];
    for path in pages {
        let shown = page(&rig, &session, path).await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.text);
        for bad in ["<script>alert", "<img", "\u{202e}", "\u{1b}", "\u{7}", " style=", " onclick"] {
            assert!(!shown.text.contains(bad), "{path} holds {bad:?}: {}", shown.text);
        }
    }
    let overview = page(&rig, &session, "/").await;
    assert!(
        overview.text.contains("1 matter needs you") && overview.text.contains("&#60;script&#62;alert"),
        "{}",
        overview.text
    );
}

#[actix_rt::test]
async fn the_raw_form_of_a_page_is_the_apis_and_needs_the_session() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let id = joined(&rig).await;
    for (from, to) in [
        ("/servers/7000.json", "/api/v1/servers/7000"),
        ("/servers.json?terminated=true", "/api/v1/servers?terminated=true"),
        (&format!("/agents/{id}.json"), "/api/v1/agents/7000"),
        ("/actors.json", "/api/v1/actors"),
    ] {
        let way = page(&rig, &session, from).await;
        assert_eq!((way.status.as_u16(), place(&way).as_str()), (303, to), "{from}");
        let there = page(&rig, &session, to).await;
        assert!(there.status == 200 && there.json.is_object(), "{to}: {}", there.text);
        assert_eq!(
            rig.send(actix_web::test::TestRequest::get().uri(to)).await.status,
            403,
            "{to} without a session"
        );
    }
    assert_eq!(page(&rig, &session, "/login.json").await.status, 404);
    assert_eq!(page(&rig, &session, &format!("/api/v1/servers/{OTHER_SERVER}")).await.status, 404);
    // A session reads; it never writes without the form that carries its mark.
    assert_eq!(send(&rig, &session, "/api/v1/jobs", "{\"kind\":\"noop\"}").await.status, 403);
}

#[actix_rt::test]
async fn the_theme_is_kept_in_a_cookie_and_on_the_page() {
    let rig = rig().await;
    let session = log_in(&rig).await;
    let csrf = csrf_of(&page(&rig, &session, "/servers").await.text);
    let kept = send(&rig, &session, "/taste", &format!("csrf={csrf}&theme=dark&next=%2Fservers")).await;
    assert_eq!((kept.status.as_u16(), place(&kept).as_str()), (303, "/servers"));
    let cookies: Vec<String> =
        kept.headers.get_all("set-cookie").map(|value| value.to_str().expect("text").to_owned()).collect();
    assert!(cookies.iter().any(|cookie| cookie.starts_with("dispatcher-theme=dark;")), "{cookies:?}");
    assert!(cookies.iter().any(|cookie| cookie.starts_with("dispatcher-keys=off;")), "{cookies:?}");
    let request = actix_web::test::TestRequest::get().uri("/servers").cookie(session.clone());
    let shown = rig.send(request.cookie(Cookie::new("dispatcher-theme", "dark"))).await;
    assert!(shown.text.contains("<html lang=\"en\" data-theme=\"dark\">"), "{}", shown.text);
    let away = send(&rig, &session, "/taste", &format!("csrf={csrf}&theme=dark&next=%2F%2Fevil")).await;
    assert_eq!(place(&away), "/");
}

#[actix_rt::test]
async fn who_may_not_is_told_which_right_is_missing_and_who_gives_it() {
    let rig = rig().await;
    let hash = crate::access::password::hash("correct horse").expect("short");
    rig.write(move |c| {
        let reader = person::table.filter(person::login.eq(crate::web::testing::READER.to_lowercase()));
        diesel::update(reader).set(person::password_hash.eq(&hash)).execute(c)
    })
    .await;
    let body = "login=readerkey&password=correct+horse&next=%2F";
    let session = super::tests::cookie_of(&rig.send(form("/login", body)).await);
    let id = joined(&rig).await;
    let missing = "ask an administrator for a role that grants it";
    let shown = page(&rig, &session, "/jobs/new/launch").await;
    assert!(shown.text.contains("may not create servers") && shown.text.contains(missing), "{}", shown.text);
    assert!(!shown.text.contains("Launch 1 server"), "{}", shown.text);
    let agent = page(&rig, &session, &format!("/agents/{id}")).await;
    assert!(agent.text.contains(missing) && !agent.text.contains("Run 1 command"), "{}", agent.text);
    let server = page(&rig, &session, &format!("/servers/{SERVER}")).await;
    assert!(server.text.contains("Not terminate: ") && server.text.contains(missing), "{}", server.text);
    let body = format!("csrf={}&once={:032x}&name=x", csrf_of(&shown.text), 1);
    for path in ["/jobs/new/launch", &format!("/agents/{id}"), &format!("/servers/{SERVER}/stop")] {
        let sent = send(&rig, &session, path, &body).await;
        assert_eq!(sent.status, 403, "{path}: {}", sent.text);
        assert!(sent.text.contains(missing), "{path}: {}", sent.text);
    }
    assert_eq!(jobs(&rig).await, 0);
}
