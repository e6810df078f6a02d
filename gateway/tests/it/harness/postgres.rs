//! A PostgreSQL server of a test's own: in a temporary directory, on a socket there, asking for a password.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// The server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(super) programs: PathBuf,
    pub(super) process: Mutex<Child>,
    pub(super) dir: TempDir,
    pub(super) databases: AtomicUsize,
}

impl Postgres {
    /// Makes a cluster of databases and starts it.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let dir = tempfile::tempdir().expect("a directory");
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).expect("written");
        let owner = geteuid().is_root().then_some(NOBODY);
        for path in [dir.path(), &password] {
            chown(path, owner, owner).expect("its owner changed");
        }
        let data = dir.path().join("data");
        let mut initdb = as_user(&programs.join("initdb"), owner);
        initdb.arg("-D").arg(&data).arg("--pwfile").arg(&password);
        initdb.args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]);
        initdb.args(["--locale", "C.UTF-8"]);
        run(&mut initdb);
        let process = Mutex::new(serve(&programs, dir.path()));
        let server = Self {
            programs,
            process,
            dir,
            databases: AtomicUsize::new(0),
        };
        server.wait();
        server
    }

    /// A database that nobody has used, by its address.
    pub(crate) fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("registry{number}");
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        self.url(USER, PASSWORD, &name)
    }

    /// The address of a database for a user.
    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://{user}:{password}@localhost/{database}?host={socket}&sslmode=disable")
    }

    /// Runs SQL in a database of the given name or address; gives its answer's values.
    pub(crate) fn query(&self, database: &str, sql: &str) -> String {
        let name = database.rsplit('/').next().unwrap_or(database);
        let name = name.split('?').next().unwrap_or(name);
        let output = self.psql(name).args(["-c", sql]).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the server with everything that works for it, and starts it on what it had written.
    pub(crate) fn crash(&self) {
        self.signal(Signal::KILL);
        let mut process = self.process.lock();
        let _ = process.wait();
        // One that finds something of the former still alive ends at once.
        let begun = Instant::now();
        loop {
            *process = serve(&self.programs, self.dir.path());
            thread::park_timeout(Duration::from_millis(100));
            let has_ended = process.try_wait().is_ok_and(|ended| ended.is_some());
            if !has_ended || begun.elapsed() > Duration::from_mins(1) {
                break;
            }
        }
        drop(process);
        self.wait();
    }

    /// Sends a signal to the server and to every process that works for it.
    pub(crate) fn signal(&self, signal: Signal) {
        let main = self.process.lock().id();
        let children = format!("/proc/{main}/task/{main}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        for id in children
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .chain([main])
        {
            send(id, signal);
        }
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.env("PGPASSWORD", PASSWORD).stdin(Stdio::null());
        command.arg("-h").arg(self.dir.path());
        command.args(["-U", USER, "-d", database, "-qAtX"]);
        command
    }

    pub(super) fn wait(&self) {
        let begun = Instant::now();
        while !self
            .psql("postgres")
            .args(["-c", "SELECT 1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it runs")
            .success()
        {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_mins(1), "{log}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The server ends its processes by itself only when it is told to go: it is not to be killed.
        let process = self.process.get_mut();
        if process.try_wait().is_ok_and(|ended| ended.is_none()) {
            send(process.id(), Signal::QUIT);
        }
        let _ = process.wait();
    }
}

/// Starts the server on a directory that has its databases.
pub(super) fn serve(programs: &Path, dir: &Path) -> Child {
    let owner = geteuid().is_root().then_some(NOBODY);
    let mut command = as_user(&programs.join("postgres"), owner);
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    command.args(["-c", "full_page_writes=off", "-c", "max_connections=200"]);
    let log = fs::File::create(dir.join("log")).expect("a log");
    command
        .stderr(log.try_clone().expect("a log"))
        .stdout(log)
        .spawn()
        .expect("it runs")
}

fn send(id: u32, signal: Signal) {
    if let Some(id) = id.try_into().ok().and_then(Pid::from_raw) {
        let _gone = kill_process(id, signal);
    }
}

/// Where the programs are: Debian keeps them out of `PATH`.
fn programs() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut debian: Vec<PathBuf> = debian
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    debian.sort();
    debian
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&paths))
        .find(|path| path.join("initdb").is_file())
        .expect("PostgreSQL is missing: apt-get install postgresql")
}

/// A command that does not run as root, as which PostgreSQL refuses to.
pub(super) fn as_user(program: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.stdin(Stdio::null());
    command
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

pub(super) const USER: &str = "headgate";
pub(super) const PASSWORD: &str = "hunter2";
/// The user and group of nobody.
pub(super) const NOBODY: u32 = 65_534;
