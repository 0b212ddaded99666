//! `infrastructure/Server` PUT of what only we know: name, description, label, groups, budget. 204.

use super::super::Fault;
use super::call::Call;
use super::reply::Reply;
use super::server_launch::{groups, known_groups};
use super::server_operate::missing;
use super::write::{NO_CONTENT, at_once};
use crate::model::{BillingCodeId, ServerId};
use crate::store::provisioning::catalog;
use crate::store::provisioning::server::{self, Edit};

pub(super) async fn describe(call: Call) -> Result<Reply, Fault> {
    let input = call.input();
    let edit = Edit {
        name: input.at("name").some().map(|name| name.line(128)).transpose()?,
        description: input.at("description").some().map(|text| text.text(255)).transpose()?,
        label: input.at("label").some().map(|label| label.line(32)).transpose()?,
        ..Edit::default()
    };
    if edit == Edit::default() {
        return Err(input.refuse("give name, description or label"));
    }
    write(call, edit).await
}

pub(super) async fn assign_groups(call: Call) -> Result<Reply, Fault> {
    let list = call.input().at("owningGroups");
    let groups = groups(&list)?;
    if groups.is_empty() {
        return Err(list.refuse("give at least one group"));
    }
    write(call, Edit { groups: Some(groups), ..Edit::default() }).await
}

pub(super) async fn assign_budget(call: Call) -> Result<Reply, Fault> {
    let budget = BillingCodeId(call.input().at("budget").id()?);
    write(call, Edit { budget: Some(budget), ..Edit::default() }).await
}

async fn write(call: Call, edit: Edit) -> Result<Reply, Fault> {
    let customer = call.customer();
    let shown = call.id.clone().unwrap_or_default();
    let id = ServerId(call.number().ok_or_else(|| missing(&shown))?);
    let (wanted, path) = (edit.clone(), call.asked.0.clone());
    let check = move |c: &mut _| {
        if server::by_id(c, customer, id)?.is_none() {
            return Ok(Some(missing(&id.to_string())));
        }
        if let Some(budget) = wanted.budget
            && catalog::billing_code(c, customer, budget)?.is_none()
        {
            let message =
                format!("{path}.budget: no billing code {budget}; GET admin/BillingCode lists them");
            return Ok(Some(Fault::bad(message)));
        }
        match &wanted.groups {
            Some(groups) => Ok(known_groups(c, customer, groups, &format!("{path}.owningGroups"))?.err()),
            None => Ok(None),
        }
    };
    at_once(&call, NO_CONTENT, check, move |c| server::edit(c, customer, id, &edit)).await
}
