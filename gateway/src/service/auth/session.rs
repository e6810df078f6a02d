//! Sessions of operators: begun by a password, kept in the registry, ended by time or by hand.
//!
//! Whoever holds a session's token has the session: 256 random bits, of which only the digest is stored. What proves
//! that a form was made for a session is derived from the token, so it needs no place of its own.
//! Invariants: the operator's role is read anew with every request; an unknown name and a wrong password get the same
//! answer for the same work.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{AuthError, TokenAuthenticator, lockout::Lockout};
use crate::{
    config::ConsoleConfig,
    model::{Actor, Id, Millis, random},
    service::cluster::{Cluster, Handler, Telling},
    shutdown::Shutdown,
    store::{
        StoreError,
        registry::{Registry, SessionBounds},
    },
};

/// By which other nodes are told of sign-ins.
const SIGN_INS: &str = "sign_ins";
/// A session is noted to be in use at most so often.
const TOUCH_INTERVAL: Duration = Duration::from_mins(1);
/// Longer texts are no token.
const MAX_TOKEN_BYTES: usize = 64;

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// There is no such name, or the password is wrong: which of them is not said.
    #[error("unknown name or wrong password")]
    Refused,
    /// Too many attempts failed; nothing was looked at.
    #[error("locked out after too many failed attempts")]
    LockedOut {
        /// For how much longer.
        remaining: Duration,
    },
    /// The gateway could not look.
    #[error(transparent)]
    Auth(AuthError),
}

/// Signs operators in and out. Cloning shares it.
#[derive(Clone)]
pub struct OperatorSessions {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    passwords: TokenAuthenticator,
    lockout: Lockout,
    config: ConsoleConfig,
}

/// Someone who is signed in.
#[derive(Clone)]
pub struct OperatorSession {
    /// Who.
    pub actor: Actor,
    digest: [u8; 32],
    form_token: Zeroizing<String>,
}

impl Handler for OperatorSessions {
    fn told(&self, telling: Telling) -> BoxFuture<'_, ()> {
        if let Ok(told) = serde_json::from_slice(&telling.body)
            && self.inner.lockout.heard(&told, Instant::now())
        {
            tracing::warn!("an operator's name is locked out after failed sign-ins at other nodes");
        }
        Box::pin(std::future::ready(()))
    }
}

