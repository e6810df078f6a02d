//! Many devices at once, by what names them.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use sqlx::any::AnyRow;

use crate::{
    model::{AuthKind, CredentialSlot, Device, DeviceName, PskEncoding},
    store::{
        StoreError,
        registry::{
            BLOCK, Registry,
            device::{self, SELECT},
            rows::{self, Fields},
            sql::Sql,
        },
    },
};

/// What is needed to authenticate a device. Its secrets are sealed.
#[derive(Clone)]
pub struct DeviceAuthRow {
    /// The device.
    pub device_id: DeviceId,
    /// Its product.
    pub product_id: ProductId,
    /// Its id within its product.
    pub node_id: NodeId,
    /// How it proves who it is.
    pub auth: AuthKind,
    /// Whether it may connect.
    pub enabled: bool,
    /// How its secrets are read as pre-shared keys.
    pub psk_encoding: PskEncoding,
    /// Its first secret, sealed.
    pub primary: Option<Box<[u8]>>,
    /// Its second secret, sealed.
    pub secondary: Option<Box<[u8]>>,
    /// SHA-256 of the certificates that it may come with: the first and the second.
    pub fingerprints: [Option<[u8; 32]>; 2],
}

impl std::fmt::Debug for DeviceAuthRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthRow")
            .field("device_id", &self.device_id)
            .field("auth", &self.auth)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// The devices that these strings name, each with the string; unknown strings are absent. One query for
    /// each [`BLOCK`].
    pub async fn devices_by_alias<S: AsRef<str> + Sync>(
        &self,
        aliases: &[S],
    ) -> Result<Vec<(String, DeviceAuthRow)>, StoreError> {
        let mut found: Vec<(String, DeviceAuthRow)> = Vec::with_capacity(aliases.len());
        for block in aliases.chunks(BLOCK) {
            let mut sql = Sql::new(
                "SELECT a.alias, d.id, d.product_id, d.node_id, d.auth, d.psk_encoding, d.enabled, c.slot, \
                 c.sealed, f.slot AS fingerprint_slot, f.fingerprint FROM device_alias a \
                 JOIN device d ON d.id = a.device_id \
                 LEFT JOIN device_credential c ON c.device_id = d.id \
                 LEFT JOIN device_fingerprint f ON f.device_id = d.id WHERE a.alias IN ",
            );
            sql.texts(block).push(" ORDER BY a.alias");
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                let fields = Fields(row);
                let alias = fields.text("alias")?;
                // A device with two credentials is two rows in succession.
                if found.last().is_none_or(|(last, _)| last != alias) {
                    found.push((alias.to_owned(), read(&fields)?));
                }
                if let Some((_, device)) = found.last_mut() {
                    take_credential(&fields, device)?;
                }
            }
        }
        Ok(found)
    }

    /// The ids of up to two devices that are registered with this certificate: whether it is one device's.
    pub async fn devices_by_fingerprint(
        &self,
        fingerprint: &[u8; 32],
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut sql = Sql::new(
            "SELECT DISTINCT device_id AS id FROM device_fingerprint WHERE fingerprint = ",
        );
        sql.bind(&fingerprint[..]).push(" ORDER BY id LIMIT 2");
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        rows.iter().map(|row| Fields(row).parsed("id")).collect()
    }

    /// The devices of these ids, in any order; unknown ids are absent. One query for each [`BLOCK`].
    pub async fn devices_by_ids<S: AsRef<str> + Sync>(
        &self,
        ids: &[S],
    ) -> Result<Vec<Device>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new(SELECT);
            sql.push(" WHERE id IN ").texts(block);
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                found.push(device::read(row)?);
            }
        }
        Ok(found)
    }

    /// What the devices of these ids are called, in any order; unknown ids are absent. One query for each [`BLOCK`].
    pub async fn names_by_ids<S: AsRef<str> + Sync>(
        &self,
        ids: &[S],
    ) -> Result<Vec<DeviceName>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new(SELECT_NAME);
            sql.push(" WHERE id IN ").texts(block);
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                found.push(read_name(row)?);
            }
        }
        Ok(found)
    }

    /// What the devices of a product that have these node ids are called, in any order; unknown ones are absent. One
    /// query for each [`BLOCK`].
    pub async fn names_by_node_ids<S: AsRef<str> + Sync>(
        &self,
        product: &ProductId,
        node_ids: &[S],
    ) -> Result<Vec<DeviceName>, StoreError> {
        let mut found = Vec::with_capacity(node_ids.len());
        for block in node_ids.chunks(BLOCK) {
            let mut sql = Sql::new(SELECT_NAME);
            sql.push(" WHERE product_id = ")
                .bind(product.as_str())
                .push(" AND node_id IN ")
                .texts(block);
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                found.push(read_name(row)?);
            }
        }
        Ok(found)
    }
}

const SELECT_NAME: &str = "SELECT id, product_id, node_id FROM device";

fn read_name(row: &AnyRow) -> Result<DeviceName, StoreError> {
    let fields = Fields(row);
    Ok(DeviceName {
        device_id: fields.parsed("id")?,
        product_id: fields.parsed("product_id")?,
        node_id: fields.parsed("node_id")?,
    })
}

/// Adds the secret and the fingerprint of a row to its device.
fn take_credential(fields: &Fields<'_>, device: &mut DeviceAuthRow) -> Result<(), StoreError> {
    if let Some(slot) = fields.optional_text("slot")? {
        let sealed = fields.optional_bytes("sealed")?.map(Box::from);
        match rows::slot("slot", &slot)? {
            CredentialSlot::Primary => device.primary = sealed,
            CredentialSlot::Secondary => device.secondary = sealed,
        }
    }
    if let Some(slot) = fields.optional_text("fingerprint_slot")? {
        let fingerprint = Some(fields.digest("fingerprint")?);
        let [primary, secondary] = &mut device.fingerprints;
        match rows::slot("fingerprint_slot", &slot)? {
            CredentialSlot::Primary => *primary = fingerprint,
            CredentialSlot::Secondary => *secondary = fingerprint,
        }
    }
    Ok(())
}

fn read(fields: &Fields<'_>) -> Result<DeviceAuthRow, StoreError> {
    Ok(DeviceAuthRow {
        device_id: fields.parsed("id")?,
        product_id: fields.parsed("product_id")?,
        node_id: fields.parsed("node_id")?,
        auth: device::auth(fields)?,
        psk_encoding: device::psk_encoding(fields)?,
        enabled: fields.flag("enabled")?,
        primary: None,
        secondary: None,
        fingerprints: [None; 2],
    })
}
