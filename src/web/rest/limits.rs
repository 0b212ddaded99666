//! `/limits`: how many jobs of an account may be at work together, and how many may start in which time.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::jobs::query;
use super::pauses::{kind_of, known};
use super::submit::body;
use super::{Problem, admit, reader};
use crate::access::{Action, Resource, Verb};
use crate::model::{AccountId, CustomerId, JobKind, Micros};
use crate::registry::{ClearLimit, SetLimit};
use crate::store::provisioning::limit::{self, Learned, LimitRow, Wish};
use crate::store::provisioning::sequence::Sequence;
use crate::web::State;

/// What a role must grant before somebody else's jobs are held or let go.
const CHANGE: Action = Action::new(Verb::Update, Resource::Job);
/// Largest number of a limit.
const MOST: i64 = 100_000;
/// Longest time that starts are counted in, in seconds.
const LONGEST: i64 = 86_400;

/// A limit with its use.
pub(in crate::web) struct Used {
    pub(in crate::web) row: LimitRow,
    pub(in crate::web) at_work: i64,
    pub(in crate::web) waiting: i64,
    pub(in crate::web) now: Micros,
}

/// A tenant's limits with their use now.
pub(in crate::web) async fn used(state: &State, customer: CustomerId) -> Result<Vec<Used>, Problem> {
    let found = state.store.read(move |c| {
        let now = c.now()?;
        let mut found = Vec::new();
        for row in limit::list(c, customer)? {
            let at_work = limit::at_work(c, row.account, &row.kind)?;
            let waiting = limit::waiting(c, row.account, &row.kind)?;
            found.push(Used { row, at_work, waiting, now });
        }
        Ok(found)
    });
    Ok(found.await?)
}

/// A limit as the API shows it.
fn shown(used: &Used) -> Value {
    let row = &used.row;
    let kind = (!row.kind.is_empty()).then_some(&row.kind);
    let pace =
        row.starts.map(|starts| json!({ "starts": starts, "seconds": row.per_secs, "burst": row.burst }));
    let learned = row.learned_now(used.now).map(|rate| {
        json!({
            "callsPerSecond": thousandths(rate),
            "text": Learned::told(rate),
            "throttledAt": row.learned_at.map(|at| Micros(at).rfc3339()),
        })
    });
    json!({
        "account": row.account,
        "kind": kind,
        "together": row.together,
        "rate": pace,
        "learned": learned,
        "notBefore": row.shut_until(used.now).map(Micros::rfc3339),
        "atWork": used.at_work,
        "waiting": used.waiting,
        "by": row.made_by,
        "reason": row.reason,
        "since": Micros(row.made_at).rfc3339(),
    })
}

/// A rate as a decimal text: exact, whatever reads it.
fn thousandths(rate: i64) -> String {
    format!("{}.{:03}", rate / 1000, rate % 1000)
}

/// A tenant's limits.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let found = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        used(&state, caller.principal.customer).await
    };
    let found = found.await.map_err(|problem: Problem| problem.of(&request))?;
    let shown: Vec<Value> = found.iter().map(shown).collect();
    Ok(HttpResponse::Ok().json(json!({ "limits": shown })))
}

/// What is set.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    account: AccountId,
    kind: Option<JobKind>,
    wish: Wish,
}

impl Asked {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = body(bytes, "{\"account\": 300, \"together\": 4}")?;
        let account = AccountId(fields.needed_integer("account", 1, i64::MAX)?);
        let kind = fields.text("kind", 64)?.map(|word| limited(&word)).transpose()?;
        let together = fields.integer("together", 1, MOST)?;
        let starts = fields.integer("starts", 1, MOST)?;
        let seconds = fields.integer("seconds", 1, LONGEST)?;
        let burst = fields.integer("burst", 1, MOST)?;
        let reason = fields.text("reason", 1024)?.unwrap_or_default();
        fields.end()?;
        if together.is_none() && starts.is_none() {
            let text = "say what is limited: field together (jobs at work at the same time), field starts (jobs begun in \
                        seconds), or both; DELETE takes a limit away";
            return Err(Problem::field("together", text));
        }
        if starts.is_none() && (seconds.is_some() || burst.is_some()) {
            let text = "fields seconds and burst say how field starts is counted; give starts too";
            return Err(Problem::field("starts", text));
        }
        let small = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
        let pace =
            starts.map(|starts| (small(starts), small(seconds.unwrap_or(1)), small(burst.unwrap_or(1))));
        let together = together.map(small);
        Ok(Self { account, kind, wish: Wish { together, pace, made_by: String::new(), reason } })
    }
}

