//! A launch, from names to numbers: every thing named is looked for among the tenant's own, and what is left out is
//! chosen only where there is one choice. Pure.

use super::Problem;
use super::fields::{Fields, Named, list};
use crate::model::{
    AccountId, BillingCodeId, CloudId, DataCenterId, ImageId, LaunchParams, ProductId, RegionId,
};
use crate::store::provisioning::catalog::{
    AccountRow, BillingCodeRow, DataCenterRow, ImageRow, ProductRow, RegionRow,
};

/// Longest name of a server.
const LONGEST_NAME: usize = 128;
/// Longest user data, which is what providers take.
const LONGEST_USER_DATA: usize = 16 * 1024;
/// Things with another status are not chosen.
pub(in crate::web) const USABLE: [&str; 2] = ["ACTIVE", "AVAILABLE"];

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) name: String,
    description: String,
    image: Option<Named>,
    product: Option<Named>,
    data_center: Option<Named>,
    region: Option<Named>,
    budget: Option<Named>,
    label: Option<String>,
    keypair: Option<String>,
    /// Not sealed yet.
    pub(super) user_data: Option<String>,
}

/// What the tenant has.
#[derive(Clone, Debug, Default)]
pub(in crate::web) struct Catalog {
    pub(in crate::web) account: Option<AccountRow>,
    pub(in crate::web) regions: Vec<RegionRow>,
    pub(in crate::web) data_centers: Vec<DataCenterRow>,
    pub(in crate::web) products: Vec<ProductRow>,
    pub(in crate::web) images: Vec<ImageRow>,
    pub(in crate::web) budgets: Vec<BillingCodeRow>,
}

impl Wish {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Problem> {
        let name = fields.needed_text("name", LONGEST_NAME)?;
        if name.chars().any(char::is_control) {
            return Err(Problem::field(
                "params.name",
                "field params.name holds a control character; leave it out",
            ));
        }
        let wish = Self {
            name,
            description: fields.text("description", 1024)?.unwrap_or_default(),
            image: fields.named("image")?,
            product: fields.named("product")?,
            data_center: fields.named("dataCenter")?,
            region: fields.named("region")?,
            budget: fields.named("budget")?,
            label: fields.text("label", 64)?,
            keypair: fields.text("keypair", 255)?,
            user_data: fields.text("userData", LONGEST_USER_DATA)?,
        };
        fields.end()?;
        Ok(wish)
    }

    /// The launch with every choice made; user data is sealed by the caller.
    pub(super) fn resolve(self, catalog: &Catalog) -> Result<LaunchParams, Problem> {
        let account = catalog.account.as_ref().ok_or_else(|| {
            Problem::absent(
                "account",
                "the account of your key does not exist any more; use a key of another",
            )
        })?;
        let region = self.region_of(catalog, account)?;
        let image =
            pick("image", self.image.as_ref(), catalog.images.iter().filter(|i| i.region == region.id));
        let architecture = image.as_ref().ok().map(|image| image.architecture.as_str());
        let products = catalog.products.iter().filter(|p| p.region == region.id);
        let products = products
            .filter(|p| self.product.is_some() || architecture.is_none_or(|wanted| p.architecture == wanted));
        let product = pick("product", self.product.as_ref(), products);
        let places = catalog.data_centers.iter().filter(|d| d.region == region.id);
        let data_center = pick("dataCenter", self.data_center.as_ref(), places);
        let (image, product, data_center) = together(image, product, data_center)?;
        if product.architecture != image.architecture {
            let text = format!(
                "product {} is {} but image {} is {}; choose a pair of one architecture",
                product.name, product.architecture, image.name, image.architecture
            );
            return Err(Problem::field("params.product", text));
        }
        let budget = match &self.budget {
            None => account.default_budget,
            Some(_) => pick("budget", self.budget.as_ref(), catalog.budgets.iter())?.id,
        };
        Ok(LaunchParams {
            name: self.name,
            description: self.description,
            account: AccountId(account.id),
            cloud: CloudId(account.cloud),
            region: RegionId(region.id),
            data_center: DataCenterId(data_center.id),
            provider_data_center: data_center.provider_id.clone(),
            product: ProductId(product.id),
            provider_product: product.provider_id.clone(),
            image: ImageId(image.id),
            provider_image: image.provider_id.clone(),
            platform: image.platform.clone(),
            architecture: image.architecture.clone(),
            budget: BillingCodeId(budget),
            label: self.label,
            keypair: self.keypair,
            sealed_user_data: None,
            groups: Vec::new(),
        })
    }

