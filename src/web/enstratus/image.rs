//! `infrastructure/MachineImage`, whose collection is called `images`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::{Call, Details};
use super::reply::put;
use crate::model::{Micros, RegionId};
use crate::store::provisioning::access::ACTIVE;
use crate::store::provisioning::catalog::{self, ImageRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, region) = (call.customer(), call.query.id("regionId")?.map(RegionId));
    let (active, registered) = (call.query.flag("active")?, call.query.flag("registered")?);
    let (rows, regions) = call
        .read(move |c| Ok((catalog::images(c, customer, region)?, catalog::regions(c, customer)?)))
        .await?;
    let wanted = |row: &ImageRow| {
        active.is_none_or(|active| active == (row.status == ACTIVE))
            // Asking for unregistered images is how clients ask for all of them.
            && !(registered == Some(true) && row.agent_version == 0)
    };
    let rows: Vec<ImageRow> = rows.into_iter().filter(wanted).collect();
    let expand = call.details == Details::Extended;
    let whole = |row: &ImageRow| {
        let mut image = shape(row);
        if let Some(region) = regions.iter().find(|region| expand && region.id == row.region) {
            put(&mut image, "region", super::region::shape(region));
        }
        image
    };
    Ok(call.pick(rows, |row| row.id).iter().map(whole).collect())
}

pub(super) fn shape(row: &ImageRow) -> Value {
    json!({
        "machineImageId": row.id,
        "name": row.name,
        "description": row.description,
        "providerId": row.provider_id,
        "platform": row.platform,
        "architecture": row.architecture,
        "owningCloudAccountNumber": row.owner_number,
        "agentVersion": row.agent_version,
        "budget": row.budget,
        "creationTimestamp": Micros(row.created_at).enstratus(),
        "removable": false,
        "sharable": false,
        "status": row.status,
        "owningAccount": { "accountId": row.account },
        "customer": { "customerId": row.customer },
        "cloud": { "cloudId": row.cloud },
        "region": { "regionId": row.region },
    })
}
