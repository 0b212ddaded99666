//! Servers and agents as lists.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::frame::{Me, with};
use super::{page, words};
use crate::access::{Action, Resource, Verb};
use crate::agents::{AgentView, Agents as Sessions};
use crate::model::Micros;
use crate::store::provisioning::agent::{self, AgentRow};
use crate::store::provisioning::server::{self, ServerRow};
use crate::store::provisioning::view;
use crate::web::{Fault, State};

/// Rows on a page; the rest is counted.
const MOST: usize = 200;

/// How a server's or an agent's word looks.
pub(super) fn look(word: &str) -> (&'static str, &'static str) {
    match word.to_ascii_lowercase().as_str() {
        "running" | "accepted" => ("ok", "c-ok"),
        "pending" | "starting" | "stopping" | "pausing" | "terminating" | "waiting" => ("running", "c-busy"),
        "stopped" | "paused" | "suspended" => ("queued", "c-idle"),
        "terminated" | "revoked" => ("cancelled", "c-idle"),
        _ => ("unknown", "c-doubt"),
    }
}

/// Time since, in words and as the browser counts on.
pub(super) struct Ago {
    pub(super) ms: String,
    pub(super) text: String,
    pub(super) at: String,
}

impl Ago {
    pub(super) fn of(at: Option<i64>, now: Micros) -> Self {
        let at = at.map(Micros);
        Self {
            ms: at.map_or_else(String::new, |at| at.millis().to_string()),
            text: at.map_or_else(|| "–".to_owned(), |at| words::took(now.since(at))),
            at: at.map_or_else(String::new, Micros::rfc3339),
        }
    }
}

/// A server in the list.
pub(super) struct Server {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) icon: &'static str,
    pub(super) hue: &'static str,
    pub(super) status: String,
    pub(super) resource: String,
    pub(super) address: String,
    pub(super) agent: String,
    pub(super) heard: Ago,
    pub(super) busy: bool,
}

impl Server {
    pub(super) fn of(row: &ServerRow, now: Micros) -> Self {
        let (icon, hue) = look(&row.status);
        Self {
            id: row.id,
            name: words::plain(&row.name),
            icon,
            hue,
            status: words::plain(&row.status.to_lowercase()),
            resource: words::plain(&row.provider_id),
            address: row.private_ip.as_deref().map(words::plain).unwrap_or_default(),
            agent: if row.agent_version > 0 {
                format!("version {}", row.agent_version)
            } else {
                "none".to_owned()
            },
            heard: Ago::of(row.last_contact, now),
            busy: row.busy_by.is_some(),
        }
    }
}

#[derive(Template)]
#[template(path = "servers.html")]
struct Servers {
    me: Me,
    lead: String,
    servers: Vec<Server>,
    more: usize,
    may_launch: bool,
}

