//! `/u`: what a device sends, block by block, each answered when it is in the spool.
//!
//! A block is known by its offset, so that an upload goes on where it stands after whatever happened: the first block
//! announces it, and any later one is taken where it continues what is there.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use headgate_protocol::{
    coap::{Block, BlockError, Code, OptionNumber, Response, Szx},
    transfer::{
        message::{CreateUploadTask, TransferErrorCode, UploadResultCode},
        upload::parse_hex,
    },
};
use serde_json::json;

use super::{
    Asked, CoapServer, Done, body,
    registration::{RdId, Registration, Uploading},
    unavailable,
};
use crate::service::{
    auth::AuthenticatedDevice,
    upload::{LiveUpload, Refusal, UploadService, Uploader},
};

/// Uploads of one device whose tags are remembered.
const MAX_UPLOADING: usize = 4;

impl CoapServer {
    /// `PUT /u/{name}`: a block, or all of it.
    pub(super) fn put_block(&mut self, now: Instant, asked: Asked, id: RdId, name: String) {
        let block = match read_block(&asked) {
            Ok(block) => block,
            Err(response) => return self.answer(now, &asked, response),
        };
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        if block.number > 0 {
            return match self.goes_on(registration, &asked, block, &name) {
                Ok(upload) => self.write(asked, id, upload, block),
                Err(response) => self.answer(now, &asked, response),
            };
        }
        let task = match read_announcement(&asked, block, name) {
            Ok(task) => task,
            Err(response) => return self.answer(now, &asked, response),
        };
        let (uploads, device) = (self.node.uploads.clone(), registration.device.clone());
        self.spawn(async move {
            let (upload, response) = begin(&uploads, &device, &asked, block, &task).await;
            Done::Uploaded(asked, id, upload, response)
        });
    }

    /// The upload that a later block belongs to.
    fn goes_on(
        &self,
        registration: &Registration,
        asked: &Asked,
        block: Block,
        name: &str,
    ) -> Result<Arc<LiveUpload>, Response> {
        let incomplete = |why| Response::error(Code::REQUEST_ENTITY_INCOMPLETE, why);
        let device = &registration.device.device_id;
        let upload = self.node.uploads.open_named(device, name);
        let upload = upload.ok_or_else(|| incomplete("begin with the first block"))?;
        let known = registration.uploads.iter();
        let mut known = known.filter(|known| Arc::ptr_eq(&known.upload, &upload));
        let tag = asked.message.first(OptionNumber::REQUEST_TAG);
        if known
            .next()
            .is_some_and(|known| known.tag.as_deref() != tag)
        {
            // [RFC 9175 s3.3]: blocks of two operations are not put together.
            return Err(incomplete("another upload of this name is in progress"));
        }
        if block.offset() > upload.offset() {
            return Err(incomplete("blocks before this one are missing"));
        }
        Ok(upload)
    }

    fn write(&self, asked: Asked, id: RdId, upload: Arc<LiveUpload>, block: Block) {
        let uploads = self.node.uploads.clone();
        self.spawn(async move {
            let response = write(&uploads, &upload, &asked, block).await;
            Done::Uploaded(asked, id, Some(upload), response)
        });
    }

    pub(super) fn on_uploaded(
        &mut self,
        now: Instant,
        asked: &Asked,
        id: RdId,
        upload: Option<Arc<LiveUpload>>,
        response: Response,
    ) {
        if let (Some(registration), Some(upload)) = (self.registrations.get_mut(id), upload) {
            let all = &mut registration.uploads;
            all.retain(|known| known.upload.name != upload.name);
            if response.code() == Code::CONTINUE {
                if all.len() >= MAX_UPLOADING {
                    all.remove(0);
                }
                let tag = asked.message.first(OptionNumber::REQUEST_TAG);
                all.push(Uploading {
                    upload,
                    tag: tag.map(Into::into),
                });
            }
        }
        self.answer(now, asked, response);
    }

    /// `GET /u/{name}`: where an unfinished upload stands.
    pub(super) fn get_upload(&self, asked: Asked, id: RdId, name: String) {
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        let (uploads, device) = (self.node.uploads.clone(), registration.device.clone());
        self.spawn(async move {
            let response = match uploads.hold_named(&device.device_id, &name).await {
                Ok(Some(upload)) => {
                    let standing = json!({"offset": upload.offset(), "size": upload.size});
                    match body::encode(asked.message.accept(), &standing) {
                        Some((format, body)) => {
                            Response::new(Code::CONTENT).with_content(format, body)
                        }
                        None => Response::new(Code::NOT_ACCEPTABLE),
                    }
                }
                Ok(None) => Response::new(Code::NOT_FOUND),
                Err(refusal) => refused(refusal),
            };
            Done::Uploaded(asked, id, None, response)
        });
    }
}

