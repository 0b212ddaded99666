//! Who a guest is: the decision over the rows, pure, and the call around it.

use std::net::SocketAddr;

use super::{Error, Links};
use crate::crypto::{hex, pki, sha256};
use crate::model::{AgentId, CustomerId, JobUid, Micros, ServerId, ServerStatus};
use crate::store::provisioning::agent::{self, AgentRow, Enrolled, state};
use crate::store::provisioning::server::{self, ServerRow};
use crate::wire::{HandshakeAnswer, HandshakeRequest, agent_host_name};

/// Longest platform text kept.
const PLATFORM_LIMIT: usize = 64;
/// Longest instance name kept.
const INSTANCE_LIMIT: usize = 128;

/// What the rows say to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// The key is the agent's.
    Known,
    /// The token is unused and good: it may be bound to the key.
    Bind,
    /// Its server is not there yet.
    NotYet,
    /// Another key has the token.
    Conflict,
    /// Refused for good.
    Refuse(&'static str),
}

/// What is known when a guest calls.
struct Facts<'a> {
    request: &'a HandshakeRequest,
    key_hash: &'a str,
    agent: Option<&'a AgentRow>,
    /// The agent this key belongs to already, if any.
    holder: Option<i64>,
    server: Option<&'a ServerRow>,
    now: Micros,
}

fn decide(facts: &Facts<'_>) -> Decision {
    let Some(agent) = facts.agent else { return Decision::Refuse("the token or key is not known") };
    if agent.state == state::REVOKED {
        return Decision::Refuse("the agent was revoked");
    }
    if facts.holder.is_some_and(|holder| holder != agent.id) {
        return Decision::Refuse("the key belongs to another guest");
    }
    let binds = match agent.key_hash.as_deref() {
        Some(key) if key == facts.key_hash => false,
        Some(_) => return Decision::Conflict,
        None if agent.token_expires <= facts.now.0 => return Decision::Refuse("the token has expired"),
        None => true,
    };
    let Some(server) = facts.server else { return Decision::NotYet };
    if server.customer != agent.customer || server.status == ServerStatus::Terminated.as_str() {
        return Decision::Refuse("the server is gone");
    }
    if facts.request.instance_id.as_ref().is_some_and(|instance| *instance != server.provider_id) {
        return Decision::Refuse("the instance is not the one the token was made for");
    }
    if !address_fits(facts.request.address, server) {
        return Decision::Refuse("the address is not one the cloud gave this server");
    }
    if binds { Decision::Bind } else { Decision::Known }
}

/// Whether the cloud knows the server by this address. Where the cloud told none, nothing can be compared.
fn address_fits(address: SocketAddr, server: &ServerRow) -> bool {
    let told = [&server.private_ip, &server.public_ip];
    let mut told = told.into_iter().flatten().filter(|ip| !ip.is_empty()).peekable();
    told.peek().is_none() || told.any(|ip| ip.parse() == Ok(address.ip()))
}

/// Rows a handshake is decided on.
#[derive(Default)]
struct Rows {
    agent: Option<AgentRow>,
    holder: Option<i64>,
    server: Option<ServerRow>,
    now: Micros,
}

/// Decides a handshake and carries it out. `peer` is for the log only: identity is a key, never an address.
pub(super) async fn handle(
    links: &Links,
    request: HandshakeRequest,
    peer: SocketAddr,
) -> Result<HandshakeAnswer, Error> {
    let asked = pki::read_request(&request.csr_pem).map_err(|e| Error::Malformed(e.to_string()))?;
    check(&request, &asked)?;
    let rows = read(links, &request, &asked.key_hash).await?;
    let facts = Facts {
        request: &request,
        key_hash: &asked.key_hash,
        agent: rows.agent.as_ref(),
        holder: rows.holder,
        server: rows.server.as_ref(),
        now: rows.now,
    };
    let decision = decide(&facts);
    let (Some(agent), Some(server)) = (&rows.agent, &rows.server) else {
        return Err(refusal(links, decision, peer));
    };
    match decision {
        Decision::Known => {}
        Decision::Bind => bind(links, &agent.token_hash, &asked.key_hash, peer).await?,
        Decision::NotYet | Decision::Conflict | Decision::Refuse(_) => {
            return Err(refusal(links, decision, peer));
        }
    }
    enrol(links, &request, agent, server).await
}