/// The servers of a tenant.
pub(super) async fn servers(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        visitor.principal.must(Action::new(Verb::Read, Resource::Server))?;
        let customer = visitor.principal.customer;
        let read = state.store.read(move |c| Ok((server::list(c, customer, None, false)?, view::now(c)?)));
        let (rows, now) = read.await?;
        let up = rows.iter().filter(|row| row.status.eq_ignore_ascii_case("running")).count();
        let shown = Servers {
            me: Me::of(&visitor, now, "servers"),
            may_launch: visitor.principal.can(Action::new(Verb::Create, Resource::Server)),
            lead: match rows.len() {
                0 => "There are no servers.".to_owned(),
                n if n == up => format!("All {n} servers run."),
                n => format!("{up} of {n} servers run."),
            },
            more: rows.len().saturating_sub(MOST),
            servers: rows.iter().take(MOST).map(|row| Server::of(row, now)).collect(),
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

/// An agent in the list.
pub(super) struct Agent {
    pub(super) id: i64,
    pub(super) server: i64,
    pub(super) icon: &'static str,
    pub(super) hue: &'static str,
    pub(super) state: String,
    pub(super) address: String,
    pub(super) version: i64,
    pub(super) platform: String,
    pub(super) session: i64,
    pub(super) heard: Ago,
    pub(super) certificate: String,
}

impl Agent {
    pub(super) fn of(row: &AgentRow, now: Micros) -> Self {
        let (icon, hue) = look(&row.state);
        let certificate = row.expires_at.map(Micros).map_or_else(
            || "–".to_owned(),
            |at| match now < at {
                true => format!("valid for {}", words::took(at.since(now))),
                false => format!("expired {} ago", words::took(now.since(at))),
            },
        );
        Self {
            id: row.id,
            server: row.server.unwrap_or_default(),
            icon,
            hue,
            state: words::plain(&row.state),
            address: row.address.as_deref().map(words::plain).unwrap_or_default(),
            version: row.version,
            platform: words::plain(&row.platform),
            session: row.session_no,
            heard: Ago::of(row.last_contact, now),
            certificate,
        }
    }
}

/// An agent with the name of its server and what its session says.
struct Guest {
    agent: Agent,
    name: String,
    icon: &'static str,
    hue: &'static str,
    session: &'static str,
    trouble: String,
}

impl Guest {
    fn of(agent: Agent, name: String, held: Option<Option<&AgentView>>) -> Self {
        let dialled = agent.state == agent::state::ACCEPTED;
        let (icon, hue, session) = match held {
            Some(Some(view)) if view.connected => ("ok", "c-ok", "connected"),
            Some(_) if dialled => ("failed", "c-bad", "away"),
            _ => ("off", "c-idle", "not asked"),
        };
        let trouble = held.flatten().filter(|view| !view.connected).and_then(|view| view.trouble.as_deref());
        Self { name, icon, hue, session, trouble: trouble.map(words::plain).unwrap_or_default(), agent }
    }
}

#[derive(Template)]
#[template(path = "agents.html")]
struct Agents {
    me: Me,
    lead: String,
    /// Whether the page is there to choose whom a command is for.
    choose: bool,
    agents: Vec<Guest>,
    may_launch: bool,
}

/// The agents of a tenant, newest first.
pub(super) async fn agents(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    listed(request, state, false).await
}

/// The agents that commands can be given to.
pub(super) async fn guests(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Fault> {
    listed(request, state, true).await
}

async fn listed(request: HttpRequest, state: web::Data<State>, choose: bool) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let who = &visitor.principal;
        who.must(Action::new(if choose { Verb::Execute } else { Verb::Read }, Resource::Server))?;
        let customer = who.customer;
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        let read = state.store.read(move |c| {
            let (rows, now) = (agent::list(c, customer, most)?, view::now(c)?);
            let ids: Vec<i64> = rows.iter().filter_map(|row| row.server).collect();
            Ok((server::names(c, customer, &ids)?, rows, now))
        });
        let (names, rows, now) = read.await?;
        let held = state.agents.as_ref().map(Sessions::connected);
        let guest = |row: &AgentRow| {
            let name = row.server.and_then(|id| names.iter().find(|(of, _)| *of == id));
            let name = name.map_or_else(|| "no server yet".to_owned(), |(_, name)| words::plain(name));
            let held = held.as_ref().map(|all| all.iter().find(|view| Some(view.server.0) == row.server));
            Guest::of(Agent::of(row, now), name, held)
        };
        let joined = |row: &&AgentRow| row.state == agent::state::ACCEPTED;
        let agents: Vec<Guest> = rows.iter().filter(|row| !choose || joined(row)).map(guest).collect();
        let shown = Agents {
            me: Me::of(&visitor, now, if choose { "jobs" } else { "agents" }),
            lead: lead(&agents, rows.len(), held.is_some()),
            choose,
            agents,
            may_launch: who.can(Action::new(Verb::Create, Resource::Server)),
        };
        Ok(page(StatusCode::OK, &shown)?)
    })
    .await
}

fn lead(agents: &[Guest], known: usize, asked: bool) -> String {
    let joined = agents.iter().filter(|guest| guest.agent.state == agent::state::ACCEPTED).count();
    let connected = agents.iter().filter(|guest| guest.session == "connected").count();
    let newest = if known == MOST { "the newest " } else { "" };
    match (known, asked) {
        (0, _) => "There are no agents.".to_owned(),
        (n, true) => format!("{joined} of {newest}{n} agents have joined, {connected} are connected."),
        (n, false) => format!("{joined} of {newest}{n} agents have joined."),
    }
}
