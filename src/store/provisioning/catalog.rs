//! What a tenant sees of the world: accounts, clouds, regions, products, images, billing codes.
//!
//! Every query about a tenant's things filters by the tenant. The settings of the installation are here as well.

use diesel::prelude::*;

use super::schema::{
    account, billing_code, cloud, customer, data_center, machine_image, region, server_product,
};
use crate::model::{
    AccountId, BillingCodeId, CloudId, CustomerId, DataCenterId, ImageId, ProductId, RegionId,
};
use crate::store::AnyConnection;

/// Most rows a list gives.
pub const MOST: i64 = 10_000;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = customer, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct CustomerRow {
    pub id: i64,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
    pub status: String,
    pub created_at: i64,
}

/// A cloud.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = cloud, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct CloudRow {
    pub id: i64,
    pub name: String,
    pub provider: String,
    pub driver: String,
    pub endpoint: String,
    pub private_cloud: bool,
    pub status: String,
}

/// An account at a cloud. `credential` is a reference the key manager understands, never a secret.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = account, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct AccountRow {
    pub id: i64,
    pub customer: i64,
    pub cloud: i64,
    pub name: String,
    pub account_number: String,
    pub credential: String,
    pub default_budget: i64,
    pub owner: i64,
    pub status: String,
}

/// A region, as one tenant sees it.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = region, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct RegionRow {
    pub id: i64,
    pub cloud: i64,
    pub customer: i64,
    pub name: String,
    pub description: String,
    pub jurisdiction: String,
    pub provider_id: String,
    pub status: String,
}

/// A data centre of a region.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = data_center, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct DataCenterRow {
    pub id: i64,
    pub region: i64,
    pub name: String,
    pub description: String,
    pub provider_id: String,
    pub status: String,
}

/// A size of servers in one region.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = server_product, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct ProductRow {
    pub id: i64,
    pub cloud: i64,
    pub region: i64,
    pub name: String,
    pub description: String,
    pub provider_id: String,
    pub architecture: String,
    pub platform: String,
    pub cpu_count: i32,
    pub cpu_mhz: i32,
    pub ram_mb: i32,
    pub disk_gb: i32,
    pub hourly_rate: f64,
    pub currency: String,
}

/// A machine image in one region.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = machine_image, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct ImageRow {
    pub id: i64,
    pub customer: i64,
    pub account: i64,
    pub cloud: i64,
    pub region: i64,
    pub name: String,
    pub description: String,
    pub provider_id: String,
    pub platform: String,
    pub architecture: String,
    pub owner_number: String,
    pub agent_version: i64,
    pub budget: i64,
    pub created_at: i64,
    pub status: String,
}

/// A budget.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = billing_code, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct BillingCodeRow {
    pub id: i64,
    pub customer: i64,
    pub name: String,
    pub description: String,
    pub finance_code: String,
    pub status: String,
    pub budget_state: String,
    pub soft_quota: Option<f64>,
    pub hard_quota: Option<f64>,
    pub currency: String,
}

/// The tenant.
///
/// # Errors
/// What the database reports.
pub fn customer(connection: &mut AnyConnection, id: CustomerId) -> QueryResult<Option<CustomerRow>> {
    customer::table.find(id.0).select(CustomerRow::as_select()).first(connection).optional()
}

/// A tenant's accounts.
///
/// # Errors
/// What the database reports.
pub fn accounts(
    connection: &mut AnyConnection,
    customer: CustomerId,
    cloud: Option<CloudId>,
) -> QueryResult<Vec<AccountRow>> {
    let mut query =
        account::table.filter(account::customer.eq(customer.0)).select(AccountRow::as_select()).into_boxed();
    if let Some(cloud) = cloud {
        query = query.filter(account::cloud.eq(cloud.0));
    }
    query.order(account::id.asc()).limit(MOST).load(connection)
}

/// One of a tenant's accounts.
///
/// # Errors
/// What the database reports.
pub fn account(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: AccountId,
) -> QueryResult<Option<AccountRow>> {
    account::table
        .filter(account::id.eq(id.0).and(account::customer.eq(customer.0)))
        .select(AccountRow::as_select())
        .first(connection)
        .optional()
}

