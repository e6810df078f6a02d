//! Servers whose place others take: a standby of PostgreSQL's, and a replica of Redis's that is behind.

use std::{fs, os::unix::fs::chown, path::PathBuf, sync::atomic::AtomicUsize};

use parking_lot::Mutex;
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{Postgres, Redis, postgres, redis};

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

impl Redis {
    /// Takes a copy of what it has kept up to now: a replica that hears no more.
    pub(crate) fn copy(&self) -> TempDir {
        let (copy, kept) = (tempfile::tempdir().expect("a directory"), self.kept());
        for entry in fs::read_dir(&kept).expect("a directory") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
        }
        copy
    }

    /// Dies, and a replica that is as far as the copy takes its place.
    pub(crate) fn fail_over(&self, copy: &TempDir) {
        let mut process = self.process.lock();
        let _ = process.kill();
        let _ = process.wait();
        let kept = self.kept();
        fs::remove_dir_all(&kept).expect("removed");
        fs::create_dir(&kept).expect("made");
        for entry in fs::read_dir(copy.path()).expect("a directory") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), kept.join(entry.file_name())).expect("copied");
        }
        *process = redis::run(self.dir.path(), self.port, &self.settings);
        drop(process);
        self.wait();
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }
}
