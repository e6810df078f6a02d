//! Products.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use headgate_protocol::identity::ProductId;

use crate::{
    model::{
        AliasKind, AuditEntry, AuthKind, Confirm, CredentialForm, Millis, Page, Paged, Product,
        TopicPolicy, Transports,
    },
    store::{
        StoreError,
        registry::{
            BLOCK, Registry, Tx,
            rows::{self, Fields},
            sql::Sql,
        },
    },
};

/// The fields of a product that are only read and written whole.
#[derive(Serialize, Deserialize)]
struct Rules<'p> {
    transports: Transports,
    auth_kinds: std::borrow::Cow<'p, [AuthKind]>,
    credential_forms: std::borrow::Cow<'p, [CredentialForm]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ca: Option<std::borrow::Cow<'p, str>>,
    topic_policy: std::borrow::Cow<'p, TopicPolicy>,
}

impl Registry {
    /// Stores a new product.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when its id is taken.
    pub async fn insert_product(
        &self,
        product: &Product,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO product (id, account_id, name, description, rules, confirm, trust_done, \
             reachable_after_uplink_secs, created_at, updated_at) \
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
        )
        .bind(product.id.as_str())
        .bind(product.name.as_str())
        .bind(product.description.as_str())
        .bind(rules_json(product)?)
        .bind(product.confirm.as_str())
        .bind(i64::from(product.trust_done))
        .bind(product.reachable_after_uplink_secs.map(i64::from))
        .bind(product.created_at.as_i64())
        .bind(product.updated_at.as_i64())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if inserted == 0 {
            return Err(StoreError::Conflict {
                what: "product id",
                with: format!("product {}", product.id),
            });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Replaces what a product says of itself, all but its id and the time it was made. Aliases that its devices
    /// gain or lose by it are written in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`] where `revision` is not its `updated_at`, or
    /// [`StoreError::Conflict`] naming a device that has a string which one of the product's devices would get.
    pub async fn update_product(
        &self,
        product: &Product,
        revision: Option<Millis>,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let before = sqlx::query(SELECT_ONE)
            .bind(product.id.as_str())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(StoreError::NotFound { what: "product" })?;
        let before = read(&before)?;
        let updated = sqlx::query(
            "UPDATE product SET name = $1, description = $2, rules = $3, confirm = $4, trust_done = $5, \
             reachable_after_uplink_secs = $6, updated_at = $7 \
             WHERE id = $8 AND updated_at = COALESCE($9, updated_at)",
        )
        .bind(product.name.as_str())
        .bind(product.description.as_str())
        .bind(rules_json(product)?)
        .bind(product.confirm.as_str())
        .bind(i64::from(product.trust_done))
        .bind(product.reachable_after_uplink_secs.map(i64::from))
        .bind(super::after(before.updated_at, product.updated_at).as_i64())
        .bind(product.id.as_str())
        .bind(revision.map(Millis::as_i64))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        super::was_current("product", updated)?;
        refuse_lost_auth(&mut tx, product).await?;
        for kind in [AliasKind::TencentClientId, AliasKind::NodeId] {
            match (before.allows_alias(kind), product.allows_alias(kind)) {
                (false, true) => add_aliases(&mut tx, &product.id, kind).await?,
                (true, false) => remove_aliases(&mut tx, &product.id, kind).await?,
                _ => {}
            }
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes a product that nothing belongs to.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::InUse`] by its devices or resources.
    pub async fn delete_product(
        &self,
        id: &ProductId,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (query, by) in [
            (
                "SELECT 1 FROM device WHERE product_id = $1 LIMIT 1",
                "devices",
            ),
            (
                "SELECT 1 FROM resource WHERE product_id = $1 LIMIT 1",
                "resources",
            ),
        ] {
            let used = sqlx::query(query)
                .bind(id.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            if used.is_some() {
                return Err(StoreError::InUse {
                    what: "product",
                    by: by.to_owned(),
                });
            }
        }
        let deleted = sqlx::query("DELETE FROM product WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "product" });
        }
        self.record_in(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }

    /// The product of an id.
    pub async fn product(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(SELECT_ONE)
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The products of these ids, in any order; unknown ids are absent. One query for each [`BLOCK`].
    pub async fn products_by_ids(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK) {
            let mut sql = Sql::new(SELECT);
            sql.push(" WHERE id IN ").texts(block);
            for row in &sql.build(self.dialect)?.fetch_all(&self.read).await? {
                found.push(read(row)?);
            }
        }
        Ok(found)
    }

    /// Products in the order of their ids.
    pub async fn products(&self, page: &Page) -> Result<Paged<Product>, StoreError> {
        let mut sql = Sql::new(SELECT);
        if let Some(after) = page.after()? {
            sql.push(" WHERE id > ").bind(after);
        }
        sql.push(" ORDER BY id LIMIT ")
            .bind(i64::from(page.limit) + 1);
        let rows = sql.build(self.dialect)?.fetch_all(&self.read).await?;
        let products = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(products, page.limit, |product| {
            product.id.to_string()
        }))
    }
}

/// Refuses a change after which a device of the product could no longer prove who it is.
async fn refuse_lost_auth(tx: &mut Tx, product: &Product) -> Result<(), StoreError> {
    for kind in [AuthKind::Secret, AuthKind::X509, AuthKind::None] {
        let needs_coap = kind == AuthKind::None && !product.transports.coap;
        if product.auth_kinds.contains(&kind) && !needs_coap {
            continue;
        }
        let device = sqlx::query(
            "SELECT id FROM device WHERE product_id = $1 AND auth = $2 ORDER BY id LIMIT 1",
        )
        .bind(product.id.as_str())
        .bind(kind.as_str())
        .fetch_optional(&mut **tx)
        .await?;
        if let Some(device) = device {
            return Err(StoreError::InUse {
                what: match kind {
                    AuthKind::Secret => "authentication by secret",
                    AuthKind::X509 => "authentication by certificate",
                    AuthKind::None => "CoAP without authentication",
                },
                by: format!("device {}", Fields(&device).text("id")?),
            });
        }
    }
    Ok(())
}

/// Gives every device of a product its alias of a kind.
async fn add_aliases(tx: &mut Tx, product: &ProductId, kind: AliasKind) -> Result<(), StoreError> {
    let (insert, clash) = match kind {
        AliasKind::TencentClientId => (ADD_TENCENT, CLASH_TENCENT),
        AliasKind::NodeId | AliasKind::DeviceId => (ADD_NODE, CLASH_NODE),
    };
    sqlx::query(insert)
        .bind(kind.as_str())
        .bind(product.as_str())
        .execute(&mut **tx)
        .await?;
    // What was not inserted was there: fine when it was the device's own, else two devices would share a name.
    let clash = sqlx::query(clash)
        .bind(product.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    match clash {
        Some(row) => Err(StoreError::Conflict {
            what: "device alias",
            with: format!("device {}", Fields(&row).text("device_id")?),
        }),
        None => Ok(()),
    }
}

async fn remove_aliases(
    tx: &mut Tx,
    product: &ProductId,
    kind: AliasKind,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM device_alias WHERE kind = $1 \
         AND device_id IN (SELECT id FROM device WHERE product_id = $2)",
    )
    .bind(kind.as_str())
    .bind(product.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Product, StoreError> {
    let fields = Fields(row);
    let rules: Rules<'static> = fields.json("rules")?;
    let reachable = fields.optional_int("reachable_after_uplink_secs")?;
    Ok(Product {
        id: fields.parsed("id")?,
        name: fields.text("name")?.to_owned(),
        description: fields.text("description")?.to_owned(),
        transports: rules.transports,
        auth_kinds: rules.auth_kinds.into_owned(),
        credential_forms: rules.credential_forms.into_owned(),
        client_ca: rules.client_ca.map(std::borrow::Cow::into_owned),
        topic_policy: rules.topic_policy.into_owned(),
        confirm: match fields.text("confirm")? {
            "report" => Confirm::Report,
            "acked" => Confirm::Acked,
            other => return Err(rows::corrupt("confirm", other)),
        },
        trust_done: fields.flag("trust_done")?,
        reachable_after_uplink_secs: reachable
            .map(u32::try_from)
            .transpose()
            .map_err(|error| rows::corrupt("reachable_after_uplink_secs", error))?,
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
    })
}

fn rules_json(product: &Product) -> Result<String, StoreError> {
    rows::json(
        "rules",
        &Rules {
            transports: product.transports,
            auth_kinds: (&product.auth_kinds).into(),
            credential_forms: (&product.credential_forms).into(),
            client_ca: product.client_ca.as_deref().map(Into::into),
            topic_policy: std::borrow::Cow::Borrowed(&product.topic_policy),
        },
    )
}

const SELECT: &str = "SELECT id, name, description, rules, confirm, trust_done, reachable_after_uplink_secs, \
     created_at, updated_at FROM product";
const SELECT_ONE: &str = "SELECT id, name, description, rules, confirm, trust_done, \
     reachable_after_uplink_secs, created_at, updated_at FROM product WHERE id = $1";

const ADD_TENCENT: &str = "INSERT INTO device_alias (alias, kind, device_id) \
     SELECT product_id || node_id, $1, id FROM device WHERE product_id = $2 ON CONFLICT (alias) DO NOTHING";
const ADD_NODE: &str = "INSERT INTO device_alias (alias, kind, device_id) \
     SELECT node_id, $1, id FROM device WHERE product_id = $2 ON CONFLICT (alias) DO NOTHING";
const CLASH_TENCENT: &str = "SELECT a.device_id FROM device d JOIN device_alias a ON a.alias = d.product_id || d.node_id \
     WHERE d.product_id = $1 AND a.device_id <> d.id LIMIT 1";
const CLASH_NODE: &str = "SELECT a.device_id FROM device d JOIN device_alias a ON a.alias = d.node_id \
     WHERE d.product_id = $1 AND a.device_id <> d.id LIMIT 1";
