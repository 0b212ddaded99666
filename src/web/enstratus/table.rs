//! The table of the dated API: every resource, every verb, and the permission each needs.

use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use super::super::Fault;
use super::call::Call;
use super::reply::Reply;
use super::{
    account, api_key, billing_code, cloud, customer, group, image, job, product, region, role, server,
    server_edit, server_launch, server_operate, subscription, user,
};
use crate::access::{Resource, Verb};

/// Gives all things, or the one whose id is in the path.
pub(super) type Get = fn(Call) -> LocalBoxFuture<'static, Result<Vec<Value>, Fault>>;
/// Carries out one verb.
pub(super) type Run = fn(Call) -> LocalBoxFuture<'static, Result<Reply, Fault>>;

/// Method of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Post,
    Put,
    Delete,
}

/// One verb of a resource. The verb is the body's field; a delete has none.
pub(super) struct Write {
    pub(super) how: How,
    pub(super) verb: &'static str,
    pub(super) needs: Verb,
    pub(super) run: Run,
}

/// What is said about a write that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// The contract has none: 405.
    Never,
    /// The contract has some: 501.
    NotBuilt,
}

/// One resource.
pub(super) struct Row {
    pub(super) path: &'static str,
    pub(super) collection: &'static str,
    pub(super) id: &'static str,
    /// In messages.
    pub(super) thing: &'static str,
    pub(super) on: Resource,
    pub(super) get: Get,
    pub(super) writes: &'static [Write],
    pub(super) others: Others,
}

const fn row(path: &'static str, words: [&'static str; 3], on: Resource, get: Get) -> Row {
    let [collection, id, thing] = words;
    Row { path, collection, id, thing, on, get, writes: &[], others: Others::NotBuilt }
}

/// A resource the contract names and this program does not hold yet: its lists are empty.
const fn empty(path: &'static str, collection: &'static str) -> Row {
    row(path, [collection, "id", "such resource"], Resource::Other, |_| Box::pin(async { Ok(Vec::new()) }))
}

const fn read_only(mut row: Row) -> Row {
    row.others = Others::Never;
    row
}

const fn with(mut row: Row, writes: &'static [Write]) -> Row {
    row.writes = writes;
    row
}

const fn post(verb: &'static str, needs: Verb, run: Run) -> Write {
    Write { how: How::Post, verb, needs, run }
}

const fn put(verb: &'static str, needs: Verb, run: Run) -> Write {
    Write { how: How::Put, verb, needs, run }
}

const fn delete(needs: Verb, run: Run) -> Write {
    Write { how: How::Delete, verb: "", needs, run }
}

const BILLING_CODE: &[Write] = &[
    post("addBillingCode", Verb::Create, |c| Box::pin(billing_code::add(c))),
    delete(Verb::Delete, |c| Box::pin(billing_code::delete(c))),
];

const SERVER: &[Write] = &[
    post("launch", Verb::Create, |c| Box::pin(server_launch::launch(c))),
    put("start", Verb::Operate, |c| Box::pin(server_operate::start(c))),
    put("stop", Verb::Operate, |c| Box::pin(server_operate::stop(c))),
    put("pause", Verb::Operate, |c| Box::pin(server_operate::pause(c))),
    put("describeServer", Verb::Update, |c| Box::pin(server_edit::describe(c))),
    put("assignGroups", Verb::Update, |c| Box::pin(server_edit::assign_groups(c))),
    put("assignBudget", Verb::Update, |c| Box::pin(server_edit::assign_budget(c))),
    // Without `terminateAfter` in the query this terminates and asks for the permission to delete as well.
    delete(Verb::Update, |c| Box::pin(server_operate::delete(c))),
];