fn limited(word: &str) -> Result<JobKind, Problem> {
    match kind_of(word)? {
        JobKind::Group => {
            let text =
                "a group takes no place of its account, its children do; name their kind, or leave kind out";
            Err(Problem::field("kind", text))
        }
        kind => Ok(kind),
    }
}

/// Sets a limit in the place of the one before.
pub(super) async fn set(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let made = async {
        let (caller, bytes) = admit(&request, payload, &state, CHANGE).await?;
        let Asked { account, kind, wish } = Asked::read(&bytes)?;
        known(&state, &caller.principal, account).await?;
        let ask = SetLimit {
            entry: caller.entry(),
            account,
            kind: kind.map(|kind| kind.to_string()).unwrap_or_default(),
            wish: Wish { made_by: caller.principal.name.chars().take(64).collect(), ..wish },
            audit: state.sequencer.next(Sequence::Audit).await?,
        };
        let (customer, kind) = (caller.principal.customer, ask.kind.clone());
        let set = state.registry.set_limit(ask).await?;
        let found = used(&state, customer).await?;
        let now = Micros(set.touched_at);
        let mine = found.into_iter().find(|used| used.row.account == account.0 && used.row.kind == kind);
        Ok(mine.unwrap_or(Used { row: set, at_work: 0, waiting: 0, now }))
    };
    let used = made.await.map_err(|problem: Problem| problem.of(&request))?;
    Ok(HttpResponse::Ok().json(shown(&used)))
}

