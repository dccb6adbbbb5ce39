//! WHEP over HTTP: SDP offers in, answers out (draft-ietf-wish-whep-02).
//!
//! | request | response |
//! | --- | --- |
//! | `POST /APP/whep/ID`, `application/sdp` | 201, the answer, `Location` of the session; under a play policy with a token or a play session |
//! | `GET /APP/whep/ID/SESSION` | 200, [`SessionStatus`]: whether the viewer should move to another node |
//! | `DELETE /APP/whep/ID/SESSION` | 200, ends the session |
//! | `PATCH /APP/whep/ID/SESSION` | 405: neither trickle ICE nor ICE restarts are supported |

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use headwater_api::StreamName;
use serde::{Deserialize, Serialize};

use crate::access::{Credentials, Grounds};
use crate::gateway::webrtc::{OfferError, SessionId};
use crate::http::error::{Code, Problem};
use crate::http::media::authorize::{authorization, authorize_play, redeem};
use crate::http::media::stream_name::stream_name;
use crate::http::rest::json::uncached_json;
use crate::http::serve::body::SmallBody;
use crate::http::serve::client::Client;
use crate::http::state::AppState;

/// Routes that create, query and end sessions.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/{app}/whep/{id}", post(offer))
        .route("/{app}/whep/{id}/{session}", get(session_status).delete(delete_session))
}

type Handled = axum::extract::State<AppState>;

async fn offer(state: Handled, Path((app, id)): Path<(String, String)>, request: Request) -> Response {
    create_session(&state, &app, &id, request).await.into_response()
}

async fn create_session(state: &AppState, app: &str, id: &str, request: Request) -> Result<Response, Problem> {
    let name = stream_name(state, app, id)?;
    let client = Client::of(request.extensions()).address;
    let credentials =
        Credentials::from_query(request.uri().query()).with_authorization(authorization(request.headers()));
    let mut grounds = authorize_play(state, &name, credentials, client).await?;
    if !is_sdp(request.headers()) {
        return Err(Problem::new(Code::WrongContentType, "An offer has the content type application/sdp."));
    }
    let SmallBody(body) = <SmallBody as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let sdp = std::str::from_utf8(&body).map_err(|_| Problem::new(Code::BadSdp, "The offer is not text."))?;
    state
        .admission
        .check_viewer()
        .map_err(|error| Problem::from(error).with_alternative(alternative_url(state, &name)))?;
    let lookup = state.hub.find(&name).await;
    let stream = lookup
        .map_err(|error| Problem::stream_unavailable(error, &name).with_alternative(alternative_url(state, &name)))?;
    let answer = state.whep.offer(&state.hub, &stream, sdp, client).await?;
    // A one-time token is not used up before there is something to play.
    if let Err(refusal) = redeem(state, &mut grounds).await {
        state.whep.close_session(&name, &answer.session_id);
        return Err(refusal);
    }
    let location = location(state, &name, &answer.session_id, &grounds);
    state.whep.hold(&answer.session_id, &state.access, grounds);
    let location = HeaderValue::try_from(location)
        .map_err(|_| Problem::new(Code::Internal, "The server could not encode the session URL."))?;
    let mut response = Response::new(Body::from(answer.sdp));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/sdp"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::LOCATION, location);
    // The viewer needs no further request for now; an idle connection would use more memory than
    // its session.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// URL of a new session. Behind a load balancer, requests for it may reach any node. Of a protected
/// stream, it carries a play session: the viewer presents that instead of its token if it connects
/// again, also to another node or over HLS.
fn location(state: &AppState, name: &StreamName, id: &SessionId, grounds: &Grounds) -> String {
    let node = state.peers.is_some().then(|| format!("node={}", state.node_id));
    let session = (!grounds.is_open()).then(|| format!("session={}", state.access.open_session(grounds)));
    let query = [node, session].into_iter().flatten().collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    format!("/{}/whep/{}/{id}{separator}{query}", name.app(), name.stream_id())
}

/// The state of a session. A page polls it every few seconds, and opens its next session before it
/// ends this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SessionStatus {
    /// False if the session ends soon: open the next one at the same URL, or at `elsewhere`.
    pub stay: bool,
    /// URL of the stream on another node with capacity, if one is known.
    #[serde(rename = "elsewhere", skip_serializing_if = "Option::is_none")]
    pub alternative_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SessionQuery {
    /// Id of the node that serves the session.
    node: Option<String>,
}

async fn session_status(
    state: Handled,
    Path((app, id, session)): Path<(String, String, String)>,
    Query(query): Query<SessionQuery>,
) -> Response {
    let status = async {
        let name = stream_name(&state, &app, &id)?;
        let session = SessionId::parse(&session).ok_or(SESSION_NOT_FOUND)?;
        let stay = match (&state.peers, query.node.filter(|node| *node != state.node_id)) {
            (Some(peers), Some(node)) => !peers.is_leaving(&node).await,
            _ if !state.whep.contains(&name, &session) => return Err(SESSION_NOT_FOUND),
            _ => !state.admission.is_draining(),
        };
        let alternative_url = if stay { None } else { alternative_url(&state, &name) };
        Ok(uncached_json(SessionStatus { stay, alternative_url }))
    };
    status.await.into_response()
}

/// URL of the stream on another node with capacity.
fn alternative_url(state: &AppState, name: &StreamName) -> Option<String> {
    let base = state.admission.alternative_url()?;
    Some(format!("{}/{}/whep/{}", base.trim_end_matches('/'), name.app(), name.stream_id()))
}

const SESSION_NOT_FOUND: Problem = Problem::fixed(Code::SessionNotFound, "This session does not exist or has ended.");

async fn delete_session(state: Handled, Path((app, id, session)): Path<(String, String, String)>) -> Response {
    let result = stream_name(&state, &app, &id).and_then(|name| {
        let existed = SessionId::parse(&session).is_some_and(|session| state.whep.close_session(&name, &session));
        if existed { Ok(StatusCode::OK.into_response()) } else { Err(SESSION_NOT_FOUND) }
    });
    result.into_response()
}

fn is_sdp(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/sdp")
}

impl From<OfferError> for Problem {
    fn from(e: OfferError) -> Self {
        let code = match e {
            OfferError::Sdp(_) => Code::BadSdp,
            OfferError::BFrames => Code::BFrames,
            OfferError::CodecUnsupported { .. } => Code::CodecUnsupported,
            OfferError::NoCommonCodec => Code::NoCommonCodec,
            OfferError::TooManyViewers { .. } | OfferError::ShareUsed => Code::TooManyViewers,
            OfferError::NoTracksYet => Code::NotYet,
        };
        Self::new(code, e.to_string())
    }
}
