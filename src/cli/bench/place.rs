//! Where jobs are run while it is measured: one process on embedded parts, or an installation of several.

use std::path::Path;

use super::process::{Folder, Process};
use crate::cli::client::{Client, Error, Target};

/// What all kinds of places can do.
pub(super) trait Site {
    /// Starts the process that clients and guests speak to; milliseconds until it is ready.
    async fn start(&mut self) -> Result<f64, Error>;

    /// Kills that process; guests live on.
    async fn crash(&mut self) -> Result<(), Error>;

    /// A client of it.
    fn client(&self) -> Result<Client, Error>;

    /// Its resident memory.
    fn memory_kib(&self) -> f64;

    /// Processes of guests.
    fn guests(&self) -> Vec<u32>;
}

/// This executable as `dev`, on a folder of its own.
pub(super) struct Place {
    process: Process,
    more: Vec<String>,
    folder: Folder,
}

impl Place {
    pub(super) fn make(below: Option<&Path>) -> Result<Self, Error> {
        let folder = Folder::make(below)?;
        let data = folder.path().join("data").display().to_string();
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--data", &data];
        let process = Process::new("dev", folder.path(), &arguments)?;
        Ok(Self { process, more: Vec::new(), folder })
    }

    /// Starts it with these arguments from now on.
    pub(super) fn with(mut self, more: &[&str]) -> Self {
        self.more = more.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the process in order.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        self.process.stop().await
    }
}

impl Site for Place {
    async fn start(&mut self) -> Result<f64, Error> {
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        self.process.start(&more).await
    }

    async fn crash(&mut self) -> Result<(), Error> {
        self.process.crash().await
    }

    fn client(&self) -> Result<Client, Error> {
        Target { ready_file: Some(self.process.ready_file()), ..Target::default() }.client()
    }

    fn memory_kib(&self) -> f64 {
        self.process.memory_kib()
    }

    fn guests(&self) -> Vec<u32> {
        self.folder.guests("data")
    }
}
