//! `geography/Cloud`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::store::provisioning::catalog::{self, CloudRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let public = call.query.flag("publicOnly")?.unwrap_or(false);
    let status = call.query.text("status").map(str::to_owned);
    let rows = call.read(move |c| catalog::clouds(c, customer)).await?;
    let wanted = |row: &CloudRow| {
        !(public && row.private_cloud) && status.as_ref().is_none_or(|status| *status == row.status)
    };
    let rows: Vec<CloudRow> = rows.into_iter().filter(wanted).collect();
    Ok(call.pick(rows, |row| row.id).iter().map(shape).collect())
}

pub(super) fn shape(row: &CloudRow) -> Value {
    json!({
        "cloudId": row.id,
        "name": row.name,
        "cloudProviderName": row.provider,
        "cloudProviderConsoleURL": "",
        "cloudProviderLogoURL": "",
        "computeDelegate": row.driver,
        "computeEndpoint": row.endpoint,
        "computeAccountNumberLabel": "Account number",
        "computeAccessKeyLabel": "Access key",
        "computeSecretKeyLabel": "Secret key",
        "documentationLabel": null,
        "privateCloud": row.private_cloud,
        "status": row.status,
    })
}
