//! Operators and programs: passwords, tokens and the first of each.

use std::{
    collections::HashMap,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use zeroize::Zeroizing;

use crate::{
    model::{Actor, Id, Millis, NoRandomness, Role, random},
    service::auth::AuthError,
    store::registry::{OperatorRow, Registry, TokenRow},
    telemetry::sampler::Sampler,
};

/// The credentials of the first start, to be handed to the operator once.
pub struct Bootstrap {
    /// The first operator's name.
    pub operator: &'static str,
    /// Its password.
    pub password: Zeroizing<String>,
    /// An API token that may do everything.
    pub token: Zeroizing<String>,
}

/// Authenticates operators and programs. Cloning shares the cache.
#[derive(Clone)]
pub struct TokenAuthenticator {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    /// Known tokens by digest, for [`TOKEN_CACHE_TIME`].
    tokens: Cache<[u8; 32], KnownToken>,
    /// Tokens that were used since it was last written down; as many at most as are kept.
    used: Mutex<HashMap<Id, Millis>>,
    refusals: Sampler,
    /// Password checks that may run at once.
    checks: Semaphore,
    /// Checked where there is no such operator, so that the answer takes the same time.
    dummy_hash: OnceCell<String>,
}

#[derive(Clone)]
struct KnownToken {
    since: Instant,
    expires_at: Option<Millis>,
    actor: Actor,
}

impl KnownToken {
    fn is_valid(&self) -> bool {
        self.since.elapsed() < TOKEN_CACHE_TIME && !has_ended(self.expires_at)
    }
}

impl TokenAuthenticator {
    /// An authenticator that checks up to `max_password_checks` passwords at once, 19 MiB each.
    pub fn new(registry: Registry, max_password_checks: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry,
                tokens: Cache::new(TOKEN_ENTRIES),
                used: Mutex::default(),
                refusals: Sampler::default(),
                checks: Semaphore::new(max_password_checks.max(1)),
                dummy_hash: OnceCell::new(),
            }),
        }
    }

    /// Who has this API token. A token that another node revoked works for up to [`TOKEN_CACHE_TIME`] more.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when nobody has it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn token(&self, bearer: &str) -> Result<Actor, AuthError> {
        // A token is 256 random bits: its digest cannot be guessed nor led back to it, and looking a digest up
        // tells nothing of how much of a token was right.
        let digest = digest(bearer);
        if let Some(known) = self.inner.tokens.get(&digest)
            && known.is_valid()
        {
            return Ok(known.actor);
        }
        let row = self.inner.registry.token(&digest).await?;
        let Some(row) = row.filter(|row| !has_ended(row.expires_at)) else {
            self.inner.tokens.remove(&digest);
            if let Some(left_out) = self.inner.refusals.admit(Instant::now()) {
                tracing::info!(left_out, "an API token that nobody has was refused");
            }
            return Err(AuthError::Refused);
        };
        tracing::info!(token = %row.name, role = row.role.as_str(), "an API token is in use");
        self.inner.note_use(row.id);
        let actor = Actor::new(row.name, row.role);
        let known = KnownToken {
            since: Instant::now(),
            expires_at: row.expires_at,
            actor: actor.clone(),
        };
        self.inner.tokens.insert(digest, known);
        Ok(actor)
    }

    /// Has the token of a digest looked up again. To be called after it was revoked in the registry.
    pub(in crate::service) fn forget(&self, digest: &[u8; 32]) {
        self.inner.tokens.remove(digest);
    }

    /// Writes down which tokens were used since the last time.
    pub async fn flush(&self) {
        let used: Vec<(Id, Millis)> = self.inner.used.lock().drain().collect();
        if !used.is_empty()
            && let Err(error) = self.inner.registry.touch_tokens(&used).await
        {
            tracing::warn!(%error, "when API tokens were used could not be written");
        }
    }

    /// Writes again and again, until it is dropped.
    pub async fn run(&self) {
        let mut turn = tokio::time::interval(FLUSH_INTERVAL);
        loop {
            turn.tick().await;
            self.flush().await;
        }
    }

    /// Who has this name and password. Takes tens of milliseconds of a blocking thread, and waits when too many
    /// are checked already.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when nobody has them.
    ///
    /// # Cancel safety
    /// Safe; a check that runs goes on to its end.
    pub(in crate::service) async fn operator(
        &self,
        name: &str,
        password: &str,
    ) -> Result<(Id, Actor), AuthError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::Refused);
        }
        let row = self.inner.registry.operator(name).await?;
        let hash = match &row {
            Some(row) => row.password_hash.clone(),
            None => self
                .inner
                .dummy_hash
                .get_or_try_init(|| self.hash(Zeroizing::new("no operator".to_owned())))
                .await?
                .clone(),
        };
        let password = Zeroizing::new(password.to_owned());
        let is_right = self
            .blocking(move || {
                let hash = PasswordHash::new(&hash).map_err(|error| hash_error(&error))?;
                Ok(argon2()?
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok())
            })
            .await?;
        let row = row.filter(|row| is_right && row.enabled);
        let row = row.ok_or(AuthError::Refused)?;
        Ok((row.id, Actor::new(row.name, row.role)))
    }

    /// At the first start, makes an operator `admin` and an API token of the same role; later starts do nothing.
    ///
    /// `keep` puts them where the operator finds them, before they are valid: killed at any moment, a start either
    /// left credentials that work or the next one makes new ones.
    ///
    /// # Errors
    /// [`AuthError::Handover`] when `keep` fails: then nothing was made.
    pub async fn bootstrap(
        &self,
        keep: impl FnOnce(&Bootstrap) -> io::Result<()>,
    ) -> Result<Option<Bootstrap>, AuthError> {
        if self.inner.registry.has_operators().await? {
            return Ok(None);
        }
        let secrets = Bootstrap {
            operator: "admin",
            password: new_password()?,
            token: new_token()?.0,
        };
        let now = Millis::now();
        let registry = &self.inner.registry;
        let operator = OperatorRow {
            id: registry.next_id(),
            name: secrets.operator.to_owned(),
            role: Role::Admin,
            enabled: true,
            password_hash: self.hash(secrets.password.clone()).await?,
            password_set_at: now,
            created_at: now,
            updated_at: now,
        };
        let token = TokenRow {
            id: registry.next_id(),
            name: "first-token".to_owned(),
            role: Role::Admin,
            digest: digest(&secrets.token),
            created_at: now,
            expires_at: None,
            last_used_at: None,
        };
        keep(&secrets).map_err(AuthError::Handover)?;
        let made = registry.insert_first_operator(&operator, &token).await?;
        Ok(made.then_some(secrets))
    }

    /// A password's hash, as it is stored. Takes as much as the check of one.
    pub(in crate::service) async fn hash(
        &self,
        password: Zeroizing<String>,
    ) -> Result<String, AuthError> {
        self.blocking(move || {
            let hash = argon2()?
                .hash_password(password.as_bytes())
                .map_err(|error| hash_error(&error))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Runs work that takes much memory and time, a few at once.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let _permit = self.inner.checks.acquire().await;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| hash_error(&error))?
    }
}