/// The clouds a tenant sees: public ones, and private ones it has an account at.
///
/// # Errors
/// What the database reports.
pub fn clouds(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<CloudRow>> {
    let own: Vec<i64> = account::table
        .filter(account::customer.eq(customer.0))
        .select(account::cloud)
        .distinct()
        .load(connection)?;
    cloud::table
        .filter(cloud::private_cloud.eq(false).or(cloud::id.eq_any(own)))
        .order(cloud::id.asc())
        .limit(MOST)
        .select(CloudRow::as_select())
        .load(connection)
}

/// A tenant's regions.
///
/// # Errors
/// What the database reports.
pub fn regions(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<RegionRow>> {
    region::table
        .filter(region::customer.eq(customer.0))
        .order(region::id.asc())
        .limit(MOST)
        .select(RegionRow::as_select())
        .load(connection)
}

/// One of a tenant's regions.
///
/// # Errors
/// What the database reports.
pub fn region(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: RegionId,
) -> QueryResult<Option<RegionRow>> {
    region::table
        .filter(region::id.eq(id.0).and(region::customer.eq(customer.0)))
        .select(RegionRow::as_select())
        .first(connection)
        .optional()
}

/// Ids of a tenant's regions, or of the one named if it is the tenant's.
fn region_ids(
    connection: &mut AnyConnection,
    customer: CustomerId,
    only: Option<RegionId>,
) -> QueryResult<Vec<i64>> {
    let mut query = region::table.filter(region::customer.eq(customer.0)).select(region::id).into_boxed();
    if let Some(only) = only {
        query = query.filter(region::id.eq(only.0));
    }
    query.limit(MOST).load(connection)
}

/// Data centres of a tenant's regions, or of one of them.
///
/// # Errors
/// What the database reports.
pub fn data_centers(
    connection: &mut AnyConnection,
    customer: CustomerId,
    region: Option<RegionId>,
) -> QueryResult<Vec<DataCenterRow>> {
    let regions = region_ids(connection, customer, region)?;
    data_center::table
        .filter(data_center::region.eq_any(regions))
        .order(data_center::id.asc())
        .limit(MOST)
        .select(DataCenterRow::as_select())
        .load(connection)
}

/// One data centre with its region, if the region is the tenant's.
///
/// # Errors
/// What the database reports.
pub fn data_center(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: DataCenterId,
) -> QueryResult<Option<(DataCenterRow, RegionRow)>> {
    let row: Option<DataCenterRow> =
        data_center::table.find(id.0).select(DataCenterRow::as_select()).first(connection).optional()?;
    let Some(row) = row else { return Ok(None) };
    let region = region(connection, customer, RegionId(row.region))?;
    Ok(region.map(|region| (row, region)))
}

/// Products on offer in a tenant's regions, or in one of them.
///
/// # Errors
/// What the database reports.
pub fn products(
    connection: &mut AnyConnection,
    customer: CustomerId,
    region: Option<RegionId>,
) -> QueryResult<Vec<ProductRow>> {
    let regions = region_ids(connection, customer, region)?;
    server_product::table
        .filter(server_product::region.eq_any(regions))
        .order(server_product::id.asc())
        .limit(MOST)
        .select(ProductRow::as_select())
        .load(connection)
}

/// One product, if its region is the tenant's.
///
/// # Errors
/// What the database reports.
pub fn product(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: ProductId,
) -> QueryResult<Option<ProductRow>> {
    let regions = region_ids(connection, customer, None)?;
    server_product::table
        .filter(server_product::id.eq(id.0).and(server_product::region.eq_any(regions)))
        .select(ProductRow::as_select())
        .first(connection)
        .optional()
}

/// The product a provider sells under this name in one of the tenant's regions.
///
/// # Errors
/// What the database reports.
pub fn product_of_provider(
    connection: &mut AnyConnection,
    customer: CustomerId,
    region: RegionId,
    name: &str,
) -> QueryResult<Option<ProductRow>> {
    let regions = region_ids(connection, customer, Some(region))?;
    server_product::table
        .filter(server_product::region.eq_any(regions).and(server_product::provider_id.eq(name)))
        .select(ProductRow::as_select())
        .first(connection)
        .optional()
}

/// A tenant's machine images.
///
/// # Errors
/// What the database reports.
pub fn images(
    connection: &mut AnyConnection,
    customer: CustomerId,
    region: Option<RegionId>,
) -> QueryResult<Vec<ImageRow>> {
    let mut query = machine_image::table
        .filter(machine_image::customer.eq(customer.0))
        .select(ImageRow::as_select())
        .into_boxed();
    if let Some(region) = region {
        query = query.filter(machine_image::region.eq(region.0));
    }
    query.order(machine_image::id.asc()).limit(MOST).load(connection)
}

/// One of a tenant's machine images.
///
/// # Errors
/// What the database reports.
pub fn image(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: ImageId,
) -> QueryResult<Option<ImageRow>> {
    machine_image::table
        .filter(machine_image::id.eq(id.0).and(machine_image::customer.eq(customer.0)))
        .select(ImageRow::as_select())
        .first(connection)
        .optional()
}

/// A tenant's billing codes, deleted ones left out.
///
/// # Errors
/// What the database reports.
pub fn billing_codes(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> QueryResult<Vec<BillingCodeRow>> {
    billing_code::table
        .filter(billing_code::customer.eq(customer.0).and(billing_code::status.ne(BILLING_CODE_DELETED)))
        .order(billing_code::id.asc())
        .limit(MOST)
        .select(BillingCodeRow::as_select())
        .load(connection)
}

/// One of a tenant's billing codes, unless it was deleted.
///
/// # Errors
/// What the database reports.
pub fn billing_code(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: BillingCodeId,
) -> QueryResult<Option<BillingCodeRow>> {
    billing_code::table
        .filter(billing_code::id.eq(id.0).and(billing_code::customer.eq(customer.0)))
        .filter(billing_code::status.ne(BILLING_CODE_DELETED))
        .select(BillingCodeRow::as_select())
        .first(connection)
        .optional()
}

/// Status of a deleted billing code: the row stays, so that its number is never given again.
pub const BILLING_CODE_DELETED: &str = "DELETED";

/// Adds a billing code; a repeat with the same number changes nothing.
///
/// # Errors
/// What the database reports.
pub fn add_billing_code(connection: &mut AnyConnection, row: &BillingCodeRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(billing_code::table).values(row).execute(connection))
}

/// Deletes a tenant's billing code; false when there is none.
///
/// # Errors
/// What the database reports.
pub fn delete_billing_code(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: BillingCodeId,
) -> QueryResult<bool> {
    let row = billing_code::table
        .filter(billing_code::id.eq(id.0).and(billing_code::customer.eq(customer.0)))
        .filter(billing_code::status.ne(BILLING_CODE_DELETED));
    let rows = diesel::update(row).set(billing_code::status.eq(BILLING_CODE_DELETED)).execute(connection)?;
    Ok(rows == 1)
}

/// Whether a tenant's account or server uses this billing code.
///
/// # Errors
/// What the database reports.
pub fn billing_code_is_used(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: BillingCodeId,
) -> QueryResult<bool> {
    use super::schema::server;
    let accounts: i64 = account::table
        .filter(account::customer.eq(customer.0).and(account::default_budget.eq(id.0)))
        .count()
        .get_result(connection)?;
    let servers: i64 = server::table
        .filter(server::customer.eq(customer.0).and(server::budget.eq(id.0)))
        .filter(server::status.ne(crate::model::ServerStatus::Terminated.as_str()))
        .count()
        .get_result(connection)?;
    Ok(accounts + servers > 0)
}

/// Puts another billing code in the place of one, wherever a tenant uses it.
///
/// # Errors
/// What the database reports.
pub fn replace_billing_code(
    connection: &mut AnyConnection,
    customer: CustomerId,
    old: BillingCodeId,
    new: BillingCodeId,
) -> QueryResult<()> {
    use super::schema::server;
    let accounts =
        account::table.filter(account::customer.eq(customer.0).and(account::default_budget.eq(old.0)));
    diesel::update(accounts).set(account::default_budget.eq(new.0)).execute(connection)?;
    let images = machine_image::table
        .filter(machine_image::customer.eq(customer.0).and(machine_image::budget.eq(old.0)));
    diesel::update(images).set(machine_image::budget.eq(new.0)).execute(connection)?;
    let servers = server::table.filter(server::customer.eq(customer.0).and(server::budget.eq(old.0)));
    diesel::update(servers).set(server::budget.eq(new.0)).execute(connection)?;
    Ok(())
}
