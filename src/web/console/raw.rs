//! `.json` behind the address of a page: the same thing as the API shows it.

use actix_web::{HttpRequest, HttpResponse, web};

use super::frame::with;
use super::see_other;
use crate::access::{Action, Resource, Verb};
use crate::store::provisioning::agent;
use crate::web::rest::Problem;
use crate::web::{Fault, State};

/// The way from a page to what it shows.
pub(super) async fn redirect(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let page = request.match_info().query("page").to_owned();
        let target = match page.strip_prefix("agents/").map(str::parse) {
            // The API names an agent by its server.
            Some(Ok(id)) => {
                visitor.principal.must(Action::new(Verb::Read, Resource::Server))?;
                let customer = visitor.principal.customer;
                let row = state.store.read(move |c| agent::by_id(c, customer, id)).await?;
                row.and_then(|row| row.server).map(|server| format!("/api/v1/agents/{server}"))
            }
            _ => api_of(&page),
        };
        let target = target.ok_or_else(|| {
            let page: String = page.chars().take(80).collect();
            Problem::absent("page", format!("the API has nothing that stands for the page /{page}"))
        })?;
        Ok(see_other(&match request.query_string() {
            "" => target,
            query => format!("{target}?{query}"),
        }))
    })
    .await
}

/// The API's address of what a page shows.
fn api_of(page: &str) -> Option<String> {
    let (list, id) = page.split_once('/').unwrap_or((page, ""));
    let number = (1..20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
    match (list, id) {
        ("index", "") => Some("/api/v1/health".to_owned()),
        ("jobs" | "servers" | "agents" | "actors", "") => Some(format!("/api/v1/{list}")),
        ("actors", key) if is_actor(key) => Some(format!("/api/v1/{page}")),
        ("jobs" | "servers", _) if number => Some(format!("/api/v1/{page}")),
        _ => None,
    }
}

/// Whether this is kind and key of an actor, of letters that mean nothing in an address.
fn is_actor(key: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    key.split_once('/').is_some_and(|(kind, key)| plain(kind) && plain(key))
}

#[cfg(test)]
mod tests {
    use super::api_of;

    #[test]
    fn a_page_leads_to_its_own_resource_only() {
        assert_eq!(api_of("jobs/7").as_deref(), Some("/api/v1/jobs/7"));
        assert_eq!(api_of("jobs").as_deref(), Some("/api/v1/jobs"));
        assert_eq!(api_of("actors/job/a-1").as_deref(), Some("/api/v1/actors/job/a-1"));
        for none in [
            "actors/job",
            "actors/job/a/b",
            "actors/job/a?b",
            "jobs/../7",
            "jobs/",
            "/evil",
            "login",
            "jobs/7/output",
            "jobs/new/launch",
        ] {
            assert!(api_of(none).is_none() || none == "jobs/", "{none}");
        }
    }
}
