//! `/pauses`: which kinds of jobs, of which accounts, are not begun for now.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::fields::nearest;
use super::jobs::query;
use super::submit::body;
use super::{Problem, admit, reader};
use crate::access::{Action, Principal, Resource, Verb};
use crate::model::{AccountId, JobKind, Micros};
use crate::registry::{Pause, Resume};
use crate::store::provisioning::catalog;
use crate::store::provisioning::pause::{self, PauseRow};
use crate::store::provisioning::sequence::Sequence;
use crate::web::State;

/// What a role must grant before somebody else's jobs are held or let go.
const CHANGE: Action = Action::new(Verb::Update, Resource::Job);

/// A pause as the API shows it.
fn shown(row: &PauseRow) -> Value {
    json!({
        "id": row.id,
        "kind": row.kind,
        "account": row.account,
        "by": row.made_by,
        "reason": row.reason,
        "since": Micros(row.made_at).rfc3339(),
    })
}

/// A tenant's pauses.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        let customer = caller.principal.customer;
        Ok(state.store.read(move |c| pause::list(c, customer)).await?)
    };
    let rows = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let shown: Vec<Value> = rows.iter().map(shown).collect();
    Ok(HttpResponse::Ok().json(json!({ "pauses": shown })))
}

/// What is held, and why.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    kind: Option<JobKind>,
    account: Option<AccountId>,
    reason: String,
}

impl Asked {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"kind\": …} or {\"account\": …}")?;
        let kind = fields.text("kind", 64)?.map(|word| kind_of(&word)).transpose()?;
        let account = fields.integer("account", 1, i64::MAX)?.map(AccountId);
        let reason = fields.text("reason", 1024)?.unwrap_or_default();
        fields.end()?;
        if kind == Some(JobKind::Group) {
            let text = "a group begins with its children; pause their kinds";
            return Err(Problem::field("kind", text));
        }
        if kind.is_none() && account.is_none() {
            let text = "say what is paused: field kind (a kind of job), field account, or both";
            return Err(Problem::field("kind", text));
        }
        Ok(Self { kind, account, reason })
    }
}

pub(super) fn kind_of(word: &str) -> Result<JobKind, Problem> {
    word.parse().map_err(|e: crate::model::InvalidKind| {
        let words: Vec<&str> = JobKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let meant = nearest(word, &words).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Problem::field("kind", format!("{e}{meant}"))
    })
}

/// Refuses an account that is not there or is another tenant's.
pub(super) async fn known(state: &State, who: &Principal, account: AccountId) -> Result<(), Problem> {
    let customer = who.customer;
    let row = state.store.read(move |c| catalog::account(c, customer, account)).await?;
    row.map(|_| ()).ok_or_else(|| Problem::absent("account", format!("there is no account {account}")))
}

/// Begins no more jobs of a kind or an account.
pub(super) async fn add(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let made = async {
        let (caller, bytes) = admit(&request, payload, &state, CHANGE).await?;
        let asked = Asked::read(&bytes)?;
        if let Some(account) = asked.account {
            known(&state, &caller.principal, account).await?;
        }
        let row = PauseRow {
            id: state.sequencer.next(Sequence::Resource).await?,
            customer: caller.principal.customer.0,
            kind: asked.kind.map(|kind| kind.to_string()),
            account: asked.account.map(|account| account.0),
            made_by: caller.principal.name.chars().take(64).collect(),
            reason: asked.reason,
            made_at: 0,
        };
        Ok(state.registry.pause(Pause { entry: caller.entry(), row }).await?)
    };
    let row = made.await.map_err(|problem: Problem| problem.of(&request))?;
    let place = format!("/api/v1/pauses/{}", row.id);
    Ok(HttpResponse::Created().insert_header((LOCATION, place)).json(shown(&row)))
}

