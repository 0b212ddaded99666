//! What the seeded account can launch, read from the API as any client would.

use serde_json::{Value, json};

use super::client::{Client, number};

/// One place, size and image that fit together.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    data_center: i64,
    product: String,
    image: i64,
}

impl Catalogue {
    #[track_caller]
    pub(crate) fn read(client: &mut Client) -> Self {
        let first = |found: &Value, list: &str| found[list][0].clone();
        let region = number(&first(&client.get_dated("geography/Region"), "regions"), "regionId");
        let mut of_region = |resource: &str, list: &str| {
            first(&client.get_dated(&format!("{resource}?regionId={region}")), list)
        };
        let data_center = of_region("geography/DataCenter", "dataCenters");
        let product = of_region("infrastructure/ServerProduct", "serverProducts");
        let image = of_region("infrastructure/MachineImage", "images");
        Self {
            data_center: number(&data_center, "dataCenterId"),
            product: product["providerProductId"]
                .as_str()
                .expect("a product's name at the provider")
                .to_owned(),
            image: number(&image, "machineImageId"),
        }
    }

    /// A launch, as the native API takes it.
    pub(crate) fn launch(&self, name: &str) -> Value {
        json!({ "kind": "launch-server", "params": {
            "name": name,
            "product": self.product,
            "image": self.image.to_string(),
            "dataCenter": self.data_center.to_string(),
        }})
    }

    /// A launch, as the dated API takes it.
    pub(crate) fn dated_launch(&self, name: &str) -> Value {
        json!({ "launch": [{
            "name": name,
            "description": "made by a test",
            "product": { "productId": self.product },
            "machineImage": { "machineImageId": self.image },
            "dataCenter": { "dataCenterId": self.data_center },
        }]})
    }
}
