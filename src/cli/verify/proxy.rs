//! A link between a process and a server that can be refused, cut and held up at will.
//!
//! It passes bytes and looks at them only for a commit of the MySQL protocol, whose answer it can lose. Each link lives on a
//! thread of its own, so that whoever orders something never waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a commit looks like between client and server: a command "query" with this text.
const COMMIT: &[u8] = b"\x03COMMIT";
/// Bytes moved at once.
const PIECE: usize = 65_536;

/// How the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    down: bool,
    frozen: bool,
    over: bool,
}

struct Shared {
    server: String,
    /// Commits whose answer is still to be lost, after the server has carried them out.
    after: AtomicU32,
    /// Commits that are still to be lost before the server has seen them.
    before: AtomicU32,
    /// Links cut for a commit.
    cut: AtomicU32,
}

/// Passes bytes between clients and one server. Ends, and cuts everything, when it is dropped.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    mode: watch::Sender<Mode>,
}

impl Link {
    /// A link to `host:port`, on any free port of loopback.
    ///
    /// # Errors
    /// What the operating system says about the listener or the thread.
    pub fn to(server: &str) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            after: AtomicU32::default(),
            before: AtomicU32::default(),
            cut: AtomicU32::default(),
        });
        let (mode, seen) = watch::channel(Mode::default());
        let serving = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("link".to_owned()).spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, serve(listener, serving, seen));
        })?;
        Ok(Self { address, shared, mode })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and lets no new one pass, or lets them pass again.
    pub fn down(&self, down: bool) {
        self.mode.send_modify(|mode| mode.down = down);
    }

    /// Holds every byte back, or lets them go on: connections stay open.
    pub fn frozen(&self, frozen: bool) {
        self.mode.send_modify(|mode| mode.frozen = frozen);
    }

    /// Cuts the connection of the next so many commits, after the server has carried them out.
    pub fn lose_answers(&self, commits: u32) {
        self.shared.after.store(commits, Ordering::SeqCst);
    }

    /// Cuts the connection of the next so many commits, before the server has seen them.
    pub fn lose_commits(&self, commits: u32) {
        self.shared.before.store(commits, Ordering::SeqCst);
    }

    /// How many connections were cut for a commit.
    #[must_use]
    pub fn cut(&self) -> u32 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.lose_answers(0);
        self.lose_commits(0);
        self.mode.send_modify(|mode| *mode = Mode::default());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.mode.send_modify(|mode| mode.over = true);
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>, mut mode: watch::Receiver<Mode>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            log::error!("a link cannot listen: {error}");
            return;
        }
    };
    let seen = mode.clone();
    loop {
        tokio::select! {
            _over = mode.wait_for(|mode| mode.over) => return,
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                // Dropped at once: refused.
                if !seen.borrow().down {
                    tokio::task::spawn_local(pass(client, Arc::clone(&shared), seen.clone()));
                }
            }
        }
    }
}

/// Passes the bytes of one connection until one side ends it or the link goes down.
async fn pass(client: TcpStream, shared: Arc<Shared>, mut mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(&shared.server).await else { return };
    let _quick = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let swallow = AtomicBool::new(false);
    let held = mode.clone();
    tokio::select! {
        _down = mode.wait_for(|mode| mode.down || mode.over) => {}
        () = requests(from_client, to_server, (&shared, &swallow), held.clone()) => {}
        () = replies(from_server, to_client, (&shared, &swallow), held) => {}
    }
}

/// Takes one of a number; false when none is left.
fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

async fn requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (shared, swallow): (&Shared, &AtomicBool),
    mode: watch::Receiver<Mode>,
) {
    let mut bytes = vec![0_u8; PIECE];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        thawed(mode.clone()).await;
        let piece = bytes.get(..n).unwrap_or_default();
        if piece.windows(COMMIT.len()).any(|window| window == COMMIT) {
            if take(&shared.before) {
                shared.cut.fetch_add(1, Ordering::SeqCst);
                return;
            }
            swallow.store(take(&shared.after), Ordering::SeqCst);
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (shared, swallow): (&Shared, &AtomicBool),
    mode: watch::Receiver<Mode>,
) {
    let mut bytes = vec![0_u8; PIECE];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        thawed(mode.clone()).await;
        if swallow.load(Ordering::SeqCst) {
            // The server has answered, so the commit is done.
            shared.cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(bytes.get(..n).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

async fn thawed(mut mode: watch::Receiver<Mode>) {
    let _open = mode.wait_for(|mode| !mode.frozen).await;
}

#[cfg(test)]
mod tests {
    use super::Link;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    /// A server that sends back what it gets.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut from, mut to) = (stream.try_clone().expect("a handle"), stream);
                    let _ended = std::io::copy(&mut from, &mut to);
                });
            }
        });
        address
    }

    fn connected(link: &Link) -> TcpStream {
        let stream = TcpStream::connect(link.address()).expect("a link listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        stream
    }

    fn said(stream: &mut TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(text).ok()?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).ok()?;
        Some(back)
    }

    #[test]
    fn bytes_pass_until_the_link_is_cut_and_pass_again_when_it_is_healed() {
        let link = Link::to(&echo()).expect("a link");
        let mut stream = connected(&link);
        assert_eq!(said(&mut stream, b"hello").as_deref(), Some(&b"hello"[..]));
        link.down(true);
        assert_eq!(said(&mut stream, b"gone"), None);
        assert_eq!(said(&mut connected(&link), b"refused"), None);
        link.heal();
        assert_eq!(said(&mut connected(&link), b"again").as_deref(), Some(&b"again"[..]));
    }

    #[test]
    fn a_frozen_link_holds_bytes_back_and_lets_them_go_on() {
        let link = Link::to(&echo()).expect("a link");
        let mut stream = connected(&link);
        link.frozen(true);
        stream.write_all(b"late").expect("the link reads");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let mut back = [0; 4];
        assert!(stream.read_exact(&mut back).is_err());
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        link.frozen(false);
        stream.read_exact(&mut back).expect("it goes on");
        assert_eq!(&back, b"late");
    }

    #[test]
    fn a_commit_is_lost_before_or_after_the_server_saw_it() {
        let link = Link::to(&echo()).expect("a link");
        link.lose_commits(1);
        assert_eq!(said(&mut connected(&link), super::COMMIT), None);
        link.lose_answers(1);
        assert_eq!(said(&mut connected(&link), super::COMMIT), None);
        assert_eq!(link.cut(), 2);
        assert_eq!(said(&mut connected(&link), super::COMMIT).as_deref(), Some(super::COMMIT));
    }
}
