//! A link to the server that can be cut, closed and frozen at will.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a commit looks like between client and server: a command "query" with this text.
const COMMIT: &[u8] = b"\x03COMMIT";

/// Passes bytes between clients and one server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    down: AtomicBool,
    frozen: AtomicBool,
    /// Commits whose answer is still to be lost, after the server has carried them out.
    after: AtomicU32,
    /// Commits that are still to be lost before the server has seen them.
    before: AtomicU32,
    /// Links cut for a commit.
    cut: AtomicU32,
    links: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

impl Proxy {
    /// A link to `host:port`.
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            down: AtomicBool::default(),
            frozen: AtomicBool::default(),
            after: AtomicU32::default(),
            before: AtomicU32::default(),
            cut: AtomicU32::default(),
            links: Mutex::default(),
            over: AtomicBool::default(),
        });
        let address = listener.local_addr().expect("its address");
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serve(&listener, &serving));
        Self { address, shared }
    }

    /// Cuts every link and lets no new one pass, or lets them pass again.
    pub(crate) fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            for link in self.shared.links.lock().expect("no panic").drain(..) {
                let _closed = link.shutdown(Shutdown::Both);
            }
        }
    }

    /// Holds every byte back, or lets them go on: the links stay open.
    pub(crate) fn frozen(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Cuts the link of the next so many commits, after the server has carried them out.
    pub(crate) fn lose_answers(&self, commits: u32) {
        self.shared.after.store(commits, Ordering::SeqCst);
    }

    /// Cuts the link of the next so many commits, before the server has seen them.
    pub(crate) fn lose_commits(&self, commits: u32) {
        self.shared.before.store(commits, Ordering::SeqCst);
    }

    /// How many links were cut for a commit.
    pub(crate) fn cut(&self) -> u32 {
        self.shared.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.down(true);
        // Wakes the listener's thread, which then ends.
        let _woken = TcpStream::connect(self.address);
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.down.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = TcpStream::connect(&shared.server) else { continue };
        let _quick = (client.set_nodelay(true), server.set_nodelay(true));
        let copies = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(up), Some(down), Some(kept)) = (copies(), copies(), copies()) else { continue };
        shared.links.lock().expect("no panic").extend([kept.0, kept.1]);
        let swallow = Arc::new(AtomicBool::default());
        let (one, other) = (Arc::clone(shared), Arc::clone(shared));
        let answers = Arc::clone(&swallow);
        std::thread::spawn(move || requests(up, &one, &swallow));
        std::thread::spawn(move || replies(down, &other, &answers));
    }
}

/// Takes one of a number; false when none is left.
fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn requests((mut client, mut server): (TcpStream, TcpStream), shared: &Shared, swallow: &AtomicBool) {
    let mut bytes = [0_u8; 65_536];
    while let Ok(n @ 1..) = client.read(&mut bytes) {
        thaw(shared);
        if bytes[..n].windows(COMMIT.len()).any(|window| window == COMMIT) {
            if take(&shared.before) {
                shared.cut.fetch_add(1, Ordering::SeqCst);
                break;
            }
            swallow.store(take(&shared.after), Ordering::SeqCst);
        }
        if server.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _closed = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn replies((mut client, mut server): (TcpStream, TcpStream), shared: &Shared, swallow: &AtomicBool) {
    let mut bytes = [0_u8; 65_536];
    while let Ok(n @ 1..) = server.read(&mut bytes) {
        thaw(shared);
        if swallow.load(Ordering::SeqCst) {
            // The server has answered, so the commit is done.
            shared.cut.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if client.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _closed = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn thaw(shared: &Shared) {
    while shared.frozen.load(Ordering::SeqCst) && !shared.over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
