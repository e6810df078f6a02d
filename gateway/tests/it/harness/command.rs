//! Programs that people use: curl, and the clients of mosquitto.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

use tokio::task::spawn_blocking;

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) success: bool,
}

impl Printed {
    /// Asserts success and gives what was printed.
    pub(crate) fn ok(self) -> Vec<u8> {
        assert!(self.success, "{}", self.stderr);
        self.stdout
    }
}

/// Starts a program of another package.
///
/// Fails where it is missing: a test that is left out says nothing.
fn start(program: &str, arguments: &[&str]) -> Child {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    started.unwrap_or_else(|error| {
        unreachable!("{program}: {error}; install it (apt-get install mosquitto-clients curl)")
    })
}

/// Waits for the end of a program that ends by itself.
async fn finish(mut child: Child) -> Printed {
    let waiting = spawn_blocking(move || {
        let mut stderr = String::new();
        let mut pipe = child.stderr.take().expect("piped");
        let complaints = std::thread::spawn(move || {
            pipe.read_to_string(&mut stderr).expect("UTF-8");
            stderr
        });
        let output = child.wait_with_output().expect("our own child");
        Printed {
            stdout: output.stdout,
            stderr: complaints.join().expect("read"),
            success: output.status.success(),
        }
    });
    waiting.await.expect("no panic")
}

/// Runs a program to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Printed {
    finish(start(program, arguments)).await
}