    /// The region named, or the only one that has all that is named.
    fn region_of<'a>(&self, catalog: &'a Catalog, account: &AccountRow) -> Result<&'a RegionRow, Problem> {
        let own = || catalog.regions.iter().filter(|region| region.cloud == account.cloud);
        if self.region.is_some() {
            return pick("region", self.region.as_ref(), own());
        }
        // What is nowhere is said as such, not as "no region".
        exists("image", self.image.as_ref(), catalog.images.iter())?;
        exists("product", self.product.as_ref(), catalog.products.iter())?;
        exists("dataCenter", self.data_center.as_ref(), catalog.data_centers.iter())?;
        let fits = |region: &&RegionRow| {
            has(self.image.as_ref(), catalog.images.iter().filter(|i| i.region == region.id))
                && has(self.product.as_ref(), catalog.products.iter().filter(|p| p.region == region.id))
                && has(
                    self.data_center.as_ref(),
                    catalog.data_centers.iter().filter(|d| d.region == region.id),
                )
        };
        pick("region", None, own().filter(fits))
    }
}

/// Something that can be named in a launch.
trait Thing {
    fn id(&self) -> i64;
    fn names(&self) -> [&str; 2];
    fn status(&self) -> &str;

    fn is(&self, wanted: &Named) -> bool {
        wanted.is(self.id(), &self.names())
    }

    fn usable(&self) -> bool {
        USABLE.contains(&self.status())
    }
}

macro_rules! things {
    ($($row:ty: $second:ident, $status:expr);+ $(;)?) => {$(
        impl Thing for $row {
            fn id(&self) -> i64 {
                self.id
            }

            fn names(&self) -> [&str; 2] {
                [&self.name, &self.$second]
            }

            fn status(&self) -> &str {
                let of: fn(&Self) -> &str = $status;
                of(self)
            }
        }
    )+};
}

things! {
    RegionRow: provider_id, |row| &row.status;
    DataCenterRow: provider_id, |row| &row.status;
    ImageRow: provider_id, |row| &row.status;
    BillingCodeRow: finance_code, |row| &row.status;
    ProductRow: provider_id, |_| "ACTIVE";
}

fn has<'a, T: Thing + 'a>(wanted: Option<&Named>, mut things: impl Iterator<Item = &'a T>) -> bool {
    wanted.is_none_or(|wanted| things.any(|thing| thing.is(wanted)))
}

fn exists<'a, T: Thing + 'a>(
    field: &'static str,
    wanted: Option<&Named>,
    things: impl Iterator<Item = &'a T>,
) -> Result<(), Problem> {
    match wanted {
        Some(wanted) if !has(Some(wanted), things) => Err(absent(field, wanted)),
        _ => Ok(()),
    }
}

fn absent(field: &str, wanted: &Named) -> Problem {
    Problem::absent(format!("params.{field}"), format!("there is no {field} {wanted} where it could be used"))
}

/// All three, or everything that is wrong with them at once.
fn together<A, B, C>(
    a: Result<A, Problem>,
    b: Result<B, Problem>,
    c: Result<C, Problem>,
) -> Result<(A, B, C), Problem> {
    match (a, b, c) {
        (Ok(a), Ok(b), Ok(c)) => Ok((a, b, c)),
        (a, b, c) => {
            let all = [a.err(), b.err(), c.err()].into_iter().flatten();
            let all = all.reduce(|first, next| first.and(&next));
            Err(all.unwrap_or_else(|| Problem::field("params", "params cannot be used together")))
        }
    }
}

