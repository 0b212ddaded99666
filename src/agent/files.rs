//! Small file helpers: everything the agent writes is for its own eyes (0600, folders 0700), and whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::Error;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Makes a folder and those above it.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
        .map_err(Error::file("make the folder", path))
}

/// Opens a file for appending, making it where it is absent.
pub(super) fn append(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(FILE_MODE);
    options.open(path).map_err(Error::file("open", path))
}

/// Replaces a file: after a crash it has the old or the new content, whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(FILE_MODE);
    let mut file = options.open(&beside).map_err(Error::file("make", &beside))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(Error::file("write", &beside))?;
    std::fs::rename(&beside, path).map_err(Error::file("put in place", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a folder's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::file("sync the folder", path))
}

/// A file's content, or nothing where it is absent.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file("read", path)(e)),
    }
}
