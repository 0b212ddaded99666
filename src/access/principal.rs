//! Who is asking, and what their roles grant. Everything that is not granted is denied.

use std::sync::Arc;

use super::Error;
use crate::model::{AccountId, CustomerId, UserId};

macro_rules! acl_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal, $text:literal);+ $(;)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in access control lists.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The same for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

acl_words! {
    /// What an action is done to.
    Resource {
        /// Accounts at clouds.
        Account = "ACCOUNT", "accounts";
        /// Keys of programs.
        ApiKey = "API_KEY", "API keys";
        /// Budgets.
        BillingCode = "BILLING_CODE", "billing codes";
        /// The tenant itself.
        Customer = "CUSTOMER", "customers";
        /// Groups, roles and users.
        User = "USER", "users, groups and roles";
        /// Jobs.
        Job = "JOB", "jobs";
        /// Clouds, regions, data centres, products.
        Cloud = "CLOUD", "clouds";
        /// Servers.
        Server = "SERVER", "servers";
        /// Machine images.
        MachineImage = "MACHINE_IMAGE", "machine images";
        /// Everything the dated API knows by name only.
        Other = "OTHER", "this resource";
    }
}

acl_words! {
    /// What is done.
    Verb {
        /// Look.
        Read = "READ", "read";
        /// Make.
        Create = "CREATE", "create";
        /// Change how it is described, who owns it, what it costs.
        Update = "UPDATE", "change";
        /// Start, stop, pause.
        Operate = "OPERATE", "start, stop or pause";
        /// Run a command inside.
        Execute = "EXECUTE", "run commands on";
        /// Destroy.
        Delete = "DELETE", "delete";
        /// Take back what was asked for.
        Cancel = "CANCEL", "cancel";
    }
}

/// One thing that may be allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// To what.
    pub resource: Resource,
    /// What.
    pub verb: Verb,
}

impl Action {
    /// This verb on this resource.
    #[must_use]
    pub const fn new(verb: Verb, resource: Resource) -> Self {
        Self { resource, verb }
    }
}

/// One line of a role's access control list, as the dated API shows it. `ANY` stands for everything; a word that
/// nobody knows, or a qualifier other than `ANY`, grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Resource word or `ANY`.
    pub resource_type: String,
    /// Verb word or `ANY`.
    pub action: String,
    /// `ANY`.
    pub qualifier: String,
}

const ANY: &str = "ANY";

impl Rule {
    /// The rule that grants everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { resource_type: ANY.to_owned(), action: ANY.to_owned(), qualifier: ANY.to_owned() }
    }

    fn grants(&self, action: Action) -> bool {
        let matches = |word: &str, wanted: &str| word == ANY || word == wanted;
        matches(&self.resource_type, action.resource.word())
            && matches(&self.action, action.verb.word())
            && self.qualifier == ANY
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The tenant: every query filters by it.
    pub customer: CustomerId,
    /// The account they work in.
    pub account: AccountId,
    /// The person behind the key or the session.
    pub person: UserId,
    /// The API key; the login name of a console session.
    pub access_key: String,
    /// For logs and pages.
    pub name: String,
    rules: Arc<[Rule]>,
}

/// Who it is, before their rules are known.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The tenant.
    pub customer: CustomerId,
    /// The account they work in.
    pub account: AccountId,
    /// The person.
    pub person: UserId,
    /// The API key, or the login name.
    pub access_key: String,
    /// For logs and pages.
    pub name: String,
}

impl Principal {
    /// Somebody with these rules.
    #[must_use]
    pub fn new(identity: Identity, rules: impl Into<Arc<[Rule]>>) -> Self {
        let Identity { customer, account, person, access_key, name } = identity;
        Self { customer, account, person, access_key, name, rules: rules.into() }
    }

    /// Whether their roles grant this.
    #[must_use]
    pub fn can(&self, action: Action) -> bool {
        self.rules.iter().any(|rule| rule.grants(action))
    }

    /// The same as an error that says what is missing.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn must(&self, action: Action) -> Result<(), Error> {
        if self.can(action) {
            return Ok(());
        }
        Err(Error::Forbidden {
            name: self.name.clone(),
            action: action.verb.text(),
            resource: action.resource.text(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Identity, Principal, Resource, Rule, Verb};
    use crate::model::{AccountId, CustomerId, UserId};

    fn with(rules: &[(&str, &str, &str)]) -> Principal {
        let identity = Identity {
            customer: CustomerId(1),
            account: AccountId(2),
            person: UserId(3),
            access_key: "K".to_owned(),
            name: "k".to_owned(),
        };
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(resource, action, qualifier)| Rule {
                resource_type: (*resource).to_owned(),
                action: (*action).to_owned(),
                qualifier: (*qualifier).to_owned(),
            })
            .collect();
        Principal::new(identity, rules)
    }

    #[test]
    fn every_pair_is_granted_by_exactly_the_rules_that_name_it() {
        for resource in Resource::ALL {
            for verb in Verb::ALL {
                let action = Action::new(*verb, *resource);
                assert!(with(&[("ANY", "ANY", "ANY")]).can(action));
                assert!(with(&[(resource.word(), "ANY", "ANY")]).can(action));
                assert!(with(&[("ANY", verb.word(), "ANY")]).can(action));
                assert!(with(&[(resource.word(), verb.word(), "ANY")]).can(action));
                for rules in [
                    &[][..],
                    &[("ANY", "ANY", "MINE")],
                    &[("any", "any", "any")],
                    &[("", "", "")],
                    &[("NOTHING", "ANY", "ANY"), ("ANY", "NOTHING", "ANY")],
                ] {
                    assert!(!with(rules).can(action), "{rules:?} granted {action:?}");
                }
            }
        }
        let reader = with(&[("SERVER", "READ", "ANY")]);
        assert!(!reader.can(Action::new(Verb::Delete, Resource::Server)));
        assert!(!reader.can(Action::new(Verb::Read, Resource::Job)));
        let error = reader.must(Action::new(Verb::Delete, Resource::Server)).expect_err("not granted");
        assert!(error.to_string().starts_with("k may not delete servers"), "{error}");
    }
}
