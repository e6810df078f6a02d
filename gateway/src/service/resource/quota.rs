//! What uploads in progress have taken of the quota.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{config::ResourceConfig, service::resource::ResourceError, store::registry::Usage};

/// What all uploads in progress will add.
#[derive(Debug, Default)]
pub(super) struct Reservations(Mutex<Usage>);

/// What one upload will add; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    all: Arc<Reservations>,
    own: Usage,
    /// What was stored when the upload began, without what it replaces.
    stored: Usage,
    limits: ResourceConfig,
}

impl Reservations {
    /// Reserves a place for an upload.
    ///
    /// # Errors
    /// [`ResourceError::QuotaExceeded`].
    pub(super) fn reserve(
        self: &Arc<Self>,
        stored: Usage,
        own: Usage,
        limits: &ResourceConfig,
    ) -> Result<Reservation, ResourceError> {
        let mut reservation = Reservation {
            all: Arc::clone(self),
            own: Usage::default(),
            stored,
            limits: limits.clone(),
        };
        reservation.add(own)?;
        Ok(reservation)
    }
}

impl Reservation {
    /// Makes sure that `bytes` are reserved, those reserved before included.
    ///
    /// # Errors
    /// [`ResourceError::QuotaExceeded`].
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<(), ResourceError> {
        let more = bytes.saturating_sub(self.own.bytes);
        if more == 0 {
            return Ok(());
        }
        self.add(Usage {
            count: 0,
            bytes: more,
        })
    }

    fn add(&mut self, more: Usage) -> Result<(), ResourceError> {
        let mut all = self.all.0.lock();
        let count = self
            .stored
            .count
            .saturating_add(all.count)
            .saturating_add(more.count);
        let bytes = self
            .stored
            .bytes
            .saturating_add(all.bytes)
            .saturating_add(more.bytes);
        if count > self.limits.max_count {
            return Err(ResourceError::QuotaExceeded {
                unit: "resources",
                limit: self.limits.max_count,
            });
        }
        if bytes > self.limits.max_total_bytes {
            return Err(ResourceError::QuotaExceeded {
                unit: "bytes",
                limit: self.limits.max_total_bytes,
            });
        }
        all.count += more.count;
        all.bytes += more.bytes;
        self.own.count += more.count;
        self.own.bytes += more.bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        all.count -= self.own.count;
        all.bytes -= self.own.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(count: u64, bytes: u64) -> Usage {
        Usage { count, bytes }
    }

    fn limits(max_count: u64, max_total_bytes: u64) -> ResourceConfig {
        ResourceConfig {
            max_count,
            max_total_bytes,
            ..ResourceConfig::default()
        }
    }

    #[test]
    fn uploads_in_progress_count() {
        let all = Arc::new(Reservations::default());
        let limits = limits(3, 100);
        let first = all.reserve(usage(1, 40), usage(1, 50), &limits).unwrap();
        assert!(matches!(
            all.reserve(usage(1, 40), usage(1, 11), &limits),
            Err(ResourceError::QuotaExceeded {
                unit: "bytes",
                limit: 100
            })
        ));
        let second = all.reserve(usage(1, 40), usage(1, 10), &limits).unwrap();
        assert!(matches!(
            all.reserve(usage(1, 40), usage(1, 0), &limits),
            Err(ResourceError::QuotaExceeded {
                unit: "resources",
                limit: 3
            })
        ));
        drop((first, second));
        assert!(all.reserve(usage(1, 40), usage(1, 60), &limits).is_ok());
    }

    #[test]
    fn an_upload_of_unknown_size_grows_until_the_quota_is_full() {
        let all = Arc::new(Reservations::default());
        let limits = limits(3, 100);
        let mut upload = all.reserve(usage(0, 0), usage(1, 0), &limits).unwrap();
        upload.grow_to(60).unwrap();
        upload.grow_to(10).unwrap();
        let other = all.reserve(usage(0, 0), usage(1, 40), &limits).unwrap();
        assert!(upload.grow_to(61).is_err());
        drop(other);
        upload.grow_to(100).unwrap();
        assert!(upload.grow_to(101).is_err());
        drop(upload);
        assert_eq!(*all.0.lock(), Usage::default());
    }
}
