//! Products.

use headgate_protocol::identity::ProductId;

use crate::{
    model::{Actor, Millis, Page, Paged, Product},
    service::{
        changes::Change,
        registry::{RegistryError, RegistryService},
    },
};

impl RegistryService {
    /// Makes a product. Its times are set here.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] naming the field, [`RegistryError::Conflict`] when its id is taken.
    pub async fn create_product(
        &self,
        actor: &Actor,
        mut product: Product,
    ) -> Result<Product, RegistryError> {
        product.validate()?;
        product.created_at = Millis::now();
        product.updated_at = product.created_at;
        let audit = actor.did("product.create", &product.id, product.name.as_str());
        self.registry.insert_product(&product, &audit).await?;
        Ok(product)
    }

    /// Replaces what a product says of itself; its times are kept and set here. Devices that are connected go by
    /// the new topic policy at once, and by the rest when they connect again. With a `revision` only where that is still
    /// its `updated_at`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Invalid`], [`RegistryError::Stale`], and [`RegistryError::Conflict`] naming a device
    /// that has a string which one of the product's devices would get.
    pub async fn update_product(
        &self,
        actor: &Actor,
        mut product: Product,
        revision: Option<Millis>,
    ) -> Result<Product, RegistryError> {
        product.validate()?;
        product.updated_at = Millis::now();
        let audit = actor.did("product.update", &product.id, product.name.as_str());
        self.registry
            .update_product(&product, revision, &audit)
            .await?;
        self.authenticator.invalidate_product(&product.id);
        let product = self.product(&product.id).await?;
        if let Some(watch) = &self.watch {
            watch.product_changed(&product);
        }
        let change = Change::Product(product.id.to_string());
        self.changes.say(&change).await;
        Ok(product)
    }

    /// The product of an id.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn product(&self, id: &ProductId) -> Result<Product, RegistryError> {
        let product = self.registry.product(id).await?;
        product.ok_or(RegistryError::NotFound { what: "product" })
    }

    /// Products in the order of their ids.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for a wrong cursor.
    pub async fn products(&self, page: &Page) -> Result<Paged<Product>, RegistryError> {
        Ok(self.registry.products(page).await?)
    }

    /// Deletes a product that has neither devices nor resources.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::InUse`].
    pub async fn delete_product(&self, actor: &Actor, id: &ProductId) -> Result<(), RegistryError> {
        let audit = actor.did("product.delete", id, "");
        self.registry.delete_product(id, &audit).await?;
        self.authenticator.invalidate_product(id);
        if let Some(watch) = &self.watch {
            watch.product_deleted(id);
        }
        self.changes.say(&Change::Product(id.to_string())).await;
        Ok(())
    }
}
