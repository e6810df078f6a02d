//! What all contexts of an endpoint have in common: the library's `ssl_config` and everything that it points to.
//!
//! Invariants: it is written while it is made and never after, so that contexts on any thread may read it; what it
//! points to lives as long as it does.
#![expect(
    unsafe_code,
    reason = "the library's configuration is a C structure of pointers"
)]

use std::{
    ffi::{c_int, c_uchar, c_void},
    pin::Pin,
    ptr,
    time::{Duration, Instant},
};

use mbedtls_rs_sys as sys;
use parking_lot::Mutex;

use crate::{
    aes,
    certificate::Certificate,
    context,
    cookie::{COOKIE_BYTES, Cookies},
    error::DtlsError,
    random,
    record::CID_BYTES,
    suite::Suite,
};

/// A list that the library takes ends so.
const END: u16 = 0;
/// The curves that are spoken, by their numbers at IANA. RFC 8422 s5.1.1
const GROUPS: [u16; 3] = [23, 24, END];
/// ECDSA with SHA-256 and SHA-384. RFC 5246 s7.4.1.4.1
const SIGNATURES: [u16; 3] = [0x0403, 0x0503, END];

/// Which half of DTLS this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// What a configuration is made of.
pub(crate) struct Options<'a> {
    pub(crate) role: Role,
    pub(crate) suites: Vec<Suite>,
    pub(crate) certificate: Option<&'a Certificate>,
    /// A client's identity and key.
    pub(crate) psk: Option<(&'a [u8], &'a [u8])>,
    pub(crate) handshake_timeout: (Duration, Duration),
    pub(crate) now: Instant,
}

/// The common part of contexts.
pub(crate) struct Settings {
    inner: Pin<Box<Inner>>,
    pub(crate) role: Role,
}

struct Inner {
    config: sys::mbedtls_ssl_config,
    certificate: sys::mbedtls_x509_crt,
    key: sys::mbedtls_pk_context,
    suites: Vec<c_int>,
    cookies: Mutex<Cookies>,
    _pinned: std::marker::PhantomPinned,
}

// SAFETY: after `new` nothing writes to the library's structures, and the cookies are behind a lock; what the library
// reads of them from a context may be read from several threads, its own documentation says so of `ssl_config`. The
// key is used for signing, which writes to nothing shared: restartable and hooked elliptic curves are not compiled in.
unsafe impl Send for Settings {}
// SAFETY: as above.
unsafe impl Sync for Settings {}

impl Settings {
    /// Makes the library's configuration.
    ///
    /// # Errors
    /// [`DtlsError::Certificate`] and [`DtlsError::Key`] for what was given; [`DtlsError::Library`] where the system
    /// has no memory or randomness.
    pub(crate) fn new(options: &Options<'_>) -> Result<Self, DtlsError> {
        aes::hook();
        let cookies =
            Cookies::new(options.now).map_err(|_none| DtlsError::Library(ENTROPY_FAILED))?;
        let mut suites: Vec<c_int> = options.suites.iter().map(|suite| suite.0.into()).collect();
        suites.push(END.into());
        // SAFETY: these structures are plain data and pointers, for which zeros are what the library's own `init`
        // functions write; they are called below, in place, all the same.
        let (config, certificate, key) = unsafe { std::mem::zeroed() };
        let mut inner = Box::new(Inner {
            config,
            certificate,
            key,
            suites,
            cookies: Mutex::new(cookies),
            _pinned: std::marker::PhantomPinned,
        });
        // SAFETY: the structures are in their final place and not in use.
        unsafe {
            sys::mbedtls_ssl_config_init(&raw mut inner.config);
            sys::mbedtls_x509_crt_init(&raw mut inner.certificate);
            sys::mbedtls_pk_init(&raw mut inner.key);
        }
        // From here on the drop of `Inner` frees what the library allocates.
        inner.set_up(options)?;
        Ok(Self {
            inner: Box::into_pin(inner),
            role: options.role,
        })
    }

    /// For the library, which reads it only.
    pub(crate) fn config(&self) -> *const sys::mbedtls_ssl_config {
        &raw const self.inner.config
    }

