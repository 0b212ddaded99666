//! Identities. Public ids are integers handed out by a sequencer; uids are 128 random bits made before the first
//! write, so that a restored database never gives an old name to a new thing.

use std::fmt;
use std::str::FromStr;

macro_rules! integer_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

integer_ids! {
    /// Public number of a job, as clients poll it.
    JobId,
    /// The tenant that owns a row.
    CustomerId,
    /// An account at a cloud.
    AccountId,
    /// A cloud.
    CloudId,
    /// A region of a cloud.
    RegionId,
    /// A data centre of a region.
    DataCenterId,
    /// Public number of a server.
    ServerId,
    /// An enrolled guest agent.
    AgentId,
    /// A user of the console or the API.
    UserId,
    /// A group of users.
    GroupId,
    /// A role of a group.
    RoleId,
    /// A billing code (budget).
    BillingCodeId,
    /// A server product.
    ProductId,
    /// A machine image.
    ImageId,
    /// The fence of a job: raised only by a claim.
    Epoch,
}

/// How often the rows of an installation were put back to an older state. Epochs of a generation are above all those of
/// the one before, also of claims that the rows have forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Epoch {
    /// The epoch of the next claim.
    #[must_use]
    pub fn after(self, generation: Generation) -> Self {
        // An epoch is a generation's number in its upper half and counts up in its lower one.
        let first = (i64::from(generation.0) << 32).saturating_add(1);
        Self(self.0.saturating_add(1).max(first))
    }
}

/// 128 random bits, written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid([u8; 16]);

/// Text that is no [`Uid`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an id of 32 hexadecimal digits")]
pub struct InvalidUid(String);

impl Uid {
    /// A uid of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A fresh uid from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: nothing can be named safely then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        #[cfg(test)]
        if super::dice::fill(&mut bytes) {
            return Self(bytes);
        }
        #[expect(clippy::expect_used, reason = "without randomness no id is safe to hand out")]
        getrandom::fill(&mut bytes).expect("the operating system's random source answers");
        Self(bytes)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, InvalidUid> {
        let invalid = || InvalidUid(text.chars().take(64).collect());
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(invalid());
        }
        let number = u128::from_str_radix(text, 16).ok().ok_or_else(invalid)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl serde::Serialize for Uid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! uids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uid);

        impl $name {
            /// A fresh random one.
            #[must_use]
            pub fn random() -> Self {
                Self(Uid::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidUid;

            fn from_str(text: &str) -> Result<Self, InvalidUid> {
                text.parse().map(Self)
            }
        }
    )+};
}

uids! {
    /// Names a job for ever, made before its first write.
    JobUid,
    /// Names one call sent.
    AttemptUid,
    /// Names one watch (job, step, try).
    WatchUid,
    /// Names one life of one process.
    Boot,
}

#[cfg(test)]
mod tests {
    use super::{Epoch, Generation, Uid};

    #[test]
    fn an_epoch_rises_by_one_and_above_every_one_of_an_older_generation() {
        assert_eq!(Epoch(0).after(Generation(0)), Epoch(1));
        assert_eq!(Epoch(7).after(Generation(0)), Epoch(8));
        assert_eq!(Epoch(7).after(Generation(2)), Epoch((2 << 32) + 1));
        assert_eq!(Epoch((2 << 32) + 1).after(Generation(2)), Epoch((2 << 32) + 2));
        assert!(Epoch(i64::from(u32::MAX)).after(Generation(1)) > Epoch(i64::from(u32::MAX)));
    }

    #[test]
    fn a_uid_survives_its_text_and_nothing_else_parses() {
        let uid = Uid::random();
        assert_eq!(uid.to_string().parse::<Uid>(), Ok(uid));
        for bad in ["", "xyz", "0123456789ABCDEF0123456789ABCDEF", "+123456789abcdef0123456789abcdef"] {
            assert!(bad.parse::<Uid>().is_err(), "{bad} parsed");
        }
        assert_ne!(Uid::random(), uid);
    }
}
