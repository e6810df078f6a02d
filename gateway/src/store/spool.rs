//! The spool: a file for each upload whose bytes are still coming.
//!
//! A file has room for the bytes of its upload, and behind them a trailer of four slots, of which two by turns say
//! which bytes are in it, and two by turns which of them have reached the disk. A slot is written after its bytes, so
//! what it says holds after the process was killed, and what the second pair says also after the power was lost. A
//! file without a trailer is whole: it was cut off when every byte had been checked and had reached the disk, so that
//! the file can become a blob as it is.
//! Everything here blocks: it is called on threads for blocking work only.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use headgate_protocol::transfer::ranges::Ranges;
use sha2::{Digest as _, Sha256};

use crate::{
    model::{Digests, Id, Millis, random},
    store::hash::Hasher,
};

/// What is written between two synchronisations with the disk.
pub const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// Ranges beyond the first gap that a slot has room for; one more chunk is refused.
pub const MAX_RANGES: usize = 60;

/// A directory of unfinished uploads. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: Arc<Path>,
    /// Names this boot of the machine: what an earlier one left is trusted as far as it was on the disk.
    boot: [u8; 16],
}

/// What is in one file, as whoever writes it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolState {
    have: Ranges,
    /// Slots written so far; the newest has the largest number.
    written: u64,
    synced: u64,
    unsynced_bytes: u64,
}

impl SpoolState {
    /// Which bytes are in the file.
    pub fn have(&self) -> &Ranges {
        &self.have
    }

    /// Counts what is in the file as not there: it is written anew from the beginning.
    pub fn forget(&mut self) {
        self.have = Ranges::default();
        self.unsynced_bytes = 0;
    }
}

/// What was found of an upload.
#[derive(Debug, Clone)]
pub struct Spooled {
    /// Which bytes are there.
    pub state: SpoolState,
    /// When the last of them came.
    pub at: Millis,
}

impl Spool {
    /// Opens a directory, or makes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.into(),
            boot: boot_id(Path::new(BOOT_ID))?,
        })
    }

    /// The uploads that have a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn list(&self) -> io::Result<Vec<Id>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<Id>().ok()));
        }
        Ok(ids)
    }

    /// What is there of an upload of `size` bytes; `None` when there is no file of it.
    ///
    /// # Errors
    /// What the system says.
    pub fn load(&self, id: Id, size: u64) -> io::Result<Option<Spooled>> {
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let at = metadata.modified()?.into();
        if metadata.len() == size && size > 0 {
            let state = SpoolState {
                have: Ranges::below(size),
                ..SpoolState::default()
            };
            return Ok(Some(Spooled { state, at }));
        }
        let mut trailer = [0; TRAILER_BYTES];
        let read = read_as_much(&file, size, &mut trailer)?;
        let slot = |index: usize| {
            let start = index * SLOT_BYTES;
            trailer
                .get(start..start + SLOT_BYTES)
                .filter(|_| start + SLOT_BYTES <= read)
                .and_then(Slot::decode)
        };
        let newest = |pair: [usize; 2]| {
            let slots = pair.into_iter().filter_map(slot);
            slots.max_by_key(|slot| slot.number)
        };
        let (current, synced) = (newest([0, 1]), newest([2, 3]));
        let trusted = current
            .as_ref()
            .filter(|slot| slot.boot == self.boot)
            .or(synced.as_ref());
        let have = trusted.map(|slot| slot.have.clone()).unwrap_or_default();
        let on_disk = synced.as_ref().map_or(0, |slot| slot.have.total());
        let state = SpoolState {
            unsynced_bytes: have.total().saturating_sub(on_disk),
            have,
            // Numbers go on above what either pair has, so that the next slot is the newest.
            written: current.as_ref().map_or(0, |slot| slot.number),
            synced: synced.as_ref().map_or(0, |slot| slot.number),
        };
        Ok(Some(Spooled { state, at }))
    }

    /// Writes chunks of an upload of `size` bytes, then notes that they are there; `true`: on the disk.
    ///
    /// # Errors
    /// What the system says: `state` is as before then, and so is what a reader finds.
    pub fn write(
        &self,
        id: Id,
        size: u64,
        state: &mut SpoolState,
        chunks: &[(u64, Bytes)],
    ) -> io::Result<bool> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(id))?;
        if state.written == 0 {
            // Longer than its bytes from the beginning on: as long as them it would count as whole.
            file.set_len(size + TRAILER_BYTES as u64)?;
        }
        let mut next = state.clone();
        for (offset, bytes) in chunks {
            file.write_all_at(bytes, *offset)?;
            let len = bytes.len() as u64;
            next.have.insert(*offset, offset + len);
            next.unsynced_bytes += len;
        }
        next.written += 1;
        self.put_slot(&file, size, CURRENT, next.written, &next.have)?;
        let sync = next.unsynced_bytes >= SYNC_BYTES;
        if sync {
            file.sync_data()?;
            next.synced += 1;
            self.put_slot(&file, size, SYNCED, next.synced, &next.have)?;
            file.sync_data()?;
            next.unsynced_bytes = 0;
        }
        *state = next;
        Ok(sync)
    }

    /// Reads bytes that are there.
    ///
    /// # Errors
    /// What the system says; the end of the file before the end of the range.
    pub fn read(&self, id: Id, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let file = File::open(self.path(id))?;
        let mut buffer = vec![0; bytes];
        file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }

    /// The digests of an upload that is there with all of its `size` bytes; `None` when `is_stopped` said so.
    ///
    /// # Errors
    /// What the system says; the end of the file before that of the upload.
    pub fn digest(
        &self,
        id: Id,
        size: u64,
        is_stopped: impl Fn() -> bool,
    ) -> io::Result<Option<Digests>> {
        let file = File::open(self.path(id))?;
        let mut hasher = Hasher::of_whole();
        let mut buffer = vec![0; DIGEST_BYTES];
        let mut offset = 0;
        while offset < size {
            if is_stopped() {
                return Ok(None);
            }
            let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
            let Some(bytes) = buffer.get_mut(..left.min(DIGEST_BYTES)) else {
                break;
            };
            file.read_exact_at(bytes, offset)?;
            hasher.update(bytes);
            offset += bytes.len() as u64;
        }
        Ok(Some(hasher.finish()))
    }

    /// Makes an upload's file its `size` bytes and nothing else, on the disk; gives where it is. Nothing may be written
    /// to it any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn seal(&self, id: Id, size: u64) -> io::Result<PathBuf> {
        let path = self.path(id);
        let file = OpenOptions::new().write(true).open(&path)?;
        // The bytes first: the loss of power must not find a file that is whole by its length alone.
        file.sync_data()?;
        file.set_len(size)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Removes an upload's file; one that is not there is fine.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, id: Id) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Bytes that can still be written on its file system.
    ///
    /// # Errors
    /// What the system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&*self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn put_slot(
        &self,
        file: &File,
        size: u64,
        pair: u64,
        number: u64,
        have: &Ranges,
    ) -> io::Result<()> {
        let slot = Slot {
            number,
            boot: self.boot,
            have: have.clone(),
        };
        let at = size + (pair + number % 2) * SLOT_BYTES as u64;
        file.write_all_at(&slot.encode(), at)
    }

    fn path(&self, id: Id) -> PathBuf {
        self.directory.join(id.to_string())
    }
}

