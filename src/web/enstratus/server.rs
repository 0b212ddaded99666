//! `infrastructure/Server`: reading.

use std::collections::HashMap;

use diesel::QueryResult;
use serde_json::Value;

use super::super::Fault;
use super::call::{Call, Details};
use super::server_json::{Around, shape};
use crate::model::{CustomerId, RegionId, ServerId};
use crate::store::AnyConnection;
use crate::store::provisioning::access;
use crate::store::provisioning::catalog;
use crate::store::provisioning::server::{self, ServerRow};

/// All servers, with or without a region; terminated ones only by their number.
pub(super) async fn get(call: Call) -> Result<Vec<Value>, Fault> {
    let (customer, region) = (call.customer(), call.query.id("regionId")?.map(RegionId));
    let (id, number, details) = (call.id.clone(), call.number(), call.details);
    let (rows, around) = call
        .read(move |c| {
            let rows = match (id, number) {
                (None, _) => server::list(c, customer, region, false)?,
                (Some(_), None) => Vec::new(),
                (Some(_), Some(number)) => {
                    server::by_id(c, customer, ServerId(number))?.into_iter().collect()
                }
            };
            let around = around(c, customer, &rows, details)?;
            Ok((rows, around))
        })
        .await?;
    Ok(rows.iter().map(|row| shape(row, &around)).collect())
}

fn map<T>(rows: Vec<T>, id: impl Fn(&T) -> i64) -> HashMap<i64, T> {
    rows.into_iter().map(|row| (id(&row), row)).collect()
}

/// The rows that servers refer to. Of a tenant's things there are few; they are read once a request.
fn around(
    c: &mut AnyConnection,
    customer: CustomerId,
    rows: &[ServerRow],
    details: Details,
) -> QueryResult<Around> {
    let mut around = Around::default();
    if rows.is_empty() || details == Details::None {
        return Ok(around);
    }
    around.people = map(access::people(c, customer)?, |row| row.id);
    if details == Details::Extended {
        around.customer = catalog::customer(c, customer)?;
        around.clouds = map(catalog::clouds(c, customer)?, |row| row.id);
        around.regions = catalog::regions(c, customer)?;
        around.data_centers = map(catalog::data_centers(c, customer, None)?, |row| row.id);
        around.products = map(catalog::products(c, customer, None)?, |row| row.id);
        around.images = map(catalog::images(c, customer, None)?, |row| row.id);
        around.groups = map(access::groups(c, customer)?, |row| row.id);
    }
    Ok(around)
}
