//! Giving up root: a process reads its keys and binds its listeners as root, and does everything else as somebody else.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getresuid, initgroups, setegid, seteuid, setgid, setuid};

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

/// Who a process that was started by root runs as.
///
/// Between [`step_down`](Runner::step_down) and [`stay_down`](Runner::stay_down) files are made and opened as that user, and
/// what only root may do is done inside [`raised`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    user: String,
    uid: Uid,
    gid: Gid,
}

impl Runner {
    /// Looks up the user, and the group where one is named; none where no user is named.
    ///
    /// # Errors
    /// [`Error`]: nobody of that name, or this process is neither root nor that user.
    pub fn find(user: &str, group: &str) -> Result<Option<Self>, Error> {
        if user.is_empty() {
            return Ok(None);
        }
        let unknown = |key, name: &str, what| Error::Unknown { key, name: name.to_owned(), what };
        let found = User::from_name(user).map_err(refused(user, "reading the user"))?;
        let found = found.ok_or_else(|| unknown("process.user", user, "user"))?;
        let gid = if group.is_empty() {
            found.gid
        } else {
            let named = Group::from_name(group).map_err(refused(user, "reading the group"))?;
            named.ok_or_else(|| unknown("process.group", group, "group"))?.gid
        };
        let may = Uid::effective().is_root() || Uid::effective() == found.uid;
        let runner = Self { user: user.to_owned(), uid: found.uid, gid };
        if may { Ok(Some(runner)) } else { Err(Error::NotRoot(runner.user)) }
    }

    /// Acts as the user from now on, in all threads; root can still be [`raised`]. Who is that user already changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`]; the process must not go on then.
    pub fn step_down(&self) -> Result<(), Error> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let name = CString::new(self.user.as_str()).map_err(|_nul| Error::Unknown {
            key: "process.user",
            name: self.user.clone(),
            what: "user",
        })?;
        // Groups first: afterwards there is no right to change them.
        initgroups(&name, self.gid).map_err(refused(&self.user, "setting the groups"))?;
        setegid(self.gid).map_err(refused(&self.user, "setting the group"))?;
        seteuid(self.uid).map_err(refused(&self.user, "setting the user"))
    }

    /// Becomes the user for good.
    ///
    /// # Errors
    /// [`Error::Refused`]; the process must not go on then.
    pub fn stay_down(&self) -> Result<(), Error> {
        if !can_be_raised() {
            return Ok(());
        }
        let root = Uid::from_raw(0);
        seteuid(root).map_err(refused(&self.user, "leaving root"))?;
        setgid(self.gid).map_err(refused(&self.user, "setting the group"))?;
        setuid(self.uid).map_err(refused(&self.user, "setting the user"))?;
        let stayed = Uid::effective() != self.uid || Gid::effective() != self.gid || setuid(root).is_ok();
        if stayed && !self.uid.is_root() {
            return Err(refused(&self.user, "giving up root")(nix::errno::Errno::EPERM));
        }
        Ok(())
    }
}

fn refused(user: &str, step: &'static str) -> impl FnOnce(nix::errno::Errno) -> Error {
    let user = user.to_owned();
    move |source| Error::Refused { user, step, source }
}

/// Whether this process stepped down from root and may still go back.
fn can_be_raised() -> bool {
    getresuid().is_ok_and(|ids| ids.saved.is_root() && !ids.effective.is_root())
}

/// Does something that only root may, such as listening on a port below 1024, where this process stepped down and may
/// still go back; plainly where not.
pub fn raised<T>(act: impl FnOnce() -> T) -> T {
    let user = Uid::effective();
    if !can_be_raised() || seteuid(Uid::from_raw(0)).is_err() {
        return act();
    }
    let done = act();
    // It cannot fail: a process may always leave root.
    if let Err(errno) = seteuid(user) {
        log::error!("the process stays root: it cannot go back to user {user}: {errno}");
    }
    done
}

#[cfg(test)]
mod tests {
    use super::{Runner, raised};

    #[test]
    fn nobody_named_changes_nothing_and_a_stranger_is_refused() {
        assert_eq!(Runner::find("", "ignored").expect("nobody named"), None);
        let error = Runner::find("no-such-user-here", "").expect_err("refused").to_string();
        assert!(error.contains("process.user") && error.contains("no-such-user-here"), "{error}");
        let error = Runner::find("root", "no-such-group-here").expect_err("refused").to_string();
        assert!(error.contains("process.group") && error.contains("no-such-group-here"), "{error}");
        assert_eq!(raised(|| 3), 3, "a process that never stepped down just acts");
    }
}
