//! Small pieces that fit one room's door to another's.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::agents::Agents;
use crate::cloud::simulated::CATALOGUE;
use crate::jobs::ports::{Ask, Keys, Leased, NoLease};
use crate::km::{self, Km};
use crate::model::{CustomerId, ServerId};
use crate::pinger::{Guests, Heartbeat};
use crate::store::provisioning::seed::{Catalogue, SeedImage, SeedProduct, SeedRegion};

/// Credentials from the key manager.
pub(super) struct KmKeys(pub(super) Km);

#[async_trait(?Send)]
impl Keys for KmKeys {
    async fn lease(&self, ask: Ask) -> Result<Leased, NoLease> {
        let Ask { job, attempt, customer, account, credential, purpose } = ask;
        let lease = self.0.lease(km::Ask { job, attempt, customer, account, credential, purpose }).await;
        match lease {
            Ok(lease) => Ok(Leased {
                access_key: lease.access_key,
                secret: lease.secret,
                shown: serde_json::json!({
                    "algorithm": lease.sealed.algorithm,
                    "key": lease.sealed.key_id,
                    "request": lease.sealed.request_id,
                    "expiresAt": lease.expires_at.rfc3339(),
                })
                .to_string(),
            }),
            Err(error @ (km::Error::Denied { .. } | km::Error::Invalid(_))) => {
                Err(NoLease::Denied(error.to_string()))
            }
            Err(error) => Err(NoLease::Later(crate::ops::Chain(&error).to_string())),
        }
    }
}

/// Heartbeats over the agents' sessions.
pub(super) struct Sessions(pub(super) Agents);

#[async_trait(?Send)]
impl Guests for Sessions {
    fn connected(&self) -> Vec<(ServerId, CustomerId)> {
        self.0
            .connected()
            .into_iter()
            .filter(|view| view.connected)
            .map(|view| (view.server, view.customer))
            .collect()
    }

    async fn ping(&self, server: ServerId, limit: Duration) -> Result<Heartbeat, String> {
        let asked = Instant::now();
        let pong = self.0.ping(server, limit).await.map_err(|e| e.to_string())?;
        Ok(Heartbeat {
            round_trip: asked.elapsed(),
            cpu_load: pong.stats.cpu_load,
            memory_used: pong.stats.memory_used,
            memory_total: pong.stats.memory_total,
            processes: pong.stats.processes,
        })
    }
}

/// What the simulated cloud sells, as seeds.
pub(super) fn catalogue() -> Catalogue {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    Catalogue {
        regions: CATALOGUE
            .regions
            .iter()
            .map(|region| SeedRegion {
                id: region.id.to_owned(),
                name: region.name.to_owned(),
                jurisdiction: region.jurisdiction.to_owned(),
                data_centers: region
                    .data_centers
                    .iter()
                    .map(|center| (center.id.to_owned(), center.name.to_owned()))
                    .collect(),
            })
            .collect(),
        products: CATALOGUE
            .products
            .iter()
            .map(|product| SeedProduct {
                id: product.id.to_owned(),
                name: product.name.to_owned(),
                cpu_count: number(product.cpu_count),
                cpu_mhz: number(product.cpu_speed_mhz),
                ram_mb: number(product.ram_mb),
                disk_gb: number(product.disk_gb),
                hourly_rate: f64::from(u32::try_from(product.hourly_micro_usd).unwrap_or(u32::MAX)) / 1e6,
            })
            .collect(),
        images: CATALOGUE
            .images
            .iter()
            .map(|image| SeedImage {
                id: image.id.to_owned(),
                name: image.name.to_owned(),
                platform: image.platform.to_owned(),
                architecture: image.architecture.to_owned(),
            })
            .collect(),
    }
}
