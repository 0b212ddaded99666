//! Giving up root: a process binds its listeners and reads its keys as root, and runs as somebody else.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};

/// Why a process does not become somebody else.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only root can.
    #[error(
        "settings: process.user is {0}, but only root can become somebody else; start as root, or leave it empty"
    )]
    NotRoot(String),
    /// There is no such user or group on this machine.
    #[error("settings: {key} is {name}, and this machine has no such {what}")]
    Unknown {
        /// The setting.
        key: &'static str,
        /// What it says.
        name: String,
        /// User or group.
        what: &'static str,
    },
    /// The system refused.
    #[error("the process cannot run as {user}: {step} failed")]
    Refused {
        /// As whom.
        user: String,
        /// At which step.
        step: &'static str,
        /// Why.
        #[source]
        source: nix::errno::Errno,
    },
}

/// Becomes this user for good, with the user's own groups, or with `group` as the first of them. Nothing happens where no
/// user is named. All threads of the process change.
///
/// # Errors
/// [`Error`]; the process must not go on then.
pub fn become_user(user: &str, group: &str) -> Result<(), Error> {
    if user.is_empty() {
        return Ok(());
    }
    let refused = |step| move |source| Error::Refused { user: user.to_owned(), step, source };
    let unknown = |key, name: &str, what| Error::Unknown { key, name: name.to_owned(), what };
    let found = User::from_name(user).map_err(refused("reading the user"))?;
    let found = found.ok_or_else(|| unknown("process.user", user, "user"))?;
    let gid = match group {
        "" => found.gid,
        name => {
            Group::from_name(name)
                .map_err(refused("reading the group"))?
                .ok_or_else(|| unknown("process.group", name, "group"))?
                .gid
        }
    };
    if !Uid::effective().is_root() {
        // Who is that user already has nothing to give up.
        return if Uid::effective() == found.uid { Ok(()) } else { Err(Error::NotRoot(user.to_owned())) };
    }
    let name = CString::new(user).map_err(|_nul| unknown("process.user", user, "user"))?;
    // Groups first: afterwards there is no right to change them.
    initgroups(&name, gid).map_err(refused("setting the groups"))?;
    setgid(gid).map_err(refused("setting the group"))?;
    setuid(found.uid).map_err(refused("setting the user"))?;
    let stayed = Uid::effective() != found.uid || Gid::effective() != gid || setuid(Uid::from_raw(0)).is_ok();
    if stayed && !found.uid.is_root() {
        return Err(refused("giving up root")(nix::errno::Errno::EPERM));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::become_user;

    #[test]
    fn nobody_named_changes_nothing_and_a_stranger_is_refused() {
        assert!(become_user("", "ignored").is_ok());
        let error = become_user("no-such-user-here", "").expect_err("refused").to_string();
        assert!(error.contains("process.user") && error.contains("no-such-user-here"), "{error}");
        let error = become_user("root", "no-such-group-here").expect_err("refused").to_string();
        assert!(error.contains("process.group") && error.contains("no-such-group-here"), "{error}");
    }
}
