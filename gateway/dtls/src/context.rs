//! One peer's `ssl_context` of the library, fed and drained through memory.
//!
//! Invariants: the structure stays where it was made, since the library and its callbacks point into it; nothing holds
//! a reference to it while the library runs; after an error it is not used any more but to send what it has to say.
#![expect(unsafe_code, reason = "the library's context is a C structure")]

use std::{
    ffi::{c_int, c_uchar, c_void},
    ptr::{self, NonNull},
    sync::Arc,
    time::{Duration, Instant},
};

use mbedtls_rs_sys as sys;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    certificate::Fingerprint,
    error::DtlsError,
    settings::{Role, Settings, check},
    suite::Suite,
};

/// A pre-shared key.
pub(crate) type Key = Zeroizing<Vec<u8>>;

/// A context.
pub(crate) struct Context {
    inner: NonNull<Inner>,
    role: Role,
}

struct Inner {
    ssl: sys::mbedtls_ssl_context,
    io: Io,
    /// What the library has a pointer to.
    _settings: Arc<Settings>,
}

/// What the callbacks read and write.
struct Io {
    now: Instant,
    /// The datagram that is being taken, until the library has read it.
    input: Option<(*const u8, usize)>,
    output: Vec<Vec<u8>>,
    /// When the library's intermediate and final timers run out.
    timer: Option<(Instant, Instant)>,
    key: Option<Key>,
    fingerprint: Option<Fingerprint>,
    /// The peer's certificate, until someone takes it.
    certificate: Option<Box<[u8]>>,
}

/// How a handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    Pending,
    /// The peer was sent a cookie.
    CookieSent,
    Failed(i32),
}

/// What came of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Data(usize),
    /// Nothing for the application.
    Nothing,
    /// The peer ends the session.
    Closed,
    Failed(i32),
}

// SAFETY: a context is used by one owner at a time, and what it shares, its settings, may be shared by threads.
unsafe impl Send for Context {}

impl Context {
    /// A context at the start of a handshake.
    ///
    /// # Errors
    /// [`DtlsError::Library`]: there is no memory.
    pub(crate) fn new(settings: &Arc<Settings>, mtu: u16, now: Instant) -> Result<Self, DtlsError> {
        // SAFETY: the structure is plain data and pointers; zeros are what the library's `init` writes too.
        let ssl = unsafe { std::mem::zeroed() };
        let inner = Box::new(Inner {
            ssl,
            io: Io {
                now,
                input: None,
                output: Vec::new(),
                timer: None,
                key: None,
                fingerprint: None,
                certificate: None,
            },
            _settings: Arc::clone(settings),
        });
        let context = Self {
            inner: NonNull::from(Box::leak(inner)),
            role: settings.role,
        };
        let (ssl, io) = (context.ssl(), context.io_ptr());
        // SAFETY: the structure is ours and in its place; the settings outlive it, because it holds them.
        unsafe {
            sys::mbedtls_ssl_init(ssl);
            check(sys::mbedtls_ssl_setup(ssl, settings.config()))?;
            sys::mbedtls_ssl_set_bio(ssl, io.cast(), Some(on_send), Some(on_receive), None);
            sys::mbedtls_ssl_set_timer_cb(ssl, io.cast(), Some(set_timer), Some(read_timer));
            sys::mbedtls_ssl_set_verify(ssl, Some(on_certificate), io.cast());
            sys::mbedtls_ssl_set_mtu(ssl, mtu);
        }
        if settings.role == Role::Client {
            // Certificates of gateways are the caller's to judge, by their fingerprint.
            // SAFETY: as above.
            check(unsafe { sys::mbedtls_ssl_set_hostname(ssl, ptr::null()) })?;
        }
        Ok(context)
    }

    /// The context that was saved in these bytes, which must not be loaded again.
    ///
    /// # Errors
    /// [`DtlsError::Library`]: they are none of this endpoint.
    pub(crate) fn load(
        settings: &Arc<Settings>,
        mtu: u16,
        now: Instant,
        saved: &[u8],
    ) -> Result<Self, DtlsError> {
        let context = Self::new(settings, mtu, now)?;
        // SAFETY: the context is new, which the function asks for.
        check(unsafe {
            sys::mbedtls_ssl_context_load(context.ssl(), saved.as_ptr(), saved.len())
        })?;
        Ok(context)
    }

