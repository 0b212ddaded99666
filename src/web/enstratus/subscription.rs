//! `geography/Subscription`: what can be done in a region. Servers and images can; all else is said to be absent.

use serde_json::{Map, Value};

use super::super::Fault;
use super::call::Call;
use crate::store::provisioning::catalog;

/// What this program does everywhere it has a cloud.
const YES: &[&str] = &["subscribedServer", "subscribedMachineImage", "privateIPAddressesAssigned"];

/// What it does not.
const NO: &[&str] = &[
    "customImages",
    "customNetworks",
    "customSubnets",
    "hypervisorAnalytics",
    "ipAddressesForwarded",
    "loadBalancerAddressAssigned",
    "loadBalancerCreateWithServer",
    "loadBalancerDataCenterLimited",
    "networkDataCenterConstrained",
    "networkWithSubnets",
    "privateIPAddressesRequestable",
    "privateImageSharing",
    "privateSnapshotSharing",
    "publicIPAddressesAssigned",
    "publicIPAddressesRequestable",
    "publicImageLibrary",
    "publicImageSharing",
    "rdbmsFirewalled",
    "rdbmsHA",
    "rdbmsLA",
    "rdbmsMaintenance",
    "rdbmsSnapshots",
    "serverKeyBootstrapped",
    "subnetDataCenterConstrained",
    "subscribedAutoScaling",
    "subscribedBlobStore",
    "subscribedCDN",
    "subscribedDNS",
    "subscribedEmail",
    "subscribedFirewall",
    "subscribedKVDB",
    "subscribedLoadBalancer",
    "subscribedMQ",
    "subscribedNetwork",
    "subscribedPushNotification",
    "subscribedRDBMS",
    "subscribedSnapshot",
    "subscribedStaticIP",
    "subscribedVPN",
    "subscribedVolume",
];

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, region) = (call.customer(), call.query.id("regionId")?);
    let rows = call.read(move |c| catalog::regions(c, customer)).await?;
    let rows = rows.into_iter().filter(|row| region.is_none_or(|id| id == row.id)).collect();
    Ok(call.pick(rows, |row| row.id).iter().map(|row| shape(row.id)).collect())
}

fn shape(region: i64) -> Value {
    let flag = |value: bool| move |name: &&str| ((*name).to_owned(), Value::Bool(value));
    let mut all: Map<String, Value> = YES.iter().map(flag(true)).chain(NO.iter().map(flag(false))).collect();
    all.insert("regionId".to_owned(), region.into());
    all.insert("maxLoadBalancerListeners".to_owned(), 0.into());
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_45_keys_are_there() {
        assert_eq!(super::shape(7).as_object().map(serde_json::Map::len), Some(45));
    }
}
