//! The door: login, sessions, logout. A session is a random token in a cookie; the database has its hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::http::header::{HOST, ORIGIN, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use tokio::sync::Semaphore;

use super::forms::Filled;
use super::remembered::Remembered;
use super::taste::Taste;
use super::{page, see_other};
use crate::access::Principal;
use crate::crypto::{hex, sha256};
use crate::model::{Uid, UserId};
use crate::store::provisioning::session::{self, Session};
use crate::web::stale::unreadable;
use crate::web::{Fault, State};

/// Name of the cookie.
const COOKIE: &str = "dispatcher-session";
/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Failed logins of one source within [`WINDOW`].
const MOST_TRIES: u32 = 10;
/// The time in which failed logins are counted.
const WINDOW: Duration = Duration::from_secs(300);
/// Sources remembered.
const MOST_SOURCES: usize = 10_000;
/// Passwords checked at once: each costs tens of milliseconds and 19 MB.
const CHECKS: usize = 2;

/// Counts attempts to log in, for each source, and remembers who was in for the time the database is away.
#[derive(Debug)]
pub struct Desk {
    tries: Mutex<HashMap<IpAddr, (Instant, u32)>>,
    checks: Semaphore,
    /// Who was in, and what they saw.
    pub(super) remembered: Remembered,
}

impl Default for Desk {
    fn default() -> Self {
        let remembered = Remembered::default();
        Self { tries: Mutex::default(), checks: Semaphore::new(CHECKS), remembered }
    }
}

impl Desk {
    /// Counts one more try; how long to wait when there were too many.
    fn try_from(&self, source: IpAddr) -> Result<(), Duration> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= MOST_SOURCES && !tries.contains_key(&source) {
            tries.retain(|_, (began, _)| began.elapsed() < WINDOW);
            if tries.len() >= MOST_SOURCES {
                return Err(WINDOW);
            }
        }
        let (began, count) = tries.entry(source).or_insert_with(|| (Instant::now(), 0));
        if began.elapsed() >= WINDOW {
            (*began, *count) = (Instant::now(), 0);
        }
        if *count >= MOST_TRIES {
            return Err(WINDOW.saturating_sub(began.elapsed()));
        }
        *count += 1;
        Ok(())
    }

    /// A good login is no try at somebody's password.
    fn well_done(&self, source: IpAddr) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = tries.get_mut(&source) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Somebody who logged in.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) principal: Principal,
    pub(super) csrf: String,
    pub(super) taste: Taste,
    token_hash: String,
}

impl Visitor {
    /// Who owns the streams of this session.
    pub(super) fn seat(&self) -> String {
        format!("session {}", self.token_hash)
    }
}

fn token_hash(token: &str) -> String {
    hex::encode(&sha256(token))
}

/// Who the cookie belongs to, if the session is not over and the person still active.
pub(super) async fn visitor(request: &HttpRequest, state: &State) -> Result<Option<Visitor>, Fault> {
    let Some(cookie) = request.cookie(COOKIE).filter(|cookie| cookie.value().len() <= 128) else {
        return Ok(None);
    };
    let token_hash = token_hash(cookie.value());
    let wanted = token_hash.clone();
    let found = async {
        let Some(found) = state.store.read(move |c| session::find(c, &wanted)).await? else {
            return Ok(None);
        };
        Ok(state.access.person(found.person).await?.map(|principal| (principal, found.csrf)))
    };
    let found: Result<Option<(Principal, String)>, Fault> = found.await;
    let (principal, csrf) = match found {
        Ok(Some(found)) => {
            state.desk.remembered.seen(&token_hash, &found);
            found
        }
        Ok(None) => {
            state.desk.remembered.forget(&token_hash);
            return Ok(None);
        }
        // Whose session was looked at before the database went away may see what is known without it.
        Err(fault) if request.method() == Method::GET && unreadable(state) => {
            state.desk.remembered.last_seen(&token_hash).ok_or(fault)?
        }
        Err(fault) => return Err(fault),
    };
    Ok(Some(Visitor { principal, csrf, taste: Taste::of(request), token_hash }))
}

/// The way to the door, and back afterwards.
pub(super) fn to_the_door(request: &HttpRequest) -> HttpResponse {
    let here = request.uri().path_and_query().map_or("/", |here| here.as_str());
    let next: String = here.bytes().fold(String::new(), |mut done, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                done.push(char::from(byte));
            }
            _ => done.push_str(&format!("%{byte:02X}")),
        }
        done
    });
    see_other(&format!("/login?next={next}"))
}

/// A path of our own, or the first page.
pub(super) fn own_path(text: &str) -> &str {
    let own = text.starts_with('/')
        && !text.starts_with("//")
        && text.len() <= 1024
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if own { text } else { "/" }
}

#[derive(Template)]
#[template(path = "login.html")]
struct Door<'a> {
    login: &'a str,
    next: &'a str,
    said: Option<&'a str>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Asked {
    next: String,
}

/// The login form.
pub(super) async fn form(request: HttpRequest) -> Result<HttpResponse, Fault> {
    let asked = web::Query::<Asked>::from_query(request.query_string()).ok();
    let next = asked.map(|asked| asked.into_inner().next).unwrap_or_default();
    page(StatusCode::OK, &Door { login: "", next: own_path(&next), said: None })
}

