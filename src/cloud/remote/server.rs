//! The server: reads a call within limits, checks who signed it and when, and lets the cloud carry it out.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use super::wire::{
    Answer, Ask, CALL, CAPABILITIES, Call, KEY_HEADER, LONGEST_CALL, SIGNATURE_HEADER, Signed, TERMS_HEADER,
    TIME_HEADER, sign, terms_of,
};
use crate::cloud::simulated::{Account, Simulated};
use crate::cloud::{CallContext, CallError, Credential, Provider as _, TokenClass};
use crate::crypto::same;
use crate::model::{ErrorClass, Micros};

/// Threads that serve.
const WORKERS: usize = 2;
/// Connections a thread holds at once.
const CONNECTIONS: usize = 4096;
/// Longest wait for the head of a request, and for its body.
const HEAD: Duration = Duration::from_secs(5);
const BODY: Duration = Duration::from_secs(10);
/// How long an idle connection is kept. More than any caller keeps one: a caller that sends on a connection just
/// being closed would not know what became of its call.
const KEEP_ALIVE: Duration = Duration::from_secs(180);
/// How long calls at work get when the server stops in order, in seconds.
const DRAIN: u64 = 5;
/// Longest call, whatever the caller says.
const LONGEST: Duration = Duration::from_secs(600);
/// How far a signed time may lie ahead of this clock.
const AHEAD: Duration = Duration::from_secs(1);

struct Gate {
    cloud: Arc<Simulated>,
    terms: String,
}

/// Serves a cloud on a bound listener, in plain HTTP: the caller binds it to loopback. The server ends by its handle.
///
/// # Errors
/// What the operating system reports about the listener.
pub fn serve(cloud: Arc<Simulated>, listener: TcpListener) -> std::io::Result<Server> {
    let terms = terms_of(cloud.capabilities());
    let gate = web::Data::new(Gate { cloud, terms });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(gate.clone())
            .route(CALL, web::post().to(call))
            .route(CAPABILITIES, web::get().to(capabilities))
    });
    let server = server
        .workers(WORKERS)
        .max_connections(CONNECTIONS)
        .client_request_timeout(HEAD)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN)
        .disable_signals();
    Ok(server.listen(listener)?.run())
}

async fn capabilities(gate: web::Data<Gate>) -> HttpResponse {
    HttpResponse::Ok().json(gate.cloud.capabilities())
}

async fn call(gate: web::Data<Gate>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = match admitted(&gate, &request, payload).await {
        // A task of its own: the caller may hang up, and the cloud goes on as one far away would.
        Ok((call, access_key)) => actix_web::rt::spawn(carry_out(gate, call, access_key))
            .await
            .unwrap_or_else(|_panicked| CallError::unknown("500 InternalError").into()),
        Err(refusal) => refusal.into(),
    };
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(answer)
}

/// Reads the call and checks its signature. Nothing is done before, so every error is a definite refusal.
async fn admitted(
    gate: &Gate,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Call, String), CallError> {
    let body = match tokio::time::timeout(BODY, payload.to_bytes_limited(LONGEST_CALL)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(error))) => return Err(malformed(&format!("the body cannot be read: {error}"))),
        Ok(Err(_too_long)) => return Err(malformed(&format!("the body has more than {LONGEST_CALL} bytes"))),
        Err(_late) => return Err(malformed("the body did not come in time")),
    };
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (access_key, signed_at, terms) = (header(KEY_HEADER), header(TIME_HEADER), header(TERMS_HEADER));
    let signed = Signed {
        method: request.method().as_str(),
        path: request.uri().path(),
        access_key: &access_key,
        signed_at: &signed_at,
        terms: &terms,
        body: &body,
    };
    if !is_signed(gate.cloud.account_of(&access_key), &signed, &header(SIGNATURE_HEADER)) {
        let text = "the credential is not known, or the signature does not fit the request";
        return Err(CallError::refused(ErrorClass::Auth, "SignatureDoesNotMatch", text));
    }
    check_time(&gate.cloud, &signed_at)?;
    if terms != gate.terms {
        let text = format!(
            "this cloud is of class {} with other times than the caller knows; start the caller anew",
            gate.cloud.capabilities().class
        );
        return Err(CallError::refused(ErrorClass::Transient, "TermsChanged", text));
    }
    let call =
        serde_json::from_slice(&body).map_err(|error| malformed(&format!("it is no call: {error}")))?;
    Ok((call, access_key))
}

fn malformed(text: &str) -> CallError {
    CallError::refused(ErrorClass::Bug, "MalformedRequest", text)
}

/// Whether the account's secret made this signature. An unknown account takes the same time.
fn is_signed(account: Option<&Account>, signed: &Signed<'_>, signature: &str) -> bool {
    let secret = account.map_or(&b""[..], |account| account.secret.expose());
    same(sign(secret, signed), signature) & account.is_some()
}

/// In class S a request is acceptable for `t_sig` after it was signed, and that is why an absent server stays absent.
fn check_time(cloud: &Simulated, signed_at: &str) -> Result<(), CallError> {
    let capabilities = cloud.capabilities();
    if capabilities.class != TokenClass::S {
        return Ok(());
    }
    let at = signed_at.parse::<i64>().map_err(|error| malformed(&format!("{TIME_HEADER}: {error}")))?;
    let (at, now) = (Micros(at.saturating_mul(1000)), Micros::wall());
    if now.since(at) > capabilities.t_sig || at.since(now) > AHEAD {
        let text = format!("it was signed at {}, and now it is {}", at.rfc3339(), now.rfc3339());
        // A request signed anew may be accepted.
        return Err(CallError::refused(ErrorClass::Transient, "RequestExpired", text));
    }
    Ok(())
}

async fn carry_out(gate: web::Data<Gate>, call: Call, access_key: String) -> Answer {
    let Some(account) = gate.cloud.account_of(&access_key) else {
        return malformed("the account is not known").into();
    };
    let context = CallContext {
        account_number: &call.account,
        region: &call.region,
        credential: Credential { access_key: &access_key, secret: &account.secret },
        limit: Duration::from_millis(call.limit_ms).min(LONGEST),
    };
    let done = answered(&gate.cloud, &context, &call.ask).await;
    done.unwrap_or_else(Answer::from)
}

async fn answered(cloud: &Simulated, context: &CallContext<'_>, ask: &Ask) -> Result<Answer, CallError> {
    let done = |()| Answer::Done;
    match ask {
        Ask::Check => cloud.check(context).await.map(done),
        Ask::Launch(request) => Ok(Answer::Made(Box::new(cloud.launch(context, request).await?))),
        Ask::Machine(id) => Ok(Answer::Seen(cloud.machine(context, id).await?.map(Box::new))),
        Ask::FindByTag(tag) => cloud.find_by_tag(context, tag).await.map(Answer::Found),
        Ask::List(prefix) => cloud.list(context, prefix).await.map(Answer::Found),
        Ask::Start(id) => cloud.start(context, id).await.map(done),
        Ask::Stop(id) => cloud.stop(context, id).await.map(done),
        Ask::Pause(id) => cloud.pause(context, id).await.map(done),
        Ask::Terminate(id) => cloud.terminate(context, id).await.map(done),
    }
}
