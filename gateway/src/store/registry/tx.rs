//! A transaction that writes.

use std::ops::{Deref, DerefMut};

use sqlx::{Any, AnyConnection, Transaction};

use crate::store::registry::dialect::Dialect;

/// What is changed together. Dropped without [`Tx::commit`] it has changed nothing.
pub(super) struct Tx {
    inner: Transaction<'static, Any>,
    dialect: Dialect,
}

impl Tx {
    pub(super) fn new(inner: Transaction<'static, Any>, dialect: Dialect) -> Self {
        Self { inner, dialect }
    }

    /// Whose SQL the connection speaks.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Makes the changes last.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}
