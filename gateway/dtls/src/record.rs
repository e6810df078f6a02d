//! What a datagram shows before anything is decrypted: records, the `ClientHello`, the identity of a PSK peer.
//!
//! Nothing here is authenticated: it says where a record goes and what to look up, never who sent it.
//! Spec: RFC 6347 s4.1 and s4.2, RFC 9146 s4, RFC 4279 s2.

/// Content types. RFC 5246 s6.2.1, RFC 9146 s4.
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;
pub(crate) const CID: u8 = 25;

/// Our Connection IDs are all of this length.
pub(crate) const CID_BYTES: usize = 8;

const CLIENT_HELLO: u8 = 1;
const CLIENT_KEY_EXCHANGE: u8 = 16;
/// Type, version, epoch, sequence number, length.
const HEADER_BYTES: usize = 13;
/// Type, length, message number, fragment's offset and length.
const HANDSHAKE_HEADER_BYTES: usize = 12;

/// One record of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) content: u8,
    /// The epoch, and the sequence number in its lower 48 bits: larger is newer.
    pub(crate) number: u64,
    pub(crate) cid: Option<[u8; CID_BYTES]>,
    /// What follows the header.
    pub(crate) fragment: &'a [u8],
    /// All of it.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn epoch(&self) -> u64 {
        self.number >> 48
    }

    /// The random of a `ClientHello` that is whole and in the clear.
    pub(crate) fn client_hello_random(&self) -> Option<[u8; 32]> {
        let body = self.handshake(CLIENT_HELLO)?;
        // Two bytes of version come first.
        body.get(2..34)?.try_into().ok()
    }

    /// The identity in a `ClientKeyExchange` of a PSK suite that is whole and in the clear.
    pub(crate) fn psk_identity(&self) -> Option<&'a [u8]> {
        let body = self.handshake(CLIENT_KEY_EXCHANGE)?;
        let (length, identity) = body.split_first_chunk::<2>()?;
        (usize::from(u16::from_be_bytes(*length)) == identity.len()).then_some(identity)
    }

    /// The body of the first handshake message, where it is of this type and not in pieces.
    fn handshake(&self, kind: u8) -> Option<&'a [u8]> {
        if self.content != HANDSHAKE || self.epoch() != 0 {
            return None;
        }
        let (header, rest) = self.fragment.split_at_checked(HANDSHAKE_HEADER_BYTES)?;
        let number = |at: usize| -> usize {
            let bytes = &header[at..at + 3];
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
        };
        let (length, offset, part) = (number(1), number(6), number(9));
        let is_whole = header[0] == kind && offset == 0 && part == length;
        is_whole.then(|| rest.get(..length))?
    }
}

/// The records of a datagram, as far as they make sense.
pub(crate) fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let record = first(rest)?;
        rest = &rest[record.bytes.len()..];
        Some(record)
    })
}

fn first(datagram: &[u8]) -> Option<Record<'_>> {
    let content = *datagram.first()?;
    let cid_bytes = if content == CID { CID_BYTES } else { 0 };
    let header = datagram.get(..HEADER_BYTES + cid_bytes)?;
    let number = u64::from_be_bytes(header.get(3..11)?.try_into().ok()?);
    let cid = header.get(11..11 + cid_bytes)?;
    let length = header.get(11 + cid_bytes..)?.try_into().ok()?;
    let end = header.len() + usize::from(u16::from_be_bytes(length));
    Some(Record {
        content,
        number,
        cid: cid.try_into().ok(),
        fragment: datagram.get(header.len()..end)?,
        bytes: &datagram[..end],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: u8, number: u64, cid: &[u8], fragment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        let number = number.to_be_bytes();
        [&[content, 254, 253], &number[..], cid, &length, fragment].concat()
    }

    #[test]
    fn a_datagram_is_cut_into_its_records() {
        let one = record(HANDSHAKE, 7, &[], b"abc");
        let two = record(CID, 1 << 48 | 9, b"12345678", b"de");
        let datagram = [one.clone(), two.clone()].concat();
        let found: Vec<_> = records(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].number, found[0].cid), (7, None));
        assert_eq!((found[0].fragment, found[0].bytes), (&b"abc"[..], &one[..]));
        assert_eq!((found[1].epoch(), found[1].cid), (1, Some(*b"12345678")));
        for cut in 0..two.len() {
            assert_eq!(records(&two[..cut]).count(), 0, "{cut}");
        }
    }

    #[test]
    fn an_identity_is_found_where_it_is_whole() {
        let message = |kind: u8, length: u8, part: u8, body: &[u8]| {
            let header = [kind, 0, 0, length, 0, 2, 0, 0, 0, 0, 0, part];
            record(HANDSHAKE, 3, &[], &[&header, body].concat())
        };
        let identity = |datagram: &[u8]| {
            let record = records(datagram).next().unwrap();
            record.psk_identity().map(<[u8]>::to_vec)
        };
        let whole = message(CLIENT_KEY_EXCHANGE, 5, 5, b"\0\x03one");
        assert_eq!(identity(&whole), Some(b"one".to_vec()));
        for bad in [
            message(CLIENT_KEY_EXCHANGE, 5, 4, b"\0\x03one"),
            message(CLIENT_KEY_EXCHANGE, 5, 5, b"\0\x04one"),
            message(CLIENT_KEY_EXCHANGE, 6, 6, b"\0\x03one"),
            message(CLIENT_HELLO, 5, 5, b"\0\x03one"),
            message(CLIENT_KEY_EXCHANGE, 1, 1, b"\0"),
        ] {
            assert_eq!(identity(&bad), None, "{bad:?}");
        }
    }
}
