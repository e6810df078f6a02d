//! Style, script and icon: in the binary, at addresses that change with their bytes.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest as _, Sha256};

use super::fault::Fault;

/// One file.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "console.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../../assets/console.css"),
    },
    Asset {
        name: "console.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../../assets/console.js"),
    },
    Asset {
        name: "icon.svg",
        media_type: "image/svg+xml",
        bytes: include_bytes!("../../../assets/icon.svg"),
    },
];

/// Tells these files from those of another version.
static REVISION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for asset in &ASSETS {
        digest.update(asset.bytes);
    }
    hex::encode(digest.finalize().get(..8).unwrap_or_default())
});

/// The files' routes; strangers may have them.
pub(super) fn routes() -> Router {
    Router::new().route("/assets/{revision}/{name}", get(asset))
}

/// Where a file is found.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{}/{name}", *REVISION)
}

async fn asset(Path((revision, name)): Path<(String, String)>) -> Response {
    let known = ASSETS.iter().find(|asset| asset.name == name);
    match known.filter(|_| revision == *REVISION) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.bytes).into_response()
        }
        None => Fault::no_page().into_response(),
    }
}