impl OperatorSessions {
    /// Sessions of the registry's operators, whose passwords `passwords` checks.
    pub fn new(registry: Registry, passwords: TokenAuthenticator, config: ConsoleConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry,
                passwords,
                lockout: Lockout::new(&config),
                config,
            }),
        }
    }

    /// Counts failed sign-ins over all nodes from here on; `key` is the same on all of them and known to nobody else.
    pub fn share(&self, key: Vec<u8>, cluster: &Cluster, shutdown: &Shutdown) {
        if !self.inner.lockout.share(key) {
            return;
        }
        cluster.on(SIGN_INS, Arc::new(self.clone()));
        let (this, cluster, stop) = (self.clone(), cluster.clone(), shutdown.token().clone());
        shutdown.spawn(async move {
            if let Some(shared) = this.inner.lockout.shared() {
                stop.run_until_cancelled(shared.tell(SIGN_INS, &cluster))
                    .await;
            }
        });
    }

    /// Begins a session; gives its token, which is stored nowhere.
    ///
    /// # Errors
    /// [`SignInError`].
    ///
    /// # Cancel safety
    /// Safe: at worst there is a session whose token nobody has.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &str,
        address: IpAddr,
    ) -> Result<Zeroizing<String>, SignInError> {
        let inner = &self.inner;
        let (operator, mut actor) = self.check_password(name, password, address).await?;
        actor.origin = Some(address);
        let token =
            Zeroizing::new(URL_SAFE_NO_PAD.encode(random::<32>().map_err(AuthError::from)?));
        let audit = actor.did("operator.sign_in", &actor.name, "");
        inner
            .registry
            .insert_operator_session(
                &digest(&token),
                operator,
                self.bounds(),
                inner.config.max_sessions,
                &audit,
            )
            .await?;
        tracing::info!(operator = %actor.name, %address, "an operator signed in");
        Ok(token)
    }

    /// Whose password this is. Wrong ones count, also those that someone types who is signed in.
    ///
    /// # Errors
    /// [`SignInError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn check_password(
        &self,
        name: &str,
        password: &str,
        address: IpAddr,
    ) -> Result<(Id, Actor), SignInError> {
        let inner = &self.inner;
        if let Some(remaining) = inner.lockout.remaining(name, address, Instant::now()) {
            return Err(SignInError::LockedOut { remaining });
        }
        match inner.passwords.operator(name, password).await {
            Ok(known) => {
                inner.lockout.succeeded(name, address);
                Ok(known)
            }
            Err(AuthError::Refused) => Err(self.refuse(name, address).await),
            Err(error) => Err(SignInError::Auth(error)),
        }
    }

    /// Counts a failure; the one that locks out is written down.
    async fn refuse(&self, name: &str, address: IpAddr) -> SignInError {
        if self.inner.lockout.failed(name, address, Instant::now()) {
            tracing::warn!(%address, "an operator's name is locked out after failed sign-ins");
            // What was typed as a name may be a password: only names that exist are written down.
            let subject = match self.inner.registry.operator(name).await {
                Ok(Some(known)) => known.name,
                _ => "unknown".to_owned(),
            };
            let entry =
                Actor::gateway().did("operator.lock_out", subject, format!("from {address}"));
            if let Err(error) = self.inner.registry.record(&entry).await {
                tracing::warn!(%error, "a lock-out could not be written down");
            }
        }
        SignInError::Refused
    }

    /// The session of a token; `None`: it is over, or there never was one. What `is_used` makes it last: what a page asks
    /// for by itself is no use.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn session(
        &self,
        token: &str,
        is_used: bool,
    ) -> Result<Option<OperatorSession>, AuthError> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Ok(None);
        }
        let registry = &self.inner.registry;
        let digest = digest(token);
        let Some(row) = registry.operator_session(&digest, self.bounds()).await? else {
            return Ok(None);
        };
        let now = Millis::now();
        if is_used && now.since(row.seen_at) >= TOUCH_INTERVAL {
            registry.touch_operator_session(&digest, now).await?;
        }
        Ok(Some(OperatorSession {
            actor: row.actor,
            digest,
            form_token: form_token(token),
        }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn sign_out(&self, session: &OperatorSession) -> Result<(), AuthError> {
        let actor = &session.actor;
        let audit = actor.did("operator.sign_out", &actor.name, "");
        self.inner
            .registry
            .delete_operator_session(&session.digest, &audit)
            .await?;
        Ok(())
    }

    /// Whether anybody has ever signed in: before that, a hint is in place.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn has_been_used(&self) -> Result<bool, AuthError> {
        Ok(self.inner.registry.has_signed_in().await?)
    }

    /// From when on sessions count now.
    fn bounds(&self) -> SessionBounds {
        let now = Millis::now();
        let before = |time| now.before(time).unwrap_or_default();
        SessionBounds {
            created_since: before(self.inner.config.session_max_age),
            seen_since: before(self.inner.config.session_idle_timeout),
        }
    }
}

impl OperatorSession {
    /// What every form of this session carries.
    pub fn form_token(&self) -> &str {
        &self.form_token
    }

    /// Whether a form was made for this session.
    pub fn made(&self, form_token: &str) -> bool {
        self.form_token
            .as_bytes()
            .ct_eq(form_token.as_bytes())
            .into()
    }
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Auth(error.into())
    }
}

impl From<AuthError> for SignInError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl fmt::Debug for OperatorSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorSessions").finish_non_exhaustive()
    }
}

