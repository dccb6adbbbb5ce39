//! The OpenAPI 3.1 document, generated from the annotations of the handlers; `docs/openapi.json` is
//! a copy for readers.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::{OpenApi, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::http::state::AppState;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Headwater",
        description = "The state of a node and its cluster, and the actions of its administrator. Paths that start with an app follow Ant Media's REST v2.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    tags(
        (name = "streams", description = "Live streams of this node, in full detail"),
        (name = "broadcasts", description = "Live streams of this node in the format of Ant Media's REST v2, with the fields that apply here"),
        (name = "apps", description = "Settings of apps, and tokens for publishers and viewers; for the administrator only"),
        (name = "node", description = "Identity, version and apps of this node"),
        (name = "cluster", description = "Nodes and streams of the cluster; addresses are visible to the administrator only"),
        (name = "administrator", description = "Log in, log out, and query the session")
    )
)]
struct ApiDoc;

/// Splits the resources into their router and their document.
pub(super) fn document(resources: OpenApiRouter<AppState>) -> (Router<AppState>, OpenApi) {
    let mut whole = OpenApiRouter::with_openapi(ApiDoc::openapi());
    whole = whole.merge(resources);
    let (router, mut document) = whole.split_for_parts();
    add_common_responses(&mut document);
    (router, document)
}

/// Adds the responses that do not come from a handler: of the login throttle, where a request needs
/// the administrator, and of the timeout of request bodies.
fn add_common_responses(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            let body_times_out = operation.request_body.is_some().then_some(("408", "`too_slow`"));
            let is_throttled = responses.contains_key("401").then_some(("429", "`too_many_attempts`"));
            for (status, description) in [body_times_out, is_throttled].into_iter().flatten() {
                let response = || ResponseBuilder::new().description(description).into();
                responses.entry(status.to_owned()).or_insert_with(response);
            }
        }
    }
}

/// The route of the document.
pub(super) fn routes(document: &OpenApi) -> Router<AppState> {
    let text = text(document);
    Router::new().route("/rest/v2/openapi.json", get(async || json(text)))
}

/// The exact text that is served and stored in `docs/openapi.json`.
pub(super) fn text(document: &OpenApi) -> String {
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn json(text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, text).into_response()
}