/// Takes a limit away.
pub(super) async fn clear(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let ended = async {
        let (caller, _) = admit(&request, payload, &state, CHANGE).await?;
        let pairs = query(&request, &["kind"])?;
        let kind = pairs.first().map(|(_, word)| limited(word)).transpose()?;
        let word = request.match_info().query("id");
        let account = word.parse().map(AccountId).map_err(|_no_number| {
            let shown: String = word.chars().take(40).collect();
            Problem::absent("id", format!("\"{shown}\" is not the number of an account"))
        })?;
        let ask = ClearLimit {
            entry: caller.entry(),
            account,
            kind: kind.map(|kind| kind.to_string()).unwrap_or_default(),
            who: caller.principal.name.clone(),
            audit: state.sequencer.next(Sequence::Audit).await?,
        };
        Ok(state.registry.clear_limit(ask).await?)
    };
    ended.await.map_err(|problem: Problem| problem.of(&request))?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Asked, thousandths};
    use crate::model::{Boot, Epoch, JobState};
    use crate::store::provisioning::node;
    use crate::store::provisioning::transition::{self, Claim, Fence};
    use crate::web::rest::openapi::tests::fits;
    use crate::web::rest::tests::{get, signed, submit};
    use crate::web::testing::{Answer, KEY, OTHER, READER, Rig};

    const LIMITS: &str = "/api/v1/limits";

    async fn send(rig: &Rig, (key, method, path): (&str, &str, &str), body: &str, idem: &str) -> Answer {
        rig.send(signed(key, method, path, body).insert_header(("idempotency-key", idem))).await
    }

    #[test]
    fn a_limit_says_what_it_limits() {
        let asked = Asked::read(br#"{"account":3,"starts":10,"seconds":60}"#).expect("good");
        assert_eq!((asked.wish.together, asked.wish.pace), (None, Some((10, 60, 1))));
        for (bad, field, said) in [
            (json!({}), "account", "missing"),
            (json!({"account": 3}), "together", "say what is limited"),
            (json!({"account": 3, "together": 0}), "together", "from 1 to 100000"),
            (json!({"account": 3, "together": 1, "burst": 2}), "starts", "give starts too"),
            (json!({"account": 3, "kind": "launch", "together": 1}), "kind", "did you mean launch-server?"),
            (json!({"account": 3, "kind": "group", "together": 1}), "kind", "its children do"),
            (json!({"account": 3, "togther": 1}), "togther", "did you mean together?"),
        ] {
            let problem = Asked::read(bad.to_string().as_bytes()).expect_err("bad");
            assert_eq!(problem.at_fault(), Some(field), "{bad}: {problem}");
            assert!(problem.detail().contains(said), "{bad}: {problem}");
        }
        assert_eq!([thousandths(2500), thousandths(100)], ["2.500", "0.100"]);
    }

    #[actix_rt::test]
    async fn a_limit_is_set_shown_changed_and_cleared_by_who_may() {
        let rig = Rig::new().await;
        let wish = json!({"account": 300, "together": 1, "reason": "a small quota"}).to_string();
        assert_eq!(send(&rig, (READER, "POST", LIMITS), &wish, "k-1").await.status, 403);
        let made = send(&rig, (KEY, "POST", LIMITS), &wish, "k-1").await;
        assert_eq!(made.status, 200, "{}", made.text);
        fits("post /limits", 200, &made.json);
        assert_eq!((&made.json["together"], &made.json["reason"]), (&json!(1), &json!("a small quota")));
        let again = send(&rig, (KEY, "POST", LIMITS), &wish, "k-1").await;
        assert_eq!((again.status.as_u16(), &again.json["since"]), (200, &made.json["since"]));
        let wider =
            json!({"account": 300, "together": 2, "starts": 5, "seconds": 60, "burst": 5}).to_string();
        assert_eq!(send(&rig, (KEY, "POST", LIMITS), &wider, "k-2").await.status, 200);
        let listed = get(&rig, READER, LIMITS).await;
        fits("get /limits", 200, &listed.json);
        assert_eq!(listed.json["limits"].as_array().map(Vec::len), Some(1), "{}", listed.text);
        assert_eq!(listed.json["limits"][0]["rate"]["starts"], 5);
        assert_eq!(get(&rig, OTHER, LIMITS).await.json["limits"], json!([]));
        let path = format!("{LIMITS}/300");
        assert_eq!(send(&rig, (OTHER, "DELETE", &path), "", "k-3").await.status, 404);
        let kind = rig.send(signed(KEY, "DELETE", &format!("{path}?kind=noop"), "")).await;
        assert_eq!(kind.status, 404, "{}", kind.text);
        assert_eq!(send(&rig, (KEY, "DELETE", &path), "", "k-4").await.status, 204);
        assert_eq!(send(&rig, (KEY, "DELETE", &path), "", "k-4").await.status, 204, "a repeat");
        assert_eq!(rig.send(signed(KEY, "DELETE", &path, "")).await.status, 404);
        let audited = rig.write(|c| transition::audited(c, "account/300")).await;
        let told: Vec<(&str, &str)> = audited
            .iter()
            .map(|(who, what, how)| {
                assert!(!who.is_empty());
                (what.as_str(), how.as_str())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("limit.set", "1 together: a small quota"),
                ("limit.set", "2 together, 5 in 60 s, 5 at once"),
                ("limit.clear", ""),
            ]
        );
    }

    #[actix_rt::test]
    async fn a_job_that_gets_no_place_waits_and_says_why() {
        let rig = Rig::new().await;
        let refused = send(&rig, (OTHER, "POST", LIMITS), r#"{"account":300,"together":1}"#, "k-1").await;
        assert_eq!((refused.status.as_u16(), &refused.json["field"]), (404, &"account".into()));
        assert_eq!(
            send(&rig, (KEY, "POST", LIMITS), r#"{"account":300,"together":1}"#, "k-1").await.status,
            200
        );
        let boot = Boot::random();
        rig.write(move |c| node::register(c, boot, "test")).await;
        let mut jobs = Vec::new();
        for _ in 0..3 {
            let made = submit(&rig, KEY, &json!({"kind": "noop"})).await.json;
            let job = made["uid"].as_str().and_then(|uid| uid.parse().ok()).expect("a uid");
            let seen = Fence { job, epoch: Epoch(0) };
            let claim = Claim {
                seen,
                next: Epoch(1),
                from: JobState::Queued,
                to: JobState::Running,
                boot,
                crashes: 0,
            };
            let first = jobs.is_empty();
            assert_eq!(rig.write(move |c| transition::claim(c, &claim)).await, first);
            jobs.push(made["id"].as_i64().expect("a number"));
        }
        let last = format!("/api/v1/jobs/{}/why", jobs[2]);
        let why = get(&rig, READER, &last).await.json;
        assert_eq!(why["code"], "limit", "{why}");
        assert_eq!(why["text"], "account 300 has 1 of 1 jobs at work; 1 before this one");
        let found = get(&rig, READER, "/api/v1/jobs?q=waits:limit").await.json;
        assert_eq!(found["jobs"].as_array().map(Vec::len), Some(2), "{found}");
        let listed = get(&rig, READER, LIMITS).await.json;
        assert_eq!((&listed["limits"][0]["atWork"], &listed["limits"][0]["waiting"]), (&json!(1), &json!(2)));
        assert_eq!(send(&rig, (KEY, "DELETE", &format!("{LIMITS}/300"),), "", "k-2").await.status, 204);
        assert_eq!(get(&rig, READER, &last).await.json["code"], "dispatch");
    }
}
