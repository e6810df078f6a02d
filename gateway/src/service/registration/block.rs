//! From the rows of a file to devices: what each row asks for, and whether it can be had.

use std::collections::HashMap;

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};

use crate::{
    model::{
        AuthKind, BatchRow, BatchRowCode, BatchRowError, CredentialSlot, Id, InvalidField, Millis,
        Product, PskEncoding, RowState, Secret,
    },
    service::{
        registration::file::RawRow,
        registry::{NewDevice, RegistryError, prepare, sealed},
        seal::{SealError, Sealer},
    },
    store::registry::{Block, Candidate, Registered},
};

/// What the registry holds of the products and devices that a block names.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Products by their ids.
    pub(super) products: HashMap<ProductId, Product>,
    /// Devices by product and node id.
    pub(super) devices: HashMap<(ProductId, NodeId), Registered>,
}

/// The devices that these rows name, where they name any.
pub(super) fn names(rows: &[RawRow]) -> Vec<(ProductId, NodeId)> {
    let usable = rows.iter().filter(|row| row.same_as_line.is_none());
    usable
        .filter_map(|row| {
            let product = ProductId::new(row.cell("product_id")).ok()?;
            Some((product, NodeId::new(row.cell("node_id")).ok()?))
        })
        .collect()
}

/// Makes the block: each row's outcome, and the devices to be registered, their secrets sealed.
///
/// # Errors
/// What is the gateway's own fault; a row that cannot be used is an outcome.
pub(super) fn make(
    batch: Id,
    raw: &[RawRow],
    known: &Known,
    sealer: &Sealer,
    now: Millis,
) -> Result<Block, RegistryError> {
    let mut block = Block {
        batch,
        rows: Vec::with_capacity(raw.len()),
        candidates: Vec::with_capacity(raw.len()),
        products: known
            .products
            .values()
            .map(|product| (product.id.clone(), product.updated_at))
            .collect(),
    };
    for raw in raw {
        let mut row = BatchRow {
            index: raw.index,
            line: raw.line,
            state: RowState::Failed,
            product_id: shortened(raw.cell("product_id")),
            node_id: shortened(raw.cell("node_id")),
            device_id: None,
            error: None,
            secret_made_at: None,
        };
        match outcome(raw, known, sealer, now)? {
            Outcome::Unchanged(device) => {
                row.state = RowState::Unchanged;
                row.device_id = Some(device);
            }
            Outcome::Failed(error) => row.error = Some(error),
            Outcome::New(mut candidate, made) => {
                row.state = RowState::Created;
                row.device_id = Some(candidate.device.id.clone());
                row.secret_made_at = made.then_some(candidate.device.created_at);
                candidate.row = block.rows.len();
                block.candidates.push(*candidate);
            }
        }
        block.rows.push(row);
    }
    Ok(block)
}

enum Outcome {
    /// The device, and whether its secret was made here.
    New(Box<Candidate>, bool),
    Unchanged(DeviceId),
    Failed(BatchRowError),
}

fn outcome(
    raw: &RawRow,
    known: &Known,
    sealer: &Sealer,
    now: Millis,
) -> Result<Outcome, RegistryError> {
    let new = match wanted(raw) {
        Ok(new) => new,
        Err(error) => return Ok(Outcome::Failed(error)),
    };
    let Some(product) = known.products.get(&new.product_id) else {
        return Ok(failed(
            BatchRowCode::UnknownProduct,
            format!("there is no product {}", new.product_id),
        ));
    };
    let name = (new.product_id.clone(), new.node_id.clone());
    if let Some(registered) = known.devices.get(&name) {
        return Ok(match difference(&new, registered, sealer)? {
            None => Outcome::Unchanged(registered.device.id.clone()),
            Some(column) => failed(
                BatchRowCode::AlreadyExists,
                format!(
                    "device {} is registered with another {column}",
                    registered.device.id
                ),
            ),
        });
    }
    let is_made = new.secret.is_none();
    let prepared = match prepare(new, product, now) {
        Ok(prepared) => prepared,
        Err(RegistryError::Invalid(error)) => return Ok(invalid(&error)),
        Err(error) => return Err(error),
    };
    let secret = prepared
        .secret
        .as_ref()
        .map(|secret| sealed(sealer, &prepared.device.id, CredentialSlot::Primary, secret))
        .transpose()?;
    let is_made = is_made && secret.is_some();
    let candidate = Candidate {
        row: 0,
        aliases: prepared.device.aliases(product),
        device: prepared.device,
        secret,
        fingerprint: prepared.fingerprints.first().map(|(_, first)| *first),
    };
    Ok(Outcome::New(Box::new(candidate), is_made))
}

