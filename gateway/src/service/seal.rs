//! Secrets at rest: sealed with AES-256-GCM under one key that stays out of the database.
//!
//! A sealed secret is `1 | key id (8) | nonce (12) | ciphertext | tag (16)`; the name of its owner is associated
//! data, so that it opens nowhere else. The key is a file of 32 bytes that only its owner may read; a file with
//! another size or wider permissions is refused, never mended. While a rotation is under way there are two keys: the new
//! one seals, both open.

mod rotate;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use self::rotate::{Rotated, rotate};
use crate::{
    model::{NoRandomness, random},
    store::{StoreError, registry::Registry},
};

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("sealing key {path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Others than its owner may read the key file.
    #[error("sealing key {path} has mode {mode:o}: expected 600")]
    Permissions {
        /// Which file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The key file is no key.
    #[error("sealing key {path} is no file of 32 bytes")]
    Size {
        /// Which file.
        path: String,
    },
    /// What the registry holds was sealed with another key.
    #[error("the registry's secrets were sealed with key {expected}, the sealing key is {actual}")]
    OtherKey {
        /// The id of the registry's key.
        expected: String,
        /// The id of this key.
        actual: String,
    },
    /// Sealed bytes were changed, belong to another owner or were sealed with another key.
    #[error("a sealed secret does not open")]
    Broken,
    /// No nonce or key can be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals and opens secrets. Cloning shares the keys.
#[derive(Clone)]
pub struct Sealer {
    key: Arc<Key>,
    /// The key before, while a rotation has not come to its end.
    former: Option<Arc<Key>>,
}

struct Key {
    key: LessSafeKey,
    id: [u8; KEY_ID_LEN],
}

impl Sealer {
    /// Reads the key from a file; makes the file with a new key when there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`SealError::Permissions`], [`SealError::Size`] and [`SealError::File`]: the gateway cannot start.
    pub fn open_or_create(path: &Path) -> Result<Self, SealError> {
        let sealer = match Self::read(path) {
            Err(SealError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create_key(path)?;
                Self::read(path)?
            }
            other => other?,
        };
        if sealer.former.is_some() {
            tracing::warn!(
                "a rotation of the sealing key has not ended: run `headgate keys rotate`"
            );
        }
        Ok(sealer)
    }

    /// Reads the key from a file, and the one that is to replace it where a rotation was begun.
    fn read(path: &Path) -> Result<Self, SealError> {
        let key = Arc::new(Key::new(&*read_key(path)?)?);
        match read_key(&next_key_path(path)) {
            Ok(next) => Ok(Self {
                key: Arc::new(Key::new(&next)?),
                former: Some(key),
            }),
            Err(SealError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self { key, former: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The key's id, 16 hexadecimal digits: says which key sealed something and nothing about the key.
    pub fn key_id(&self) -> String {
        hex::encode(self.key.id)
    }

    /// Makes sure that what the registry holds was sealed with this key; the first key that asks becomes the
    /// registry's. To be called before anything is sealed.
    ///
    /// # Errors
    /// [`SealError::OtherKey`]: the key file was lost or exchanged.
    pub async fn bind(&self, registry: &Registry) -> Result<(), SealError> {
        let own = self.key_id();
        let bound = registry
            .setting_or_insert(KEY_SETTING, own.as_bytes())
            .await?;
        let former = self.former.as_ref().map(|former| hex::encode(former.id));
        if bound == own.as_bytes() || former.is_some_and(|former| bound == former.as_bytes()) {
            Ok(())
        } else {
            Err(SealError::OtherKey {
                expected: String::from_utf8_lossy(&bound).into_owned(),
                actual: own,
            })
        }
    }

    /// Seals a secret for its owner, a device id or the name of a setting.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, owner: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = Vec::with_capacity(HEAD_LEN + secret.len() + TAG_LEN);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.key.id);
        sealed.extend_from_slice(&nonce);
        // On a copy, so that nothing readable is left where the ciphertext goes.
        let mut body = Zeroizing::new(secret.to_vec());
        let tag = self
            .key
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(owner.as_bytes()),
                &mut body,
            )
            .map_err(|_| SealError::Broken)?;
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed for an owner.
    ///
    /// # Errors
    /// [`SealError::Broken`].
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (head, body) = sealed.split_at_checked(HEAD_LEN).ok_or(SealError::Broken)?;
        let (&format, head) = head.split_first().ok_or(SealError::Broken)?;
        let (id, nonce) = head.split_at_checked(KEY_ID_LEN).ok_or(SealError::Broken)?;
        let key = self.keys().find(|key| format == FORMAT && id == key.id);
        let key = key.ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut secret = Zeroizing::new(body.to_vec());
        let len = key
            .key
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut secret)
            .map_err(|_| SealError::Broken)?
            .len();
        secret.truncate(len);
        Ok(secret)
    }

    /// Whether these bytes are something that the key before this one sealed.
    fn is_sealed_before(&self, bytes: &[u8]) -> bool {
        let former = self.former.as_ref();
        former.is_some_and(|key| {
            let id = bytes
                .strip_prefix(&[FORMAT])
                .and_then(|rest| rest.get(..KEY_ID_LEN));
            bytes.len() >= HEAD_LEN + TAG_LEN && id == Some(&key.id[..])
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&*self.key).chain(self.former.as_deref())
    }
}

impl Key {
    fn new(key: &[u8; KEY_LEN]) -> Result<Self, SealError> {
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Broken)?;
        let digest = Sha256::new()
            .chain_update(b"headgate sealing key id\0")
            .chain_update(key)
            .finalize();
        let mut id = [0; KEY_ID_LEN];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Self {
            key: LessSafeKey::new(unbound),
            id,
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY_LEN]>, SealError> {
    let shown = || path.display().to_string();
    let io = |source| SealError::File {
        path: shown(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SealError::Permissions {
            path: shown(),
            mode,
        });
    }
    if !metadata.is_file() || metadata.len() != KEY_LEN as u64 {
        return Err(SealError::Size { path: shown() });
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    file.read_exact(key.as_mut_slice()).map_err(io)?;
    Ok(key)
}

/// Writes a new key under another name and gives it its own when it is whole and on the disk; of two processes
/// that do this at once, both then read the first one's.
fn create_key(path: &Path) -> Result<(), SealError> {
    let io = |source| SealError::File {
        path: path.display().to_string(),
        source,
    };
    let key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(random()?);
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io)?;
    file.write_all(key.as_slice()).map_err(io)?;
    file.sync_all().map_err(io)?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft).map_err(io)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
        _ => {}
    }
    sync_directory_of(path)
}

/// Has the names in a file's directory on the disk.
fn sync_directory_of(path: &Path) -> Result<(), SealError> {
    let directory = path.parent().unwrap_or(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| SealError::File {
            path: path.display().to_string(),
            source,
        })
}

/// Where the key stands that is to replace the one at `path`.
fn next_key_path(path: &Path) -> PathBuf {
    path.with_extension("next")
}

const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
const KEY_ID_LEN: usize = 8;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;
const KEY_SETTING: &str = "sealing_key_id";

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::store::registry::sqlite_url;

    fn sealer(byte: u8) -> Sealer {
        Sealer {
            key: Arc::new(Key::new(&[byte; KEY_LEN]).unwrap()),
            former: None,
        }
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_alone() {
        let (sealer, other) = (sealer(1), sealer(2));
        let sealed = sealer.seal("p_d1", b"topsecret").unwrap();
        assert_eq!(*sealer.open("p_d1", &sealed).unwrap(), b"topsecret");
        assert!(!sealed.windows(9).any(|window| window == b"topsecret"));
        assert!(matches!(
            sealer.open("p_d2", &sealed),
            Err(SealError::Broken)
        ));
        assert!(other.open("p_d1", &sealed).is_err());
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let sealer = sealer(1);
        let (one, two) = (sealer.seal("d", b"x"), sealer.seal("d", b"x"));
        assert_ne!(one.unwrap(), two.unwrap());
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_found() {
        let sealer = sealer(1);
        let sealed = sealer.seal("d", b"12345678").unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open("d", &changed).is_err(), "byte {index}");
            assert!(sealer.open("d", &sealed[..index]).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        let sealed = Sealer::open_or_create(&path)
            .unwrap()
            .seal("d", b"x")
            .unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let again = Sealer::open_or_create(&path).unwrap();
        assert_eq!(*again.open("d", &sealed).unwrap(), b"x");
    }

    #[test]
    fn a_key_file_that_others_may_read_or_of_another_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        Sealer::open_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o700 | 0o001] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Sealer::open_or_create(&path).unwrap_err();
            assert!(
                matches!(error, SealError::Permissions { .. }),
                "{mode:o}: {error}"
            );
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for len in [0, 31, 33] {
            std::fs::write(&path, vec![7; len]).unwrap();
            let error = Sealer::open_or_create(&path).unwrap_err();
            assert!(matches!(error, SealError::Size { .. }), "{len}: {error}");
        }
    }

    #[tokio::test]
    async fn a_registry_stays_with_its_first_key() {
        let dir = tempfile::tempdir().unwrap();
        let url = sqlite_url(&dir.path().join("r.db"));
        let registry = Registry::open(&url, 1).await.unwrap();
        sealer(1).bind(&registry).await.unwrap();
        sealer(1).bind(&registry).await.unwrap();
        let error = sealer(2).bind(&registry).await.unwrap_err();
        assert!(matches!(error, SealError::OtherKey { .. }), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}", sealer(1)),
            format!("Sealer {{ key_id: {:?}, .. }}", sealer(1).key_id())
        );
    }
}
