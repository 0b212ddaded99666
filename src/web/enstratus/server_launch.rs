//! `infrastructure/Server` POST `launch`: everything a job needs is resolved here, against the caller's tenant, before
//! the job is accepted.

use diesel::QueryResult;

use super::super::Fault;
use super::call::Call;
use super::input::Input;
use super::reply::Reply;
use super::submit::{Ask, submit};
use crate::access::Principal;
use crate::crypto::{Aad, base64};
use crate::model::{
    AccountId, BillingCodeId, CloudId, CustomerId, DataCenterId, GroupId, ImageId, JobParams, LaunchParams,
    ProductId, RegionId,
};
use crate::store::AnyConnection;
use crate::store::provisioning::access;
use crate::store::provisioning::catalog::{
    self, AccountRow, BillingCodeRow, DataCenterRow, ImageRow, ProductRow, RegionRow,
};

/// Longest user data, in characters: what the strictest known cloud takes.
const LONGEST_USER_DATA: usize = 16_384;

/// Most groups that own one server.
const MOST_GROUPS: usize = 64;

pub(super) async fn launch(call: Call) -> Result<Reply, Fault> {
    let wanted = Wanted::parse(&call.input())?;
    let principal = call.caller.principal.clone();
    let asked = wanted.clone();
    let found = call.read(move |c| resolve(c, &principal, &asked)).await??;
    let account = AccountId(found.account.id);
    let description = format!("Launch server {}", wanted.name);
    let params = JobParams::LaunchServer(params(&call, wanted, found));
    submit(&call, Ask { params, description, account, server: None }).await
}

/// The body, parsed.
#[derive(Clone)]
struct Wanted {
    path: String,
    name: String,
    description: String,
    product: String,
    image: ImageId,
    data_center: DataCenterId,
    budget: Option<BillingCodeId>,
    label: Option<String>,
    keypair: Option<String>,
    user_data: Option<String>,
    groups: Option<Vec<GroupId>>,
}

impl Wanted {
    fn parse(input: &Input<'_>) -> Result<Self, Fault> {
        let line = |name: &str, most| {
            // Command line clients send "None" where a person gave nothing.
            let text = input.at(name).some().map(|text| text.line(most)).transpose()?;
            Ok::<_, Fault>(text.filter(|text| text != "None"))
        };
        for (name, field) in [("vlan", "vlanId"), ("network", "networkId"), ("subnet", "subnetId")] {
            if let Some(value) = input.at(name).at(field).some().or_else(|| input.at(name).some()) {
                return Err(value.refuse("this cloud has no networks of your own; leave it out"));
            }
        }
        Ok(Self {
            path: input.path().to_owned(),
            name: input.at("name").line(128)?,
            description: input.at("description").text_or_empty(255)?,
            product: input.at("product").at("productId").line(128)?,
            image: ImageId(input.at("machineImage").at("machineImageId").id()?),
            data_center: DataCenterId(input.at("dataCenter").at("dataCenterId").id()?),
            budget: input.at("budget").some().map(|budget| budget.id()).transpose()?.map(BillingCodeId),
            label: line("label", 32)?,
            keypair: line("keypair", 128)?,
            user_data: input.at("userData").some().map(|data| data.text(LONGEST_USER_DATA)).transpose()?,
            groups: input.at("owningGroups").some().map(|list| groups(&list)).transpose()?,
        })
    }

    fn unknown(&self, field: &str, what: &str, lists: &str) -> Fault {
        Fault::bad(format!("{}.{field}: no {what}; GET {lists} lists them", self.path))
    }
}

/// `[{"groupId": 1}]`; absent and empty count as not said.
pub(super) fn groups(list: &Input<'_>) -> Result<Vec<GroupId>, Fault> {
    list.items(MOST_GROUPS)?.iter().map(|group| group.at("groupId").id().map(GroupId)).collect()
}

/// What the body names, found.
struct Found {
    account: AccountRow,
    region: RegionRow,
    data_center: DataCenterRow,
    product: ProductRow,
    image: ImageRow,
    budget: BillingCodeRow,
    groups: Vec<GroupId>,
}

type Resolved<T> = QueryResult<Result<T, Fault>>;

