//! `/APP/rest/v2/broadcasts`: live streams in the format of Ant Media's REST v2.
//! Read-only.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::response::{IntoResponse, Response};
use headwater_api::documents::ViewerCounts;
use headwater_api::rest::StreamStatus;
use headwater_api::rest::{AppStatistics, Broadcast, BroadcastStatistics, Count, Refusal};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::{parse_name, require_app};
use super::json::uncached_json;
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// Maximum number of broadcasts in one response, as in Ant Media.
const MAX_SIZE: usize = 250;
/// The speed is meaningless in the first second of a stream.
const MIN_SPEED_DURATION_MS: u64 = 1_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(count))
        .routes(routes!(count_found))
        .routes(routes!(active))
        .routes(routes!(total_statistics))
        .routes(routes!(broadcast))
        .routes(routes!(statistics))
}

/// A [`Problem`] in the error format of this API.
pub(super) struct BroadcastError(pub(super) Problem);

impl From<Problem> for BroadcastError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for BroadcastError {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let body = Refusal {
            success: false,
            error: problem.code().as_str().to_owned(),
            message: problem.message().to_owned(),
        };
        (problem.code().status(), uncached_json(body)).into_response()
    }
}

/// Filter and order of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only broadcasts whose stream id contains this text, ignoring case.
    search: String,
    /// Only broadcasts of this type; all have the type `liveStream`.
    type_by: Option<String>,
    /// Sort key; by default the name.
    #[param(inline)]
    sort_by: SortBy,
    /// Sort direction; by default ascending.
    #[param(inline)]
    order_by: OrderBy,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum SortBy {
    #[default]
    Name,
    Date,
    Status,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum OrderBy {
    #[default]
    Asc,
    Desc,
}

type ListQueryResult = Result<Query<ListQuery>, QueryRejection>;

/// Lists the live streams of an app on this node, at most 250 per page.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/list/{offset}/{size}",
    tag = "broadcasts",
    params(
        ("app" = String, Path, description = "App"),
        ("offset" = u64, Path, description = "Number of broadcasts to skip"),
        ("size" = u64, Path, description = "Maximum number of broadcasts, up to 250"),
        ListQuery,
    ),
    responses(
        (status = 200, body = Vec<Broadcast>),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 404, description = "`app_not_found`", body = Refusal),
    )
)]
async fn list(
    Extract(state): Extract<AppState>,
    Path((app, offset, size)): Path<(String, String, String)>,
    query: ListQueryResult,
) -> Result<Response, BroadcastError> {
    let (offset, size) = (parse_number("offset", &offset)?, parse_number("size", &size)?.min(MAX_SIZE));
    let Query(query) =
        query.map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {}.", e.body_text())))?;
    let found = find_broadcasts(&state, &app, &query)?;
    let now_ms = state.hub.wall_clock().now_ms();
    Ok(uncached_json(found.iter().skip(offset).take(size).map(|s| to_broadcast(s, now_ms)).collect::<Vec<_>>()))
}

