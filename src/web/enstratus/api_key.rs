//! `admin/ApiKey`. Secrets are never shown: they were, once, when the key was made.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use super::reply::put;
use crate::model::Micros;
use crate::store::provisioning::access::{self, ApiKeyRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let (account, user) = (call.query.id("accountId")?, call.query.id("userId")?);
    let rows = call.read(move |c| access::api_keys(c, customer)).await?;
    let wanted = |row: &&ApiKeyRow| {
        call.id.as_ref().is_none_or(|id| *id == row.access_key)
            && account.is_none_or(|account| account == row.account)
            && user.is_none_or(|user| user == row.person)
    };
    Ok(rows.iter().filter(wanted).map(shape).collect())
}

fn shape(row: &ApiKeyRow) -> Value {
    let mut key = json!({
        "accessKey": row.access_key,
        "name": row.name,
        "description": row.description,
        "state": row.state,
        "activation": Micros(row.activated_at).enstratus(),
        "account": { "accountId": row.account },
        "customer": { "customerId": row.customer },
        "customerManagementKey": false,
        "systemManagementKey": false,
        "user": { "userId": row.person },
    });
    if let Some(at) = row.expires_at {
        put(&mut key, "expiration", Micros(at).enstratus());
    }
    key
}
