//! The REST API of the engine that runs on this machine, for commands of the node's operator.
//!
//! The engine's data folder holds its address and a key that only its owner can read: who can read
//! the key is an administrator.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use headwater_api::control::{ENDPOINTS_FILE, Endpoints, LOCAL_KEY_FILE};
use headwater_api::error::{Chain, ErrorBody};
use headwater_api::secret::Secret;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::plan::Plan;
use crate::boot::registration;
use crate::process::engine_rest;

/// A running engine, and the right to administer it.
#[derive(Debug)]
pub(crate) struct EngineApi {
    endpoints: Endpoints,
    key: Secret,
    base_url: Option<String>,
}

/// An answer of the engine, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer(Response<Bytes>);

impl EngineApi {
    /// Finds the engine of this machine.
    ///
    /// # Errors
    /// A message, if no engine runs here or the caller may not administer it.
    pub(crate) fn find(plan: &Plan) -> Result<Self, String> {
        if plan.mongod.is_some() {
            return Err("a registry node runs no engine: use this command on an origin or an edge".to_owned());
        }
        let engine = Self::in_folder(&plan.engine.node.data_dir)?;
        let base_url = registration::base_url(&plan.engine, &plan.addresses, &engine.endpoints);
        Ok(Self { base_url, ..engine })
    }

    fn in_folder(data_dir: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = data_dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| (path, e))
        };
        let endpoints = read(ENDPOINTS_FILE).map_err(|(path, e)| {
            format!(
                "no engine serves on this machine ({}: {e}): start the node (`headwaterd run`, `./headwater run`)",
                path.display()
            )
        })?;
        let endpoints: Endpoints =
            serde_json::from_str(&endpoints).map_err(|e| format!("{ENDPOINTS_FILE} is invalid: {e}"))?;
        let key = read(LOCAL_KEY_FILE).map_err(|(path, e)| {
            format!("could not read {}: {e}; run this command as the node's user or as root", path.display())
        })?;
        Ok(Self { endpoints, key: Secret::new(key.trim()), base_url: None })
    }

    /// The base URL of the pages of this node; `None` if it has none.
    pub(crate) fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// Sends a request. An answer with an error status is no error here.
    ///
    /// # Errors
    /// A message, if the engine does not answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, String> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|e| format!("could not write the request: {e}"))?;
        let mut request = Request::new(Full::new(Bytes::from(body.unwrap_or_default())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is not a path"))?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", self.key.reveal()))
            .map_err(|_| format!("{LOCAL_KEY_FILE} is invalid"))?;
        authorization.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = engine_rest::send(&self.endpoints, request, REQUEST_TIMEOUT).await;
        answer.map(Answer).map_err(|e| Chain(&e).to_string())
    }

    /// Requests a resource.
    ///
    /// # Errors
    /// A message, if the engine does not answer or refuses.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.send(Method::GET, path, None::<&()>).await?.json()
    }
}

impl Answer {
    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// The body of a successful answer.
    ///
    /// # Errors
    /// The engine's sentence, if the status is an error; a message, if the body is invalid.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.success()?;
        self.body()
    }

    /// Checks the status of an answer whose body is of no interest.
    ///
    /// # Errors
    /// The engine's sentence, if the status is an error.
    pub(crate) fn success(&self) -> Result<(), String> {
        if self.status().is_success() {
            return Ok(());
        }
        Err(match self.body::<ErrorBody>() {
            Ok(error) => error.message,
            Err(_) => format!("the engine answers {}", self.status()),
        })
    }

    /// The body, whatever the status.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(self.0.body()).map_err(|e| format!("the engine's answer is invalid: {e}"))
    }
}

/// For one request: the engine waits up to 5 s for the registry.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::*;

    /// A request: method, path and body.
    pub(crate) type Received = (String, String, Value);

    /// A scripted engine: gives one answer after the other, and records the requests.
    pub(crate) struct ScriptedEngine {
        folder: PathBuf,
        received: Arc<Mutex<Vec<Received>>>,
    }

    impl ScriptedEngine {
        pub(crate) async fn start(answers: Vec<(u16, Value)>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let folder = std::env::temp_dir().join(format!("headwaterd-engine-api-{:016x}", rand::random::<u64>()));
            std::fs::create_dir(&folder).unwrap();
            let endpoints = Endpoints {
                pid: 1,
                http: Some(address),
                https: None,
                self_signed_fingerprint: None,
                rtmp: Some(address),
                rtmps: None,
                relay: None,
                webrtc: Vec::new(),
                health: address,
            };
            std::fs::write(folder.join(ENDPOINTS_FILE), serde_json::to_vec(&endpoints).unwrap()).unwrap();
            std::fs::write(folder.join(LOCAL_KEY_FILE), "right\n").unwrap();
            let received = Arc::new(Mutex::new(Vec::new()));
            let recorded = received.clone();
            tokio::spawn(async move {
                for (status, answer) in answers {
                    let (stream, _) = listener.accept().await.unwrap();
                    let recorded = recorded.clone();
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (recorded, answer) = (recorded.clone(), answer.clone());
                        async move {
                            assert_eq!(request.headers()[AUTHORIZATION], "Bearer right");
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                            recorded.lock().unwrap().push((head.method.to_string(), head.uri.to_string(), body));
                            let text = if answer.is_null() { String::new() } else { answer.to_string() };
                            let mut response = Response::new(Full::new(Bytes::from(text)));
                            *response.status_mut() = StatusCode::from_u16(status).unwrap();
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            });
            Self { folder, received }
        }

        pub(crate) fn api(&self) -> EngineApi {
            EngineApi::in_folder(&self.folder).unwrap()
        }

        pub(crate) fn received(&self) -> Vec<Received> {
            std::mem::take(&mut *self.received.lock().unwrap())
        }
    }

    impl Drop for ScriptedEngine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    use std::convert::Infallible;

    #[tokio::test]
    async fn answer_is_parsed_and_a_refusal_is_the_sentence_of_the_engine() {
        let refusal = serde_json::json!({ "error": "app_not_found", "message": "There is no such app." });
        let engine =
            ScriptedEngine::start(vec![(200, serde_json::json!([1])), (404, refusal), (502, Value::Null)]).await;
        assert_eq!(engine.api().get::<Vec<u32>>("/a").await.unwrap(), [1]);
        assert_eq!(engine.api().get::<Value>("/b").await.unwrap_err(), "There is no such app.");
        assert_eq!(engine.api().get::<Value>("/c").await.unwrap_err(), "the engine answers 502 Bad Gateway");
        assert_eq!(engine.received()[0], ("GET".to_owned(), "/a".to_owned(), Value::Null));
    }

    #[tokio::test]
    async fn missing_engine_and_missing_key_are_reported_with_a_remedy() {
        let error = EngineApi::in_folder(Path::new("/nonexistent")).unwrap_err();
        assert!(error.contains("no engine serves on this machine") && error.contains("headwaterd run"), "{error}");
        let engine = ScriptedEngine::start(Vec::new()).await;
        std::fs::remove_file(engine.folder.join(LOCAL_KEY_FILE)).unwrap();
        let error = EngineApi::in_folder(&engine.folder).unwrap_err();
        assert!(error.contains(LOCAL_KEY_FILE) && error.contains("as root"), "{error}");
    }
}