fn check(request: &HandshakeRequest, asked: &pki::Request) -> Result<(), Error> {
    let malformed = |text: &str| Err(Error::Malformed(text.to_owned()));
    if asked.common_name != request.address.to_string() {
        return malformed(
            "the signing request does not repeat the address, so the key does not vouch for it",
        );
    }
    if request.platform.len() > PLATFORM_LIMIT {
        return malformed("the platform is longer than 64 bytes");
    }
    if request.instance_id.as_ref().is_some_and(|instance| instance.len() > INSTANCE_LIMIT) {
        return malformed("the instance is longer than 128 bytes");
    }
    if request.agent_version < 1 {
        return malformed("the agent's version is not positive");
    }
    Ok(())
}

async fn read(links: &Links, request: &HandshakeRequest, key_hash: &str) -> Result<Rows, Error> {
    let token_hash = request.token.as_ref().map(|token| hex::encode(&sha256(token.as_bytes())));
    let key_hash = key_hash.to_owned();
    let read = links.store.read(move |c| {
        let holder = agent::by_key(c, &key_hash)?;
        let found = match &token_hash {
            Some(hash) => agent::by_token(c, hash)?,
            None => holder.clone(),
        };
        let server = match &found {
            None => None,
            Some(row) => match row.server {
                Some(id) => server::by_id(c, CustomerId(row.customer), ServerId(id))?,
                None => match row.job.parse::<JobUid>() {
                    Ok(job) => server::by_job(c, job)?,
                    Err(_) => None,
                },
            },
        };
        Ok(Rows { agent: found, holder: holder.map(|row| row.id), server, now: c.now()? })
    });
    Ok(read.await?)
}

/// Binds the token to the key. Of many at once the database lets one through.
async fn bind(links: &Links, token_hash: &str, key_hash: &str, peer: SocketAddr) -> Result<(), Error> {
    let (token, key) = (token_hash.to_owned(), key_hash.to_owned());
    let bound = links
        .store
        .write(move |c| {
            if agent::use_token(c, &token, &key)? {
                return Ok(true);
            }
            // Lost, or a replay of the very write that won: what stands there decides.
            Ok(agent::by_token(c, &token)?.is_some_and(|row| row.key_hash.as_deref() == Some(key.as_str())))
        })
        .await?;
    if bound { Ok(()) } else { Err(refusal(links, Decision::Conflict, peer)) }
}

async fn enrol(
    links: &Links,
    request: &HandshakeRequest,
    agent: &AgentRow,
    server: &ServerRow,
) -> Result<HandshakeAnswer, Error> {
    let (customer, id) = (CustomerId(agent.customer), ServerId(server.id));
    let life = links.limits.certificate_life;
    let signed = links.authority.sign_agent(
        &request.csr_pem,
        &pki::agent_uri(customer, id),
        &[agent_host_name(id)],
        life,
    )?;
    let enrolled = Enrolled {
        id: AgentId(agent.id),
        server: id,
        address: request.address.to_string(),
        version: request.agent_version,
        platform: request.platform.clone(),
        instance: request.instance_id.clone(),
        serial: signed.serial.clone(),
        expires_at: signed.not_after,
    };
    if !links.store.write(move |c| agent::enrol(c, &enrolled)).await? {
        return Err(Error::Refused("the agent was revoked"));
    }
    log::info!(server = id.0, agent = agent.id; "agent {} enrolled for server {id} at {}", agent.id, request.address);
    Ok(HandshakeAnswer {
        agent_id: AgentId(agent.id),
        customer_id: customer,
        server_id: id,
        server_name: server.name.clone(),
        cert_pem: signed.cert_pem,
        expires_at: signed.not_after,
        valid_secs: life.as_secs(),
    })
}

