//! `admin/Role`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use crate::store::provisioning::access::{self, RoleRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let (account, group) = (call.query.id("account_id")?, call.query.id("group_id")?);
    let (roles, assignments) =
        call.read(move |c| Ok((access::roles(c, customer)?, access::assignments(c, customer)?))).await?;
    let assigned = |role: &RoleRow| {
        (account.is_none() && group.is_none())
            || assignments.iter().any(|a| {
                a.role == role.id
                    && account.is_none_or(|id| id == a.account)
                    && group.is_none_or(|id| id == a.user_group)
            })
    };
    let roles = roles.into_iter().filter(assigned).collect();
    Ok(call.pick(roles, |row| row.id).iter().map(shape).collect())
}

fn shape(row: &RoleRow) -> Value {
    // A list that cannot be read grants nothing, and shows nothing.
    let acl: Vec<crate::access::Rule> = serde_json::from_str(&row.acl).unwrap_or_default();
    json!({
        "roleId": row.id,
        "name": row.name,
        "description": row.description,
        "status": row.status,
        "acl": acl,
        "customer": { "customerId": row.customer },
    })
}