/// Counts the live streams of an app on this node.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/count",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App")),
    responses((status = 200, body = Count), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn count(Extract(state): Extract<AppState>, Path(app): Path<String>) -> Result<Response, BroadcastError> {
    let found = find_broadcasts(&state, &app, &ListQuery::default())?;
    Ok(uncached_json(Count { number: found.len() as u64 }))
}

/// Counts the live streams of an app on this node whose stream id contains `search`.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/count/{search}",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App"), ("search" = String, Path, description = "Part of a stream id")),
    responses((status = 200, body = Count), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn count_found(
    Extract(state): Extract<AppState>,
    Path((app, search)): Path<(String, String)>,
) -> Result<Response, BroadcastError> {
    let found = find_broadcasts(&state, &app, &ListQuery { search, ..ListQuery::default() })?;
    Ok(uncached_json(Count { number: found.len() as u64 }))
}

/// Counts the live streams of an app on this node; the same as `count`.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/active-live-stream-count",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App")),
    responses((status = 200, body = Count), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn active(state: Extract<AppState>, app: Path<String>) -> Result<Response, BroadcastError> {
    count(state, app).await
}

/// Counts the viewers of an app on this node, by protocol.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/total-broadcast-statistics",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App")),
    responses((status = 200, body = AppStatistics), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn total_statistics(
    Extract(state): Extract<AppState>,
    Path(app): Path<String>,
) -> Result<Response, BroadcastError> {
    let found = find_broadcasts(&state, &app, &ListQuery::default())?;
    let mut total = AppStatistics { streams: found.len() as u64, ..AppStatistics::default() };
    for stream in &found {
        let viewers = viewer_statistics(stream.viewers);
        total.viewers.rtmp += viewers.rtmp;
        total.viewers.hls += viewers.hls;
        total.viewers.webrtc += viewers.webrtc;
    }
    Ok(uncached_json(total))
}

/// Returns one live stream.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/{id}",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App"), ("id" = String, Path, description = "Stream id")),
    responses(
        (status = 200, body = Broadcast),
        (status = 400, description = "`bad_request`: not a valid stream name", body = Refusal),
        (status = 404, description = "`app_not_found`, `stream_not_found`", body = Refusal),
    )
)]
async fn broadcast(
    Extract(state): Extract<AppState>,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, BroadcastError> {
    Ok(uncached_json(to_broadcast(&find_stream(&state, &app, &id)?, state.hub.wall_clock().now_ms())))
}

/// Counts the viewers of one stream on this node, by protocol.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/{id}/broadcast-statistics",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App"), ("id" = String, Path, description = "Stream id")),
    responses(
        (status = 200, body = BroadcastStatistics),
        (status = 400, description = "`bad_request`: not a valid stream name", body = Refusal),
        (status = 404, description = "`app_not_found`, `stream_not_found`", body = Refusal),
    )
)]
async fn statistics(
    Extract(state): Extract<AppState>,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, BroadcastError> {
    Ok(uncached_json(viewer_statistics(find_stream(&state, &app, &id)?.viewers)))
}

fn parse_number(what: &str, text: &str) -> Result<usize, Problem> {
    text.parse().map_err(|_| Problem::new(Code::BadRequest, format!("The {what} is not a whole number: {text:.40}.")))
}

fn find_stream(state: &AppState, app: &str, id: &str) -> Result<StreamStatus, Problem> {
    require_app(state, app)?;
    let name = parse_name(app, id)?;
    state.hub.stream(&name).map(|stream| stream.status()).ok_or_else(|| Problem::stream_not_found(&name))
}

/// The live streams of an app that match the query, sorted.
fn find_broadcasts(state: &AppState, app: &str, query: &ListQuery) -> Result<Vec<StreamStatus>, Problem> {
    require_app(state, app)?;
    if query.type_by.as_deref().is_some_and(|kind| kind != LIVE_STREAM) {
        return Ok(Vec::new());
    }
    let part = query.search.to_ascii_lowercase();
    let streams = state.hub.streams();
    let of_app = streams.iter().filter(|s| s.name().app() == app);
    let matching = of_app.filter(|s| s.name().stream_id().to_ascii_lowercase().contains(&part));
    let mut found: Vec<_> = matching.map(|s| s.status()).collect();
    match query.sort_by {
        // The hub returns them sorted by name, and all have the same status.
        SortBy::Name | SortBy::Status => {}
        SortBy::Date => found.sort_by_key(|s| s.started_at_ms),
    }
    if query.order_by == OrderBy::Desc {
        found.reverse();
    }
    Ok(found)
}

fn to_broadcast(status: &StreamStatus, now_ms: u64) -> Broadcast {
    let id = status.name.stream_id().to_owned();
    let publish_type = match status.protocol.as_str() {
        "rtmp" => Some("RTMP"),
        "srt" => Some("SRT"),
        "whip" => Some("WebRTC"),
        _ => None,
    };
    let passed_ms = now_ms.saturating_sub(status.started_at_ms);
    // A relayed stream may have started before its media arrived at this node.
    let speed = publish_type.filter(|_| passed_ms >= MIN_SPEED_DURATION_MS);
    let speed = speed.map(|_| (1_000.0 * status.media_ms as f64 / passed_ms as f64).round() / 1_000.0);
    let pixels =
        |pick: fn(&headwater_api::rest::VideoStatus) -> u32| status.video.as_ref().map(pick).filter(|&p| p > 0);
    Broadcast {
        stream_id: id.clone(),
        name: id,
        status: "broadcasting".to_owned(),
        kind: LIVE_STREAM.to_owned(),
        publish_type: publish_type.map(str::to_owned),
        zombi: true,
        date: status.started_at_ms,
        start_time: status.started_at_ms,
        update_time: now_ms,
        duration: status.media_ms,
        speed,
        received_bytes: status.received_bytes,
        bitrate: status.bitrate_bps,
        width: pixels(|v| v.width),
        height: pixels(|v| v.height),
        hls_viewer_count: status.viewers.hls,
        webrtc_viewer_count: status.viewers.webrtc,
        rtmp_viewer_count: status.viewers.rtmp,
    }
}

fn viewer_statistics(viewers: ViewerCounts) -> BroadcastStatistics {
    BroadcastStatistics { rtmp: viewers.rtmp, hls: viewers.hls, webrtc: viewers.webrtc }
}

const LIVE_STREAM: &str = "liveStream";
