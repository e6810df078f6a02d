//! Topic policies of products: compiled once for each, shared by the sessions of its devices.
//!
//! A session holds its product's [`ProductRules`] and looks at them with every PUBLISH and
//! SUBSCRIBE, so a change of the product is in force for whoever is connected as soon as
//! [`TopicBook::update`] returns.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use headgate_protocol::{
    identity::ProductId,
    topics::{ProductTopics, Vendors},
};
use parking_lot::RwLock;

use crate::model::{CredentialForm, Millis, Product};

/// The rules of every product that has been seen since the start: as many as there are products.
#[derive(Debug, Default)]
pub struct TopicBook {
    products: DashMap<ProductId, Arc<ProductRules>>,
}

/// What the devices of one product may publish and see, as it is now.
#[derive(Debug)]
pub struct ProductRules {
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    topics: Arc<ProductTopics>,
    updated_at: Millis,
}

impl TopicBook {
    /// The rules of a product. `product` may be older than what is known of it.
    pub fn rules(&self, product: &Product) -> Arc<ProductRules> {
        if let Some(known) = self.products.get(&product.id) {
            let is_current = known.current.read().updated_at >= product.updated_at;
            if is_current {
                return Arc::clone(&known);
            }
        }
        self.update(product)
    }

    /// The rules of a product whose devices have been here.
    pub fn known(&self, product: &ProductId) -> Option<Arc<ProductRules>> {
        self.products.get(product).map(|known| Arc::clone(&known))
    }

    /// Takes note of a product as it is now; gives its rules, which are in force at once.
    pub fn update(&self, product: &Product) -> Arc<ProductRules> {
        let compiled = Current::of(product);
        match self.products.entry(product.id.clone()) {
            Entry::Occupied(known) => {
                let mut current = known.get().current.write();
                if compiled.updated_at >= current.updated_at {
                    *current = compiled;
                }
                drop(current);
                Arc::clone(known.get())
            }
            Entry::Vacant(entry) => {
                let rules = Arc::new(ProductRules {
                    current: RwLock::new(compiled),
                });
                Arc::clone(&entry.insert(rules))
            }
        }
    }

    /// Forgets a product that is deleted; it has no devices any more.
    pub fn forget(&self, product: &ProductId) {
        self.products.remove(product);
    }

    /// The products that are known.
    pub fn ids(&self) -> Vec<ProductId> {
        self.products
            .iter()
            .map(|known| known.key().clone())
            .collect()
    }
}

impl ProductRules {
    /// The topics as they are now.
    pub fn topics(&self) -> Arc<ProductTopics> {
        Arc::clone(&self.current.read().topics)
    }
}

impl Current {
    fn of(product: &Product) -> Self {
        let policy = &product.topic_policy;
        Self {
            topics: Arc::new(ProductTopics::compile(
                &product.id,
                vendors(product),
                &policy.publish,
                &policy.subscribe,
            )),
            updated_at: product.updated_at,
        }
    }
}

/// A vendor's topics are for products that take its credential form.
fn vendors(product: &Product) -> Vendors {
    let allows = |form| product.credential_forms.contains(&form);
    Vendors {
        huawei: allows(CredentialForm::Huawei),
        tencent: allows(CredentialForm::Tencent),
    }
}

#[cfg(test)]
mod tests {
    use headgate_protocol::{
        identity::{DeviceId, NodeId},
        topics::DeviceNames,
    };

    use super::*;
    use crate::model::product::tests::product;

    #[test]
    fn a_change_is_in_force_for_those_who_hold_the_rules() {
        let book = TopicBook::default();
        let mut meter = product("meter");
        let held = book.rules(&meter);
        let (node, device) = (
            NodeId::new("d").expect("legal"),
            DeviceId::new("meter_d").expect("legal"),
        );
        let may_see = |rules: &ProductRules| {
            let names = DeviceNames {
                product: &meter.id,
                node: &node,
                device: &device,
            };
            rules.topics().may_subscribe(names, "fleet/x")
        };
        assert!(!may_see(&held));
        let before = meter.clone();
        meter.topic_policy.subscribe = vec!["fleet/#".to_owned()];
        meter.updated_at = Millis::from_i64(2);
        assert!(Arc::ptr_eq(&book.update(&meter), &held));
        assert!(may_see(&held));
        // A device that comes in with what was cached before gets the rules of now.
        assert!(may_see(&book.rules(&before)));
    }
}
