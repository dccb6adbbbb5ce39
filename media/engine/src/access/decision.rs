//! The decision whether a client may publish or play a stream.
//!
//! One answer for every protocol and on every node:
//!
//! ```text
//!   authorize --> Grounds --redeem (one-time tokens: once the stream is there)--> hold --> Permit
//! ```
//!
//! Only `redeem` waits for the registry: the policies are read in the background. `authorize` waits
//! for the keys of a JWKS URL, if they are unknown or old.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::documents::{Grant, MAX_PLAY_SESSION_MS, Policy, TokenDocument};
use headwater_registry::{RegistryError, Store, TokenUse, Tokens as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Notify, watch};

use super::app_rules::AppRules;
use super::credentials::Credentials;
use super::error::AccessError;
use super::grounds::{Evidence, Grounds, OPEN};
use super::permits::{Permit, Permits};
use super::play_session::PlaySession;
use super::policies::Policies;
use super::policy_file::StoredPolicies;
use super::policy_reader::PolicyReader;
use super::request::AccessRequest;
use super::signing_keys::SigningKeys;
use super::throttle::GuessThrottle;
use super::token_digest::token_digest;
use super::url_signature::UrlSignature;
use crate::runtime::node_secret::NodeSecret;
use crate::runtime::stages::Stages;
use crate::runtime::wall_clock::WallClock;

/// Answers for every gateway; clones share the policies.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policies: watch::Sender<Arc<Policies>>,
    /// Knows the one-time tokens; `None` in tests.
    registry: Option<Store>,
    permits: Permits,
    /// Asks the reader of the policies not to wait.
    reload: Notify,
    keys: SigningKeys,
    clock: WallClock,
    throttle: Mutex<GuessThrottle>,
    /// Refused requests by action and [`AccessError::code`].
    refused: Family<[(&'static str, &'static str); 2], Counter>,
}

impl Access {
    /// Knows no policies yet, and refuses everyone. `registry` knows the one-time tokens; `secret`
    /// signs what viewers get.
    pub fn new(registry: Option<Store>, secret: &NodeSecret, clock: WallClock) -> Self {
        Self(Arc::new(Inner {
            policies: watch::Sender::default(),
            registry,
            permits: Permits::default(),
            reload: Notify::new(),
            keys: SigningKeys::new(secret),
            clock,
            throttle: Mutex::default(),
            refused: Family::default(),
        }))
    }

    /// Reads the policies for the first time.
    ///
    /// # Errors
    /// If the embedded registry cannot be read.
    pub async fn read_policies(&self, reader: &mut PolicyReader) -> Result<(), RegistryError> {
        if let Some(stored) = reader.read_at_start(self.0.clock.now_ms()).await? {
            self.install(stored);
            reader.keep_copy().await;
        }
        Ok(())
    }

    /// Adds the counter of refusals, the task that reads the policies again and again, and the one
    /// that ends sessions whose token expires.
    pub fn mount(&self, mut reader: PolicyReader, stages: &mut Stages) {
        let help = "Requests to publish or play that were refused by the app's rules";
        stages.own_metrics().register("access_refused", help, self.0.refused.clone());
        let access = self.clone();
        stages.add_background(async move {
            loop {
                let stored = reader.next_change(&access.0.reload, || access.0.clock.now_ms()).await;
                log::info!(apps = stored.apps.len(), revoked = stored.revoked.len(); "access rules changed");
                access.install(stored);
                reader.keep_copy().await;
            }
        });
        let access = self.clone();
        stages.add_background(async move {
            loop {
                tokio::time::sleep(EXPIRY_INTERVAL).await;
                if access.policies().ends_sessions_at_expiry() {
                    access.end_sessions();
                }
            }
        });
    }

    fn install(&self, stored: &StoredPolicies) {
        let policies = Policies::new(&self.policies(), stored, &self.0.keys);
        self.0.policies.send_replace(Arc::new(policies));
        self.end_sessions();
    }

