//! The files of the pages, embedded in the program by `build.rs`, with ETag and gzip.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::http::error::{Code, Problem};

struct Asset {
    /// Path relative to `media/web`.
    name: &'static str,
    mime: &'static str,
    /// Including its quotes.
    etag: &'static str,
    plain: &'static [u8],
    /// Empty if compression saves less than 10 %.
    gzip: &'static [u8],
}

/// Sorted by name.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// A policy that restricts a page to this origin, except for requests of its scripts. Media Source
/// Extensions need blob URLs for media.
macro_rules! content_security_policy {
    ($connect:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; \
             base-uri 'none'; form-action 'self'; connect-src ",
            $connect
        )
    };
}

/// The player, which other sites may embed in a frame. It continues on another node, whose origin
/// is not known in advance, while its own drains.
const PLAYER_PAGE: &str = "pages/play.html";
const PLAYER_POLICY: &str = content_security_policy!("'self' http: https:");
/// The policy of other pages: a click on an administering page must not be a click on a page that
/// is laid over it.
const OTHER_POLICY: &str = content_security_policy!("'self'; frame-ancestors 'none'");

/// `/assets/{path}`.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    find(&format!("assets/{path}")).map_or_else(no_such_file, |asset| respond(asset, &headers))
}

/// The player, which only pages of these origins may embed in a frame, besides those of this
/// server.
pub(crate) fn player_for(origins: &[String], headers: &HeaderMap) -> Response {
    let mut response = page("play.html", headers);
    let policy = format!("{PLAYER_POLICY}; frame-ancestors 'self' {}", origins.join(" "));
    if let Ok(policy) = policy.try_into() {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The page `media/web/pages/NAME`.
pub(crate) fn page(name: &str, headers: &HeaderMap) -> Response {
    find(&format!("pages/{name}")).map_or_else(no_such_file, |asset| respond(asset, headers))
}

fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.binary_search_by_key(&name, |asset| asset.name).ok().map(|at| &ASSETS[at])
}

fn no_such_file() -> Response {
    Problem::new(Code::NotFound, "There is no such file.").into_response()
}

fn respond(asset: &'static Asset, request: &HeaderMap) -> Response {
    let text = |name| request.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let not_modified =
        text(header::IF_NONE_MATCH).split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag);
    let gzip = !asset.gzip.is_empty() && text(header::ACCEPT_ENCODING).contains("gzip");
    let body = match (not_modified, gzip) {
        (true, _) => &[],
        (false, true) => asset.gzip,
        (false, false) => asset.plain,
    };
    let mut response = Bytes::from_static(body).into_response();
    if not_modified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    let mut set = |name, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, asset.mime);
    set(header::ETAG, asset.etag);
    // Browsers revalidate every time, so that the pages of a new engine version are used
    // immediately. The response is nearly always 304.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::VARY, "accept-encoding");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if gzip && !not_modified {
        set(header::CONTENT_ENCODING, "gzip");
    }
    if asset.mime.starts_with("text/html") {
        if asset.name == PLAYER_PAGE {
            set(header::CONTENT_SECURITY_POLICY, PLAYER_POLICY);
        } else {
            set(header::CONTENT_SECURITY_POLICY, OTHER_POLICY);
            set(header::X_FRAME_OPTIONS, "DENY");
        }
        set(header::REFERRER_POLICY, "same-origin");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str, headers: &[(header::HeaderName, &'static str)]) -> Response {
        page(name, &headers.iter().map(|(n, v)| (n.clone(), HeaderValue::from_static(v))).collect())
    }

    #[test]
    fn page_with_a_known_etag_is_not_sent_again() {
        let first = get("play.html", &[(header::ACCEPT_ENCODING, "br, gzip")]);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(first.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        let etag = find("pages/play.html").unwrap().etag;
        assert_eq!(get("play.html", &[(header::IF_NONE_MATCH, etag)]).status(), StatusCode::NOT_MODIFIED);
        assert!(!get("play.html", &[]).headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(get("nothing.html", &[]).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn only_the_player_may_be_embedded_and_may_send_requests_to_other_nodes() {
        let pages: Vec<_> = ASSETS.iter().filter_map(|asset| asset.name.strip_prefix("pages/")).collect();
        assert!(pages.contains(&"index.html") && pages.contains(&"play.html"), "{pages:?}");
        for name in pages {
            let response = get(name, &[]);
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            let directives: Vec<_> = policy.split("; ").collect();
            assert_eq!(directives[0], "default-src 'none'", "{name}: {policy}");
            let is_player = name == "play.html";
            assert_eq!(directives.contains(&"frame-ancestors 'none'"), !is_player, "{name}: {policy}");
            assert_eq!(directives.contains(&"connect-src 'self'"), !is_player, "{name}: {policy}");
            assert_eq!(directives.contains(&"connect-src 'self' http: https:"), is_player, "{name}: {policy}");
            assert_eq!(response.headers().contains_key(header::X_FRAME_OPTIONS), !is_player, "{name}");
        }
    }

    #[test]
    fn player_of_an_app_with_allowed_origins_is_embedded_by_these_alone() {
        let origins = ["https://a.example".to_owned(), "http://localhost:8080".to_owned()];
        let response = player_for(&origins, &HeaderMap::new());
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.ends_with("; frame-ancestors 'self' https://a.example http://localhost:8080"), "{policy}");
    }

    #[test]
    fn pages_reference_no_other_origin() {
        for asset in ASSETS.iter().filter(|a| !a.name.starts_with("assets/hls.")) {
            let text = std::str::from_utf8(asset.plain).unwrap();
            for url in text.split("http").skip(1).filter(|rest| rest.starts_with("://") || rest.starts_with("s://")) {
                let is_namespace = url.contains("www.w3.org/2000/svg");
                assert!(is_namespace, "{} references http{}", asset.name, url.chars().take(40).collect::<String>());
            }
        }
    }
}
