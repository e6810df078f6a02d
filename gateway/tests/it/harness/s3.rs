//! A service that speaks S3's protocol, of a test's own: moto, which keeps everything in memory.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The service with one bucket, `firmware`; it ends when dropped.
#[derive(Debug)]
pub(crate) struct S3 {
    process: Child,
    address: SocketAddr,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let process = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let service = Self { process, address };
        let begun = Instant::now();
        while service.ask("PUT", "/firmware").is_none() {
            assert!(begun.elapsed() < Duration::from_mins(1), "no answer");
            thread::park_timeout(Duration::from_millis(50));
        }
        service
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks for something; gives the whole answer.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let address = self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned()).filter(|answer| !answer.is_empty())
    }

    /// Sends a signal to the service.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(id) = self.process.id().try_into().ok().and_then(Pid::from_raw) {
            let _gone = kill_process(id, signal);
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `make test-tools` has installed below the target directory, or what this machine has.
fn program() -> PathBuf {
    let own = env::current_exe().expect("a path");
    let installed = own
        .ancestors()
        .map(|path| path.join("tmp/clients/s3/bin/moto_server"));
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&paths).map(|path| path.join("moto_server"));
    installed
        .chain(found)
        .find(|path| path.is_file())
        .expect("moto is missing: run `make test-tools` with the same CARGO_TARGET_DIR")
}
