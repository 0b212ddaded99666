//! Keys in files that nobody else may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crypto::{self, Key};

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or made.
    #[error("key file {path} cannot be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Others could read it.
    #[error("key file {path} has mode {mode:04o}, so group or others may reach it; run: chmod 0400 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its content is no key.
    #[error("key file {path} must hold 64 hexadecimal digits; make one with: openssl rand -hex 32")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crypto::Error,
    },
}

/// Reads a key of 64 hexadecimal digits from a regular file that only its owner can reach.
///
/// # Errors
/// [`KeyFileError`], each with its remedy. The text never shows what the file holds.
pub fn load(path: &Path) -> Result<Key, KeyFileError> {
    let file = File::open(path).map_err(io_error(path))?;
    // The open file is looked at, not the path: nobody can exchange it in between.
    let about = file.metadata().map_err(io_error(path))?;
    if !about.is_file() {
        return Err(io_error(path)(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    file.take(128).read_to_end(&mut text).map_err(io_error(path))?;
    parse(&text).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Reads the key file, or makes one with a fresh key and mode 0400 where none is.
///
/// # Errors
/// As [`load`].
pub fn load_or_make(path: &Path) -> Result<Key, KeyFileError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o400).open(path) {
        Ok(mut file) => {
            let text = Zeroizing::new(crypto::hex::encode(Key::random().expose()));
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error(path))?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io_error(path)(e)),
    }
    load(path)
}

fn parse(text: &[u8]) -> Result<Key, crypto::Error> {
    let text = std::str::from_utf8(text.trim_ascii()).ok().ok_or(crypto::Error::Encoding("hexadecimal"))?;
    Key::from_slice(&Zeroizing::new(crypto::hex::decode(text)?))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{KeyFileError, load, load_or_make};

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        let first = load_or_make(&path).expect("made");
        assert_eq!(load_or_make(&path).expect("kept").id(), first.id());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o400);
    }

    #[test]
    fn a_key_that_others_can_reach_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        load_or_make(&path).expect("made");
        for mode in [0o644, 0o440, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("own file");
            let error = load(&path).err().expect("refused");
            assert!(matches!(error, KeyFileError::Mode { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains(&format!("chmod 0400 {}", path.display())), "{error}");
        }
        for mode in [0o400, 0o600] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("own file");
            assert!(load(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn content_that_is_no_key_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        for bad in ["", "secret-but-no-key", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32)] {
            fs::write(&path, bad).expect("own file");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("own file");
            let error = load(&path).err().expect("refused");
            assert!(matches!(error, KeyFileError::Content { .. }), "{error}");
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
    }
}
