//! The one way into the dated API.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::super::auth::{self, Caller};
use super::super::stale::Admitted;
use super::super::{Fault, RequestId, State, body};
use super::call::{Call, Details};
use super::input::verb_of;
use super::query::Query;
use super::reply::{Reply, accepted, only, wrapped};
use super::table::{How, Others, Row, Write, find};
use super::write;
use crate::access::{Action, Verb};

/// Versions served, oldest first; the last one is current. All of them get the same answers, but for one field of
/// accounts.
pub const VERSIONS: &[&str] =
    &["2011-02-24", "2011-07-15", "2012-02-29", "2012-06-15", "2013-12-07", "2014-07-30", "2015-05-25"];

/// Header with the number of things, in answers to HEAD.
const COUNT: &str = "x-es-count";

/// `GET /api/enstratus`: which versions there are. The one path that needs no signature.
pub(super) async fn versions() -> HttpResponse {
    let named = |version: &&str| json!({ "versionId": version });
    HttpResponse::Ok().json(json!({
        "current": VERSIONS.last().map(named),
        "supported": VERSIONS.iter().rev().map(named).collect::<Vec<_>>(),
    }))
}

/// Every other path.
pub(super) async fn serve(
    request: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Fault> {
    let id = RequestId::of(&request);
    answer(&request, payload, &state).await.map_err(|fault| fault.of(id))
}

async fn answer(request: &HttpRequest, payload: Payload, state: &State) -> Result<HttpResponse, Fault> {
    let bytes = body::read(request, payload, state.limits.body, state.limits.body_deadline).await?;
    let caller = auth::dated(request, &bytes, state).await?;
    Admitted::mark(request, &format!("dated key {}", caller.principal.access_key));
    let part = |name: &str| request.match_info().get(name);
    let version = part("version").filter(|v| VERSIONS.contains(v)).ok_or_else(|| {
        let shown: String = part("version").unwrap_or_default().chars().take(64).collect();
        Fault::not_found(format!("there is no version \"{shown}\"; GET /api/enstratus lists them"))
    })?;
    if (part("area"), part("resource")) == (Some("admin"), Some("License")) {
        return license(request, &caller, state).await;
    }
    let row = part("area").zip(part("resource")).and_then(|(area, resource)| find(area, resource));
    let row = row.ok_or_else(|| {
        let path: String = request.path().chars().take(200).collect();
        Fault::not_found(format!("there is no resource at {path}"))
    })?;
    let call = Call {
        state: state.clone(),
        caller,
        version: version.to_owned(),
        id: part("id").filter(|id| !id.is_empty()).map(str::to_owned),
        query: Query::of(request)?,
        details: Details::parse(request.headers().get("x-es-details").and_then(|v| v.to_str().ok()))?,
        asked: (String::new(), Value::Null),
    };
    match *request.method() {
        Method::GET => Ok(HttpResponse::Ok().json(wrapped(row.collection, get(row, call).await?))),
        Method::HEAD => {
            let count = get(row, call).await?.len();
            Ok(HttpResponse::Ok().insert_header((COUNT, count.to_string())).finish())
        }
        Method::POST => change(row, How::Post, call, &bytes).await,
        Method::PUT => change(row, How::Put, call, &bytes).await,
        Method::DELETE => change(row, How::Delete, call, &bytes).await,
        _ => Err(wrong_method(row, request.method().as_str())),
    }
}

fn wrong_method(row: &Row, method: &str) -> Fault {
    let message = format!("{method} is not a method of {}", row.path);
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
}

async fn get(row: &'static Row, call: Call) -> Result<Vec<Value>, Fault> {
    call.must(Verb::Read, row.on)?;
    let (id, details) = (call.id.clone(), call.details);
    let found = (row.get)(call).await?;
    match id {
        Some(id) if found.is_empty() => {
            let shown: String = id.chars().take(64).collect();
            Err(Fault::not_found(format!("there is no {} {shown}; GET {} lists them", row.thing, row.path)))
        }
        _ if details == Details::None => Ok(found.iter().map(|whole| ids_only(row, whole)).collect()),
        _ => Ok(found),
    }
}

fn ids_only(row: &Row, whole: &Value) -> Value {
    json!({ row.id: whole.get(row.id) })
}

async fn change(row: &'static Row, how: How, mut call: Call, bytes: &Bytes) -> Result<HttpResponse, Fault> {
    let write = choose(row, how, &mut call, bytes)?;
    call.caller.principal.must(Action::new(write.needs, row.on))?;
    let version = call.version.clone();
    let reply = match write::earlier(&call).await? {
        Some(reply) => reply,
        None => (write.run)(call).await?,
    };
    Ok(match reply {
        Reply::Job(job) => accepted(&version, &job),
        Reply::Created(id) => HttpResponse::Created().json(wrapped(row.collection, vec![only(row.id, id)])),
        Reply::Done => HttpResponse::NoContent().finish(),
    })
}

/// The verb of the table that a request asks for.
fn choose(row: &'static Row, how: How, call: &mut Call, bytes: &Bytes) -> Result<&'static Write, Fault> {
    let method = match how {
        How::Post => "POST",
        How::Put => "PUT",
        How::Delete => "DELETE",
    };
    let known: Vec<&'static str> = row.writes.iter().filter(|w| w.how == how).map(|w| w.verb).collect();
    if known.is_empty() {
        return Err(match row.others {
            Others::Never => wrong_method(row, method),
            Others::NotBuilt => {
                Fault::not_implemented(format!("{method} {} is not built in this version", row.path))
            }
        });
    }
    match (how, &call.id) {
        (How::Post, Some(_)) => return Err(Fault::bad(format!("POST {} takes no id in its path", row.path))),
        (How::Put | How::Delete, None) => {
            return Err(Fault::bad(format!(
                "{method} {} needs the id of a {} in its path",
                row.path, row.thing
            )));
        }
        _ => {}
    }
    let verb = if how == How::Delete {
        ""
    } else {
        // Many clients send JSON without saying so: the content type is not asked.
        let body: Value =
            serde_json::from_slice(bytes).map_err(|e| Fault::bad(format!("the body is not JSON: {e}")))?;
        let (verb, path, asked) = verb_of(&body, &known)?;
        call.asked = (path, asked.clone());
        verb
    };
    row.writes
        .iter()
        .find(|w| w.how == how && w.verb == verb)
        .ok_or_else(|| Fault::not_implemented(format!("{method} {} {verb} is not built", row.path)))
}

/// `admin/License` is a flat object without an id. This program needs no licence; the answer says: valid, no end, no
/// limit.
async fn license(request: &HttpRequest, caller: &Caller, state: &State) -> Result<HttpResponse, Fault> {
    use crate::access::Resource;
    use crate::model::Micros;
    use crate::store::provisioning::catalog;
    if request.method() != Method::GET {
        let message = "admin/License can only be read";
        return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method", message));
    }
    caller.principal.must(Action::new(Verb::Read, Resource::Customer))?;
    let customer = caller.principal.customer;
    let row = state.store.read(move |c| catalog::customer(c, customer)).await?;
    // 9999-12-31T23:59:59Z, the last second that clients with four digits of year can read.
    let end = Micros(253_402_300_799_000_000);
    Ok(HttpResponse::Ok().json(json!({
        "licensee": row.map_or_else(String::new, |row| row.name),
        "expirationDateTime": end.enstratus(),
        "daysUntilExpiration": end.since(Micros::wall()).as_secs() / 86_400,
        "serverLimit": i32::MAX,
        "valid": true,
    })))
}