impl fmt::Debug for OperatorSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorSession")
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Leads from the token to the forms' secret and not back.
fn form_token(token: &str) -> Zeroizing<String> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(b"console form");
    Zeroizing::new(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Role,
        store::registry::{AuditFilter, sqlite_url},
    };

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn stage(dir: &tempfile::TempDir, config: ConsoleConfig) -> (OperatorSessions, String) {
        let url = sqlite_url(&dir.path().join("r.db"));
        let registry = Registry::open(&url, 1).await.unwrap();
        let passwords = TokenAuthenticator::new(registry.clone(), 2);
        let made = passwords.bootstrap(|_| Ok(())).await.unwrap().unwrap();
        let password = made.password.to_string();
        (OperatorSessions::new(registry, passwords, config), password)
    }

    #[tokio::test]
    async fn a_password_begins_a_session_that_lasts_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, password) = stage(&dir, ConsoleConfig::default()).await;
        assert!(!sessions.has_been_used().await.unwrap());
        let token = sessions.sign_in("admin", &password, HERE).await.unwrap();
        assert!(sessions.has_been_used().await.unwrap());
        let session = sessions.session(&token, true).await.unwrap().unwrap();
        assert_eq!(session.actor.role, Role::Admin);
        assert!(session.made(session.form_token()));
        assert!(!session.made("") && !session.made(&token));
        let other = sessions.sign_in("admin", &password, HERE).await.unwrap();
        let other = sessions.session(&other, true).await.unwrap().unwrap();
        assert!(!session.made(other.form_token()), "each its own");
        sessions.sign_out(&session).await.unwrap();
        assert!(sessions.session(&token, true).await.unwrap().is_none());
        for wrong in ["", "x", password.as_str(), &"x".repeat(100)] {
            assert!(sessions.session(wrong, true).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_session_ends_by_age_and_by_idleness() {
        let dir = tempfile::tempdir().unwrap();
        for config in [
            ConsoleConfig {
                session_max_age: Duration::ZERO,
                ..ConsoleConfig::default()
            },
            ConsoleConfig {
                session_idle_timeout: Duration::ZERO,
                ..ConsoleConfig::default()
            },
        ] {
            let dir = tempfile::tempdir_in(dir.path()).unwrap();
            let (sessions, password) = stage(&dir, config).await;
            let token = sessions.sign_in("admin", &password, HERE).await.unwrap();
            let begun = Millis::now();
            while Millis::now().since(begun) < Duration::from_millis(2) {
                tokio::task::yield_now().await;
            }
            assert!(sessions.session(&token, true).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn only_use_makes_a_session_last() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, password) = stage(&dir, ConsoleConfig::default()).await;
        let token = sessions.sign_in("admin", &password, HERE).await.unwrap();
        let (registry, digest) = (&sessions.inner.registry, digest(&token));
        let before = Millis::now().before(Duration::from_mins(30)).unwrap();
        registry
            .touch_operator_session(&digest, before)
            .await
            .unwrap();
        let seen = async || {
            let row = registry.operator_session(&digest, sessions.bounds()).await;
            row.unwrap().unwrap().seen_at
        };
        assert!(sessions.session(&token, false).await.unwrap().is_some());
        assert_eq!(seen().await, before);
        assert!(sessions.session(&token, true).await.unwrap().is_some());
        assert!(seen().await > before);
    }

    #[tokio::test]
    async fn one_session_too_many_ends_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConsoleConfig {
            max_sessions: 1,
            ..ConsoleConfig::default()
        };
        let (sessions, password) = stage(&dir, config).await;
        let first = sessions.sign_in("admin", &password, HERE).await.unwrap();
        let second = sessions.sign_in("admin", &password, HERE).await.unwrap();
        assert!(sessions.session(&first, true).await.unwrap().is_none());
        assert!(sessions.session(&second, true).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn wrong_passwords_lock_out_and_it_is_written_down_without_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConsoleConfig {
            sign_in_failures: 2,
            ..ConsoleConfig::default()
        };
        let (sessions, password) = stage(&dir, config).await;
        for _ in 0..2 {
            let refused = sessions.sign_in("admin", "hunter2", HERE).await;
            assert!(matches!(refused, Err(SignInError::Refused)));
        }
        let locked = sessions.sign_in("admin", &password, HERE).await;
        assert!(matches!(locked, Err(SignInError::LockedOut { .. })));
        for _ in 0..2 {
            let unknown = sessions.sign_in("my-password", "x", HERE).await;
            assert!(matches!(unknown, Err(SignInError::Refused)));
        }
        let page = crate::model::Page::default();
        let audit = sessions
            .inner
            .registry
            .audit(&AuditFilter::default(), &page)
            .await
            .unwrap()
            .items;
        let locked: Vec<_> = audit
            .iter()
            .filter(|entry| entry.action == "operator.lock_out")
            .map(|entry| entry.subject.as_str())
            .collect();
        assert_eq!(locked, ["unknown", "admin"]);
    }
}