/// Ends a pause.
pub(super) async fn remove(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let ended = async {
        let (caller, _) = admit(&request, payload, &state, CHANGE).await?;
        let word = request.match_info().query("id");
        let id = word.parse().map_err(|_no_number| {
            let shown: String = word.chars().take(40).collect();
            Problem::absent("id", format!("\"{shown}\" is not the number of a pause"))
        })?;
        Ok(state.registry.resume(Resume { entry: caller.entry(), id }).await?)
    };
    ended.await.map_err(|problem: Problem| problem.of(&request))?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Asked;
    use crate::model::JobKind;
    use crate::web::rest::openapi::tests::fits;
    use crate::web::rest::tests::{get, signed, submit};
    use crate::web::testing::{Answer, KEY, OTHER, READER, Rig};

    async fn send(rig: &Rig, (key, method, path): (&str, &str, &str), body: &str) -> Answer {
        rig.send(signed(key, method, path, body).insert_header(("idempotency-key", "k-1"))).await
    }

    const PAUSES: &str = "/api/v1/pauses";

    #[test]
    fn a_pause_says_what_it_holds() {
        let asked = Asked::read(br#"{"kind":"noop","reason":"x"}"#).expect("good");
        assert_eq!((asked.kind, asked.account, asked.reason.as_str()), (Some(JobKind::Noop), None, "x"));
        for (bad, field, said) in [
            (json!({}), "kind", "say what is paused"),
            (json!({"kind": "launch"}), "kind", "did you mean launch-server?"),
            (json!({"account": "a"}), "account", "whole number"),
            (json!({"kinds": "noop"}), "kinds", "did you mean kind?"),
        ] {
            let problem = Asked::read(bad.to_string().as_bytes()).expect_err("bad");
            assert_eq!(problem.at_fault(), Some(field), "{bad}: {problem}");
            assert!(problem.detail().contains(said), "{bad}: {problem}");
        }
    }

    #[actix_rt::test]
    async fn a_pause_holds_what_waits_says_why_and_lets_go_again() {
        let rig = Rig::new().await;
        let job = submit(&rig, KEY, &json!({"kind": "noop"})).await.json["id"].as_i64().expect("a number");
        let wish = json!({"kind": "noop", "reason": "a quiet night"}).to_string();
        assert_eq!(send(&rig, (READER, "POST", PAUSES), &wish).await.status, 403);
        let made = send(&rig, (KEY, "POST", PAUSES), &wish).await;
        assert_eq!(made.status, 201, "{}", made.text);
        fits("post /pauses", 201, &made.json);
        let again = send(&rig, (KEY, "POST", PAUSES), &wish).await;
        assert_eq!((again.status.as_u16(), &again.json), (201, &made.json));
        let why = get(&rig, READER, &format!("/api/v1/jobs/{job}/why")).await.json;
        assert_eq!(why["code"], "pause");
        let text = why["text"].as_str().expect("a text");
        assert!(text.starts_with("paused by ") && text.ends_with(": a quiet night"), "{text}");
        let found = get(&rig, READER, "/api/v1/jobs?q=waits:pause").await.json;
        assert_eq!(found["jobs"][0]["id"], job, "{found}");
        let listed = get(&rig, READER, PAUSES).await;
        fits("get /pauses", 200, &listed.json);
        assert_eq!(listed.json["pauses"], json!([made.json]));
        assert_eq!(get(&rig, OTHER, PAUSES).await.json["pauses"], json!([]));
        let path = format!("{PAUSES}/{}", made.json["id"]);
        assert_eq!(send(&rig, (OTHER, "DELETE", &path), "").await.status, 404);
        assert_eq!(send(&rig, (READER, "DELETE", &path), "").await.status, 403);
        let ended =
            rig.send(signed(KEY, "DELETE", &path, "").insert_header(("idempotency-key", "k-2"))).await;
        assert_eq!(ended.status, 204, "{}", ended.text);
        let repeat =
            rig.send(signed(KEY, "DELETE", &path, "").insert_header(("idempotency-key", "k-2"))).await;
        assert_eq!(repeat.status, 204, "{}", repeat.text);
        let gone = rig.send(signed(KEY, "DELETE", &path, "")).await;
        assert_eq!(gone.status, 404);
        fits("delete /pauses/{id}", 404, &gone.json);
        let why = get(&rig, READER, &format!("/api/v1/jobs/{job}/why")).await.json;
        assert_eq!(why["code"], "dispatch", "{why}");
    }

    #[actix_rt::test]
    async fn an_account_of_another_tenant_cannot_be_paused() {
        let rig = Rig::new().await;
        let refused = send(&rig, (OTHER, "POST", PAUSES), r#"{"account":300}"#).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json["field"]),
            (404, &"account".into()),
            "{}",
            refused.text
        );
        assert_eq!(send(&rig, (KEY, "DELETE", &format!("{PAUSES}/x")), "").await.status, 404);
    }
}
