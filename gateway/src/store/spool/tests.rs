//! What a killed process and a lost power leave of an upload.

use super::*;

/// Of every upload here.
const SIZE: u64 = 2 * SYNC_BYTES;

fn id() -> Id {
    Id::from_i64(77).expect("positive")
}

fn spool(directory: &Path) -> Spool {
    Spool::open(directory).expect("opens")
}

fn chunk(offset: u64, len: usize, fill: u8) -> (u64, Bytes) {
    (offset, vec![fill; len].into())
}

#[test]
fn what_was_written_is_found_again_with_its_gaps() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = spool(directory.path());
    assert!(first.load(id(), SIZE).expect("read").is_none());
    let mut state = SpoolState::default();
    let chunks = [chunk(0, 100, 1), chunk(100, 50, 2), chunk(300, 10, 3)];
    assert!(
        !first
            .write(id(), SIZE, &mut state, &chunks)
            .expect("written")
    );
    let second = spool(directory.path());
    assert_eq!(second.list().expect("read"), [id()]);
    let found = second.load(id(), SIZE).expect("read").expect("there").state;
    assert_eq!(
        (found.have().low(), found.have().beyond()),
        (150, &[(300, 310)][..])
    );
    assert_eq!(second.read(id(), 99, 2).expect("read"), [1, 2][..]);
    assert_eq!(second.read(id(), 300, 10).expect("read"), [3; 10][..]);
    second.remove(id()).expect("removed");
    second.remove(id()).expect("twice");
    assert!(second.list().expect("read").is_empty());
}

#[test]
fn a_slot_that_was_cut_short_leaves_the_one_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = spool(directory.path());
    let mut state = SpoolState::default();
    for offset in [0, 10, 20] {
        spool
            .write(id(), SIZE, &mut state, &[chunk(offset, 10, 7)])
            .expect("written");
    }
    // The third note stands in the second slot; a byte of it never came.
    let file = OpenOptions::new()
        .write(true)
        .open(spool.path(id()))
        .expect("there");
    file.write_all_at(&[0xff], SIZE + SLOT_BYTES as u64 + 20)
        .expect("written");
    let found = spool.load(id(), SIZE).expect("read").expect("there").state;
    assert_eq!(found.have().low(), 20);
    // What follows is newer than both.
    let mut state = found;
    spool
        .write(id(), SIZE, &mut state, &[chunk(20, 30, 7)])
        .expect("written");
    let found = spool.load(id(), SIZE).expect("read").expect("there").state;
    assert_eq!(found.have().low(), 50);
}

#[test]
fn after_a_loss_of_power_only_what_reached_the_disk_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = spool(directory.path());
    let mut state = SpoolState::default();
    let half = usize::try_from(SYNC_BYTES / 2).expect("small");
    assert!(
        !spool
            .write(id(), SIZE, &mut state, &[chunk(0, half, 1)])
            .expect("written")
    );
    let second = chunk(SYNC_BYTES / 2, half, 2);
    assert!(
        spool
            .write(id(), SIZE, &mut state, &[second])
            .expect("written")
    );
    spool
        .write(id(), SIZE, &mut state, &[chunk(SYNC_BYTES, 1_000, 3)])
        .expect("written");
    let same_boot = spool.load(id(), SIZE).expect("read").expect("there").state;
    assert_eq!(same_boot.have().low(), SYNC_BYTES + 1_000);
    let after_power_loss = Spool {
        boot: [9; 16],
        ..spool
    };
    let found = after_power_loss
        .load(id(), SIZE)
        .expect("read")
        .expect("there")
        .state;
    assert_eq!(found.have().low(), SYNC_BYTES);
    // And the new boot's own notes are trusted.
    let mut state = found;
    after_power_loss
        .write(id(), SIZE, &mut state, &[chunk(SYNC_BYTES, 5, 3)])
        .expect("written");
    let found = after_power_loss
        .load(id(), SIZE)
        .expect("read")
        .expect("there");
    assert_eq!(found.state.have().low(), SYNC_BYTES + 5);
}

#[test]
fn a_trailer_that_is_no_trailer_is_an_upload_without_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = spool(directory.path());
    for junk in [&b""[..], b"headgUp1", &[0xff; 9_000]] {
        fs::write(spool.path(id()), junk).expect("written");
        let found = spool.load(id(), SIZE).expect("read").expect("there").state;
        assert_eq!(found, SpoolState::default());
    }
}

#[test]
fn the_largest_number_of_ranges_fits_its_slot() {
    let ranges = (1..=MAX_RANGES as u64).map(|n| (n * 100, n * 100 + 1));
    let slot = Slot {
        number: 1,
        boot: [3; 16],
        have: Ranges::from_parts(7, ranges),
    };
    let encoded = slot.encode();
    assert!(encoded.len() <= SLOT_BYTES);
    let decoded = Slot::decode(&encoded).expect("whole");
    assert_eq!(decoded.have, slot.have);
}

#[test]
fn a_sealed_file_is_its_bytes_and_is_found_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = spool(directory.path());
    let mut state = SpoolState::default();
    let chunks = [chunk(20, 10, 2), chunk(0, 20, 1)];
    spool
        .write(id(), 30, &mut state, &chunks[..1])
        .expect("written");
    let half = spool.load(id(), 30).expect("read").expect("there").state;
    assert_eq!(half.have().low(), 0, "its last byte does not make it whole");
    spool
        .write(id(), 30, &mut state, &chunks[1..])
        .expect("written");
    let digests = spool.digest(id(), 30, || false).expect("read");
    let bytes = [vec![1; 20], vec![2; 10]].concat();
    let expected: [u8; 32] = Sha256::digest(&bytes).into();
    assert_eq!(digests.expect("not stopped").sha256, expected);
    assert_eq!(spool.digest(id(), 30, || true).expect("read"), None);
    for _ in 0..2 {
        let path = spool.seal(id(), 30).expect("sealed");
        assert_eq!(fs::read(path).expect("read"), bytes);
    }
    let found = Spool {
        boot: [9; 16],
        ..spool
    };
    let found = found.load(id(), 30).expect("read").expect("there").state;
    assert!(found.have().covers(30));
}

#[test]
fn a_boot_that_cannot_be_told_from_others_is_another_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let hidden = directory.path().join("boot_id");
    let told = [boot_id(&hidden), boot_id(&hidden)].map(|id| id.expect("random"));
    assert_ne!(told[0], told[1]);
    fs::write(&hidden, "d0c5\n").expect("written");
    let told = [boot_id(&hidden), boot_id(&hidden)].map(|id| id.expect("read"));
    assert_eq!(told[0], told[1]);
}
