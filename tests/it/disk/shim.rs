//! Compiles and loads what makes files fail.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{PROGRAM, Site};

/// The faults of one site.
pub(super) struct Shim {
    control: PathBuf,
}

impl Shim {
    /// Files beside the site's data folder.
    pub(super) fn beside(site: &Site) -> Self {
        Self { control: site.beside("shim") }
    }

    /// Loads it into the site's next processes.
    pub(super) fn preload(&self, site: &mut Site) {
        site.environment("LD_PRELOAD", &library().display().to_string());
        site.environment("DISPATCHER_SHIM", &self.control.display().to_string());
    }

    /// A program that is this one with the faults loaded.
    pub(super) fn wrapped(&self, site: &Site) -> String {
        let script = site.beside("fragile-program");
        let (library, control) = (library().display().to_string(), self.control.display());
        let text = format!(
            "#!/bin/sh\nLD_PRELOAD='{library}' DISPATCHER_SHIM='{control}' exec '{PROGRAM}' \"$@\"\n"
        );
        std::fs::write(&script, text).expect("room on the disk");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("our own file");
        script.display().to_string()
    }

    /// From now on: a fault and a part of the paths it strikes.
    pub(super) fn fail(&self, what: &str) {
        let fresh = self.control.with_extension("new");
        std::fs::write(&fresh, format!("{what}\n")).expect("room on the disk");
        std::fs::rename(&fresh, &self.control).expect("our own file");
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        std::fs::remove_file(&self.control).expect("our own file");
    }

    /// How often a fault struck.
    pub(super) fn hits(&self) -> u64 {
        std::fs::metadata(self.control.with_extension("hits")).map_or(0, |found| found.len())
    }
}

/// The library, compiled once a run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_folder, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("dispatcher-shim-").tempdir().expect("a folder");
        let library = folder.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/disk/shim.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let status = compiler.status().expect("a C compiler (apt-get install gcc libc6-dev)");
        assert!(status.success(), "the shim does not compile");
        (folder, library)
    });
    library
}
