//! The file of a batch between its upload and the end of its registration: it may hold secrets, so it is sealed.
//!
//! A spool file is frames, each a length (4 bytes, big-endian) and up to [`FRAME_BYTES`] sealed under the batch's id
//! and the frame's place; the last frame is empty. A file that is cut, changed or another batch's does not open.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{model::Id, service::seal::Sealer};

/// Writes a spool file. Blocks on the disk; a writer that is dropped unfinished removes its file.
pub(super) struct SpoolWriter {
    file: BufWriter<File>,
    path: PathBuf,
    sealer: Sealer,
    batch: Id,
    frames: u32,
    keep: bool,
}

impl SpoolWriter {
    /// A new file, which must not exist.
    pub(super) fn create(path: PathBuf, sealer: Sealer, batch: Id) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
            sealer,
            batch,
            frames: 0,
            keep: false,
        })
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for frame in bytes.chunks(FRAME_BYTES) {
            self.frame(frame)?;
        }
        Ok(())
    }

    /// Ends the file and brings it to the disk.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.frame(&[])?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// Gives the finished file the name under which it is found; it is no longer removed.
    pub(super) fn keep_as(mut self, name: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, name)?;
        self.keep = true;
        let directory = name.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Where it is while it is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sealed = self
            .sealer
            .seal(&owner(self.batch, self.frames), bytes)
            .map_err(io::Error::other)?;
        let len = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.file.write_all(&len.to_be_bytes())?;
        self.file.write_all(&sealed)?;
        self.frames += 1;
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing refers to it; what cannot be removed now is at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Reads a spool file from its start. Blocks on the disk.
pub(super) struct SpoolReader {
    file: BufReader<File>,
    sealer: Sealer,
    batch: Id,
    frames: u32,
    frame: Zeroizing<Vec<u8>>,
    at: usize,
    ended: bool,
}

impl SpoolReader {
    /// Opens the file of a batch.
    pub(super) fn open(path: &Path, sealer: Sealer, batch: Id) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            sealer,
            batch,
            frames: 0,
            frame: Zeroizing::default(),
            at: 0,
            ended: false,
        })
    }

    fn next_frame(&mut self) -> io::Result<()> {
        let mut len = [0; 4];
        self.file.read_exact(&mut len)?;
        let len = usize::try_from(u32::from_be_bytes(len)).map_err(io::Error::other)?;
        if len > FRAME_BYTES + MAX_SEAL_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut sealed = vec![0; len];
        self.file.read_exact(&mut sealed)?;
        self.frame = self
            .sealer
            .open(&owner(self.batch, self.frames), &sealed)
            .map_err(io::Error::other)?;
        self.frames += 1;
        self.at = 0;
        self.ended = self.frame.is_empty();
        Ok(())
    }
}

impl Read for SpoolReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.frame.len() && !self.ended {
            self.next_frame()?;
        }
        let mut rest = self.frame.get(self.at..).unwrap_or_default();
        let read = rest.read(out)?;
        self.at += read;
        Ok(read)
    }
}

fn owner(batch: Id, frame: u32) -> String {
    format!("device batch {batch} {frame}")
}

/// Bytes of the file in one frame.
pub(super) const FRAME_BYTES: usize = 64 * 1024;
/// More than sealing adds to a frame.
const MAX_SEAL_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, sealer: &Sealer, batch: Id, bytes: &[u8]) {
        let draft = path.with_extension("part");
        let mut writer = SpoolWriter::create(draft, sealer.clone(), batch).unwrap();
        for part in bytes.chunks(100_000) {
            writer.write(part).unwrap();
        }
        writer.finish().unwrap();
        writer.keep_as(path).unwrap();
    }

    fn read(path: &Path, sealer: &Sealer, batch: Id) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        SpoolReader::open(path, sealer.clone(), batch)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_opens_for_its_batch_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let (path, batch) = (dir.path().join("1.spool"), Id::from_i64(1).unwrap());
        for size in [0, 1, FRAME_BYTES, 250_000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            write(&path, &sealer, batch, &bytes);
            assert_eq!(read(&path, &sealer, batch).unwrap(), bytes);
            assert!(read(&path, &sealer, Id::from_i64(2).unwrap()).is_err());
        }
        let stored = std::fs::read(&path).unwrap();
        let clear: Vec<u8> = (0..=250).take(64).collect();
        assert!(!stored.windows(64).any(|window| window == clear));
        std::fs::write(&path, &stored[..stored.len() - 40]).unwrap();
        assert!(
            read(&path, &sealer, batch).is_err(),
            "the last frame is gone"
        );
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&dir.path().join("key")).unwrap();
        let path = dir.path().join("1.part");
        let mut writer =
            SpoolWriter::create(path.clone(), sealer, Id::from_i64(1).unwrap()).unwrap();
        writer.write(b"secret").unwrap();
        drop(writer);
        assert!(!path.exists());
    }
}
