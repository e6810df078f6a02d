//! The unit, and what the program tells its service manager.

use std::{fs, os::unix::net::UnixDatagram, time::Duration};

use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::deploy;
use crate::harness::{Daemon, PATIENCE, run};

/// Ten times the exposure that the unit may have, as `systemd-analyze` takes it.
const MAX_EXPOSURE: &str = "--threshold=20";

#[tokio::test]
async fn the_unit_is_sandboxed() {
    let unit = deploy("systemd/headgate.service");
    let unit = unit.to_str().expect("UTF-8");
    let arguments = ["security", "--offline=true", MAX_EXPOSURE, unit];
    run("systemd-analyze", &arguments).await.ok();
}

#[tokio::test]
async fn the_unit_has_no_mistake() {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = fs::read_to_string(deploy("systemd/headgate.service")).expect("the unit");
    // Where it will be installed there is nothing yet.
    let unit = unit.replace("/usr/bin/headgate", env!("CARGO_BIN_EXE_headgate"));
    let path = directory.path().join("headgate.service");
    fs::write(&path, unit).expect("written");
    let printed = run(
        "systemd-analyze",
        &["verify", path.to_str().expect("UTF-8")],
    )
    .await;
    // Of other units of this machine it may say what it likes.
    let ours: Vec<_> = printed
        .stderr
        .lines()
        .filter(|line| line.contains("headgate"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[tokio::test]
async fn the_service_manager_is_told_of_the_start_of_life_and_of_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let settings = [
        ("NOTIFY_SOCKET", path.to_str().expect("UTF-8")),
        ("WATCHDOG_USEC", "900000"),
    ];
    let mut daemon = Daemon::start(&directory.path().join("data"), &settings);
    let socket = until(socket, "READY=1").await;
    // Again and again, until somebody ends it.
    let socket = until(socket, "WATCHDOG=1").await;
    let socket = until(socket, "WATCHDOG=1").await;
    daemon.signal(Signal::TERM);
    until(socket, "STOPPING=1").await;
    assert!(daemon.ended().await.success());
}

/// Waits until this was told.
async fn until(socket: UnixDatagram, state: &'static str) -> UnixDatagram {
    let waiting = spawn_blocking(move || {
        let mut buffer = [0; 1024];
        loop {
            let len = socket.recv(&mut buffer).expect(state);
            let told = String::from_utf8_lossy(&buffer[..len]);
            if told.lines().any(|line| line == state) {
                return socket;
            }
        }
    });
    tokio::time::timeout(PATIENCE + Duration::from_secs(1), waiting)
        .await
        .expect(state)
        .expect("no panic")
}