    /// Saves the state of a session into `buffer` and gives its length. The context is of no use after that.
    ///
    /// # Errors
    /// [`DtlsError::Library`]: it cannot be saved now, and goes on as it was.
    pub(crate) fn save(&mut self, buffer: &mut [u8]) -> Result<usize, DtlsError> {
        let mut length = 0;
        // SAFETY: the buffer has that length.
        check(unsafe {
            sys::mbedtls_ssl_context_save(
                self.ssl(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut length,
            )
        })?;
        Ok(length)
    }

    /// Whether [`Context::save`] may be called: the peer has shown that it finished the handshake too.
    pub(crate) fn can_be_saved(&self) -> bool {
        // SAFETY: nothing else uses the structure.
        let ssl = unsafe { &*self.ssl() };
        ssl.private_handshake.is_null() && self.suite().is_aead()
    }

    /// Whether nothing has come since the handshake: its last flight may have to be repeated.
    pub(crate) fn is_silent(&self) -> bool {
        // SAFETY: nothing else uses the structure.
        let ssl = unsafe { &*self.ssl() };
        !ssl.private_handshake.is_null()
    }

    /// Offers a Connection ID for records from the peer; an empty one where the peer needs not send any.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "the library writes to it")]
    pub(crate) fn offer_cid(&mut self, own: &[u8]) -> Result<(), DtlsError> {
        let (ssl, on) = (self.ssl(), sys::MBEDTLS_SSL_CID_ENABLED.cast_signed());
        // SAFETY: the library copies it.
        check(unsafe { sys::mbedtls_ssl_set_cid(ssl, on, own.as_ptr(), own.len()) })
    }

    /// Whether both sides have agreed on Connection IDs.
    pub(crate) fn has_cid(&self) -> bool {
        let (mut enabled, mut cid, mut length) = (0, [0; 32], 0);
        // SAFETY: the buffer has the 32 bytes that the library may write.
        let code = unsafe {
            sys::mbedtls_ssl_get_peer_cid(
                self.ssl(),
                &raw mut enabled,
                cid.as_mut_ptr(),
                &raw mut length,
            )
        };
        code == 0 && enabled == sys::MBEDTLS_SSL_CID_ENABLED.cast_signed()
    }

    /// Says which peer this is, for cookies.
    pub(crate) fn set_transport_id(&mut self, id: &[u8]) -> Result<(), DtlsError> {
        // SAFETY: the library copies it.
        check(unsafe {
            sys::mbedtls_ssl_set_client_transport_id(self.ssl(), id.as_ptr(), id.len())
        })
    }

    /// Back to the start of a handshake.
    pub(crate) fn reset(&mut self) -> Result<(), DtlsError> {
        self.io().timer = None;
        // SAFETY: the context is ours.
        check(unsafe { sys::mbedtls_ssl_session_reset(self.ssl()) })
    }

    /// Gives the key for the identity that the peer is about to name.
    pub(crate) fn set_key(&mut self, key: Key) {
        self.io().key = Some(key);
    }

    /// Takes the `ClientHello` in this datagram: [`Progress::Pending`] where its cookie is good. Nothing that costs
    /// much is computed for it yet, and nothing is in the output.
    pub(crate) fn take_hello(&mut self, now: Instant, datagram: &[u8]) -> Progress {
        self.enter(now, Some(datagram));
        let progress = loop {
            // SAFETY: nothing else uses the structure.
            let code = unsafe { sys::mbedtls_ssl_handshake_step(self.ssl()) };
            match code {
                // Its cookie was looked at when the ServerHello was made up; the flight is sent with its last message.
                0 if self.state() == SERVER_CERTIFICATE => break Progress::Pending,
                0 => {}
                sys::MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED => break Progress::CookieSent,
                code => break Progress::Failed(code),
            }
        };
        self.leave();
        progress
    }

    /// Goes on with the handshake, with a datagram or because of the time.
    pub(crate) fn handshake(&mut self, now: Instant, datagram: Option<&[u8]>) -> Progress {
        self.enter(now, datagram);
        // SAFETY: nothing else uses the structure.
        let code = unsafe { sys::mbedtls_ssl_handshake(self.ssl()) };
        self.leave();
        match code {
            0 => Progress::Done,
            sys::MBEDTLS_ERR_SSL_WANT_READ | sys::MBEDTLS_ERR_SSL_WANT_WRITE => Progress::Pending,
            sys::MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED => Progress::CookieSent,
            code => Progress::Failed(code),
        }
    }

    /// Takes a record of a session.
    pub(crate) fn receive(&mut self, now: Instant, record: &[u8], data: &mut [u8]) -> Received {
        self.enter(now, Some(record));
        // SAFETY: the buffer has that length.
        let code = unsafe { sys::mbedtls_ssl_read(self.ssl(), data.as_mut_ptr(), data.len()) };
        self.leave();
        match code {
            0 | sys::MBEDTLS_ERR_SSL_WANT_READ | sys::MBEDTLS_ERR_SSL_WANT_WRITE => {
                Received::Nothing
            }
            sys::MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY => Received::Closed,
            bytes if bytes > 0 => Received::Data(bytes.unsigned_abs() as usize),
            code => Received::Failed(code),
        }
    }

    /// Encrypts a message; the record is then in the output.
    pub(crate) fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError> {
        self.enter(now, None);
        // SAFETY: the data has that length.
        let code = unsafe { sys::mbedtls_ssl_write(self.ssl(), data.as_ptr(), data.len()) };
        self.leave();
        match usize::try_from(code) {
            Ok(written) if written == data.len() => Ok(()),
            Ok(_) => Err(DtlsError::TooLarge),
            Err(_) => Err(DtlsError::Library(code)),
        }
    }

    /// Tells the peer that the session ends.
    pub(crate) fn say_goodbye(&mut self, now: Instant) {
        self.enter(now, None);
        // SAFETY: nothing else uses the structure. What cannot be said is as good as lost on the way.
        let _code = unsafe { sys::mbedtls_ssl_close_notify(self.ssl()) };
        self.leave();
    }

    /// What is to be sent, in order.
    pub(crate) fn take_output(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.io().output)
    }

