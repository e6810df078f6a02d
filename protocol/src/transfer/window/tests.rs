use proptest::prelude::*;

use super::*;

const WINDOW: u32 = 131_072;

fn pump(size: u64, offset: u64, chunk: u32, ask: &Ask) -> Pump {
    Pump::start(size, offset, chunk, ask, WINDOW, u16::MAX).expect("a legal request")
}

fn drain(pump: &mut Pump) -> Vec<Chunk> {
    std::iter::from_fn(|| pump.next_chunk()).collect()
}

#[test]
fn a_window_is_never_exceeded_and_refills_by_halves() {
    let mut pump = pump(1_000_000, 0, 1_000, &Ask::Window(8));
    let first = drain(&mut pump);
    assert_eq!(first.len(), 8);
    for chunk in &first[..3] {
        pump.on_acknowledged(*chunk);
        assert!(!pump.is_ready(), "less than half of the window is free");
    }
    pump.on_acknowledged(first[3]);
    assert!(pump.is_ready());
    assert_eq!(drain(&mut pump).len(), 4);
}

#[test]
fn a_window_opens_to_its_whole_while_the_link_takes_what_it_is_given() {
    let ask = Ask::Window(32);
    let mut pump = Pump::start(1 << 24, 0, 16_384, &ask, 1 << 18, u16::MAX).expect("legal");
    let acknowledge = |pump: &mut Pump, batch: Vec<Chunk>| {
        for chunk in batch {
            pump.on_acknowledged(chunk);
        }
    };
    let first = drain(&mut pump);
    assert_eq!(first.len(), 8, "128 KiB before anything is known");
    pump.on_written(true);
    assert!(!pump.is_ready(), "the new room is no batch of its own");
    acknowledge(&mut pump, first);
    let second = drain(&mut pump);
    assert_eq!(second.len(), 16, "all that the window has");
    pump.on_written(true);
    // Half of it: what came in one write with it is no news.
    acknowledge(&mut pump, second[..8].to_vec());
    pump.on_written(false);
    let third = drain(&mut pump);
    assert_eq!(third.len(), 8);
    pump.on_written(false);
    pump.on_written(true);
    acknowledge(&mut pump, second[8..].to_vec());
    assert!(!pump.is_ready(), "as narrow as at the start");
    acknowledge(&mut pump, third);
    assert_eq!(drain(&mut pump).len(), 8);
}

#[test]
fn what_nobody_acknowledges_opens_no_window() {
    let ask = Ask::Count(64);
    let mut pump = Pump::start(1 << 24, 0, 16_384, &ask, 1 << 18, u16::MAX).expect("legal");
    for chunk in drain(&mut pump) {
        pump.on_acknowledged(chunk);
    }
    pump.on_written(true);
    assert_eq!(pump.window_bytes(), FIRST_WINDOW_BYTES);
}

#[test]
fn the_last_chunk_has_what_is_left() {
    let mut pump = pump(2_500, 1_000, 1_000, &Ask::Window(8));
    assert_eq!(
        drain(&mut pump),
        [
            Chunk {
                offset: 1_000,
                len: 1_000
            },
            Chunk {
                offset: 2_000,
                len: 500
            }
        ]
    );
    assert!(pump.is_exhausted());
}

#[test]
fn count_sends_just_these() {
    let mut pump = pump(1_000_000, 5_000, 1_000, &Ask::Count(3));
    let offsets: Vec<u64> = drain(&mut pump).iter().map(|chunk| chunk.offset).collect();
    assert_eq!(offsets, [5_000, 6_000, 7_000]);
    assert!(pump.is_exhausted());
}

#[test]
fn a_bitmap_is_read_least_significant_bit_first() {
    // Blocks 20, 21, 24 and 43, counted from 20: the vector of AWS's stream documentation.
    let bits = parse_bitmap("130080").expect("legal");
    let mut pump = pump(100_000, 20_000, 1_000, &Ask::Missing(bits));
    let offsets: Vec<u64> = drain(&mut pump).iter().map(|chunk| chunk.offset).collect();
    assert_eq!(offsets, [20_000, 21_000, 24_000, 43_000]);
}

#[test]
fn requests_beyond_the_end_are_refused() {
    let out_of_range =
        |offset, ask: &Ask| Pump::start(10_000, offset, 1_000, ask, WINDOW, 10).err();
    assert_eq!(
        out_of_range(10_001, &Ask::Window(1)),
        Some(AskError::OutOfRange)
    );
    assert_eq!(
        out_of_range(9_000, &Ask::Missing(Box::new([0b10]))),
        Some(AskError::OutOfRange)
    );
    assert_eq!(out_of_range(9_000, &Ask::Missing(Box::new([0b01]))), None);
    assert_eq!(
        out_of_range(10_000, &Ask::Window(1)),
        None,
        "the end itself: nothing is left to send"
    );
    for chunk in [0, 255, 131_073] {
        let refused = Pump::start(10_000, 0, chunk, &Ask::Window(1), WINDOW, 10).err();
        assert_eq!(refused, Some(AskError::ChunkSize));
    }
}

#[test]
fn a_chunk_larger_than_the_window_goes_alone() {
    let mut pump =
        Pump::start(1_000_000, 0, 131_072, &Ask::Window(32), 16_384, 100).expect("legal");
    assert_eq!(drain(&mut pump).len(), 1);
}

#[test]
fn the_receive_maximum_bounds_the_window() {
    let mut pump = Pump::start(1_000_000, 0, 1_000, &Ask::Window(32), WINDOW, 4).expect("legal");
    assert_eq!(drain(&mut pump).len(), 4);
}

#[test]
fn malformed_bitmaps_are_refused() {
    for bad in ["", "1", "0g", &"0".repeat(MAX_BITMAP_DIGITS + 2)] {
        assert_eq!(parse_bitmap(bad), None);
    }
}

proptest! {
    #[test]
    fn every_byte_is_sent_exactly_once(
        size in 0_u64..200_000,
        chunk in 256_u32..5_000,
        window in 1_u8..=32,
        skip in 0_u64..200_000,
    ) {
        let offset = skip.min(size);
        let mut pump = pump(size, offset, chunk, &Ask::Window(window));
        let mut expected = offset;
        while !pump.is_exhausted() {
            prop_assert!(pump.is_ready());
            let batch = drain(&mut pump);
            prop_assert!(!batch.is_empty());
            prop_assert!(pump.in_flight_bytes() <= pump.window_bytes());
            for chunk in batch {
                prop_assert_eq!(chunk.offset, expected);
                expected = chunk.end();
                pump.on_acknowledged(chunk);
            }
        }
        prop_assert_eq!(expected, size);
        prop_assert_eq!(pump.in_flight_bytes(), 0);
    }
}
