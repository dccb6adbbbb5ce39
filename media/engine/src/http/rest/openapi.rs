//! The OpenAPI 3.1 document, made of the annotations of the handlers; `docs/openapi.json` is its copy for readers.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::super::State;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Headwater",
        description = "What a node tells, and what its administrator may change. Paths that begin with an app have the shape of Ant Media's REST v2.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    tags(
        (name = "streams", description = "What is live here, with everything the node knows about it"),
        (name = "broadcasts", description = "The same in the shape of Ant Media's REST v2, as far as every field is true"),
        (name = "node", description = "What this node is"),
        (name = "cluster", description = "Nodes and streams of the cluster; addresses for the administrator alone"),
        (name = "administrator", description = "Log in, log out, who am I")
    )
)]
struct Head;

/// Parts the resources into what answers and what is written about it.
pub(super) fn document(resources: OpenApiRouter<State>) -> (Router<State>, OpenApi) {
    let mut whole = OpenApiRouter::with_openapi(Head::openapi());
    whole = whole.merge(resources);
    whole.split_for_parts()
}

/// Where the document is served.
pub(super) fn routes(document: &OpenApi) -> Router<State> {
    let text = text(document);
    Router::new().route("/rest/v2/openapi.json", get(async || json(text)))
}

/// The document as it is served and as it stands in `docs/openapi.json`, to the byte.
pub(super) fn text(document: &OpenApi) -> String {
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}
