//! The few files of the console, part of the executable.

use std::sync::OnceLock;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse};

use super::guarded;
use crate::crypto::{hex, sha256};
use crate::web::{Fault, RequestId};

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    tag: OnceLock<String>,
}

impl Asset {
    const fn new(name: &'static str, kind: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, kind, bytes, tag: OnceLock::new() }
    }

    /// Hash of the bytes, so that a new build is a new file to a browser.
    fn tag(&self) -> &str {
        self.tag.get_or_init(|| {
            format!("\"{}\"", hex::encode(&sha256(self.bytes)).chars().take(32).collect::<String>())
        })
    }
}

static ASSETS: [Asset; 4] = [
    Asset::new("console.css", "text/css; charset=utf-8", include_bytes!("assets/console.css")),
    Asset::new("console.js", "text/javascript; charset=utf-8", include_bytes!("assets/console.js")),
    Asset::new("jobs.js", "text/javascript; charset=utf-8", include_bytes!("assets/jobs.js")),
    Asset::new("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
];

/// One file; 304 for a browser that has it.
pub(super) async fn serve(request: HttpRequest) -> Result<HttpResponse, Fault> {
    let name = request.match_info().query("name");
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        Fault::not_found(format!("there is no file {name}")).of(RequestId::of(&request))
    })?;
    let seen = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let fresh = seen
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag()));
    let mut answer = guarded(if fresh { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    answer.insert_header((ETAG, asset.tag())).insert_header((CACHE_CONTROL, "no-cache"));
    if fresh {
        return Ok(answer.finish());
    }
    Ok(answer.insert_header((CONTENT_TYPE, asset.kind)).body(asset.bytes))
}

#[cfg(test)]
mod tests {
    use super::{ASSETS, serve};
    use actix_web::test::TestRequest;

    #[actix_rt::test]
    async fn a_browser_that_has_a_file_gets_no_body() {
        for asset in &ASSETS {
            let ask = || TestRequest::default().param("name", asset.name);
            let first = serve(ask().to_http_request()).await.expect("there");
            assert_eq!(first.status(), 200);
            let tag = first.headers().get("etag").expect("tagged").clone();
            let again =
                serve(ask().insert_header(("if-none-match", tag)).to_http_request()).await.expect("there");
            assert_eq!(again.status(), 304, "{}", asset.name);
        }
        let other = TestRequest::default().param("name", "../Cargo.toml").to_http_request();
        assert_eq!(serve(other).await.expect_err("no such file").status(), 404);
    }

    #[test]
    fn script_and_style_keep_their_budget() {
        for (name, most) in [("console.css", 32_000), ("console.js", 24_000), ("jobs.js", 8_000)] {
            let asset = ASSETS.iter().find(|asset| asset.name == name).expect("there");
            assert!(asset.bytes.len() < most, "{name} has {} bytes", asset.bytes.len());
        }
    }
}
