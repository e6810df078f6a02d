//! Randomness: the system's, for the library and for us.
#![expect(
    unsafe_code,
    reason = "the library calls back with a pointer and a length"
)]

use std::ffi::{c_int, c_uchar, c_void};

/// What the library is told when the system has no randomness.
const ENTROPY_SOURCE_FAILED: c_int = -0x3c;
/// The same, in the words of its other interface.
const INSUFFICIENT_ENTROPY: i32 = -148;

/// Random bytes; an error where the system has none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes)
}

/// What the library calls for random bytes.
///
/// # Safety
/// `output` is valid for writes of `length` bytes.
pub(crate) unsafe extern "C" fn for_library(
    _context: *mut c_void,
    output: *mut c_uchar,
    length: usize,
) -> c_int {
    // SAFETY: the library gives a buffer of its own of that length, which is written before it is read.
    let bytes = unsafe { std::slice::from_raw_parts_mut(output, length) };
    match fill(bytes) {
        Ok(()) => 0,
        Err(_) => ENTROPY_SOURCE_FAILED,
    }
}

/// The symbol that the library's other interface is linked against.
///
/// # Safety
/// `output` is valid for writes of `size` bytes, `length` for a write.
// SAFETY: the name is the one that the library declares and leaves to its user to define; nothing else here does.
#[unsafe(no_mangle)]
unsafe extern "C" fn mbedtls_psa_external_get_random(
    _context: *mut c_void,
    output: *mut u8,
    size: usize,
    length: *mut usize,
) -> i32 {
    // SAFETY: by the library's contract for this function.
    let filled = unsafe { for_library(std::ptr::null_mut(), output, size) };
    if filled != 0 {
        return INSUFFICIENT_ENTROPY;
    }
    // SAFETY: by the library's contract for this function.
    unsafe { length.write(size) };
    0
}
