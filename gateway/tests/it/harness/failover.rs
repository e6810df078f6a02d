//! Servers whose place others take: a standby of PostgreSQL's.

use std::{os::unix::fs::chown, path::PathBuf, sync::atomic::AtomicUsize};

use parking_lot::Mutex;
use rustix::process::{Signal, geteuid};

use super::{Postgres, postgres};

impl Postgres {
    /// A server that follows this one, whose commits wait for it from here on.
    pub(crate) fn standby(&self) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let owner = geteuid().is_root().then_some(postgres::NOBODY);
        chown(dir.path(), owner, owner).expect("its owner changed");
        let mut copy = postgres::as_user(&self.programs.join("pg_basebackup"), owner);
        copy.env("PGPASSWORD", postgres::PASSWORD).arg("-h");
        copy.arg(self.dir.path())
            .args(["-U", postgres::USER, "-R", "-X", "stream"]);
        copy.args(["--no-sync", "-c", "fast", "-D"])
            .arg(dir.path().join("data"));
        postgres::run(&mut copy);
        let standby = Self {
            programs: self.programs.clone(),
            process: Mutex::new(postgres::serve(&self.programs, dir.path())),
            dir,
            databases: AtomicUsize::new(0),
        };
        standby.wait();
        self.query(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
        );
        self.query("postgres", "SELECT pg_reload_conf()");
        standby
    }

    /// Dies, with every process that works for it.
    pub(crate) fn die(&self) {
        self.signal(Signal::KILL);
        let _ = self.process.lock().wait();
    }

    /// Follows nobody any more, and takes writes.
    pub(crate) fn promote(&self) {
        self.query(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = ''",
        );
        let promoted = self.query("postgres", "SELECT pg_promote(true, 60)");
        assert_eq!(promoted, "t");
        self.query("postgres", "SELECT pg_reload_conf()");
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }
}
