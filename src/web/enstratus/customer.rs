//! `admin/Customer`: the caller's own tenant and no other.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::model::Micros;
use crate::store::provisioning::catalog::{self, CustomerRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let wanted = call.query.id("customer_id")?;
    let row = call.read(move |c| catalog::customer(c, customer)).await?;
    let rows = row.into_iter().filter(|row| wanted.is_none_or(|id| id == row.id)).collect();
    Ok(call.pick(rows, |row| row.id).iter().map(shape).collect())
}

pub(super) fn shape(row: &CustomerRow) -> Value {
    let created = Micros(row.created_at).enstratus();
    json!({
        "customerId": row.id,
        "businessName": row.name,
        "accountingCurrency": row.currency,
        "timeZone": row.time_zone,
        "status": row.status,
        "automatedExchangeRates": false,
        "created": created,
        "createdTimestamp": created,
    })
}
