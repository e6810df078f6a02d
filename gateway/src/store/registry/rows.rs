//! From stored values to checked ones.

use std::{fmt::Display, str::FromStr};

use sqlx::{Row as _, any::AnyRow};

use crate::{
    model::{BlobId, CredentialSlot, DeliveryState, Id, Millis},
    store::StoreError,
};

/// Reads a row's columns by name.
pub(super) struct Fields<'r>(pub(super) &'r AnyRow);

impl<'r> Fields<'r> {
    pub(super) fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(super) fn optional_int(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(super) fn text(&self, column: &'static str) -> Result<&'r str, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(super) fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(super) fn bytes(&self, column: &'static str) -> Result<&'r [u8], StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(super) fn optional_bytes(
        &self,
        column: &'static str,
    ) -> Result<Option<&'r [u8]>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    /// A number of another integer type, checked.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        let value = self.int(column)?;
        T::try_from(value).map_err(|_| corrupt(column, format!("{value} is out of range")))
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    pub(super) fn id(&self, column: &'static str) -> Result<Id, StoreError> {
        Id::from_i64(self.int(column)?).map_err(|error| corrupt(column, error))
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Millis, StoreError> {
        Ok(Millis::from_i64(self.int(column)?))
    }

    pub(super) fn optional_time(&self, column: &'static str) -> Result<Option<Millis>, StoreError> {
        Ok(self.optional_int(column)?.map(Millis::from_i64))
    }

    /// A text that has a checked type.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        let text = self.text(column)?;
        text.parse()
            .map_err(|error| corrupt(column, format!("{text:?}: {error}")))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|error| corrupt(column, error))
    }

    /// Bytes of a fixed length.
    pub(super) fn digest<const N: usize>(
        &self,
        column: &'static str,
    ) -> Result<[u8; N], StoreError> {
        let bytes = self.bytes(column)?;
        bytes
            .try_into()
            .map_err(|_| corrupt(column, format!("{} bytes instead of {N}", bytes.len())))
    }

    /// Bytes of a fixed length, where there are any.
    pub(super) fn optional_digest<const N: usize>(
        &self,
        column: &'static str,
    ) -> Result<Option<[u8; N]>, StoreError> {
        match self.optional_bytes(column)? {
            Some(_) => self.digest(column).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn blob(&self, column: &'static str) -> Result<BlobId, StoreError> {
        self.parsed(column)
    }

    pub(super) fn state(&self, column: &'static str) -> Result<DeliveryState, StoreError> {
        let number = self.int(column)?;
        usize::try_from(number)
            .ok()
            .and_then(|index| DeliveryState::ALL.get(index).copied())
            .ok_or_else(|| corrupt(column, format!("{number} is no state")))
    }
}

/// The number that is stored for a delivery's state: its place in the order of progress.
pub(super) const fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Pushed => 1,
        DeliveryState::Delivering => 2,
        DeliveryState::Delivered => 3,
        DeliveryState::Failed => 4,
    }
}

/// Which of a device's two credentials a stored word means.
pub(super) fn slot(column: &'static str, word: &str) -> Result<CredentialSlot, StoreError> {
    [CredentialSlot::Primary, CredentialSlot::Secondary]
        .into_iter()
        .find(|slot| slot.as_str() == word)
        .ok_or_else(|| corrupt(column, word))
}

/// A number as it is stored. Sizes stay far below the limit: a resource has at most 1 GiB.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// JSON of a value whose type cannot fail to be written.
pub(super) fn json<T: serde::Serialize>(
    column: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(column, error))
}

pub(super) fn corrupt(column: &'static str, reason: impl Display) -> StoreError {
    StoreError::Corrupt {
        column,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_numbers_are_places_in_the_order() {
        for (number, state) in (0..).zip(DeliveryState::ALL) {
            assert_eq!(state_number(*state), number);
        }
    }
}
