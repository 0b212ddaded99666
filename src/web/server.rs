//! Listeners: limits, names of requests, panics, and how they end.

use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpMessage as _, HttpServer, web};
use futures_util::FutureExt as _;
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use super::error::REQUEST_ID;
use super::{Fault, Limits, Ops, RequestId, State, agent_socket, routes};
use crate::model::Uid;
use crate::ops::Metrics;
use crate::supervision::Supervisor;

/// Applies the limits. A macro, because the types of a server's factory have no names here.
macro_rules! limited {
    ($server:expr, $limits:expr) => {
        $server
            .workers($limits.workers)
            .max_connections($limits.connections)
            .client_request_timeout($limits.head_deadline)
            .client_disconnect_timeout($limits.disconnect)
            .keep_alive($limits.keep_alive)
            .shutdown_timeout($limits.drain.as_secs())
            .disable_signals()
    };
}

/// Serves the APIs and the console on bound listeners: plain ones, or with `tls` TLS ones, which take the handshakes of
/// guests as well. The server ends by its handle; signals are the caller's business.
///
/// # Errors
/// What the operating system reports about a listener.
pub fn api_server(
    state: State,
    listeners: Vec<TcpListener>,
    tls: Option<&ServerConfig>,
) -> std::io::Result<Server> {
    let limits = state.limits.clone();
    let guests = state.agents.clone().filter(|_| tls.is_some());
    let workers = Workers::new("api", &state.supervisor);
    let server = HttpServer::new(move || {
        workers.watch();
        let app = App::new()
            .app_data(web::Data::new(state.metrics.clone()))
            .app_data(web::Data::new(state.clone()))
            .wrap(from_fn(gated))
            .wrap(from_fn(named));
        app.configure(|config| {
            if let Some(agents) = &guests {
                agent_socket::routes(agents.clone())(config);
            }
        })
        .configure(routes::api)
    });
    let mut server = limited!(server, limits);
    for listener in listeners {
        server = match tls {
            Some(tls) => server.listen_rustls_0_23(listener, tls.clone())?,
            None => server.listen(listener)?,
        };
    }
    Ok(server.run())
}

/// Serves guests on bound listeners that speak TLS only. `configure` adds the routes, which belong to the room that
/// knows agents.
///
/// # Errors
/// What the operating system reports about the listener.
pub fn agent_server(
    state: State,
    listeners: Vec<TcpListener>,
    tls: &ServerConfig,
    configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> std::io::Result<Server> {
    let limits = state.limits.clone();
    let workers = Workers::new("agents", &state.supervisor);
    let server = HttpServer::new(move || {
        workers.watch();
        App::new()
            .app_data(web::Data::new(state.metrics.clone()))
            .app_data(web::Data::new(state.clone()))
            .wrap(from_fn(gated))
            .wrap(from_fn(named))
            .configure(configure.clone())
            .default_service(web::route().to(routes::unknown))
    });
    let mut server = limited!(server, limits);
    for listener in listeners {
        server = server.listen_rustls_0_23(listener, tls.clone())?;
    }
    Ok(server.run())
}

/// Serves health, metrics and actors on bound plain listeners.
///
/// # Errors
/// What the operating system reports about a listener.
pub fn ops_server(ops: Ops, listeners: Vec<TcpListener>) -> std::io::Result<Server> {
    let limits = Limits::default();
    let workers = Workers::new("ops", &ops.supervisor);
    let server = HttpServer::new(move || {
        workers.watch();
        App::new()
            .app_data(web::Data::new(ops.metrics.clone()))
            .app_data(web::Data::new(ops.clone()))
            .wrap(from_fn(named))
            .configure(routes::ops)
    });
    let mut server = limited!(server, limits).workers(1);
    for listener in listeners {
        server = server.listen(listener)?;
    }
    Ok(server.run())
}

/// Gives the threads of a server their names, and has each watched for standing still.
#[derive(Clone)]
struct Workers {
    listener: &'static str,
    supervisor: Supervisor,
    started: Arc<AtomicUsize>,
}

impl Workers {
    fn new(listener: &'static str, supervisor: &Supervisor) -> Self {
        Self { listener, supervisor: supervisor.clone(), started: Arc::default() }
    }

    /// To be called on the thread that is watched.
    fn watch(&self) {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        self.supervisor.watch_worker(format!("{}-http-{number}", self.listener));
    }
}

/// Gives a request its name, counts it, answers 500 when its handler panics. The worker lives on.
pub(super) async fn named<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let id = RequestId(Uid::random());
    request.extensions_mut().insert(id);
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let metrics = request.app_data::<web::Data<Metrics>>().cloned();
    let answer = AssertUnwindSafe(next.call(request)).catch_unwind().await.unwrap_or_else(|_| {
        // The panic hook has logged the place.
        log::error!(request:% = id.0; "the handler of {method} {path} panicked, request {}", id.0);
        Err(panicked().of(id).into())
    });
    let status =
        answer.as_ref().map_or_else(|e| e.as_response_error().status_code(), ServiceResponse::status);
    let took = started.elapsed();
    if let Some(metrics) = metrics {
        metrics.http_request(method.as_str(), status.as_u16(), took);
    }
    log::debug!(request:% = id.0, status = status.as_u16();
        "{method} {path}: {} in {} ms, request {}", status.as_u16(), took.as_millis(), id.0);
    let mut answer = answer?;
    if let Ok(value) = HeaderValue::from_str(&id.0.to_string()) {
        answer.headers_mut().insert(REQUEST_ID, value);
    }
    Ok(answer)
}

/// Lets no more than so many requests be worked on at once; one more is told to come back. A stream (events) leaves
/// the gate when its head is sent.
pub(super) async fn gated<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let gate = request.app_data::<web::Data<State>>().map(|state| Arc::clone(&state.gate));
    let _permit = match gate.map(Semaphore::try_acquire_owned) {
        Some(Ok(permit)) => Some(permit),
        None => None,
        Some(Err(_)) => {
            let id = RequestId::of(request.request());
            return Err(Fault::busy("too many requests at once; try again in a second").of(id).into());
        }
    };
    next.call(request).await
}

fn panicked() -> Fault {
    Fault::new(
        actix_web::http::StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the request failed by a fault of the server; its log has the cause under this request id",
    )
}
