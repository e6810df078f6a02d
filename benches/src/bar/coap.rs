//! CoAP, plain and over DTLS: what a request and a handshake cost beside other servers, what sessions hold, and what a
//! network that loses datagrams costs.

pub(super) mod get;
pub(super) mod handshake;
pub(super) mod hellos;
pub(super) mod loss;
pub(super) mod sessions;

use headgate_dtls::Credential;
use headgate_protocol::coap::{Code, OptionNumber};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::cli::MeasureArgs;
use crate::error::BenchError;
use crate::fleet::ClientError;
use crate::fleet::coap::{Ask, CoapClient};
use crate::peer::headgate::Headgate;

/// Settings beside the defaults: clients of a bench come all at once and from one network.
const PLAIN: &str = r#"[coap]
listen = "127.0.0.1:0"
stranger_rate = 1000000
"#;
/// The same of DTLS.
const SECURE: &str = r#"[coaps]
listen = "127.0.0.1:0"
max_handshakes_per_second = 100000
"#;
/// The key of every client: as coap-server takes it,
const KEY: &str = "sixteen octets..";
/// and as the others do, in hexadecimal.
const HEXADECIMAL_KEY: &str = "7369787465656e206f63746574732e2e";

/// A gateway with a listener for CoAP; `secure` are further lines of its section `coaps`, where it has one.
async fn gateway(args: &MeasureArgs, secure: Option<&str>) -> Result<Headgate, BenchError> {
    let settings = match secure {
        Some(more) => format!("{PLAIN}{SECURE}{more}"),
        None => PLAIN.to_owned(),
    };
    Headgate::start_with_more(args, &settings).await
}

/// Makes devices `b0`, `b1` and so on; with `is_secure` each has [`KEY`].
async fn devices(headgate: &Headgate, count: u32, is_secure: bool) -> Result<(), BenchError> {
    let failed = |source| headgate.client_error(source);
    let kind = if is_secure { "secret" } else { "none" };
    let product = json!({
        "id": "B", "name": "Bench", "transports": {"mqtt": false, "coap": true}, "auth_kinds": [kind],
    });
    let api = headgate.api()?;
    api.post::<IgnoredAny>("/products", &product)
        .await
        .map_err(failed)?;
    for number in 0..count {
        let mut device = json!({"product_id": "B", "node_id": format!("b{number}"), "auth": kind});
        if is_secure {
            device["secret"] = json!(HEXADECIMAL_KEY);
        }
        api.post::<Made>("/devices", &device)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "device_id")]
    _id: String,
}

/// How a client shows that it is device `number`.
fn credential(number: u32) -> Credential {
    Credential::Psk {
        identity: format!("b{number}").into_bytes(),
        key: KEY.as_bytes().to_vec().into(),
    }
}

/// Registers device `number`; gives the request that it asks with from then on.
async fn register(client: &mut CoapClient, number: u32) -> Result<Ask, ClientError> {
    let ask = Ask {
        path: vec!["rd".to_owned()],
        query: vec![format!("ep=b{number}")],
    };
    let response = client.exchange(Code::POST, &ask).await?;
    let id = response.all(OptionNumber::LOCATION_PATH).nth(1);
    let id = id.ok_or_else(|| ClientError::Answer(response.code.to_string()))?;
    Ok(Ask {
        path: vec!["t".to_owned()],
        query: vec![format!("rd={}", String::from_utf8_lossy(id))],
    })
}