fn refusal(links: &Links, decision: Decision, peer: SocketAddr) -> Error {
    match decision {
        Decision::NotYet => Error::NotYet(links.limits.not_yet),
        Decision::Conflict => {
            log::warn!(target: "security", "{peer} showed an enrolment token that another key has used");
            Error::Conflict
        }
        Decision::Refuse(why) => {
            log::warn!(target: "security", "{peer} is refused as an agent: {why}");
            Error::Refused(why)
        }
        // Only reached without rows, which `decide` never lets through.
        Decision::Known | Decision::Bind => Error::Refused("the token or key is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1000);

    fn agent_row() -> AgentRow {
        AgentRow {
            id: 5,
            customer: 1,
            job: JobUid::random().to_string(),
            server: None,
            token_hash: "t".into(),
            token_expires: 2000,
            token_used_at: None,
            key_hash: None,
            serial: None,
            state: state::PENDING.into(),
            address: None,
            version: 0,
            platform: String::new(),
            instance: None,
            session_boot: None,
            session_no: 0,
            enrolled_at: None,
            expires_at: None,
            last_contact: None,
            made_at: 0,
        }
    }

    fn server_row() -> ServerRow {
        ServerRow {
            id: 7,
            customer: 1,
            account: 1,
            cloud: 1,
            region: 1,
            data_center: 1,
            product: 1,
            provider_product: String::new(),
            image: 1,
            name: "seven".into(),
            description: String::new(),
            provider_id: "i-7".into(),
            job: String::new(),
            status: ServerStatus::Running.as_str().into(),
            platform: String::new(),
            architecture: String::new(),
            agent_version: 0,
            budget: 1,
            label: None,
            keypair: None,
            owner: 1,
            user_groups: String::new(),
            private_ip: Some("127.1.0.7".into()),
            public_ip: None,
            started_at: 0,
            stopped_at: None,
            terminate_after: None,
            pause_after: None,
            last_contact: None,
            busy_by: None,
            changed_at: 0,
            version: 1,
        }
    }

    fn request() -> HandshakeRequest {
        HandshakeRequest {
            token: Some("token".into()),
            csr_pem: String::new(),
            address: "127.1.0.7:2003".parse().expect("an address"),
            instance_id: Some("i-7".into()),
            agent_version: 1,
            platform: "linux/x86_64".into(),
        }
    }

    fn decided(agent: Option<&AgentRow>, server: Option<&ServerRow>, request: &HandshakeRequest) -> Decision {
        decide(&Facts { request, key_hash: "mine", agent, holder: None, server, now: NOW })
    }

    #[test]
    fn a_token_is_bound_once_and_serves_its_key_again() {
        let (mut agent, server, request) = (agent_row(), server_row(), request());
        assert_eq!(decided(Some(&agent), Some(&server), &request), Decision::Bind);
        assert_eq!(decided(Some(&agent), None, &request), Decision::NotYet);
        agent.key_hash = Some("mine".into());
        agent.token_expires = 0;
        assert_eq!(decided(Some(&agent), Some(&server), &request), Decision::Known);
        agent.key_hash = Some("another".into());
        assert_eq!(decided(Some(&agent), Some(&server), &request), Decision::Conflict);
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let refused = |decision| matches!(decision, Decision::Refuse(_));
        let (agent, server, request) = (agent_row(), server_row(), request());
        assert!(refused(decided(None, None, &request)));
        let expired = AgentRow { token_expires: NOW.0, ..agent.clone() };
        assert!(refused(decided(Some(&expired), Some(&server), &request)));
        let revoked =
            AgentRow { state: state::REVOKED.into(), key_hash: Some("mine".into()), ..agent.clone() };
        assert!(refused(decided(Some(&revoked), Some(&server), &request)));
        for other in [
            ServerRow { customer: 2, ..server.clone() },
            ServerRow { status: ServerStatus::Terminated.as_str().into(), ..server.clone() },
            ServerRow { provider_id: "i-8".into(), ..server.clone() },
            ServerRow { private_ip: Some("127.1.0.8".into()), ..server.clone() },
        ] {
            assert!(refused(decided(Some(&agent), Some(&other), &request)), "{other:?}");
        }
        let facts = Facts {
            request: &request,
            key_hash: "mine",
            agent: Some(&agent),
            holder: Some(9),
            server: Some(&server),
            now: NOW,
        };
        assert!(refused(decide(&facts)), "a key must not stand for two guests");
        let silent = ServerRow { private_ip: None, public_ip: None, ..server };
        assert_eq!(decided(Some(&agent), Some(&silent), &request), Decision::Bind);
    }
}
