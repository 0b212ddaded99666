//! `admin/User`.

use serde_json::{Value, json};

use super::super::Fault;
use super::call::Call;
use super::reply::{only, put};
use crate::store::provisioning::access::{self, MemberRow, PersonRow};
use crate::store::provisioning::catalog::{self, BillingCodeRow};

pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let customer = call.customer();
    let (people, members, codes) = call
        .read(move |c| {
            let people = access::people(c, customer)?;
            let ids: Vec<i64> = people.iter().map(|person| person.id).collect();
            Ok((people, access::memberships(c, &ids)?, catalog::billing_codes(c, customer)?))
        })
        .await?;
    Ok(call.pick(people, |row| row.id).iter().map(|row| shape(row, &members, &codes)).collect())
}

/// Every code of the tenant may be charged: people are not limited to some of them.
fn shape(row: &PersonRow, members: &[MemberRow], codes: &[BillingCodeRow]) -> Value {
    let mut user = alone(row);
    let groups = members.iter().filter(|member| member.person == row.id);
    let groups: Vec<Value> = groups.map(|member| only("groupId", member.user_group)).collect();
    put(&mut user, "groups", groups);
    let codes: Vec<Value> = codes.iter().map(|code| only("billingCodeId", code.id)).collect();
    put(&mut user, "billingCodes", codes);
    user
}

/// Its own fields.
pub(super) fn alone(row: &PersonRow) -> Value {
    json!({
        "userId": row.id,
        "accountUserId": row.id,
        "givenName": row.given_name,
        "familyName": row.family_name,
        "alphaName": format!("{}, {}", row.family_name, row.given_name),
        "email": row.email,
        "status": row.status,
        "timeZone": row.time_zone,
        "vmLoginId": vm_login(row.id),
        "sshPublicKey": "",
        "editable": false,
        "hasCloudAPIAccess": false,
        "hasCloudConsoleAccess": false,
        "customer": { "customerId": row.customer },
        "account": { "accountId": row.account },
    })
}

/// The name a person has on guests.
pub(super) fn vm_login(id: i64) -> String {
    format!("p{id}")
}
