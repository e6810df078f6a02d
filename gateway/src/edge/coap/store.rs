//! Sessions of DTLS between a clean stop and the next start: one sealed file, which is gone before it is used.
//!
//! A session that was taken up twice would send two messages under one nonce. So the file is removed, and the directory
//! synchronised, before its first session is taken; after a crash there is none.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::service::{
    auth::CredentialTag,
    seal::{SealError, Sealer},
};

/// What the file is sealed for: no device can have this id.
const OWNER: &str = "/dtls-sessions";

/// Where sessions are kept.
#[derive(Debug, Clone)]
pub struct SessionStore {
    path: PathBuf,
    sealer: Sealer,
}

/// Why sessions were not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sessions that are being kept.
pub(super) struct Writer<'s> {
    store: &'s SessionStore,
    sessions: Zeroizing<Vec<u8>>,
}

impl SessionStore {
    /// Sessions in this directory.
    pub fn new(directory: &Path, sealer: Sealer) -> Self {
        Self {
            path: directory.join("dtls-sessions.sealed"),
            sealer,
        }
    }

    /// Takes what is there, each session once. What does not open is left alone: devices make new sessions.
    pub(super) fn take(&self, mut take: impl FnMut(CredentialTag, &[u8])) {
        let sealed = match fs::read(&self.path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return tracing::warn!(%error, "sessions of DTLS could not be read");
            }
        };
        if let Err(error) = self.remove() {
            return tracing::warn!(%error, "sessions of DTLS are not used: their file stays");
        }
        let sessions = match self.sealer.open(OWNER, &sealed) {
            Ok(sessions) => sessions,
            Err(error) => return tracing::warn!(%error, "sessions of DTLS do not open"),
        };
        let mut rest = &sessions[..];
        while let Some((tag, bytes, behind)) = split(rest) {
            take(tag, bytes);
            rest = behind;
        }
    }

    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            store: self,
            sessions: Zeroizing::default(),
        }
    }

    fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Writer<'_> {
    pub(super) fn add(&mut self, CredentialTag(tag): CredentialTag, bytes: &[u8]) {
        let Ok(length) = u32::try_from(bytes.len()) else {
            return;
        };
        self.sessions.extend(tag.to_be_bytes());
        self.sessions.extend(length.to_be_bytes());
        self.sessions.extend(bytes);
    }

    /// Writes the file, where there is anything to keep.
    pub(super) fn write(self) -> Result<(), KeepError> {
        if self.sessions.is_empty() {
            return Ok(());
        }
        let sealed = self.store.sealer.seal(OWNER, &self.sessions)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.store.path)?;
        file.write_all(&sealed)?;
        file.sync_all()?;
        Ok(self.store.sync_directory()?)
    }
}

fn split(bytes: &[u8]) -> Option<(CredentialTag, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (session, behind) = rest.split_at_checked(length)?;
    Some((CredentialTag(u64::from_be_bytes(*tag)), session, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let store = SessionStore::new(dir.path(), sealer);
        let mut writer = store.writer();
        writer.add(CredentialTag(1), b"one");
        writer.add(CredentialTag(2), b"");
        writer.write().unwrap();
        let file = fs::read(&store.path).unwrap();
        assert!(!file.windows(3).any(|part| part == b"one"), "in the clear");
        let mut taken = Vec::new();
        store.take(|tag, bytes| taken.push((tag, bytes.to_vec())));
        assert_eq!(
            taken,
            [
                (CredentialTag(1), b"one".to_vec()),
                (CredentialTag(2), vec![])
            ]
        );
        assert!(!store.path.exists(), "the file is gone");
        store.take(|_, _| panic!("it was taken"));
    }

    #[test]
    fn a_changed_file_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let store = SessionStore::new(dir.path(), sealer);
        let mut writer = store.writer();
        writer.add(CredentialTag(1), b"one");
        writer.write().unwrap();
        let mut file = fs::read(&store.path).unwrap();
        *file.last_mut().unwrap() ^= 1;
        fs::write(&store.path, file).unwrap();
        store.take(|_, _| panic!("it opened"));
        assert!(!store.path.exists(), "nor is it tried again");
    }
}