/// Whether a form was sent from a page of ours. A browser says so itself; a client that says nothing is no browser.
pub(super) fn from_our_page(request: &HttpRequest) -> Result<(), Fault> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = header("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    // Under our policy of no referrer some browsers send the origin as null.
    let origin = header(ORIGIN.as_str()).filter(|origin| *origin != "null");
    let ours = origin.is_none_or(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == header(HOST.as_str())
    });
    if site && ours {
        return Ok(());
    }
    Err(Fault::forbidden(
        "foreign-form",
        "this form was sent from another site; open the console and send it there",
    ))
}

/// Checks a password and begins a session.
pub(super) async fn login(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    let form = Filled::read(&request, payload, &state).await?;
    let (login, next) = (form.text("login"), own_path(form.text("next")));
    let again = |status: StatusCode, said: &str| page(status, &Door { login, next, said: Some(said) });
    let source = request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
    if let Err(wait) = state.desk.try_from(source) {
        let secs = wait.as_secs() + 1;
        let mut answer = again(
            StatusCode::TOO_MANY_REQUESTS,
            &format!("Too many failed logins from your address. Try again in {secs} seconds."),
        )?;
        answer.headers_mut().insert(RETRY_AFTER, secs.into());
        return Ok(answer);
    }
    let Ok(_turn) = state.desk.checks.acquire().await else {
        return Err(Fault::busy("the console is closing; try again in a second"));
    };
    let Some(person) = state.access.login(login, form.text("password").to_owned()).await? else {
        log::info!("a login failed, from {source}");
        return again(StatusCode::FORBIDDEN, "Login or password is wrong, or the login is not active.");
    };
    state.desk.well_done(source);
    begin(&request, &state, UserId(person.id), next).await
}

async fn begin(
    request: &HttpRequest,
    state: &State,
    person: UserId,
    next: &str,
) -> Result<HttpResponse, Fault> {
    let token = format!("{}{}", Uid::random(), Uid::random());
    let (hash, new) = (token_hash(&token), Session { person, csrf: Uid::random().to_string() });
    state.store.write(move |c| session::begin(c, &hash, &new, LASTS)).await?;
    let mut answer = see_other(next);
    set_cookie(
        &mut answer,
        request,
        token,
        time::Duration::seconds(i64::try_from(LASTS.as_secs()).unwrap_or(0)),
    )?;
    Ok(answer)
}

fn set_cookie(
    answer: &mut HttpResponse,
    request: &HttpRequest,
    token: String,
    lasts: time::Duration,
) -> Result<(), Fault> {
    let cookie = Cookie::build(COOKIE, token)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(request.app_config().secure())
        .max_age(lasts)
        .finish();
    answer.add_cookie(&cookie).map_err(|e| Fault::bad(format!("the cookie cannot be set: {e}; log in again")))
}

/// Ends the session.
pub(super) async fn logout(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    let mut answer = see_other("/login");
    if let Some(visitor) = visitor(&request, &state).await? {
        Filled::of(&request, payload, &state, &visitor).await?;
        let hash = visitor.token_hash;
        state.desk.remembered.forget(&hash);
        state.store.write(move |c| session::end(c, &hash)).await?;
        set_cookie(&mut answer, &request, String::new(), time::Duration::ZERO)?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::{Desk, Door, MOST_TRIES, from_our_page, own_path, to_the_door};
    use actix_web::test::TestRequest;
    use askama::Template as _;
    use std::net::IpAddr;

    #[test]
    fn tries_are_counted_for_each_source_and_good_ones_are_not() {
        let desk = Desk::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..50 {
            desk.try_from(one).expect("good logins");
            desk.well_done(one);
        }
        for _ in 0..MOST_TRIES {
            desk.try_from(one).expect("not too many");
        }
        assert!(desk.try_from(one).expect_err("too many").as_secs() > 200);
        assert!(desk.try_from(other).is_ok());
    }

    #[test]
    fn nobody_is_sent_to_another_site() {
        assert_eq!(own_path("/jobs/7?x=1"), "/jobs/7?x=1");
        for bad in ["", "//evil", "http://evil", "/\\evil", "/a b", "/\nx"] {
            assert_eq!(own_path(bad), "/", "{bad}");
        }
        let request = TestRequest::with_uri("/?state=open&x=%0d").to_http_request();
        let there = to_the_door(&request);
        assert_eq!(there.headers().get("location").expect("set"), "/login?next=/%3Fstate%3Dopen%26x%3D%250d");
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let from = |headers: &[(&'static str, &'static str)]| {
            let mut request = TestRequest::default().insert_header(("host", "console:3302"));
            for header in headers {
                request = request.insert_header(*header);
            }
            from_our_page(&request.to_http_request()).is_ok()
        };
        assert!(
            from(&[])
                && from(&[("origin", "http://console:3302")])
                && from(&[("sec-fetch-site", "same-origin")])
        );
        assert!(from(&[("origin", "null"), ("sec-fetch-site", "same-origin")]));
        assert!(!from(&[("origin", "http://evil")]) && !from(&[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn the_form_escapes_what_was_typed() {
        let door = Door { login: "\"><script>", next: "/", said: Some("<b>") };
        let html = door.render().expect("renders");
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
    }
}
