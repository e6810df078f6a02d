//! Bodies: JSON or CBOR by the client's wish, cut into blocks where they are too large for one.

use bytes::Bytes;
use headgate_protocol::coap::{
    Block, BlockError, Code, ContentFormat, Message, OptionNumber, Response, Szx,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// An object in the format that the client accepts; `None`: it accepts none of ours.
pub(super) fn encode(
    accept: Option<ContentFormat>,
    object: &Value,
) -> Option<(ContentFormat, Bytes)> {
    match accept {
        None | Some(ContentFormat::JSON) => {
            Some((ContentFormat::JSON, Bytes::from(object.to_string())))
        }
        Some(ContentFormat::CBOR) => {
            let mut body = Vec::new();
            ciborium::into_writer(object, &mut body).ok()?;
            Some((ContentFormat::CBOR, Bytes::from(body)))
        }
        Some(_) => None,
    }
}

/// Reads an object that a client sent.
///
/// # Errors
/// The response that says what is wrong.
pub(super) fn decode(message: &Message) -> Result<Value, Response> {
    let parsed = match message.content_format() {
        None | Some(ContentFormat::JSON) => serde_json::from_slice(&message.payload).ok(),
        Some(ContentFormat::CBOR) => ciborium::from_reader(&*message.payload).ok(),
        Some(_) => return Err(Response::new(Code::UNSUPPORTED_CONTENT_FORMAT)),
    };
    parsed
        .filter(Value::is_object)
        .ok_or_else(|| Response::error(Code::BAD_REQUEST, "not an object"))
}

/// The block that a request asks for; the first one of the largest size where it asks for none.
///
/// # Errors
/// 4.00.
pub(super) fn asked_block(message: &Message) -> Result<Block, Response> {
    let Some(value) = message.first(OptionNumber::BLOCK2) else {
        return Ok(Block::first(Szx::MAX));
    };
    Block::decode(value).map_err(|error| Response::error(Code::BAD_REQUEST, &error.to_string()))
}

/// The part of a body that a request asks for, and whether it is the last.
///
/// # Errors
/// 4.00 for a block that is none, 4.02 for one beyond the end.
pub(super) fn part(
    message: &Message,
    format: ContentFormat,
    body: &Bytes,
) -> Result<(Response, bool), Response> {
    let asked = asked_block(message)?;
    let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let slice = asked.slice(size, Szx::MAX).map_err(beyond_end)?;
    let start = usize::try_from(slice.offset).unwrap_or(usize::MAX);
    let payload = body.slice(start..start + slice.len);
    let mut response = Response::new(Code::CONTENT).with_content(format, payload);
    let is_cut = slice.block.more || asked.number > 0;
    if is_cut || message.first(OptionNumber::BLOCK2).is_some() {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        response = response
            .with(OptionNumber::ETAG, entity_tag(&Sha256::digest(body)))
            .with_uint(OptionNumber::BLOCK2, slice.block.value())
            .with_uint(OptionNumber::SIZE2, size);
    }
    Ok((response, !slice.block.more))
}

/// The entity tag of content with this SHA-256.
pub(super) fn entity_tag(sha256: &[u8]) -> &[u8] {
    sha256.get(..8).unwrap_or(sha256)
}

pub(super) fn beyond_end(error: BlockError) -> Response {
    // [RFC 7959 s2.4 leaves the code open]: the option cannot be followed.
    Response::error(Code::BAD_OPTION, &error.to_string())
}

#[cfg(test)]
mod tests {
    use headgate_protocol::coap::{MessageId, MessageType, Token};
    use serde_json::json;

    use super::*;

    fn get(options: &[(OptionNumber, u32)]) -> Message {
        let kind = MessageType::Confirmable;
        let mut message = Message::new(kind, Code::GET, MessageId(1), Token::default());
        for (number, value) in options {
            message.add_uint(*number, *value);
        }
        message
    }

    #[test]
    fn an_object_is_written_and_read_in_either_format() {
        let object = json!({"transfer": "1", "size": 5});
        for format in [ContentFormat::JSON, ContentFormat::CBOR] {
            let (written, body) = encode(Some(format), &object).unwrap();
            assert_eq!(written, format);
            let mut post = get(&[(OptionNumber::CONTENT_FORMAT, u32::from(format.0))]);
            post.payload = body;
            assert_eq!(decode(&post), Ok(object.clone()));
        }
        assert!(encode(Some(ContentFormat(41)), &object).is_none());
        let mut post = get(&[(OptionNumber::CONTENT_FORMAT, 41)]);
        assert_eq!(
            decode(&post).unwrap_err().code(),
            Code::UNSUPPORTED_CONTENT_FORMAT
        );
        post = get(&[]);
        post.payload = "[]".into();
        assert_eq!(decode(&post).unwrap_err().code(), Code::BAD_REQUEST);
    }

    #[test]
    fn a_body_is_cut_and_ends() {
        let body = Bytes::from(vec![b'x'; 2_500]);
        let ask = |block: Option<Block>| {
            let options = block.map(|block| (OptionNumber::BLOCK2, block.value()));
            part(&get(options.as_slice()), ContentFormat::JSON, &body)
        };
        let at = |number| Block {
            number,
            ..Block::first(Szx::MAX)
        };
        let (first, is_last) = ask(None).unwrap();
        assert_eq!((first.payload().len(), is_last), (1_024, false));
        let (last, is_last) = ask(Some(at(2))).unwrap();
        assert_eq!((last.payload().len(), is_last), (452, true));
        assert_eq!(ask(Some(at(3))).unwrap_err().code(), Code::BAD_OPTION);
        let small = part(&get(&[]), ContentFormat::JSON, &Bytes::from_static(b"{}")).unwrap();
        assert_eq!(
            small,
            (
                Response::new(Code::CONTENT).with_content(ContentFormat::JSON, "{}".into()),
                true
            )
        );
    }
}
