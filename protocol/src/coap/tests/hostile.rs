//! Bytes of strangers: random ones, broken ones, and the fuzzers' corpus.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::coap::{fuzz, tests::epoch};

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::decode(&bytes);
    }

    #[test]
    fn bytes_behind_a_good_header_are_decoded_or_refused(
        first in 0x40..0x80_u8, code in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 2..200),
    ) {
        fuzz::decode(&[&[first, code], &rest[..]].concat());
    }

    #[test]
    fn any_operations_keep_the_bounds(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::endpoint(epoch(), &bytes);
    }
}

#[test]
fn the_corpus_of_the_fuzzers_does_no_harm() {
    let run = |target: &str, check: &dyn Fn(&[u8])| {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files: Vec<_> = fs::read_dir(corpus).unwrap().collect();
        assert!(!files.is_empty(), "the corpus of {target} is empty");
        for file in files {
            check(&fs::read(file.unwrap().path()).unwrap());
        }
    };
    run("coap_decode", &fuzz::decode);
    let now = epoch();
    run("coap_endpoint", &|bytes| fuzz::endpoint(now, bytes));
}