    /// Takes note of the time, for the keys of cookies.
    pub(crate) fn rotate_cookies(&self, now: Instant) {
        self.inner.cookies.lock().rotate(now);
    }
}

impl Inner {
    fn set_up(&mut self, options: &Options<'_>) -> Result<(), DtlsError> {
        let endpoint = match options.role {
            Role::Server => sys::MBEDTLS_SSL_IS_SERVER,
            Role::Client => sys::MBEDTLS_SSL_IS_CLIENT,
        };
        let config = &raw mut self.config;
        // SAFETY: the configuration is initialised and ours.
        check(unsafe {
            sys::mbedtls_ssl_config_defaults(
                config,
                signed(endpoint),
                signed(sys::MBEDTLS_SSL_TRANSPORT_DATAGRAM),
                signed(sys::MBEDTLS_SSL_PRESET_DEFAULT),
            )
        })?;
        let millis = |timeout: Duration| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let (first, last) = options.handshake_timeout;
        // SAFETY: as above; the lists are static, or stand beside the configuration and end with a zero.
        unsafe {
            sys::mbedtls_ssl_conf_rng(config, Some(random::for_library), ptr::null_mut());
            sys::mbedtls_ssl_conf_ciphersuites(config, self.suites.as_ptr());
            sys::mbedtls_ssl_conf_groups(config, GROUPS.as_ptr());
            sys::mbedtls_ssl_conf_sig_algs(config, SIGNATURES.as_ptr());
            sys::mbedtls_ssl_conf_renegotiation(
                config,
                signed(sys::MBEDTLS_SSL_RENEGOTIATION_DISABLED),
            );
            sys::mbedtls_ssl_conf_handshake_timeout(config, millis(first), millis(last));
        }
        self.set_up_cid(options.role)?;
        if options.role == Role::Server {
            self.set_up_server();
        }
        if let Some(certificate) = options.certificate {
            self.set_up_certificate(certificate)?;
        }
        options.psk.map_or(Ok(()), |psk| self.set_up_psk(psk))
    }

    fn set_up_cid(&mut self, role: Role) -> Result<(), DtlsError> {
        // A client needs none: it has one peer. [RFC 9146 s3]
        let bytes = if role == Role::Server { CID_BYTES } else { 0 };
        // SAFETY: the configuration is initialised and ours.
        check(unsafe {
            sys::mbedtls_ssl_conf_cid(
                &raw mut self.config,
                bytes,
                signed(sys::MBEDTLS_SSL_UNEXPECTED_CID_IGNORE),
            )
        })
    }

    fn set_up_server(&mut self) {
        let config = &raw mut self.config;
        let cookies = (&raw const self.cookies).cast_mut().cast();
        // SAFETY: the cookies stand beside the configuration, and the callbacks use them as what they are.
        unsafe {
            sys::mbedtls_ssl_conf_dtls_cookies(
                config,
                Some(write_cookie),
                Some(check_cookie),
                cookies,
            );
            sys::mbedtls_ssl_conf_psk_cb(config, Some(context::on_psk_identity), ptr::null_mut());
        }
    }

    fn set_up_certificate(&mut self, certificate: &Certificate) -> Result<(), DtlsError> {
        let (chain, key) = (&certificate.chain, &certificate.key);
        let (config, crt, pk) = (
            &raw mut self.config,
            &raw mut self.certificate,
            &raw mut self.key,
        );
        let refused = |code: c_int| match code {
            0 => Ok(()),
            code => Err(DtlsError::Certificate(code)),
        };
        // SAFETY: the structures are initialised and ours, and the texts are as long as is said.
        refused(unsafe { sys::mbedtls_x509_crt_parse(crt, chain.as_ptr(), chain.len()) })?;
        // SAFETY: as above; there is no password.
        refused(unsafe {
            sys::mbedtls_pk_parse_key(
                pk,
                key.as_ptr(),
                key.len(),
                ptr::null(),
                0,
                Some(random::for_library),
                ptr::null_mut(),
            )
        })?;
        // SAFETY: the public key is that of the certificate that was just read.
        refused(unsafe {
            sys::mbedtls_pk_check_pair(
                &raw const (*crt).pk,
                pk,
                Some(random::for_library),
                ptr::null_mut(),
            )
        })?;
        // SAFETY: the structures live as long as the configuration.
        refused(unsafe { sys::mbedtls_ssl_conf_own_cert(config, crt, pk) })?;
        // SAFETY: as above. The library wants some authority before it asks for a certificate; who signed a peer's does
        // not matter, since its fingerprint decides, so ours stands there and is named to nobody.
        unsafe {
            sys::mbedtls_ssl_conf_ca_chain(config, crt, ptr::null_mut());
            sys::mbedtls_ssl_conf_cert_req_ca_list(config, 0);
            sys::mbedtls_ssl_conf_authmode(config, signed(sys::MBEDTLS_SSL_VERIFY_REQUIRED));
        }
        Ok(())
    }