impl Inner {
    /// A token was used: once a minute for each, since then it is looked up again.
    fn note_use(&self, token: Id) {
        let mut used = self.used.lock();
        if used.len() < TOKEN_ENTRIES {
            used.insert(token, Millis::now());
        }
    }
}

impl fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthenticator").finish_non_exhaustive()
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

fn has_ended(expires_at: Option<Millis>) -> bool {
    expires_at.is_some_and(|end| end <= Millis::now())
}

/// A password that nobody guesses.
pub(in crate::service) fn new_password() -> Result<Zeroizing<String>, NoRandomness> {
    Ok(text(&random::<18>()?, ""))
}

/// An API token and what is stored of it.
pub(in crate::service) fn new_token() -> Result<(Zeroizing<String>, [u8; 32]), NoRandomness> {
    let token = text(&random::<32>()?, "hgt_");
    let digest = digest(&token);
    Ok((token, digest))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn text(bytes: &[u8], prefix: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + bytes.len() * 2));
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    text
}

/// Argon2id with the parameters that OWASP names for 19 MiB.
fn argon2() -> Result<Argon2<'static>, AuthError> {
    let params = Params::new(19_456, 2, 1, None).map_err(|error| hash_error(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_error(error: &impl fmt::Display) -> AuthError {
    AuthError::Hash(error.to_string())
}

/// Tokens kept in memory.
const TOKEN_ENTRIES: usize = 1_024;
/// How often it is written down which tokens were used.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a known token is not looked up again.
const TOKEN_CACHE_TIME: Duration = Duration::from_mins(1);
/// Longer passwords are refused unread.
pub(in crate::service) const MAX_PASSWORD_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::registry::sqlite_url;

    async fn authenticator(dir: &tempfile::TempDir) -> TokenAuthenticator {
        let url = sqlite_url(&dir.path().join("r.db"));
        TokenAuthenticator::new(Registry::open(&url, 1).await.unwrap(), 2)
    }

    #[tokio::test]
    async fn the_first_start_makes_credentials_that_work_and_later_ones_none() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authenticator(&dir).await;
        let mut kept = None;
        let made = auth
            .bootstrap(|secrets| {
                kept = Some((secrets.password.clone(), secrets.token.clone()));
                Ok(())
            })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept, Some((made.password.clone(), made.token.clone())));
        assert_eq!(made.password.len(), 24);
        assert_eq!(made.token.len(), 47);

        let actor = auth.token(&made.token).await.unwrap();
        assert_eq!(actor.role, Role::Admin);
        let (_, actor) = auth.operator("admin", &made.password).await.unwrap();
        assert_eq!((actor.name.as_str(), actor.role), ("admin", Role::Admin));

        let again = authenticator(&dir).await;
        assert!(again.bootstrap(|_| Ok(())).await.unwrap().is_none());
        assert!(again.token(&made.token).await.is_ok());
    }

    #[tokio::test]
    async fn it_is_written_down_when_a_token_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authenticator(&dir).await;
        let made = auth.bootstrap(|_| Ok(())).await.unwrap().unwrap();
        let last_used = async || {
            auth.flush().await;
            let row = auth.inner.registry.token(&digest(&made.token)).await;
            row.unwrap().unwrap().last_used_at
        };
        assert_eq!(last_used().await, None);
        assert!(auth.token("hgt_wrong").await.is_err());
        assert_eq!(last_used().await, None);
        let before = Millis::now();
        auth.token(&made.token).await.unwrap();
        assert!(last_used().await.unwrap() >= before);
    }

    #[tokio::test]
    async fn what_nobody_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authenticator(&dir).await;
        let made = auth.bootstrap(|_| Ok(())).await.unwrap().unwrap();
        for token in ["", "hgt_", &format!("{}x", *made.token), &made.password] {
            assert!(matches!(auth.token(token).await, Err(AuthError::Refused)));
        }
        for (name, password) in [
            ("admin", ""),
            ("admin", made.token.as_str()),
            ("root", &made.password),
            ("admin", &"x".repeat(MAX_PASSWORD_BYTES + 1)),
        ] {
            let refused = auth.operator(name, password).await;
            assert!(matches!(refused, Err(AuthError::Refused)), "{name}");
        }
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_kept_are_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authenticator(&dir).await;
        let failed = auth
            .bootstrap(|_| Err(io::Error::from(io::ErrorKind::StorageFull)))
            .await;
        assert!(matches!(failed, Err(AuthError::Handover(_))));
        assert!(auth.bootstrap(|_| Ok(())).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_registry_holds_neither_password_nor_token() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authenticator(&dir).await;
        let made = auth.bootstrap(|_| Ok(())).await.unwrap().unwrap();
        auth.inner.registry.close().await;
        let bytes = std::fs::read(dir.path().join("r.db")).unwrap();
        for secret in [&made.password, &made.token] {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found);
        }
        let hash = b"$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(bytes.windows(hash.len()).any(|window| window == hash));
        assert!(!format!("{made:?}").contains(made.password.as_str()));
    }
}
