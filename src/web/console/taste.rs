//! How somebody likes the console: theme and keys. Two cookies without a secret, so that the first page has it right.

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::{HttpRequest, HttpResponse, web};

use super::door::own_path;
use super::forms::Filled;
use super::frame::with;
use super::see_other;
use crate::web::{Fault, State};

const THEME: &str = "dispatcher-theme";
const KEYS: &str = "dispatcher-keys";
/// How long a browser keeps it.
const KEPT: time::Duration = time::Duration::days(400);

/// Theme and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taste {
    /// `light`, `dark`, or nothing: as the system has it.
    pub(super) theme: &'static str,
    /// Whether single keys do something.
    pub(super) keys: bool,
}

impl Taste {
    pub(super) fn of(request: &HttpRequest) -> Self {
        let cookie = |name| request.cookie(name).map(|cookie| cookie.value().to_owned()).unwrap_or_default();
        Self { theme: theme(&cookie(THEME)), keys: cookie(KEYS) != "off" }
    }
}

fn theme(word: &str) -> &'static str {
    match word {
        "light" => "light",
        "dark" => "dark",
        _ => "",
    }
}

/// Keeps what was chosen, then goes back to where it was chosen.
pub(super) async fn keep(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Fault> {
    with(&request, &state, |visitor| async {
        let visitor = visitor;
        let filled = Filled::of(&request, payload, &state, &visitor).await?;
        let mut answer = see_other(own_path(filled.text("next")));
        let keys = if filled.text("keys") == "on" { "on" } else { "off" };
        for (name, value) in [(THEME, theme(filled.text("theme"))), (KEYS, keys)] {
            let cookie = Cookie::build(name, value)
                .path("/")
                .same_site(SameSite::Strict)
                .http_only(true)
                .secure(request.app_config().secure())
                .max_age(KEPT)
                .finish();
            answer
                .add_cookie(&cookie)
                .map_err(|e| Fault::bad(format!("the choice cannot be kept: {e}; choose again")))?;
        }
        Ok(answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::Taste;
    use actix_web::cookie::Cookie;
    use actix_web::test::TestRequest;

    #[test]
    fn only_known_themes_reach_a_page() {
        for (cookie, theme) in [("dark", "dark"), ("light", "light"), ("\"><script>", ""), ("system", "")] {
            let request = TestRequest::default().cookie(Cookie::new("dispatcher-theme", cookie));
            assert_eq!(Taste::of(&request.to_http_request()), Taste { theme, keys: true });
        }
        let off = TestRequest::default().cookie(Cookie::new("dispatcher-keys", "off")).to_http_request();
        assert!(!Taste::of(&off).keys);
    }
}
