//! A role as a process: who it runs as, and where it listens. The key manager stands for all: it needs no server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use serde_json::Value;

use crate::harness::{PROGRAM, READY, wait_for};

const STRANGER: &str = "nobody";

/// Keys and settings of a key manager that is to run as somebody else.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn made(port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("dispatcher-roles-").tempdir().expect("a folder");
        // Others must be able to come through, not to look at the keys.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("our own folder");
        let place = Self { folder };
        let keys = place.path("keys").display().to_string();
        assert!(run(&["keys", "make", "--folder", &keys]).status.success());
        let settings = format!(
            "[process]\nuser = \"{STRANGER}\"\n[listen]\nkm = [\"[::]:{port}\"]\nops = [\"127.0.0.1:0\"]\n"
        );
        std::fs::write(place.path("km.toml"), settings).expect("room on the disk");
        std::fs::create_dir(place.path("run")).expect("room on the disk");
        own(&place.path("run"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("km").arg("--config").arg(self.path("km.toml"));
        command.arg("--data").arg(self.path("data")).arg("--keys").arg(self.path("keys/km"));
        command.arg("--ready-file").arg(self.path("run/ready.json")).stdin(Stdio::null());
        command
    }

    fn start(&self) -> (Child, Value) {
        let file = self.path("run/ready.json");
        let _absent = std::fs::remove_file(&file);
        let mut child =
            self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let ready = wait_for("the key manager is ready", READY, || {
            assert!(child.try_wait().expect("our own child").is_none(), "it ended");
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        });
        (child, ready)
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

fn stranger() -> User {
    User::from_name(STRANGER).expect("users can be read").expect("every Debian has it")
}

fn own(path: &Path) {
    chown(path, Some(stranger().uid.as_raw()), Some(stranger().gid.as_raw())).expect("we are root");
}

fn stop(mut child: Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("our own child");
    assert!(child.wait().expect("our own child").success());
}

/// A port below 1024, which only root can listen on, that nobody listens on now.
fn low_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).is_ok();
    (700..1024).find(free).expect("a free port")
}

#[test]
fn a_role_listens_where_only_root_may_for_both_families_and_runs_as_somebody_else() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: only root can start a process that becomes somebody else");
        return;
    }
    let port = low_port();
    let place = Place::made(port);
    for _ in 0..2 {
        let (child, ready) = place.start();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
        let words = |name: &str| -> Vec<String> {
            let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
            line.split_whitespace().skip(1).map(str::to_owned).collect()
        };
        assert_eq!(words("Uid:"), vec![stranger().uid.to_string(); 4], "for good, and the saved one too");
        assert_eq!(words("Gid:"), vec![stranger().gid.to_string(); 4]);
        assert_eq!(words("CapEff:"), ["0000000000000000"]);
        for address in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
        {
            TcpStream::connect_timeout(&address, Duration::from_secs(10))
                .unwrap_or_else(|e| panic!("{address}: {e}"));
        }
        assert!(ready["km"].as_str().is_some_and(|at| at.ends_with(&format!(":{port}"))), "{ready}");
        for file in ["", "lock", "credentials.db", "../run/ready.json"] {
            let path = place.path("data").join(file);
            let owner = std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).uid();
            assert_eq!(owner, stranger().uid.as_raw(), "{}", path.display());
        }
        stop(child);
    }
    // Somebody else's folder is not taken over.
    chown(place.path("data"), Some(0), Some(0)).expect("we are root");
    let refused = place.command().output().expect("it starts");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("belongs to user 0") && text.contains("chown"), "{text}");
}
