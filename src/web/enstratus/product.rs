//! `infrastructure/ServerProduct`. Clients launch by `providerProductId`, not by number.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::model::RegionId;
use crate::store::provisioning::catalog::{self, ProductRow, RegionRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, region) = (call.customer(), call.query.id("regionId")?.map(RegionId));
    let (rows, regions) = call
        .read(move |c| Ok((catalog::products(c, customer, region)?, catalog::regions(c, customer)?)))
        .await?;
    Ok(call.pick(rows, |row| row.id).iter().map(|row| shape(row, &regions)).collect())
}

pub(super) fn shape(row: &ProductRow, regions: &[RegionRow]) -> Value {
    let region = regions.iter().find(|region| region.id == row.region);
    json!({
        "productId": row.id,
        "name": row.name,
        "description": row.description,
        "providerProductId": row.provider_id,
        "providerRegionId": region.map_or("", |region| region.provider_id.as_str()),
        "architecture": row.architecture,
        "platform": row.platform,
        "cpuCount": row.cpu_count,
        "cpuSpeedInMhz": row.cpu_mhz,
        "ramInMb": row.ram_mb,
        "diskSizeInGb": row.disk_gb,
        "hourlyRate": row.hourly_rate,
        "currency": row.currency,
        "software": "",
        "cloud": { "cloudId": row.cloud },
    })
}
