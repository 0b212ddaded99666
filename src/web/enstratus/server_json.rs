//! A server as the dated API shows it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::reply::{only, put};
use super::{cloud, customer, group, image, product, region, user};
use crate::model::Micros;
use crate::store::provisioning::access::{GroupRow, PersonRow};
use crate::store::provisioning::catalog::{
    CloudRow, CustomerRow, DataCenterRow, ImageRow, ProductRow, RegionRow,
};
use crate::store::provisioning::server::{ServerRow, groups_of};

/// What servers refer to, as far as the level of detail asked for it. What is not here is shown as its id.
#[derive(Default)]
pub(super) struct Around {
    pub(super) customer: Option<CustomerRow>,
    pub(super) people: HashMap<i64, PersonRow>,
    pub(super) clouds: HashMap<i64, CloudRow>,
    pub(super) regions: Vec<RegionRow>,
    pub(super) data_centers: HashMap<i64, DataCenterRow>,
    pub(super) products: HashMap<i64, ProductRow>,
    pub(super) images: HashMap<i64, ImageRow>,
    pub(super) groups: HashMap<i64, GroupRow>,
}

/// Fields that may be absent are absent, never null: clients loop over lists and fail on null.
pub(super) fn shape(row: &ServerRow, around: &Around) -> Value {
    let mut server = json!({
        "serverId": row.id,
        "name": row.name,
        "description": row.description,
        "providerId": row.provider_id,
        "providerProductId": row.provider_product,
        "platform": row.platform,
        "architecture": row.architecture,
        "status": row.status,
        "agentVersion": row.agent_version,
        "budget": row.budget,
        "startDate": Micros(row.started_at).enstratus(),
        "firewalls": [],
    });
    related(&mut server, row, around);
    let mut optional = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            put(&mut server, name, value);
        }
    };
    let date = |at: Option<i64>| at.map(|at| Value::from(Micros(at).enstratus()));
    optional("label", row.label.clone().map(Value::from));
    optional("keypair", row.keypair.clone().map(Value::from));
    optional("privateIpAddresses", row.private_ip.as_ref().map(|ip| json!([ip])));
    optional("publicIpAddress", row.public_ip.clone().map(Value::from));
    optional("publicIpAddresses", row.public_ip.as_ref().map(|ip| json!([ip])));
    optional("stopDate", date(row.stopped_at));
    optional("terminateAfter", date(row.terminate_after));
    optional("pauseAfter", date(row.pause_after));
    optional("lastAgentContactTimestamp", date(row.last_contact));
    server
}

fn related(server: &mut Value, row: &ServerRow, around: &Around) {
    let full = |found: Option<Value>, field: &str, id: i64| found.unwrap_or_else(|| only(field, id));
    put(server, "customer", full(around.customer.as_ref().map(customer::shape), "customerId", row.customer));
    put(server, "cloud", full(around.clouds.get(&row.cloud).map(cloud::shape), "cloudId", row.cloud));
    let found = around.regions.iter().find(|r| r.id == row.region);
    put(server, "region", full(found.map(region::shape), "regionId", row.region));
    let found = around.data_centers.get(&row.data_center).map(region::data_center);
    put(server, "dataCenter", full(found, "dataCenterId", row.data_center));
    let found = around.images.get(&row.image).map(image::shape);
    put(server, "machineImage", full(found, "machineImageId", row.image));
    let found = around.products.get(&row.product).map(|p| product::shape(p, &around.regions));
    put(server, "product", full(found, "productId", row.product));
    put(server, "owningAccount", only("accountId", row.account));
    if let Some(owner) = owner(row, around) {
        put(server, "owningUser", owner);
    }
    let groups = groups_of(row);
    // Absent or not empty: a client reads the first member without looking.
    if !groups.is_empty() {
        let shown = |id: &i64| full(around.groups.get(id).map(group::alone), "groupId", *id);
        put(server, "owningGroups", groups.iter().map(shown).collect::<Vec<Value>>());
    }
}

/// Clients look owners up by login and email at the basic level too.
fn owner(row: &ServerRow, around: &Around) -> Option<Value> {
    let person = around.people.get(&row.owner)?;
    Some(if around.customer.is_some() {
        user::alone(person)
    } else {
        json!({ "userId": person.id, "accountUserId": person.id, "vmLoginId": user::vm_login(person.id), "email": person.email })
    })
}
