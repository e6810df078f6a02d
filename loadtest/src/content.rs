//! The bytes of the resource: generated from a seed, or read from a file.
//!
//! Generated content is a function of (seed, offset), so that nothing of it is held in memory; a
//! file is read where it lies. One pass over it yields the digests that devices are checked with.
//! Invariants: size and digests never change once the source was made.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::rng::Rng;

/// A resource's content with its digests.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    source: Source,
    size: u64,
    sha256: [u8; 32],
    crc32: u32,
}

/// Where the bytes come from.
#[derive(Debug, Clone)]
enum Source {
    Generated { seed: u64 },
    File { file: Arc<File>, path: PathBuf },
}

impl Content {
    /// `size` bytes drawn from `seed`; takes one pass over them (some 0.5 s a GiB).
    ///
    /// # Errors
    /// None in practice; the signature is that of [`Content::from_file`].
    pub(crate) fn generated(seed: u64, size: u64) -> io::Result<Self> {
        Self::digested(Source::Generated { seed }, size)
    }

    /// The bytes of `path`, which must not change while the run lasts.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(crate) fn from_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let source = Source::File {
            file: Arc::new(file),
            path: path.to_owned(),
        };
        Self::digested(source, size)
    }

    fn digested(source: Source, size: u64) -> io::Result<Self> {
        let mut content = Self {
            source,
            size,
            sha256: [0; 32],
            crc32: 0,
        };
        let mut sha256 = Sha256::new();
        let mut crc32 = crc32fast::Hasher::new();
        let mut reader = content.reader();
        loop {
            let part = reader.next_part(READ_BYTES)?;
            if part.is_empty() {
                break;
            }
            sha256.update(&part);
            crc32.update(&part);
        }
        content.sha256 = sha256.finalize().into();
        content.crc32 = crc32.finalize();
        Ok(content)
    }

    /// Reader that starts at the first byte.
    pub(crate) fn reader(&self) -> ContentReader {
        ContentReader {
            content: self.clone(),
            offset: 0,
        }
    }

    /// `len` bytes from `offset` on.
    ///
    /// # Errors
    /// The file became shorter or unreadable.
    pub(crate) fn part(&self, offset: u64, len: usize) -> io::Result<BytesMut> {
        let mut part = BytesMut::zeroed(len);
        self.fill(offset, &mut part)?;
        Ok(part)
    }

    /// Bytes in all.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of all bytes.
    pub(crate) const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// CRC-32 (IEEE) of all bytes.
    pub(crate) const fn crc32(&self) -> u32 {
        self.crc32
    }

    /// Name for the resource: unique for its bytes and legal for the gateway.
    pub(crate) fn resource_name(&self) -> String {
        let digest: String = hex::encode(self.sha256).chars().take(12).collect();
        format!("swarm-{digest}")
    }

    /// What a person reads about it.
    pub(crate) fn description(&self) -> String {
        match &self.source {
            Source::Generated { seed } => format!("swarm: generated from seed {seed}"),
            Source::File { path, .. } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!("swarm: {name}").chars().take(100).collect()
            }
        }
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.source {
            Source::Generated { seed } => {
                generate(*seed, offset, out);
                Ok(())
            }
            Source::File { file, .. } => file.read_exact_at(out, offset),
        }
    }
}

/// Reads a [`Content`] front to back.
#[derive(Debug)]
pub(crate) struct ContentReader {
    content: Content,
    offset: u64,
}

impl ContentReader {
    /// At most `max` further bytes; empty at the end.
    ///
    /// # Errors
    /// The file became shorter or unreadable.
    pub(crate) fn next_part(&mut self, max: usize) -> io::Result<Bytes> {
        let left = self.content.size - self.offset;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        let mut part = BytesMut::zeroed(take);
        self.content.fill(self.offset, &mut part)?;
        self.offset += take as u64;
        Ok(part.freeze())
    }
}

impl Read for ContentReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let part = self.next_part(out.len())?;
        out[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// Writes the bytes of (`seed`, `offset`): each block of [`BLOCK_BYTES`] is a stream of its own.
fn generate(seed: u64, offset: u64, out: &mut [u8]) {
    let mut at = offset;
    let mut rest = out;
    while !rest.is_empty() {
        let mut block = [0_u8; BLOCK_BYTES];
        let mut rng = Rng::new(seed, at / BLOCK_BYTES as u64);
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        let skip = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
        let take = (BLOCK_BYTES - skip).min(rest.len());
        let (now, later) = rest.split_at_mut(take);
        now.copy_from_slice(&block[skip..skip + take]);
        at += take as u64;
        rest = later;
    }
}

const BLOCK_BYTES: usize = 4096;
/// Bytes digested at a time.
const READ_BYTES: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &Content, step: usize) -> Vec<u8> {
        let mut reader = content.reader();
        let mut out = Vec::new();
        loop {
            let part = reader.next_part(step).unwrap();
            if part.is_empty() {
                return out;
            }
            out.extend_from_slice(&part);
        }
    }

    #[test]
    fn content_does_not_depend_on_how_it_is_read() {
        let content = Content::generated(42, 20_001).unwrap();
        let whole = all(&content, usize::MAX);
        assert_eq!(whole.len(), 20_001);
        assert_eq!(whole, all(&content, 777));
        let mut by_read = Vec::new();
        content.reader().read_to_end(&mut by_read).unwrap();
        assert_eq!(whole, by_read);
        assert_eq!(content.sha256()[..], Sha256::digest(&whole)[..]);
        assert_eq!(content.crc32(), crc32fast::hash(&whole));
    }

    #[test]
    fn seeds_give_different_content_of_the_same_name_length() {
        let a = Content::generated(1, 100).unwrap();
        let b = Content::generated(2, 100).unwrap();
        assert_ne!(a.sha256(), b.sha256());
        assert_ne!(a.resource_name(), b.resource_name());
        assert!(a.resource_name().len() <= 32);
    }

    #[test]
    fn a_shorter_content_is_a_prefix() {
        let short = all(&Content::generated(3, 5_000).unwrap(), 4_000);
        let long = all(&Content::generated(3, 9_000).unwrap(), 4_000);
        assert_eq!(short, long[..5_000]);
    }

    #[test]
    fn a_file_is_read_where_it_lies() {
        let path = std::env::temp_dir().join(format!("swarm-content-{}", std::process::id()));
        std::fs::write(&path, b"hello resource").unwrap();
        let content = Content::from_file(&path).unwrap();
        assert_eq!(all(&content, 5), b"hello resource");
        assert_eq!(content.size(), 14);
        std::fs::remove_file(&path).unwrap();
    }
}