/// Every resource.
pub(super) static TABLE: &[Row] = &[
    row("admin/Account", ["accounts", "accountId", "account"], Resource::Account, |c| {
        Box::pin(account::get(c))
    }),
    row("admin/ApiKey", ["apiKeys", "accessKey", "API key"], Resource::ApiKey, |c| Box::pin(api_key::get(c))),
    with(
        row(
            "admin/BillingCode",
            ["billingCodes", "billingCodeId", "billing code"],
            Resource::BillingCode,
            |c| Box::pin(billing_code::get(c)),
        ),
        BILLING_CODE,
    ),
    read_only(row("admin/Customer", ["customers", "customerId", "customer"], Resource::Customer, |c| {
        Box::pin(customer::get(c))
    })),
    row("admin/Group", ["groups", "groupId", "group"], Resource::User, |c| Box::pin(group::get(c))),
    read_only(row("admin/Job", ["jobs", "jobId", "job"], Resource::Job, |c| Box::pin(job::get(c)))),
    row("admin/Role", ["roles", "roleId", "role"], Resource::User, |c| Box::pin(role::get(c))),
    row("admin/User", ["users", "userId", "user"], Resource::User, |c| Box::pin(user::get(c))),
    read_only(row("geography/Cloud", ["clouds", "cloudId", "cloud"], Resource::Cloud, |c| {
        Box::pin(cloud::get(c))
    })),
    read_only(row("geography/Region", ["regions", "regionId", "region"], Resource::Cloud, |c| {
        Box::pin(region::regions(c))
    })),
    read_only(row(
        "geography/DataCenter",
        ["dataCenters", "dataCenterId", "data centre"],
        Resource::Cloud,
        |c| Box::pin(region::data_centers(c)),
    )),
    read_only(row("geography/Subscription", ["subscriptions", "regionId", "region"], Resource::Cloud, |c| {
        Box::pin(subscription::get(c))
    })),
    with(
        row("infrastructure/Server", ["servers", "serverId", "server"], Resource::Server, |c| {
            Box::pin(server::get(c))
        }),
        SERVER,
    ),
    row(
        "infrastructure/MachineImage",
        ["images", "machineImageId", "machine image"],
        Resource::MachineImage,
        |c| Box::pin(image::get(c)),
    ),
    read_only(row(
        "infrastructure/ServerProduct",
        ["serverProducts", "productId", "product"],
        Resource::Cloud,
        |c| Box::pin(product::get(c)),
    )),
    empty("infrastructure/Volume", "volumes"),
    empty("infrastructure/Snapshot", "snapshots"),
    empty("network/Firewall", "firewalls"),
    empty("network/FirewallRule", "rules"),
    read_only(empty("network/LoadBalancer", "loadBalancers")),
    empty("network/Network", "networks"),
    empty("platform/RelationalDatabase", "relationalDatabases"),
    read_only(empty("platform/RelationalDatabaseProduct", "rdbmsProducts")),
    empty("platform/StorageObject", "storageObjects"),
    empty("automation/ConfigurationManagementAccount", "cmAccounts"),
    empty("automation/ConfigurationManagementService", "cmServices"),
    read_only(empty("automation/ConfigurationManagementSystem", "cmSystems")),
    empty("automation/Environment", "environments"),
    empty("automation/Personality", "personalities"),
    empty("automation/Script", "scripts"),
    empty("automation/Deployment", "deployments"),
    empty("automation/Tier", "tiers"),
    empty("automation/LaunchConfiguration", "launchConfigurations"),
    read_only(empty("analytics/ServerAnalytics", "analytics")),
    read_only(empty("analytics/TierAnalytics", "analytics")),
];

/// The row of a path such as `admin/Job`.
pub(super) fn find(area: &str, resource: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.path.split_once('/') == Some((area, resource)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{How, TABLE};

    #[test]
    fn each_path_and_each_verb_of_it_is_there_once() {
        let paths: BTreeSet<&str> = TABLE.iter().map(|row| row.path).collect();
        assert_eq!(paths.len(), TABLE.len());
        for row in TABLE {
            let verbs: BTreeSet<&str> = row.writes.iter().map(|w| w.verb).collect();
            assert_eq!(verbs.len(), row.writes.len(), "{}", row.path);
            assert!(row.writes.iter().all(|w| (w.how == How::Delete) == w.verb.is_empty()), "{}", row.path);
        }
    }
}
