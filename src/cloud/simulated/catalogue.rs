//! What the simulated cloud sells: regions, data centres, products and images. Fixed, so that a seeded database and
//! the cloud always agree.

/// Everything on offer.
#[derive(Clone, Copy, Debug)]
pub struct Catalogue {
    /// Regions.
    pub regions: &'static [Region],
    /// Products, sold in every region.
    pub products: &'static [Product],
    /// Images, there in every region.
    pub images: &'static [Image],
}

/// A region.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The provider's name of it.
    pub id: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Two letters of the country.
    pub jurisdiction: &'static str,
    /// Its data centres.
    pub data_centers: &'static [DataCenter],
}

/// A data centre.
#[derive(Clone, Copy, Debug)]
pub struct DataCenter {
    /// The provider's name of it.
    pub id: &'static str,
    /// Name for people.
    pub name: &'static str,
}

/// A size of servers.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The provider's name of it.
    pub id: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Description for people.
    pub description: &'static str,
    /// Processors.
    pub cpu_count: u32,
    /// Speed of each in MHz.
    pub cpu_speed_mhz: u32,
    /// Memory in MB.
    pub ram_mb: u32,
    /// Disk in GB.
    pub disk_gb: u32,
    /// Price of an hour in millionths of a US dollar.
    pub hourly_micro_usd: u64,
}

/// An image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The provider's name of it.
    pub id: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Description for people.
    pub description: &'static str,
    /// Platform in the words of the dated API.
    pub platform: &'static str,
    /// Architecture in the words of the dated API.
    pub architecture: &'static str,
}

impl Catalogue {
    /// The region with this provider name.
    #[must_use]
    pub fn region(&self, id: &str) -> Option<&'static Region> {
        self.regions.iter().find(|region| region.id == id)
    }

    /// The product with this provider name.
    #[must_use]
    pub fn product(&self, id: &str) -> Option<&'static Product> {
        self.products.iter().find(|product| product.id == id)
    }

    /// The image with this provider name.
    #[must_use]
    pub fn image(&self, id: &str) -> Option<&'static Image> {
        self.images.iter().find(|image| image.id == id)
    }
}

impl Region {
    /// The data centre with this provider name.
    #[must_use]
    pub fn data_center(&self, id: &str) -> Option<&'static DataCenter> {
        self.data_centers.iter().find(|center| center.id == id)
    }
}

const fn product(id: &'static str, name: &'static str, shape: [u32; 4], hourly_micro_usd: u64) -> Product {
    let [cpu_count, cpu_speed_mhz, ram_mb, disk_gb] = shape;
    Product { id, name, description: name, cpu_count, cpu_speed_mhz, ram_mb, disk_gb, hourly_micro_usd }
}

const fn image(id: &'static str, name: &'static str, platform: &'static str) -> Image {
    Image { id, name, description: name, platform, architecture: "I64" }
}

/// The one catalogue.
pub const CATALOGUE: Catalogue = Catalogue {
    regions: &[
        Region {
            id: "sim-east-1",
            name: "Simulated East",
            jurisdiction: "US",
            data_centers: &[
                DataCenter { id: "sim-east-1a", name: "Simulated East A" },
                DataCenter { id: "sim-east-1b", name: "Simulated East B" },
            ],
        },
        Region {
            id: "sim-west-1",
            name: "Simulated West",
            jurisdiction: "EU",
            data_centers: &[
                DataCenter { id: "sim-west-1a", name: "Simulated West A" },
                DataCenter { id: "sim-west-1b", name: "Simulated West B" },
            ],
        },
    ],
    products: &[
        product("m1.small", "Small", [1, 1000, 1700, 160], 44_000),
        product("m1.medium", "Medium", [1, 2000, 3750, 410], 87_000),
        product("m1.large", "Large", [2, 2000, 7500, 840], 175_000),
        product("m1.xlarge", "Extra large", [4, 2000, 15_000, 1680], 350_000),
        product("c1.xlarge", "Extra large, many processors", [8, 2500, 7000, 1680], 520_000),
    ],
    images: &[
        image("sim-ubuntu-64", "Ubuntu 64 bit", "UBUNTU"),
        image("sim-centos-64", "CentOS 64 bit", "CENT_OS"),
        image("sim-debian-64", "Debian 64 bit", "DEBIAN"),
        image("sim-windows-64", "Windows Server 64 bit", "WINDOWS"),
    ],
};

#[cfg(test)]
mod tests {
    use super::CATALOGUE;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_each_can_be_found() {
        let mut centers = BTreeSet::new();
        for region in CATALOGUE.regions {
            assert!(region.data_centers.len() >= 2);
            assert_eq!(CATALOGUE.region(region.id).map(|r| r.name), Some(region.name));
            for center in region.data_centers {
                assert!(centers.insert(center.id), "{} is there twice", center.id);
                assert_eq!(region.data_center(center.id).map(|c| c.name), Some(center.name));
            }
        }
        for product in CATALOGUE.products {
            assert_eq!(CATALOGUE.product(product.id).map(|p| p.ram_mb), Some(product.ram_mb));
        }
        for image in CATALOGUE.images {
            assert_eq!(CATALOGUE.image(image.id).map(|i| i.platform), Some(image.platform));
        }
    }
}