    /// When [`Context::handshake`] is to be called without a datagram.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.io().timer.map(|(_, last)| last)
    }

    /// The suite that was agreed on.
    pub(crate) fn suite(&self) -> Suite {
        // SAFETY: nothing else uses the structure, and the function asks for no state of it.
        let id = unsafe { sys::mbedtls_ssl_get_ciphersuite_id_from_ssl(self.ssl()) };
        Suite(u16::try_from(id).unwrap_or_default())
    }

    /// The peer's certificate, once its handshake is over.
    pub(crate) fn fingerprint(&mut self) -> Option<Fingerprint> {
        self.io().fingerprint
    }

    /// The peer's certificate, DER; once.
    pub(crate) fn take_certificate(&mut self) -> Option<Box<[u8]>> {
        self.io().certificate.take()
    }

    /// Whether the next message from the peer is its Finished, which shows whether it has the key.
    pub(crate) fn awaits_finished(&self) -> bool {
        let awaited = match self.role {
            Role::Server => CLIENT_FINISHED,
            Role::Client => SERVER_FINISHED,
        };
        self.state() == awaited
    }

    fn state(&self) -> c_int {
        // SAFETY: nothing else uses the structure.
        unsafe { (*self.ssl()).private_state }
    }

    fn ssl(&self) -> *mut sys::mbedtls_ssl_context {
        // SAFETY: it points to what `new` made.
        unsafe { &raw mut (*self.inner.as_ptr()).ssl }
    }

    fn io_ptr(&self) -> *mut Io {
        // SAFETY: it points to what `new` made.
        unsafe { &raw mut (*self.inner.as_ptr()).io }
    }

    fn io(&mut self) -> &mut Io {
        // SAFETY: the library is not running, so no callback uses it.
        unsafe { &mut *self.io_ptr() }
    }

    /// Before the library runs.
    fn enter(&mut self, now: Instant, input: Option<&[u8]>) {
        let io = self.io();
        io.now = now;
        io.input = input.map(|bytes| (bytes.as_ptr(), bytes.len()));
    }

    /// After it: the datagram is not ours to keep.
    fn leave(&mut self) {
        self.io().input = None;
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was leaked by `new` and is freed here only; the library lets go of what it allocated first.
        unsafe {
            sys::mbedtls_ssl_free(self.ssl());
            drop(Box::from_raw(self.inner.as_ptr()));
        }
    }
}

const SERVER_CERTIFICATE: c_int =
    sys::mbedtls_ssl_states_MBEDTLS_SSL_SERVER_CERTIFICATE.cast_signed();
