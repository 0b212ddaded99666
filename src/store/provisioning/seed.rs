//! First rows of an embedded installation: one tenant with an account at one cloud, and what that cloud sells.
//!
//! Every row has a fixed id below the sequencer's first, so that ids stay the same for one data folder and a repeat
//! changes nothing.

use diesel::prelude::*;

use super::access::ApiKeyRow;
use super::access::{
    AssignmentRow, GroupRow, PersonRow, RoleRow, add_api_key, add_group, add_person, add_role, assign, join,
};
use super::catalog::{
    AccountRow, BillingCodeRow, CloudRow, CustomerRow, DataCenterRow, ImageRow, ProductRow, RegionRow,
    add_billing_code,
};
use super::insert_new;
use super::schema::{account, cloud, customer, data_center, machine_image, region, server_product};
use crate::model::{AccountId, BillingCodeId, CloudId, CustomerId, GroupId, UserId};
use crate::store::AnyConnection;

/// The tenant.
pub const CUSTOMER: CustomerId = CustomerId(200);
/// Its account.
pub const ACCOUNT: AccountId = AccountId(300);
/// The cloud.
pub const CLOUD: CloudId = CloudId(1);
/// Its billing code.
pub const BUDGET: BillingCodeId = BillingCodeId(400);
/// Its administrator.
pub const ADMIN: UserId = UserId(500);
const OPERATORS: GroupId = GroupId(600);
const AUDITORS: i64 = 601;
const ADMIN_ROLE: i64 = 700;
const AUDITOR_ROLE: i64 = 701;
const FIRST_REGION: i64 = 1000;
const FIRST_DATA_CENTER: i64 = 2000;
const FIRST_PRODUCT: i64 = 3000;
const FIRST_IMAGE: i64 = 4000;

/// What the cloud sells, as plain data.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Regions.
    pub regions: Vec<SeedRegion>,
    /// Sizes, sold in every region.
    pub products: Vec<SeedProduct>,
    /// Images, in every region.
    pub images: Vec<SeedImage>,
}

/// A region.
#[derive(Clone, Debug)]
pub struct SeedRegion {
    /// The provider's id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Country or union whose law holds.
    pub jurisdiction: String,
    /// Provider id and name of each data centre.
    pub data_centers: Vec<(String, String)>,
}

/// A size.
#[derive(Clone, Debug)]
pub struct SeedProduct {
    /// The provider's id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Processors.
    pub cpu_count: i32,
    /// Megahertz of each.
    pub cpu_mhz: i32,
    /// Memory in megabytes.
    pub ram_mb: i32,
    /// Disk in gigabytes.
    pub disk_gb: i32,
    /// US dollars an hour.
    pub hourly_rate: f64,
}

/// An image.
#[derive(Clone, Debug)]
pub struct SeedImage {
    /// The provider's id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Platform word of the dated API.
    pub platform: String,
    /// `I32` or `I64`.
    pub architecture: String,
}

/// Secrets of this installation, already sealed or hashed.
#[derive(Clone)]
pub struct Secrets {
    /// Number of the account at the cloud.
    pub account_number: String,
    /// Reference of its credential in the key manager.
    pub credential: String,
    /// Access key of the administrator's API key.
    pub access_key: String,
    /// Its secret, sealed.
    pub sealed_secret: Vec<u8>,
    /// Console login.
    pub login: String,
    /// Hash of the console password.
    pub password_hash: String,
}

/// Whether the rows are there already.
///
/// # Errors
/// What the database reports.
pub fn is_seeded(connection: &mut AnyConnection) -> QueryResult<bool> {
    Ok(super::catalog::customer(connection, CUSTOMER)?.is_some())
}

/// Writes what is missing.
///
/// # Errors
/// What the database reports.
pub fn seed(connection: &mut AnyConnection, catalogue: &Catalogue, secrets: &Secrets) -> QueryResult<()> {
    let now = connection.now()?.0;
    tenant(connection, secrets, now)?;
    people(connection, secrets, now)?;
    for (index, sold) in (0_i64..).zip(&catalogue.regions) {
        one_region(connection, catalogue, secrets, (index, sold))?;
    }
    Ok(())
}

fn active() -> String {
    "ACTIVE".to_owned()
}

fn tenant(connection: &mut AnyConnection, secrets: &Secrets, now: i64) -> QueryResult<()> {
    let row = CustomerRow {
        id: CUSTOMER.0,
        name: "Example Company".to_owned(),
        currency: "USD".to_owned(),
        time_zone: "UTC".to_owned(),
        status: active(),
        created_at: now,
    };
    insert_new(diesel::insert_into(customer::table).values(&row).execute(connection))?;
    let row = CloudRow {
        id: CLOUD.0,
        name: "Simulated".to_owned(),
        provider: "Simulated".to_owned(),
        driver: "simulated".to_owned(),
        endpoint: "simulated://local".to_owned(),
        private_cloud: true,
        status: active(),
    };
    insert_new(diesel::insert_into(cloud::table).values(&row).execute(connection))?;
    let row = AccountRow {
        id: ACCOUNT.0,
        customer: CUSTOMER.0,
        cloud: CLOUD.0,
        name: "Simulated account".to_owned(),
        account_number: secrets.account_number.clone(),
        credential: secrets.credential.clone(),
        default_budget: BUDGET.0,
        owner: ADMIN.0,
        status: active(),
    };
    insert_new(diesel::insert_into(account::table).values(&row).execute(connection))?;
    let row = BillingCodeRow {
        id: BUDGET.0,
        customer: CUSTOMER.0,
        name: "Default".to_owned(),
        description: "Default billing code".to_owned(),
        finance_code: "DEF".to_owned(),
        status: active(),
        budget_state: "NORMAL".to_owned(),
        soft_quota: Some(10_000.0),
        hard_quota: Some(20_000.0),
        currency: "USD".to_owned(),
    };
    add_billing_code(connection, &row).map(drop)
}

