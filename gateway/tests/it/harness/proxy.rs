//! Something between a client and servers that cuts, delays and refuses connections when it is told to; with several
//! servers it goes to each in its turn, as a balancer does.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use headgate::shutdown::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// Where connections go to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// An address of the loopback.
    Tcp(SocketAddr),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// The proxy; it ends, with its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    targets: parking_lot::Mutex<Vec<Target>>,
    turn: AtomicUsize,
    refuses: AtomicBool,
    delay_millis: AtomicU64,
    /// Counts how often all connections were cut.
    cuts: watch::Sender<u64>,
    tasks: Shutdown,
}

impl Proxy {
    /// Listens on a free port.
    pub(crate) async fn start(targets: Vec<Target>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            targets: parking_lot::Mutex::new(targets),
            turn: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            delay_millis: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            tasks: Shutdown::new(),
        });
        let serving = Arc::clone(&state);
        let stop = state.tasks.token().clone();
        state.tasks.spawn(async move {
            stop.run_until_cancelled(serving.serve(listener)).await;
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes to these from now on; connections that there are stay.
    pub(crate) fn lead_to(&self, targets: Vec<Target>) {
        *self.state.targets.lock() = targets;
    }

    /// Ends all connections, and while `refuses`, new ones at once.
    pub(crate) fn cut(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::Relaxed);
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets connections in again.
    pub(crate) fn mend(&self) {
        self.state.refuses.store(false, Ordering::Relaxed);
    }

    /// Keeps everything back for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("short");
        self.state.delay_millis.store(millis, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.tasks.stop();
        self.cut(true);
    }
}

impl State {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                continue;
            };
            if self.refuses.load(Ordering::Relaxed) {
                continue;
            }
            let state = Arc::clone(&self);
            self.tasks.spawn(async move { state.carry(client).await });
        }
    }

    async fn carry(&self, client: TcpStream) {
        let _nodelay = client.set_nodelay(true);
        let targets = self.targets.lock().clone();
        for _ in 0..targets.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % targets.len();
            match &targets[turn] {
                Target::Tcp(address) => {
                    if let Ok(server) = TcpStream::connect(address).await {
                        let _nodelay = server.set_nodelay(true);
                        return self.join(client, server).await;
                    }
                }
                Target::Unix(path) => {
                    if let Ok(server) = UnixStream::connect(path).await {
                        return self.join(client, server).await;
                    }
                }
            }
        }
    }

    async fn join<S: AsyncRead + AsyncWrite>(&self, client: TcpStream, server: S) {
        let mut cuts = self.cuts.subscribe();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = tokio::io::split(server);
        tokio::select! {
            _ = cuts.changed() => {}
            () = self.copy(from_client, to_server) => {}
            () = self.copy(from_server, to_client) => {}
        }
    }

    async fn copy(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let delay = self.delay_millis.load(Ordering::Relaxed);
            if delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
    }
}