    /// Decides by these apps alone, with a secret of this test.
    #[cfg(test)]
    pub(crate) fn with_apps(apps: Vec<headwater_api::documents::AppDocument>) -> Self {
        let access = Self::new(None, &NodeSecret::new(b"the secret of this test"), WallClock::default());
        access.set_policies(apps, &[]);
        access
    }

    /// Replaces the policies, as a read of the registry does.
    #[cfg(test)]
    pub(crate) fn set_policies(&self, apps: Vec<headwater_api::documents::AppDocument>, revoked: &[&str]) {
        let revoked = revoked.iter().map(|token| (super::token_digest(token), u64::MAX)).collect();
        self.install(&StoredPolicies { apps, revoked });
    }

    /// The names of all apps, sorted.
    pub fn app_names(&self) -> Vec<String> {
        self.policies().app_names()
    }

    /// Checks that an app exists, before a client names a stream.
    ///
    /// # Errors
    /// If it does not, or if the node knows no policies.
    pub fn check_app(&self, app: &str) -> Result<(), AccessError> {
        self.0.policies.borrow().app(app).map(drop)
    }

    /// Decides whether a client may do what it asks for. Counts a refusal.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn authorize(&self, request: &AccessRequest<'_>) -> Result<Grounds, AccessError> {
        let decision = self.decide(request).await;
        decision.inspect_err(|e| self.count_refusal(request.action, *e))
    }

    /// True if [`Access::authorize`] would admit the client. Counts no refusal.
    pub async fn would_admit(&self, request: &AccessRequest<'_>) -> bool {
        self.decide(request).await.is_ok()
    }

    async fn decide(&self, request: &AccessRequest<'_>) -> Result<Grounds, AccessError> {
        let AccessRequest { action, stream, credentials, client } = *request;
        let rules = self.rules(stream)?;
        let policy = rules.required(request)?;
        let grounds = |evidence, session_ends_at_ms| {
            let stream = stream.clone();
            Grounds { action, stream, client, evidence, session_ends_at_ms, unredeemed: None }
        };
        if policy == Policy::Open {
            return Ok(grounds(Evidence::without_token(OPEN), None));
        }
        let now_ms = self.0.clock.now_ms();
        if action == Grant::Play
            && let Some(session) = credentials.session()
        {
            match PlaySession::open(&session, self.0.keys.session(), stream, now_ms) {
                Some(session) => {
                    let PlaySession { policy: admitted_by, token, token_expires_at_ms: expires_at_ms, .. } = session;
                    let evidence = Evidence { policy: admitted_by, token, expires_at_ms };
                    let grounds = grounds(evidence, Some(session.expires_at_ms));
                    self.check_grounds(&self.policies(), &grounds)?;
                    rules.check_session(policy, &grounds, now_ms)?;
                    return Ok(grounds);
                }
                // Such as that of an earlier day.
                None if credentials.token().is_some() || credentials.publish_key().is_some() => {}
                None => return Err(AccessError::SessionInvalid),
            }
        }
        // Nobody guesses the signature of a token: valid ones are admitted whatever else came from
        // the same network.
        if policy != Policy::Jwt && !self.admits_guess(request) {
            return Err(AccessError::TooManyGuesses);
        }
        let mut checked = rules.check_credentials(policy, request, now_ms).await;
        if checked.is_err_and(AccessError::is_guess) {
            if policy == Policy::Jwt && !self.admits_guess(request) {
                checked = Err(AccessError::TooManyGuesses);
            } else {
                self.throttle().record(Instant::now(), client, stream.app());
            }
        }
        let mut grounds = grounds(checked?, None);
        if policy == Policy::OneTimeToken {
            grounds.unredeemed = credentials.token().map(|token| token_digest(&token));
        }
        if self.policies().is_revoked(&grounds.evidence.token) {
            return Err(AccessError::TokenRevoked);
        }
        Ok(grounds)
    }

    /// Consumes the one-time token of a client; does nothing if it presented something else. Called
    /// when everything else is ready: a token admits once, also to a stream that is not live.
    /// Counts a refusal.
    ///
    /// # Errors
    /// If the token does not admit the client, or the registry is unreachable.
    pub async fn redeem(&self, grounds: &mut Grounds) -> Result<(), AccessError> {
        let Some(digest) = grounds.unredeemed.take() else { return Ok(()) };
        let token = self.ask_registry(digest, grounds, Question::Consume).await?;
        grounds.evidence.expires_at_ms = token.expires_at_ms;
        Ok(())
    }

    /// Checks that the one-time token of a client would admit it, and does not consume it. Counts a
    /// refusal.
    ///
    /// # Errors
    /// As [`Access::redeem`].
    pub async fn check_redeemable(&self, grounds: &Grounds) -> Result<(), AccessError> {
        let Some(digest) = grounds.unredeemed.clone() else { return Ok(()) };
        self.ask_registry(digest, grounds, Question::Check).await.map(drop)
    }

    /// Asks in a task of its own: a client that disconnects in between is counted all the same.
    async fn ask_registry(
        &self,
        digest: String,
        grounds: &Grounds,
        question: Question,
    ) -> Result<TokenDocument, AccessError> {
        let (access, grounds) = (self.clone(), grounds.clone());
        let asked = tokio::spawn(async move {
            let answer = access.call_registry(&digest, &grounds, question).await;
            if answer.as_ref().is_err_and(|e| e.is_guess()) {
                access.throttle().record(Instant::now(), grounds.client, grounds.stream.app());
            }
            answer.inspect_err(|e| access.count_refusal(grounds.action, *e))
        });
        asked.await.unwrap_or(Err(AccessError::RegistryUnreachable))
    }

    async fn call_registry(
        &self,
        digest: &str,
        grounds: &Grounds,
        question: Question,
    ) -> Result<TokenDocument, AccessError> {
        let registry = self.0.registry.as_ref().ok_or(AccessError::RegistryUnreachable)?;
        let call = async {
            match question {
                Question::Consume => registry.consume_token(digest, &grounds.stream, grounds.action).await,
                Question::Check => registry.check_token(digest, &grounds.stream, grounds.action).await,
            }
        };
        match tokio::time::timeout(REGISTRY_TIMEOUT, call).await {
            Ok(Ok(TokenUse::Granted(token))) => Ok(token),
            Ok(Ok(TokenUse::Refused(refusal))) => Err(refusal.into()),
            Ok(Err(_)) | Err(_) => Err(AccessError::RegistryUnreachable),
        }
    }

    fn admits_guess(&self, request: &AccessRequest<'_>) -> bool {
        self.throttle().admits(Instant::now(), request.client, request.stream.app())
    }

    /// Registers a session that runs as long as its client would be admitted. `on_end` is called
    /// with the reason when that is over, at most once, and also within this call. It must not
    /// block.
    pub fn hold(&self, grounds: Grounds, on_end: impl FnOnce(AccessError) + Send + 'static) -> Permit {
        let permit = self.0.permits.hold(grounds.clone(), Box::new(on_end));
        // The policies may have changed since the client was admitted.
        if self.check_grounds(&self.policies(), &grounds).is_err() {
            self.end_sessions();
        }
        permit
    }

    /// Ends all sessions whose client would no longer be admitted.
    fn end_sessions(&self) {
        let policies = self.policies();
        self.0.permits.end(|grounds| self.check_grounds(&policies, grounds));
    }

    /// Reads the policies again at once, after a change on this node.
    pub fn reload(&self) {
        self.0.reload.notify_one();
    }

    /// Checks that what admitted a client would still admit it.
    fn check_grounds(&self, policies: &Policies, grounds: &Grounds) -> Result<(), AccessError> {
        let is_revoked = policies.is_revoked(&grounds.evidence.token);
        policies.app(grounds.stream.app())?.recheck(grounds, is_revoked, self.0.clock.now_ms())
    }

    /// What an admitted viewer presents from now on: a value of the parameter `session`, valid on
    /// every node for a day; a viewer that watches longer needs its token again. A client that
    /// presented a session gets one with the same end.
    pub fn open_session(&self, grounds: &Grounds) -> String {
        let Evidence { policy, token, expires_at_ms } = grounds.evidence;
        let session = PlaySession {
            policy,
            token,
            token_expires_at_ms: expires_at_ms,
            expires_at_ms: grounds
                .session_ends_at_ms
                .unwrap_or_else(|| self.0.clock.now_ms().saturating_add(MAX_PLAY_SESSION_MS)),
        };
        session.seal(self.0.keys.session(), &grounds.stream)
    }

    /// The signature of the media URLs of a stream, for a playlist that is handed out now.
    pub fn sign_urls<'a>(&'a self, stream: &'a StreamName) -> UrlSignature<'a> {
        UrlSignature::new(self.0.keys.url(), stream, self.0.clock.now_ms())
    }

    /// Checks the signature of a media URL, if the stream is not open. Counts a refusal.
    ///
    /// # Errors
    /// If it is missing, wrong or has expired, or if the app has been closed.
    pub fn check_url(&self, stream: &StreamName, query: Option<&str>) -> Result<UrlAccess, AccessError> {
        let decide = || {
            let rules = self.rules(stream)?;
            match rules.policy(Grant::Play, stream.stream_id()) {
                Policy::Open => return Ok(UrlAccess::Open),
                Policy::Closed => return Err(AccessError::Closed),
                Policy::Key | Policy::OneTimeToken | Policy::Jwt | Policy::Hash => {}
            }
            let signature = Credentials::from_query(query).url_signature().ok_or(AccessError::SignatureInvalid)?;
            let now_ms = self.0.clock.now_ms();
            let valid_for_s = UrlSignature::verify(&signature, self.0.keys.url(), stream, now_ms)?;
            Ok(UrlAccess::Signed { valid_for_s })
        };
        decide().inspect_err(|e| self.count_refusal(Grant::Play, *e))
    }

    /// The origins whose pages may embed the player of an app and read its media with credentials;
    /// `None`: all.
    pub fn allowed_origins(&self, app: &str) -> Option<AllowedOrigins> {
        let policies = self.0.policies.borrow();
        let rules = policies.app(app).ok().filter(|rules| !rules.document().allowed_origins.is_empty());
        rules.map(|rules| AllowedOrigins(Arc::clone(rules)))
    }

    fn rules(&self, stream: &StreamName) -> Result<Arc<AppRules>, AccessError> {
        self.0.policies.borrow().app(stream.app()).cloned()
    }

    fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.0.policies.borrow())
    }

    fn throttle(&self) -> MutexGuard<'_, GuessThrottle> {
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refusal(&self, action: Grant, error: AccessError) {
        self.0.refused.get_or_create(&[("action", action.as_str()), ("reason", error.code())]).inc();
    }
}

/// What the registry is asked about a one-time token.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// Whether it admits the client, which consumes it.
    Consume,
    /// Whether it would admit the client.
    Check,
}

/// Why a media URL may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlAccess {
    /// The stream is open.
    Open,
    /// The URL is signed.
    Signed {
        /// For how long the signature will be valid, in seconds.
        valid_for_s: u64,
    },
}

/// A list of origins.
#[derive(Debug, Clone)]
pub struct AllowedOrigins(Arc<AppRules>);

impl AllowedOrigins {
    /// True if the list contains this value of the header field `Origin`.
    pub fn contains(&self, origin: &[u8]) -> bool {
        self.as_slice().iter().any(|allowed| allowed.as_bytes() == origin)
    }

    /// The origins, each with its scheme.
    pub fn as_slice(&self) -> &[String] {
        &self.0.document().allowed_origins
    }
}

/// How often expired tokens end sessions.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time to consume a one-time token.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
#[path = "decision_test.rs"]
mod tests;