/// Looks up every id in the caller's tenant; another tenant's is as unknown as none.
fn resolve(c: &mut AnyConnection, who: &Principal, wanted: &Wanted) -> Resolved<Found> {
    let customer = who.customer;
    let Some(account) = catalog::account(c, customer, who.account)? else {
        return Ok(Err(Fault::bad(format!("the account {} of this key does not exist", who.account))));
    };
    let (data_center, region) = match place(c, customer, &account, wanted)? {
        Ok(place) => place,
        Err(fault) => return Ok(Err(fault)),
    };
    let region_id = RegionId(region.id);
    let Some(product) = catalog::product_of_provider(c, customer, region_id, &wanted.product)? else {
        let what = format!("product \"{}\" in region {}", wanted.product, region.name);
        let lists = format!("infrastructure/ServerProduct?regionId={region_id} (providerProductId)");
        return Ok(Err(wanted.unknown("product.productId", &what, &lists)));
    };
    let image = catalog::image(c, customer, wanted.image)?.filter(|image| image.region == region.id);
    let Some(image) = image else {
        let what = format!("machine image {} in region {}", wanted.image, region.name);
        let lists = format!("infrastructure/MachineImage?regionId={region_id}");
        return Ok(Err(wanted.unknown("machineImage.machineImageId", &what, &lists)));
    };
    let budget = match budget(c, customer, &account, wanted)? {
        Ok(budget) => budget,
        Err(fault) => return Ok(Err(fault)),
    };
    let groups = match owners(c, who, wanted)? {
        Ok(groups) => groups,
        Err(fault) => return Ok(Err(fault)),
    };
    Ok(Ok(Found { account, region, data_center, product, image, budget, groups }))
}

fn place(
    c: &mut AnyConnection,
    customer: CustomerId,
    account: &AccountRow,
    wanted: &Wanted,
) -> Resolved<(DataCenterRow, RegionRow)> {
    let field = "dataCenter.dataCenterId";
    let Some((data_center, region)) = catalog::data_center(c, customer, wanted.data_center)? else {
        let what = format!("data centre {}", wanted.data_center);
        return Ok(Err(wanted.unknown(field, &what, "geography/DataCenter")));
    };
    if region.cloud != account.cloud {
        let what = format!("data centre {} at the cloud of account {}", wanted.data_center, account.name);
        let lists = format!("geography/Region?accountId={}", account.id);
        return Ok(Err(wanted.unknown(field, &what, &lists)));
    }
    Ok(Ok((data_center, region)))
}

fn budget(
    c: &mut AnyConnection,
    customer: CustomerId,
    account: &AccountRow,
    wanted: &Wanted,
) -> Resolved<BillingCodeRow> {
    let id = wanted.budget.unwrap_or(BillingCodeId(account.default_budget));
    let Some(budget) = catalog::billing_code(c, customer, id)? else {
        return Ok(Err(wanted.unknown("budget", &format!("billing code {id}"), "admin/BillingCode")));
    };
    if budget.budget_state == "HARD_ALARM" {
        let message = format!("billing code {} ({}) is used up; name another one", budget.id, budget.name);
        return Ok(Err(Fault::conflict(message)));
    }
    Ok(Ok(budget))
}

/// The groups said, or the caller's own.
fn owners(c: &mut AnyConnection, who: &Principal, wanted: &Wanted) -> Resolved<Vec<GroupId>> {
    match &wanted.groups {
        Some(groups) if !groups.is_empty() => {
            Ok(known_groups(c, who.customer, groups, &format!("{}.owningGroups", wanted.path))?
                .map(|()| groups.clone()))
        }
        _ => Ok(Ok(access::memberships(c, &[who.person.0])?.iter().map(|m| GroupId(m.user_group)).collect())),
    }
}

/// Whether all of these are the tenant's groups.
pub(super) fn known_groups(
    c: &mut AnyConnection,
    customer: CustomerId,
    groups: &[GroupId],
    path: &str,
) -> Resolved<()> {
    let known = access::groups(c, customer)?;
    let unknown = groups.iter().enumerate().find(|(_, id)| !known.iter().any(|row| row.id == id.0));
    Ok(unknown.map_or(Ok(()), |(n, id)| {
        Err(Fault::bad(format!("{path}[{n}].groupId: no group {id}; GET admin/Group lists them")))
    }))
}

fn params(call: &Call, wanted: Wanted, found: Found) -> LaunchParams {
    LaunchParams {
        name: wanted.name,
        description: wanted.description,
        account: AccountId(found.account.id),
        cloud: CloudId(found.account.cloud),
        region: RegionId(found.region.id),
        data_center: DataCenterId(found.data_center.id),
        provider_data_center: found.data_center.provider_id,
        product: ProductId(found.product.id),
        provider_product: found.product.provider_id,
        image: ImageId(found.image.id),
        provider_image: found.image.provider_id,
        platform: found.image.platform,
        architecture: found.image.architecture,
        budget: BillingCodeId(found.budget.id),
        label: wanted.label,
        keypair: wanted.keypair,
        sealed_user_data: wanted.user_data.map(|data| {
            let place = Aad::new(LaunchParams::USER_DATA).with("customer", call.customer().to_string());
            base64::encode(call.state.user_data.seal(&place, data.as_bytes()))
        }),
        groups: found.groups,
    }
}
