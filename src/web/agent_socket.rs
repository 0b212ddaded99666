//! The guests' listener: TLS only, one call, the handshake. Everything else is dialled from here to the guest.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::{Fault, RequestId, State};
use crate::agents::Agents;
use crate::ops::Chain;
use crate::wire::{HANDSHAKE_PATH, HandshakeRequest};

/// Routes of the guests' listener.
pub fn routes(agents: Agents) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config: &mut web::ServiceConfig| {
        config.app_data(web::Data::new(agents.clone())).route(HANDSHAKE_PATH, web::post().to(handshake));
    }
}

/// Enrols a guest. Its identity is the key in its request and the token it was given, never its address.
///
/// # Errors
/// 400 malformed, 401 refused for good, 409 token used by another key, 503 not yet known (with `Retry-After`).
async fn handshake(
    request: HttpRequest,
    state: web::Data<State>,
    agents: web::Data<Agents>,
    payload: web::Payload,
) -> Result<HttpResponse, Fault> {
    let id = RequestId::of(&request);
    let body = super::body::read(&request, payload, state.limits.agent_body, state.limits.body_deadline)
        .await
        .map_err(|fault| fault.of(id))?;
    let asked: HandshakeRequest = serde_json::from_slice(&body).map_err(|e| {
        Fault::new(StatusCode::BAD_REQUEST, "malformed", format!("the handshake is not understood: {e}"))
            .of(id)
    })?;
    let peer = request.peer_addr().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    match agents.handshake(asked, peer).await {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(error) => {
            log::info!(request:% = id.0; "handshake from {peer} not answered: {}", Chain(&error));
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = HttpResponse::build(status);
            if let Some(after) = error.retry_after() {
                answer.insert_header(("retry-after", after.as_secs().max(1).to_string()));
            }
            Ok(answer.json(serde_json::json!({ "error": { "message": error.to_string() } })))
        }
    }
}
