//! `admin/Account`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::model::CloudId;
use crate::store::provisioning::catalog::{self, AccountRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, cloud) = (call.customer(), call.query.id("cloudId")?.map(CloudId));
    let rows = call.read(move |c| catalog::accounts(c, customer, cloud)).await?;
    let rows = call.pick(rows, |row| row.id);
    Ok(rows.iter().map(|row| shape(row, &call.version)).collect())
}

/// Until 2012 the subscription stood in a field with an odd name.
const RENAMED: &str = "2013";

pub(super) fn shape(row: &AccountRow, version: &str) -> Value {
    let subscription = if version < RENAMED { "cloudSubscriptionId" } else { "cloudSubscription" };
    json!({
        "accountId": row.id,
        "name": row.name,
        "status": row.status,
        "configured": !row.credential.is_empty(),
        "provisioned": true,
        "subscribed": true,
        "dnsAutomation": false,
        "planId": 1,
        "defaultBudget": row.default_budget,
        "billingSystemId": row.id.to_string(),
        "owner": { "userId": row.owner },
        "customer": { "customerId": row.customer },
        subscription: {
            "cloudSubscriptionId": row.id,
            "cloudId": row.cloud,
            "accountNumber": row.account_number,
            "storageAccountNumber": null,
        },
        // No alerts are sent yet: these are the original's defaults, with both kinds off.
        "alertConfiguration": {
            "alertIntervalInMinutes": 5,
            "stopAlertsAfterMinutes": 60,
            "allowIndividualEmailAlerts": false,
            "allowIndividualSmsAlerts": false,
            "globalEmailThreshold": 11,
            "globalSmsThreshold": 11,
        },
    })
}