/// The block that a request carries; a request without Block1 carries all.
fn read_block(asked: &Asked) -> Result<Block, Response> {
    let bad = |why: &str| Response::error(Code::BAD_REQUEST, why);
    let len = asked.message.payload.len();
    let Some(value) = asked.message.first(OptionNumber::BLOCK1) else {
        return Ok(Block::first(Szx::MAX));
    };
    let block = Block::decode(value).map_err(|error: BlockError| bad(&error.to_string()))?;
    let fits = if block.more {
        len == block.size.bytes_usize()
    } else {
        len <= block.size.bytes_usize()
    };
    if fits {
        Ok(block)
    } else {
        Err(bad("the payload is not as long as the block"))
    }
}

/// What the first block announces.
fn read_announcement(
    asked: &Asked,
    block: Block,
    name: String,
) -> Result<CreateUploadTask, Response> {
    let bad = |why: &str| Response::error(Code::BAD_REQUEST, why);
    let message = &asked.message;
    let announced = || message.query("size")?.parse::<u64>().ok();
    let size = match message.uint(OptionNumber::SIZE1) {
        Some(size) => u64::from(size),
        None if !block.more => u64::try_from(message.payload.len()).unwrap_or(u64::MAX),
        None => announced().ok_or_else(|| bad("Size1 or size is missing"))?,
    };
    let sha256 = message
        .query("sha256")
        .ok_or_else(|| bad("sha256 is missing"))?;
    let sha256 = parse_hex(sha256).ok_or_else(|| bad("sha256 must be 64 hexadecimal digits"))?;
    let task = CreateUploadTask {
        size,
        name,
        md5: None,
        sha256: Some(sha256),
        by_chunks: true,
        chunk_size: None,
    };
    task.check().map_err(bad)
}

/// Announces an upload and writes its first block.
async fn begin(
    uploads: &UploadService,
    device: &AuthenticatedDevice,
    asked: &Asked,
    block: Block,
    task: &CreateUploadTask,
) -> (Option<Arc<LiveUpload>>, Response) {
    let who = Uploader {
        device_id: &device.device_id,
        product_id: &device.product.id,
        node_id: &device.node_id,
        reached_at: None,
    };
    let created = match uploads.create(who, task).await {
        Ok(created) => created,
        Err(refusal) => {
            tracing::info!(device_id = %device.device_id, code = ?refusal.code, size = task.size, "an upload was refused");
            return (None, refused(refusal));
        }
    };
    if created.ended.is_some() {
        // The very same is stored already: a request that comes again because its answer was lost.
        return (None, Response::new(Code::CREATED));
    }
    match uploads.find(&device.device_id, &created.rsp.transfer) {
        Ok(Some(upload)) => {
            let response = write(uploads, &upload, asked, block).await;
            (Some(upload), response)
        }
        Ok(None) => (None, Response::new(Code::CREATED)),
        Err(refusal) => (None, refused(refusal)),
    }
}

/// Writes a block; the response says what became of it.
async fn write(
    uploads: &UploadService,
    upload: &Arc<LiveUpload>,
    asked: &Asked,
    block: Block,
) -> Response {
    let is_cut = asked.message.first(OptionNumber::BLOCK1).is_some();
    let with_block = |response: Response| {
        if is_cut {
            response.with_uint(OptionNumber::BLOCK1, block.value())
        } else {
            response
        }
    };
    let payload: Bytes = asked.message.payload.clone();
    let end = block.offset() + u64::try_from(payload.len()).unwrap_or(u64::MAX);
    if !block.more && end != upload.size {
        let why = "the last block does not end where the upload does";
        return Response::error(Code::REQUEST_ENTITY_INCOMPLETE, why);
    }
    match uploads.write_block(upload, block.offset(), payload).await {
        Ok(None) if block.more => with_block(Response::new(Code::CONTINUE)),
        Ok(Some(UploadResultCode::Stored)) => with_block(Response::new(Code::CREATED)),
        Ok(None) => Response::new(Code::REQUEST_ENTITY_INCOMPLETE),
        Ok(Some(ended)) => match ended {
            UploadResultCode::TimeOut | UploadResultCode::FileNotExist => {
                Response::error(Code::REQUEST_ENTITY_INCOMPLETE, ended.text())
            }
            mismatch => Response::error(Code::BAD_REQUEST, mismatch.text()),
        },
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    let code = match refusal.code {
        TransferErrorCode::TooLarge | TransferErrorCode::QuotaExceeded => {
            Code::REQUEST_ENTITY_TOO_LARGE
        }
        TransferErrorCode::Busy | TransferErrorCode::NoSpace => {
            return unavailable(refusal.retry_after.unwrap_or(10));
        }
        TransferErrorCode::UnknownTransfer => Code::REQUEST_ENTITY_INCOMPLETE,
        _ => Code::BAD_REQUEST,
    };
    Response::error(code, refusal.message)
}
