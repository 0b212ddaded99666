//! How the broker is reached. A password comes from a file that only its owner may read, and from nowhere else.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};

use crate::config;
use crate::crypto::Secret;
use crate::mq::Error;

/// The user RabbitMQ is installed with, whose password is no secret and who may come from loopback only.
const PUBLIC_USER: &str = "guest";
/// Longest password file.
const LONGEST: u64 = 1024;

/// Where the broker is and who we are to it.
pub struct Address {
    uri: AMQPUri,
    password: Option<Secret>,
    authorities: Option<String>,
}

impl Address {
    /// Reads it from the settings and the files they name.
    ///
    /// # Errors
    /// [`Error`] names the setting and the remedy; never a password.
    pub fn of(settings: &config::Queue) -> Result<Self, Error> {
        let bare = settings.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = bare.split(['/', '?']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Error::Url("holds a password; move it to queue.password_file".to_owned()));
        }
        let filled = match user {
            // The parser wants a password wherever there is a user; the real one is filled in when dialling.
            Some(user) => settings.url.replacen(&format!("{user}@"), &format!("{user}:-@"), 1),
            None => settings.url.clone(),
        };
        let mut uri: AMQPUri = filled.parse().map_err(|e| Error::Url(format!("is no address: {e}")))?;
        let user = user.unwrap_or(PUBLIC_USER);
        let local = is_loopback(&uri.authority.host);
        if uri.scheme == AMQPScheme::AMQP && !local {
            return Err(Error::Url("speaks plain AMQP beyond this machine; write amqps://".to_owned()));
        }
        let password = match &settings.password_file {
            Some(file) => Some(secret(file)?),
            None if user == PUBLIC_USER && local => None,
            None => return Err(Error::Url(format!("names user {user}; set queue.password_file"))),
        };
        user.clone_into(&mut uri.authority.userinfo.username);
        PUBLIC_USER.clone_into(&mut uri.authority.userinfo.password);
        uri.query.heartbeat = Some(settings.heartbeat_s);
        uri.query.connection_timeout = Some(settings.connect_ms);
        let authorities = match &settings.ca_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|source| Error::Authorities { path: file.display().to_string(), source })?,
            ),
            None => None,
        };
        Ok(Self { uri, password, authorities })
    }

    /// Host and port, as health shows them.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Dials, without any recovery of lapin's own.
    pub(super) async fn dial(&self, name: &str, limit: Duration) -> Result<Connection, String> {
        let mut uri = self.uri.clone();
        if let Some(password) = &self.password {
            let text = std::str::from_utf8(password.expose()).map_err(|e| e.to_string())?;
            text.clone_into(&mut uri.authority.userinfo.password);
        }
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.authorities.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(|e| e.to_string())?;
        let dialled = Connection::connect_uri_with_config(uri, properties, tls, runtime);
        match tokio::time::timeout(limit, Box::pin(dialled)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_late) => Err(format!("no answer within {limit:?}")),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn secret(path: &Path) -> Result<Secret, Error> {
    let wrong = |text: String| Error::Password { path: path.display().to_string(), text };
    let file = File::open(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let mode = file.metadata().map_err(|e| wrong(format!("cannot be read: {e}")))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(wrong(format!("has mode {mode:04o}, so others may reach it; run: chmod 0400 on it")));
    }
    let mut text = zeroize::Zeroizing::new(String::with_capacity(usize::try_from(LONGEST).unwrap_or(0)));
    file.take(LONGEST).read_to_string(&mut text).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(wrong("is empty".to_owned()));
    }
    Ok(Secret::from(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::Address;
    use crate::config::Queue;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn of(url: &str) -> Result<Address, String> {
        Address::of(&Queue { url: url.to_owned(), ..Queue::default() }).map_err(|e| e.to_string())
    }

    #[test]
    fn only_the_public_user_on_loopback_needs_no_password_file() {
        let local = of("amqp://127.0.0.1:5673").expect("an address");
        assert_eq!(
            (local.shown().as_str(), local.uri.authority.userinfo.username.as_str()),
            ("127.0.0.1:5673", "guest")
        );
        assert_eq!((local.uri.vhost.as_str(), local.uri.query.heartbeat), ("/", Some(8)));
        assert!(of("amqp://guest@localhost:5673/%2f").is_ok());
        for (url, said) in [
            ("amqp://guest:guest@127.0.0.1", "password_file"),
            ("amqp://dispatcher@127.0.0.1", "password_file"),
            ("amqps://guest@broker.example", "password_file"),
            ("amqp://broker.example", "amqps://"),
        ] {
            let text = of(url).err().expect("refused");
            assert!(text.contains(said) && !text.contains("guest:guest"), "{url}: {text}");
        }
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"hush\n").expect("room");
        let settings = Queue {
            url: "amqps://dispatcher@broker.example/jobs".to_owned(),
            password_file: Some(file.path().to_owned()),
            ..Queue::default()
        };
        let address = Address::of(&settings).expect("mode 0600");
        assert_eq!(address.password.as_ref().expect("read").expose(), b"hush");
        assert_eq!(
            (address.uri.vhost.as_str(), address.uri.authority.userinfo.username.as_str()),
            ("jobs", "dispatcher")
        );
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("own file");
        let text = Address::of(&settings).err().expect("refused").to_string();
        assert!(text.contains("chmod") && !text.contains("hush"), "{text}");
    }
}
