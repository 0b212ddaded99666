//! Where a database is: a file, or a server with its user, host, port and name. Passwords are kept apart.

#[cfg(feature = "mysql")]
use std::os::unix::fs::PermissionsExt as _;
#[cfg(feature = "mysql")]
use std::path::Path;

#[cfg(feature = "mysql")]
use super::Error;
#[cfg(feature = "mysql")]
use crate::crypto::Secret;

/// A database URL nobody can connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database url \"{url}\" is not understood: {remedy}")]
pub struct InvalidUrl {
    url: String,
    remedy: &'static str,
}

/// What a URL names.
#[derive(Clone)]
pub enum Target {
    /// A file of this machine, opened by this process.
    File(String),
    /// A database of a MariaDB or MySQL server.
    Server {
        /// User as written, percent signs and all.
        user: String,
        /// Password as written, where the URL holds one.
        password: Option<String>,
        /// Host, with a port where one is given.
        host: String,
        /// Name of the database.
        name: String,
        /// What follows the question mark: sockets and TLS.
        options: Option<String>,
    },
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`InvalidUrl`] with the remedy; it never shows a password.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        const FORM: &str = "write sqlite:///path/to/file or mysql://user@host:port/database";
        let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
        let refuse = |remedy| Err(InvalidUrl { url: format!("{scheme}://…"), remedy });
        match scheme {
            "sqlite" if rest.is_empty() => refuse("a file path must follow sqlite://"),
            "sqlite" => Ok(Self::File(rest.to_owned())),
            "mysql" if !cfg!(feature = "mysql") => {
                refuse("this build has no MySQL; build with --features mysql")
            }
            "mysql" => server(rest).map_or_else(
                || refuse("write mysql://user@host:port/database, its name of letters, digits and _ only"),
                Ok,
            ),
            _ => refuse(FORM),
        }
    }

    /// Whether a password stands in the URL itself.
    #[must_use]
    pub const fn holds_password(&self) -> bool {
        matches!(self, Self::Server { password: Some(_), .. })
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        let mut other = self.clone();
        if let Self::Server { name, .. } = &mut other {
            database.clone_into(name);
        }
        other
    }

    #[cfg(feature = "mysql")]
    /// The URL for the client library; a password given here goes before one in the URL.
    pub(super) fn url(&self, given: Option<&Secret>) -> Secret {
        let text = match self {
            Self::File(path) => format!("sqlite://{path}"),
            Self::Server { user, password, host, name, options } => {
                let given = given.map(|secret| percent(secret.expose()));
                let password =
                    given.or_else(|| password.clone()).map(|p| format!(":{p}")).unwrap_or_default();
                let options = options.as_ref().map(|o| format!("?{o}")).unwrap_or_default();
                format!("mysql://{user}{password}@{host}/{name}{options}")
            }
        };
        Secret::from(text)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "sqlite://{path}"),
            Self::Server { user, host, name, .. } => write!(f, "mysql://{user}@{host}/{name}"),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

fn server(rest: &str) -> Option<Target> {
    let (rest, options) = match rest.split_once('?') {
        Some((rest, options)) => (rest, Some(options.to_owned())),
        None => (rest, None),
    };
    let (place, name) = rest.split_once('/')?;
    let (who, host) = place.rsplit_once('@')?;
    let (user, password) = match who.split_once(':') {
        Some((user, password)) => (user, Some(password.to_owned())),
        None => (who, None),
    };
    let plain = (1..=64).contains(&name.len())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    (plain && !user.is_empty() && !host.is_empty()).then(|| Target::Server {
        user: user.to_owned(),
        password,
        host: host.to_owned(),
        name: name.to_owned(),
        options,
    })
}

#[cfg(feature = "mysql")]
/// Every byte but letters and digits as `%XX`.
fn percent(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(feature = "mysql")]
/// Reads a password's file: its first line. Others than its owner must not be able to read it.
///
/// # Errors
/// [`Error::Connect`] with the remedy.
pub(super) fn password(file: &Path) -> Result<Secret, Error> {
    let shown = file.display();
    let fault = |e: std::io::Error| Error::Connect(format!("the password file {shown} cannot be read: {e}"));
    let mode = std::fs::metadata(file).map_err(fault)?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("others can read the password file {shown}; run chmod 600 {shown}");
        return Err(Error::Connect(text));
    }
    let text = std::fs::read_to_string(file).map_err(fault)?;
    Ok(Secret::from(text.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn the_scheme_decides_and_a_typo_makes_no_file() {
        assert!(Target::parse("sqlite:///tmp/x.db").is_ok());
        for bad in
            ["mysqll:typo", "sqlite://", "/tmp/x.db", "postgres://u:p@h/d", "mysql://h/d", "mysql://u@h/"]
        {
            let error = Target::parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("u:p"), "a password must not be shown: {error}");
        }
        assert!(Target::parse("mysql://u:p@h/d`; drop").is_err(), "a name goes into statements");
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn a_password_is_never_shown_and_one_from_a_file_goes_first() {
        use crate::crypto::Secret;
        let target = Target::parse("mysql://u:old@h:3306/d?ssl_mode=required").expect("a url");
        assert!(target.holds_password());
        assert_eq!(format!("{target} {target:?}"), "mysql://u@h:3306/d mysql://u@h:3306/d");
        let shown = |secret: Secret| String::from_utf8(secret.expose().to_vec()).expect("text");
        assert_eq!(shown(target.url(None)), "mysql://u:old@h:3306/d?ssl_mode=required");
        let given = Secret::from("p@/:%".to_owned());
        assert_eq!(shown(target.url(Some(&given))), "mysql://u:p%40%2F%3A%25@h:3306/d?ssl_mode=required");
        let other = target.with_database("information_schema");
        assert_eq!(other.to_string(), "mysql://u@h:3306/information_schema");
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn a_password_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        use super::password;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode));
        mode(0o644).expect("changed");
        let error = password(file.path()).err().expect("refused").to_string();
        assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        mode(0o600).expect("changed");
        assert_eq!(password(file.path()).expect("read").expose_text(), Some("s3cret"));
    }
}
