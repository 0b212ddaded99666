//! `geography/Region` and `geography/DataCenter`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::model::{AccountId, RegionId};
use crate::store::provisioning::catalog::{self, DataCenterRow, RegionRow};

pub(super) async fn regions(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let account = call.query.id("accountId")?.map(AccountId);
    let jurisdiction = call.query.text("jurisdiction").map(str::to_owned);
    let (rows, cloud) = call
        .read(move |c| {
            let rows = catalog::regions(c, customer)?;
            let account = account.map(|id| catalog::account(c, customer, id)).transpose()?;
            // Some(None): an account that is not the tenant's has no regions.
            Ok((rows, account.map(|row| row.map(|row| row.cloud))))
        })
        .await?;
    let wanted = |row: &RegionRow| {
        cloud.is_none_or(|cloud| cloud == Some(row.cloud))
            && jurisdiction.as_ref().is_none_or(|wanted| *wanted == row.jurisdiction)
    };
    let rows = rows.into_iter().filter(wanted).collect();
    Ok(call.pick(rows, |row| row.id).iter().map(shape).collect())
}

pub(super) fn shape(row: &RegionRow) -> Value {
    json!({
        "regionId": row.id,
        "name": row.name,
        "description": row.description,
        "jurisdiction": row.jurisdiction,
        "providerId": row.provider_id,
        "status": row.status,
        "cloud": { "cloudId": row.cloud },
        "customer": { "customerId": row.customer },
    })
}

pub(super) async fn data_centers(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, region) = (call.customer(), call.query.id("regionId")?.map(RegionId));
    let rows = call.read(move |c| catalog::data_centers(c, customer, region)).await?;
    Ok(call.pick(rows, |row| row.id).iter().map(data_center).collect())
}

pub(super) fn data_center(row: &DataCenterRow) -> Value {
    json!({
        "dataCenterId": row.id,
        "name": row.name,
        "description": row.description,
        "providerId": row.provider_id,
        "region": { "regionId": row.region },
        "status": row.status,
    })
}