/// The one thing named; without a name, the only one there is.
fn pick<'a, T: Thing + 'a>(
    field: &'static str,
    wanted: Option<&Named>,
    things: impl Iterator<Item = &'a T>,
) -> Result<&'a T, Problem> {
    let path = format!("params.{field}");
    let usable = things.filter(|thing| thing.usable());
    let fitting: Vec<&T> = usable.filter(|thing| wanted.is_none_or(|wanted| thing.is(wanted))).collect();
    match (fitting.as_slice(), wanted) {
        ([one], _) => Ok(one),
        ([], Some(wanted)) => Err(absent(field, wanted)),
        ([], None) => {
            Err(Problem::field(path.clone(), format!("no {field} can be used here; name one in {path}")))
        }
        (many, Some(wanted)) => {
            let ids: Vec<String> = many.iter().map(|thing| thing.id().to_string()).collect();
            let ids = list(ids.iter().map(String::as_str));
            Err(Problem::field(
                path.clone(),
                format!("{wanted} names several; give one of the numbers {ids} in {path}"),
            ))
        }
        (many, None) => {
            let names = list(many.iter().map(|thing| thing.names()[0]));
            Err(Problem::field(
                path.clone(),
                format!("{path} is missing and there are several: {names}; name one"),
            ))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn region(id: i64, name: &str) -> RegionRow {
        RegionRow {
            id,
            cloud: 1,
            customer: 1,
            name: name.to_owned(),
            description: String::new(),
            jurisdiction: "US".to_owned(),
            provider_id: name.to_lowercase(),
            status: "ACTIVE".to_owned(),
        }
    }

    fn image(id: i64, region: i64, name: &str) -> ImageRow {
        ImageRow {
            id,
            customer: 1,
            account: 1,
            cloud: 1,
            region,
            name: name.to_owned(),
            description: String::new(),
            provider_id: format!("ami-{id}"),
            platform: "UBUNTU".to_owned(),
            architecture: "I64".to_owned(),
            owner_number: String::new(),
            agent_version: 1,
            budget: 5,
            created_at: 0,
            status: "ACTIVE".to_owned(),
        }
    }

    fn product(id: i64, region: i64, name: &str, architecture: &str) -> ProductRow {
        ProductRow {
            id,
            cloud: 1,
            region,
            name: name.to_owned(),
            description: String::new(),
            provider_id: format!("m.{name}"),
            architecture: architecture.to_owned(),
            platform: "UNIX".to_owned(),
            cpu_count: 1,
            cpu_mhz: 1000,
            ram_mb: 1024,
            disk_gb: 10,
            hourly_rate: 0.1,
            currency: "USD".to_owned(),
        }
    }

    fn place(id: i64, region: i64, status: &str) -> DataCenterRow {
        DataCenterRow {
            id,
            region,
            name: format!("dc-{id}"),
            description: String::new(),
            provider_id: format!("zone-{id}"),
            status: status.to_owned(),
        }
    }

    pub(in super::super) fn catalog() -> Catalog {
        Catalog {
            account: Some(AccountRow {
                id: 1,
                customer: 1,
                cloud: 1,
                name: "main".to_owned(),
                account_number: "1".to_owned(),
                credential: "c".to_owned(),
                default_budget: 5,
                owner: 1,
                status: "ACTIVE".to_owned(),
            }),
            regions: vec![region(1, "East"), region(2, "West")],
            data_centers: vec![place(1, 1, "ACTIVE"), place(2, 2, "AVAILABLE"), place(3, 2, "INACTIVE")],
            products: vec![
                product(1, 1, "small", "I64"),
                product(2, 1, "large", "I64"),
                product(3, 2, "small", "I64"),
                product(4, 2, "old", "I32"),
            ],
            images: vec![image(1, 1, "ubuntu"), image(2, 2, "ubuntu"), image(3, 2, "debian")],
            budgets: Vec::new(),
        }
    }

    fn launch(params: Value) -> Result<LaunchParams, Problem> {
        Wish::read(Fields::of(params, "params.").expect("an object"))?.resolve(&catalog())
    }

    #[test]
    fn names_numbers_and_names_of_the_provider_lead_to_the_same_launch() {
        let by_name = launch(json!({"name": "w", "image": "debian"})).expect("one choice of each");
        assert_eq!(
            (by_name.region, by_name.data_center, by_name.product),
            (RegionId(2), DataCenterId(2), ProductId(3))
        );
        assert_eq!(by_name.budget, BillingCodeId(5));
        for image in [json!(3), json!("3"), json!("ami-3")] {
            assert_eq!(launch(json!({"name": "w", "image": image})).expect("the same"), by_name);
        }
        let east = launch(json!({"name": "w", "region": "east", "product": "small"})).expect("complete");
        assert_eq!((east.image, east.provider_product.as_str()), (ImageId(1), "m.small"));
    }

    #[test]
    fn what_is_open_or_absent_is_said_field_by_field() {
        for (params, status, field, said) in [
            (json!({}), 400, "params.name", "missing"),
            (json!({"name": "a\u{7}"}), 400, "params.name", "control character"),
            (json!({"name": "w"}), 400, "params.region", "several: East, West"),
            (json!({"name": "w", "region": "East"}), 400, "params.product", "several: small, large"),
            (
                json!({"name": "w", "region": "West"}),
                400,
                "params.image",
                "name one; params.product is missing",
            ),
            (
                json!({"name": "w", "region": "West", "image": "ubuntu", "product": 4}),
                400,
                "params.product",
                "architecture",
            ),
            (json!({"name": "w", "region": "North"}), 404, "params.region", "\"North\""),
            (json!({"name": "w", "image": 99}), 404, "params.image", "99"),
            (json!({"name": "w", "image": "debian", "dataCenter": 3}), 404, "params.dataCenter", "3"),
            (json!({"name": "w", "image": "debian", "budget": 6}), 404, "params.budget", "6"),
            (json!({"name": "w", "dataCentre": 1}), 400, "params.dataCentre", "params.dataCenter?"),
        ] {
            let problem = launch(params.clone()).expect_err(&params.to_string());
            assert_eq!(
                (problem.status().as_u16(), problem.at_fault()),
                (status, Some(field)),
                "{params}: {problem}"
            );
            assert!(problem.detail().contains(said), "{params}: {problem}");
        }
    }
}