fn people(connection: &mut AnyConnection, secrets: &Secrets, now: i64) -> QueryResult<()> {
    let groups =
        [(OPERATORS.0, "Operators", "May do everything"), (AUDITORS, "Auditors", "May look at everything")];
    for (id, name, description) in groups {
        let (name, description) = (name.to_owned(), description.to_owned());
        add_group(connection, &GroupRow { id, customer: CUSTOMER.0, name, description, status: active() })?;
    }
    let everything = r#"[{"resourceType":"ANY","action":"ANY","qualifier":"ANY"}]"#;
    let looking = r#"[{"resourceType":"ANY","action":"READ","qualifier":"ANY"}]"#;
    let roles = [(ADMIN_ROLE, "Admin", everything), (AUDITOR_ROLE, "Auditor", looking)];
    for (id, name, acl) in roles {
        let (name, description, acl) = (name.to_owned(), format!("{name} of the account"), acl.to_owned());
        add_role(
            connection,
            &RoleRow { id, customer: CUSTOMER.0, name, description, status: active(), acl },
        )?;
    }
    for (user_group, role) in [(OPERATORS.0, ADMIN_ROLE), (AUDITORS, AUDITOR_ROLE)] {
        assign(connection, &AssignmentRow { customer: CUSTOMER.0, user_group, account: ACCOUNT.0, role })?;
    }
    let row = PersonRow {
        id: ADMIN.0,
        customer: CUSTOMER.0,
        account: ACCOUNT.0,
        given_name: "Ada".to_owned(),
        family_name: "Admin".to_owned(),
        email: "admin@example.com".to_owned(),
        login: secrets.login.clone(),
        password_hash: secrets.password_hash.clone(),
        time_zone: "UTC".to_owned(),
        status: active(),
    };
    add_person(connection, &row)?;
    join(connection, ADMIN, OPERATORS)?;
    let row = ApiKeyRow {
        access_key: secrets.access_key.clone(),
        customer: CUSTOMER.0,
        account: ACCOUNT.0,
        person: ADMIN.0,
        name: "First key".to_owned(),
        description: "Made with the data folder".to_owned(),
        sealed_secret: secrets.sealed_secret.clone(),
        state: active(),
        activated_at: now,
        expires_at: None,
    };
    add_api_key(connection, &row).map(drop)
}

fn one_region(
    connection: &mut AnyConnection,
    catalogue: &Catalogue,
    secrets: &Secrets,
    (index, sold): (i64, &SeedRegion),
) -> QueryResult<()> {
    let id = FIRST_REGION + index;
    let row = RegionRow {
        id,
        cloud: CLOUD.0,
        customer: CUSTOMER.0,
        name: sold.name.clone(),
        description: sold.name.clone(),
        jurisdiction: sold.jurisdiction.clone(),
        provider_id: sold.id.clone(),
        status: active(),
    };
    insert_new(diesel::insert_into(region::table).values(&row).execute(connection))?;
    for (n, (provider_id, name)) in (0_i64..).zip(&sold.data_centers) {
        let row = DataCenterRow {
            id: FIRST_DATA_CENTER + index * 100 + n,
            region: id,
            name: name.clone(),
            description: name.clone(),
            provider_id: provider_id.clone(),
            status: active(),
        };
        insert_new(diesel::insert_into(data_center::table).values(&row).execute(connection))?;
    }
    for (n, product) in (0_i64..).zip(&catalogue.products) {
        let row = product_row(FIRST_PRODUCT + index * 100 + n, id, product);
        insert_new(diesel::insert_into(server_product::table).values(&row).execute(connection))?;
    }
    for (n, image) in (0_i64..).zip(&catalogue.images) {
        let row = ImageRow {
            id: FIRST_IMAGE + index * 100 + n,
            customer: CUSTOMER.0,
            account: ACCOUNT.0,
            cloud: CLOUD.0,
            region: id,
            name: image.name.clone(),
            description: image.name.clone(),
            provider_id: image.id.clone(),
            platform: image.platform.clone(),
            architecture: image.architecture.clone(),
            owner_number: secrets.account_number.clone(),
            agent_version: 1,
            budget: BUDGET.0,
            created_at: connection.now()?.0,
            status: active(),
        };
        insert_new(diesel::insert_into(machine_image::table).values(&row).execute(connection))?;
    }
    Ok(())
}

fn product_row(id: i64, region: i64, product: &SeedProduct) -> ProductRow {
    ProductRow {
        id,
        cloud: CLOUD.0,
        region,
        name: product.name.clone(),
        description: product.name.clone(),
        provider_id: product.id.clone(),
        architecture: "I64".to_owned(),
        platform: "UNIX".to_owned(),
        cpu_count: product.cpu_count,
        cpu_mhz: product.cpu_mhz,
        ram_mb: product.ram_mb,
        disk_gb: product.disk_gb,
        hourly_rate: product.hourly_rate,
        currency: "USD".to_owned(),
    }
}