/// What a row asks for.
fn wanted(raw: &RawRow) -> Result<NewDevice, BatchRowError> {
    if raw.is_too_wide {
        return Err(BatchRowError {
            code: BatchRowCode::MalformedRow,
            message: "the row has more cells than the heading".to_owned(),
        });
    }
    let named = |column: &'static str, reason: &str| {
        let reason = reason.to_owned();
        invalid_row(&InvalidField::new(column, reason))
    };
    let product_id = ProductId::new(raw.cell("product_id"))
        .map_err(|error| named("product_id", error.reason))?;
    let node_id =
        NodeId::new(raw.cell("node_id")).map_err(|error| named("node_id", error.reason))?;
    if let Some(line) = raw.same_as_line {
        return Err(BatchRowError {
            code: BatchRowCode::Duplicate,
            message: format!("the device stands on line {line} already"),
        });
    }
    let given = |column| Some(raw.cell(column)).filter(|cell| !cell.is_empty());
    let device_id = given("device_id")
        .map(DeviceId::new)
        .transpose()
        .map_err(|error| named("device_id", error.reason))?;
    let auth = given("auth_type").map(auth).transpose();
    let psk_encoding = given("psk_encoding").map(psk_encoding).transpose();
    let secret = given("secret")
        .map(|text| Secret::given(text.to_owned()))
        .transpose();
    let fingerprint = given("fingerprint").map(str::parse).transpose();
    let fields = || -> Result<NewDevice, InvalidField> {
        let (auth, fingerprint) = (auth?, fingerprint?);
        Ok(NewDevice {
            device_id,
            name: raw.cell("device_name").to_owned(),
            description: raw.cell("description").to_owned(),
            auth: auth.or_else(|| fingerprint.map(|_| AuthKind::X509)),
            psk_encoding: psk_encoding?,
            secret: secret?,
            fingerprint,
            ..NewDevice::of(product_id, node_id)
        })
    };
    fields().map_err(|error| invalid_row(&error))
}

/// The column in which a row differs from the device that is registered; an empty cell asks for nothing.
fn difference(
    new: &NewDevice,
    registered: &Registered,
    sealer: &Sealer,
) -> Result<Option<&'static str>, SealError> {
    let device = &registered.device;
    let is_other = |given: &str, has: &str| !given.is_empty() && given != has;
    if new.device_id.as_ref().is_some_and(|id| *id != device.id) {
        return Ok(Some("device_id"));
    }
    if is_other(&new.name, &device.name) {
        return Ok(Some("device_name"));
    }
    if is_other(&new.description, &device.description) {
        return Ok(Some("description"));
    }
    if new.auth.is_some_and(|auth| auth != device.auth) {
        return Ok(Some("auth_type"));
    }
    if new
        .psk_encoding
        .is_some_and(|given| given != device.psk_encoding)
    {
        return Ok(Some("psk_encoding"));
    }
    if new
        .fingerprint
        .is_some_and(|given| !registered.fingerprints.contains(&given))
    {
        return Ok(Some("fingerprint"));
    }
    let Some(secret) = &new.secret else {
        return Ok(None);
    };
    for sealed in &registered.secrets {
        if sealer.open(device.id.as_str(), sealed)?.as_slice() == secret.as_bytes() {
            return Ok(None);
        }
    }
    Ok(Some("secret"))
}

fn auth(word: &str) -> Result<AuthKind, InvalidField> {
    match word.to_ascii_lowercase().as_str() {
        "secret" => Ok(AuthKind::Secret),
        "x509" | "certificates" => Ok(AuthKind::X509),
        "none" => Ok(AuthKind::None),
        _ => Err(InvalidField::new(
            "auth_type",
            "is none of secret, x509 and none",
        )),
    }
}

fn psk_encoding(word: &str) -> Result<PskEncoding, InvalidField> {
    [PskEncoding::Text, PskEncoding::Hex, PskEncoding::Base64]
        .into_iter()
        .find(|encoding| encoding.as_str().eq_ignore_ascii_case(word))
        .ok_or_else(|| InvalidField::new("psk_encoding", "is none of text, hex and base64"))
}

const fn failed(code: BatchRowCode, message: String) -> Outcome {
    Outcome::Failed(BatchRowError { code, message })
}

fn invalid(error: &InvalidField) -> Outcome {
    Outcome::Failed(invalid_row(error))
}

fn invalid_row(error: &InvalidField) -> BatchRowError {
    // Under the names of the columns, which are not those of the API everywhere.
    let column = match error.field {
        "name" => "device_name",
        "auth" => "auth_type",
        other => other,
    };
    BatchRowError {
        code: BatchRowCode::InvalidField,
        message: format!("{column} {}", error.reason),
    }
}

/// A cell as it is shown again: whoever sends a page as a name need not get it back.
fn shortened(cell: &str) -> String {
    cell.chars().take(MAX_SHOWN_CHARS).collect()
}

const MAX_SHOWN_CHARS: usize = 128;
