//! The directory of everything that is kept.
//!
//! Opened once at the start, before anything is read from it or written to it.
//! Invariants: one process at a time; nobody else reads it (directories 0700, files 0600); a file
//! is there whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

const LOCK: &str = "lock";
const PORTS: &str = "ports.json";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process works in it.
    #[error("{} is in use by another headgate (process {process})", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as far as it is known.
        process: String,
    },
    /// A file or directory in it cannot be made or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The addresses that are really listened on; port 0 is replaced by what the system chose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// MQTT over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtts: Option<SocketAddr>,
    /// MQTT without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<SocketAddr>,
    /// The further MQTT listeners, in the order of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<SocketAddr>,
    /// CoAP without DTLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coap: Option<SocketAddr>,
    /// CoAP over DTLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coaps: Option<SocketAddr>,
    /// The HTTP API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// The device files listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<SocketAddr>,
    /// Metrics and health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// An open data directory; it is free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and takes it for this process.
    ///
    /// # Errors
    /// `InUse` when another process has it, `Io` when it cannot be made.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_private_dir(path)?;
        let lock = take_lock(path)?;
        for part in ["blobs", "keys", "spool", "tls"] {
            make_private_dir(&path.join(part))?;
        }
        remove_if_there(&path.join(PORTS))?;
        Ok(Self(Arc::new(Open {
            path: path.to_owned(),
            _lock: lock,
        })))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// Writes `ports.json`: the sign for others that the listeners are open, and where.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_ports(&self, ports: &Ports) -> Result<(), DataDirError> {
        let mut text = serde_json::to_vec(ports).expect("addresses are plain JSON");
        text.push(b'\n');
        write_private(&self.join(PORTS), &text)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join(PORTS));
    }
}

/// Writes a file that only this user reads (0600): whole or not at all, and on the disk.
///
/// # Errors
/// `Io`; then the former content is untouched.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let io = |source| io_error(path, source);
    remove_if_there(&temporary)?;
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(io(source));
    }
    // The rename itself is on the disk only when the directory is.
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io)
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

fn remove_if_there(path: &Path) -> Result<(), DataDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a directory 0700; one that was there is closed to others only when it is ours.
fn make_private_dir(path: &Path) -> Result<(), DataDirError> {
    let io = |source| io_error(path, source);
    if !path.exists() {
        return DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io);
    }
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    let empty = fs::read_dir(path).map_err(io)?.next().is_none();
    let ours = empty || path.join(LOCK).exists();
    if mode & 0o077 != 0 && ours {
        return fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io);
    }
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "data directory is open to other users");
    }
    Ok(())
}

fn take_lock(directory: &Path) -> Result<File, DataDirError> {
    let path = directory.join(LOCK);
    let io = |source| io_error(&path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let process = fs::read_to_string(&path).unwrap_or_default();
            let process = match process.trim() {
                "" => "unknown".to_owned(),
                known => known.to_owned(),
            };
            return Err(DataDirError::InUse {
                path: directory.to_owned(),
                process,
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn two_processes_never_share_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        let first = DataDir::open(&path).expect("free");
        let clone = first.clone();
        drop(first);
        let error = DataDir::open(&path).expect_err("taken").to_string();
        let process = std::process::id();
        assert!(
            error.ends_with(&format!("in use by another headgate (process {process})")),
            "{error}"
        );
        drop(clone);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn nobody_else_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        let data = DataDir::open(&path).expect("free");
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("keys")), 0o700);
        let file = data.join("keys/sealing.key");
        write_private(&file, b"one").expect("written");
        write_private(&file, b"two").expect("written again");
        assert_eq!(fs::read(&file).expect("there"), b"two");
        assert_eq!(mode(&file), 0o600);
        let left: Vec<_> = fs::read_dir(data.join("keys")).expect("there").collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_directory_of_others_keeps_its_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).expect("made");
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).expect("set");
        fs::write(shared.join("other"), b"").expect("written");
        DataDir::open(&shared).expect("usable");
        assert_eq!(mode(&shared), 0o755);
    }

    #[test]
    fn ports_are_there_only_while_it_is_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(dir.path()).expect("free");
        let ports = Ports {
            mqtts: Some(([127, 0, 0, 1], 8883).into()),
            ..Ports::default()
        };
        data.write_ports(&ports).expect("written");
        let file = dir.path().join("ports.json");
        let text = fs::read_to_string(&file).expect("there");
        assert_eq!(text, "{\"mqtts\":\"127.0.0.1:8883\"}\n");
        drop(data);
        assert!(!file.exists());
    }
}
