//! `admin/BillingCode`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use super::input::Input;
use super::reply::{Reply, put};
use super::write::{NO_CONTENT, at_once};
use crate::model::BillingCodeId;
use crate::store::provisioning::accept::Answer;
use crate::store::provisioning::access::ACTIVE;
use crate::store::provisioning::catalog::{self, BillingCodeRow};
use crate::store::provisioning::sequence::Sequence;

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let rows = call.read(move |c| catalog::billing_codes(c, customer)).await?;
    Ok(call.pick(rows, |row| row.id).iter().map(shape).collect())
}

fn shape(row: &BillingCodeRow) -> Value {
    let money = |value: f64| json!({ "value": value, "currency": row.currency });
    let mut code = json!({
        "billingCodeId": row.id,
        "name": row.name,
        "description": row.description,
        "financeCode": row.finance_code,
        "status": row.status,
        "budgetState": row.budget_state,
        // Costs are not metered yet.
        "currentUsage": money(0.0),
        "projectedUsage": money(0.0),
        "customer": { "customerId": row.customer },
    });
    for (name, quota) in [("softQuota", row.soft_quota), ("hardQuota", row.hard_quota)] {
        if let Some(quota) = quota {
            put(&mut code, name, money(quota));
        }
    }
    code
}

/// `addBillingCode`: 201 with its number. The status is ours to say, not the client's.
pub(super) async fn add(call: Call) -> Result<Reply, Fault> {
    let row = parse(&call.input(), call.customer().0)?;
    let id = call.state.sequencer.next(Sequence::Resource).await?;
    let row = BillingCodeRow { id, ..row };
    let answer = Answer { job: None, status: 201, created: Some(id) };
    at_once(&call, answer, |_| Ok(None), move |c| catalog::add_billing_code(c, &row).map(|_| ())).await
}

fn parse(input: &Input<'_>, customer: i64) -> Result<BillingCodeRow, Fault> {
    let quota = |name: &str| input.at(name).some().map(|q| q.at("value").amount()).transpose();
    let (soft_quota, hard_quota) = (quota("softQuota")?, quota("hardQuota")?);
    if let (Some(soft), Some(hard)) = (soft_quota, hard_quota)
        && soft > hard
    {
        return Err(input.at("softQuota").refuse("give no more than the hard quota"));
    }
    let currency = ["softQuota", "hardQuota"]
        .iter()
        .find_map(|name| input.at(name).at("currency").some())
        .map_or_else(|| Ok("USD".to_owned()), |currency| currency.line(8))?;
    Ok(BillingCodeRow {
        id: 0,
        customer,
        name: input.at("name").line(128)?,
        description: input.at("description").text_or_empty(255)?,
        finance_code: input.at("financeCode").line(64)?,
        status: ACTIVE.to_owned(),
        budget_state: "NORMAL".to_owned(),
        soft_quota,
        hard_quota,
        currency,
    })
}

/// Deletes a code: 204. One that is in use needs `replacementCode`, which takes its place.
pub(super) async fn delete(call: Call) -> Result<Reply, Fault> {
    let customer = call.customer();
    let shown = call.id.clone().unwrap_or_default();
    let id = BillingCodeId(call.number().ok_or_else(|| missing(&shown))?);
    let replacement = call.query.id("replacementCode")?.map(BillingCodeId);
    if replacement == Some(id) {
        return Err(Fault::bad(format!("query replacementCode: billing code {id} cannot replace itself")));
    }
    let check = move |c: &mut _| {
        if catalog::billing_code(c, customer, id)?.is_none() {
            return Ok(Some(missing(&id.to_string())));
        }
        match replacement {
            Some(other) if catalog::billing_code(c, customer, other)?.is_none() => {
                Ok(Some(Fault::bad(format!("query replacementCode: {MISSING} {other}"))))
            }
            None if catalog::billing_code_is_used(c, customer, id)? => Ok(Some(Fault::conflict(format!(
                "billing code {id} is in use by an account or a server; name another one as replacementCode"
            )))),
            _ => Ok(None),
        }
    };
    let apply = move |c: &mut _| {
        if let Some(other) = replacement {
            catalog::replace_billing_code(c, customer, id, other)?;
        }
        catalog::delete_billing_code(c, customer, id).map(|_| ())
    };
    at_once(&call, NO_CONTENT, check, apply).await
}

const MISSING: &str = "no billing code";

fn missing(id: &str) -> Fault {
    let shown: String = id.chars().take(64).collect();
    Fault::not_found(format!("there is {MISSING} {shown}; GET admin/BillingCode lists them"))
}