/// One note of what is there.
#[derive(Debug)]
struct Slot {
    number: u64,
    boot: [u8; 16],
    have: Ranges,
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let beyond = self.have.beyond();
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.boot);
        bytes.extend_from_slice(&self.have.low().to_be_bytes());
        bytes.extend_from_slice(&(beyond.len() as u64).to_be_bytes());
        for (start, end) in beyond {
            bytes.extend_from_slice(&start.to_be_bytes());
            bytes.extend_from_slice(&end.to_be_bytes());
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let number = take(&mut rest)?;
        let (boot, mut rest) = rest.split_first_chunk::<16>()?;
        let low = take(&mut rest)?;
        let count = usize::try_from(take(&mut rest)?).ok()?;
        if count > MAX_RANGES {
            return None;
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            ranges.push((take(&mut rest)?, take(&mut rest)?));
        }
        let noted = bytes.len() - rest.len();
        let (covered, sum) = (bytes.get(..noted)?, rest.first_chunk::<CHECK_BYTES>()?);
        (check(covered) == *sum).then(|| Self {
            number,
            boot: *boot,
            have: Ranges::from_parts(low, ranges),
        })
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_be_bytes(*number))
}

/// Tells a slot that was written whole from one that was not.
fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

/// Reads from an offset until the buffer is full or the file ends.
fn read_as_much(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The random number that the kernel makes at each boot. Where that is hidden from the process every start counts as a boot:
/// of uploads that are not whole, what had not reached the disk is sent again.
fn boot_id(path: &Path) -> io::Result<[u8; 16]> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "this boot cannot be told from another: uploads that are not whole go on from what had reached the disk");
            return random().map_err(io::Error::other);
        }
    };
    let digest: [u8; 32] = Sha256::digest(text.trim()).into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    Ok(id)
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const MAGIC: &[u8] = b"headgUp1";
const CHECK_BYTES: usize = 8;
const SLOT_BYTES: usize = 1024;
const TRAILER_BYTES: usize = 4 * SLOT_BYTES;
/// Read for the digests at a time: little enough to stay in the processor's cache.
const DIGEST_BYTES: usize = 128 * 1024;
/// The first slot of the pair that a killed process leaves behind.
const CURRENT: u64 = 0;
/// The first slot of the pair that a loss of power leaves behind.
const SYNCED: u64 = 2;

const _: () = assert!(
    8 + 8 + 16 + 8 + 8 + 16 * MAX_RANGES + CHECK_BYTES <= SLOT_BYTES,
    "a slot has room for every range"
);

#[cfg(test)]
mod tests;
