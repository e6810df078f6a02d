//! AES by the processor: the library's block cipher is replaced by AWS-LC's, which uses the machine's instructions.
//!
//! Without it the library would look its tables up at places that depend on the key. The hook that it offers asks a
//! critical section for each block; the one that is defined here does nothing, because the hook is set once, before
//! there is a context, and only read from then on. Nothing else of the program may need a critical section: the
//! package list is checked for that.
#![expect(unsafe_code, reason = "AWS-LC's AES and the hook are C's")]

use std::sync::Once;

use aws_lc_sys::{AES_KEY, AES_decrypt, AES_encrypt, AES_set_decrypt_key, AES_set_encrypt_key};
use mbedtls_rs_sys::{
    MBEDTLS_ERR_AES_INVALID_KEY_LENGTH, MbedtlsError,
    hook::{
        WorkArea, WorkAreaMemory,
        aes::{AesBlock, MbedtlsAes, hook_aes},
    },
};
use zeroize::Zeroize as _;

struct ReadOnly;

critical_section::set_impl!(ReadOnly);

// SAFETY: the one thing behind a critical section in this program is the cell of the AES hook. It is written once, by
// `hook`, before any context exists, and `Once` orders that write before every read.
unsafe impl critical_section::Impl for ReadOnly {
    unsafe fn acquire() {}
    unsafe fn release((): ()) {}
}

/// Has the library use this AES; whoever makes a context calls it first.
pub(crate) fn hook() {
    static HOOKED: Once = Once::new();
    // SAFETY: no context exists before the first call has returned, and the implementation is static.
    HOOKED.call_once(|| unsafe { hook_aes(Some(&AwsLc)) });
}

struct AwsLc;

type SetKey = unsafe extern "C" fn(*const u8, std::ffi::c_uint, *mut AES_KEY) -> std::ffi::c_int;

fn set_key(memory: &mut WorkAreaMemory, key: &[u8], set: SetKey) -> Result<(), MbedtlsError> {
    let bits = match key.len() {
        16 => 128,
        24 => 192,
        32 => 256,
        _ => return Err(MbedtlsError::new(MBEDTLS_ERR_AES_INVALID_KEY_LENGTH)),
    };
    // SAFETY: an AES_KEY has an alignment of 4 and fits, is plain data, and any bytes are a valid one.
    let schedule = unsafe { memory.cast_mut::<AES_KEY>() };
    // SAFETY: the key has as many bits, and the schedule is ours.
    let refused = unsafe { set(key.as_ptr(), bits, schedule) };
    if refused == 0 {
        Ok(())
    } else {
        Err(MbedtlsError::new(MBEDTLS_ERR_AES_INVALID_KEY_LENGTH))
    }
}

impl MbedtlsAes for AwsLc {
    fn init(&self, memory: &mut WorkAreaMemory) {
        memory.fill(0);
    }

    fn free(&self, memory: &mut WorkAreaMemory) {
        memory.zeroize();
    }

    fn set_enc_key(&self, memory: &mut WorkAreaMemory, key: &[u8]) -> Result<(), MbedtlsError> {
        set_key(memory, key, AES_set_encrypt_key)
    }

    fn set_dec_key(&self, memory: &mut WorkAreaMemory, key: &[u8]) -> Result<(), MbedtlsError> {
        set_key(memory, key, AES_set_decrypt_key)
    }

    fn encrypt(
        &self,
        memory: &mut WorkAreaMemory,
        block: &mut AesBlock,
    ) -> Result<(), MbedtlsError> {
        // SAFETY: it holds a schedule, or the zeros of `init`, which is one of no rounds: plain data either way.
        let schedule = unsafe { memory.cast::<AES_KEY>() };
        let block = block.as_mut_ptr();
        // SAFETY: the block has 16 bytes; AES_encrypt works in place.
        unsafe { AES_encrypt(block, block, schedule) };
        Ok(())
    }

    fn decrypt(
        &self,
        memory: &mut WorkAreaMemory,
        block: &mut AesBlock,
    ) -> Result<(), MbedtlsError> {
        // SAFETY: as in `encrypt`.
        let schedule = unsafe { memory.cast::<AES_KEY>() };
        let block = block.as_mut_ptr();
        // SAFETY: as in `encrypt`.
        unsafe { AES_decrypt(block, block, schedule) };
        Ok(())
    }
}
