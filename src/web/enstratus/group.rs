//! `admin/Group`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use super::reply::put;
use crate::store::provisioning::access::{self, AssignmentRow, GroupRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let account = call.query.id("accountId")?;
    let (groups, roles, assignments) = call
        .read(move |c| {
            Ok((access::groups(c, customer)?, access::roles(c, customer)?, access::assignments(c, customer)?))
        })
        .await?;
    let names: HashMap<i64, String> = roles.into_iter().map(|role| (role.id, role.name)).collect();
    let in_account = |group: &GroupRow| {
        account.is_none_or(|id| assignments.iter().any(|a| a.user_group == group.id && a.account == id))
    };
    let groups = groups.into_iter().filter(in_account).collect();
    Ok(call.pick(groups, |row| row.id).iter().map(|row| shape(row, &assignments, &names)).collect())
}

fn shape(row: &GroupRow, assignments: &[AssignmentRow], names: &HashMap<i64, String>) -> Value {
    let mut group = alone(row);
    let own = assignments.iter().filter(|a| a.user_group == row.id);
    let roles: Vec<Value> = own
        .map(|a| {
            json!({
                "roleId": a.role,
                "roleName": names.get(&a.role).map_or("", String::as_str),
                "accountId": a.account,
            })
        })
        .collect();
    put(&mut group, "roleAssignments", roles);
    group
}

/// Its own fields.
pub(super) fn alone(row: &GroupRow) -> Value {
    json!({
        "groupId": row.id,
        "name": row.name,
        "description": row.description,
        "status": row.status,
        "customer": { "customerId": row.customer },
    })
}