const CLIENT_FINISHED: c_int = sys::mbedtls_ssl_states_MBEDTLS_SSL_CLIENT_FINISHED.cast_signed();
const SERVER_FINISHED: c_int = sys::mbedtls_ssl_states_MBEDTLS_SSL_SERVER_FINISHED.cast_signed();

/// # Safety
/// `io` is the [`Io`] of the running context, `bytes` valid for reads of `length`.
unsafe extern "C" fn on_send(io: *mut c_void, bytes: *const c_uchar, length: usize) -> c_int {
    // SAFETY: `new` gave it, and while the library runs nobody else has it.
    let io = unsafe { &mut *io.cast::<Io>() };
    // SAFETY: the library gives a buffer of its own.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, length) };
    io.output.push(bytes.to_vec());
    c_int::try_from(length).unwrap_or(c_int::MAX)
}

/// # Safety
/// `io` is the [`Io`] of the running context, `buffer` valid for writes of `length`.
unsafe extern "C" fn on_receive(io: *mut c_void, buffer: *mut c_uchar, length: usize) -> c_int {
    // SAFETY: as in `on_send`.
    let io = unsafe { &mut *io.cast::<Io>() };
    let Some((bytes, held)) = io.input.take() else {
        return sys::MBEDTLS_ERR_SSL_WANT_READ;
    };
    // What is cut off does not authenticate.
    let taken = held.min(length);
    // SAFETY: `enter` had a slice of that length, which the caller still borrows; the buffers are different ones.
    unsafe { ptr::copy_nonoverlapping(bytes, buffer, taken) };
    c_int::try_from(taken).unwrap_or(c_int::MAX)
}

/// # Safety
/// `io` is the [`Io`] of the running context.
unsafe extern "C" fn set_timer(io: *mut c_void, intermediate: u32, last: u32) {
    // SAFETY: as in `on_send`.
    let io = unsafe { &mut *io.cast::<Io>() };
    let after = |millis: u32| io.now + Duration::from_millis(millis.into());
    io.timer = (last != 0).then(|| (after(intermediate), after(last)));
}

/// # Safety
/// `io` is the [`Io`] of the running context.
unsafe extern "C" fn read_timer(io: *mut c_void) -> c_int {
    // SAFETY: as in `on_send`.
    let io = unsafe { &mut *io.cast::<Io>() };
    match io.timer {
        None => -1,
        Some((_, last)) if last <= io.now => 2,
        Some((intermediate, _)) if intermediate <= io.now => 1,
        Some(_) => 0,
    }
}

/// Any certificate will do here: who signed it does not matter, its fingerprint does, and that its holder has the key
/// is shown by the handshake.
///
/// # Safety
/// `io` is the [`Io`] of the running context, `certificate` and `flags` are valid.
unsafe extern "C" fn on_certificate(
    io: *mut c_void,
    certificate: *mut sys::mbedtls_x509_crt,
    depth: c_int,
    flags: *mut u32,
) -> c_int {
    // SAFETY: as in `on_send`.
    let io = unsafe { &mut *io.cast::<Io>() };
    // SAFETY: the library gives a certificate.
    let der = unsafe { &(*certificate).raw };
    if der.p.is_null() || der.len == 0 {
        // A chain can be sent that has nothing in it.
        // SAFETY: the library gives a place for them.
        unsafe { *flags |= sys::MBEDTLS_X509_BADCERT_OTHER };
        return 0;
    }
    if depth == 0 {
        // SAFETY: it has read as many bytes.
        let der = unsafe { std::slice::from_raw_parts(der.p, der.len) };
        io.fingerprint = Some(Fingerprint(Sha256::digest(der).into()));
        io.certificate = Some(der.into());
    }
    // SAFETY: the library gives a place for them.
    unsafe { *flags = 0 };
    0
}

/// The server's question for the key of an identity, which was asked before: see [`Context::set_key`].
///
/// # Safety
/// `ssl` is a running [`Context`].
pub(crate) unsafe extern "C" fn on_psk_identity(
    _context: *mut c_void,
    ssl: *mut sys::mbedtls_ssl_context,
    _identity: *const c_uchar,
    _length: usize,
) -> c_int {
    // SAFETY: every context's callbacks are given its own `Io`.
    let io = unsafe { &mut *(*ssl).private_p_bio.cast::<Io>() };
    let Some(key) = io.key.take() else {
        return -1;
    };
    // SAFETY: the library copies the key.
    unsafe { sys::mbedtls_ssl_set_hs_psk(ssl, key.as_ptr(), key.len()) }
}