    fn set_up_psk(&mut self, (identity, key): (&[u8], &[u8])) -> Result<(), DtlsError> {
        // SAFETY: the library copies both.
        let code = unsafe {
            sys::mbedtls_ssl_conf_psk(
                &raw mut self.config,
                key.as_ptr(),
                key.len(),
                identity.as_ptr(),
                identity.len(),
            )
        };
        if code == 0 {
            Ok(())
        } else {
            Err(DtlsError::Key)
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the structures were initialised when this was made, and no context is left: each holds the settings.
        unsafe {
            sys::mbedtls_ssl_config_free(&raw mut self.config);
            sys::mbedtls_x509_crt_free(&raw mut self.certificate);
            sys::mbedtls_pk_free(&raw mut self.key);
        }
    }
}

/// Puts a cookie for the peer `info` at `*p`.
///
/// # Safety
/// As the library says of `mbedtls_ssl_cookie_write_t`; `context` is a `Mutex<Cookies>`.
unsafe extern "C" fn write_cookie(
    context: *mut c_void,
    p: *mut *mut c_uchar,
    end: *mut c_uchar,
    info: *const c_uchar,
    length: usize,
) -> c_int {
    // SAFETY: it was given as such by `set_up_server`, and outlives every context.
    let cookies = unsafe { &*context.cast::<Mutex<Cookies>>() };
    // SAFETY: the library gives the transport id that it was given, of that length.
    let peer = unsafe { std::slice::from_raw_parts(info, length) };
    // SAFETY: `*p` and `end` delimit one buffer of the library.
    let room = unsafe { end.offset_from(*p) };
    if room < COOKIE_BYTES.cast_signed() {
        return sys::MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL;
    }
    let cookie = cookies.lock().make(peer);
    // SAFETY: there is room for it.
    unsafe {
        ptr::copy_nonoverlapping(cookie.as_ptr(), *p, COOKIE_BYTES);
        *p = (*p).add(COOKIE_BYTES);
    }
    0
}

/// 0: the cookie is one of ours for the peer `info`.
///
/// # Safety
/// As the library says of `mbedtls_ssl_cookie_check_t`; `context` is a `Mutex<Cookies>`.
unsafe extern "C" fn check_cookie(
    context: *mut c_void,
    cookie: *const c_uchar,
    cookie_length: usize,
    info: *const c_uchar,
    length: usize,
) -> c_int {
    // SAFETY: as in `write_cookie`.
    let cookies = unsafe { &*context.cast::<Mutex<Cookies>>() };
    // SAFETY: the library gives what it was given, of these lengths.
    let (cookie, peer) = unsafe {
        (
            std::slice::from_raw_parts(cookie, cookie_length),
            std::slice::from_raw_parts(info, length),
        )
    };
    c_int::from(!cookies.lock().is_ours(cookie, peer))
}

/// The library's constants are small and unsigned, its arguments signed.
fn signed(constant: u32) -> c_int {
    constant.cast_signed()
}

pub(crate) fn check(code: c_int) -> Result<(), DtlsError> {
    if code == 0 {
        Ok(())
    } else {
        Err(DtlsError::Library(code))
    }
}

/// The library's error for a system without randomness.
const ENTROPY_FAILED: i32 = -0x3c;
