//! The cipher suites that are spoken, by their numbers at IANA.

/// A cipher suite of TLS 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suite(pub u16);

impl Suite {
    /// `TLS_PSK_WITH_AES_128_CCM_8`, RFC 6655: what CoAP asks for.
    pub const PSK_CCM_8: Self = Self(0xc0a8);
    /// `TLS_PSK_WITH_AES_128_CCM`.
    pub const PSK_CCM: Self = Self(0xc0a4);
    /// `TLS_PSK_WITH_AES_128_GCM_SHA256`, RFC 5487.
    pub const PSK_GCM: Self = Self(0x00a8);
    /// `TLS_PSK_WITH_AES_128_CBC_SHA256`.
    pub const PSK_CBC_SHA256: Self = Self(0x00ae);
    /// `TLS_PSK_WITH_AES_128_CBC_SHA`, RFC 4279: only where legacy suites are allowed.
    pub const PSK_CBC_SHA: Self = Self(0x008c);
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8`, RFC 7251.
    pub const ECDHE_ECDSA_CCM_8: Self = Self(0xc0ae);
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_CCM`.
    pub const ECDHE_ECDSA_CCM: Self = Self(0xc0ac);
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, RFC 5289.
    pub const ECDHE_ECDSA_GCM: Self = Self(0xc02b);
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256`.
    pub const ECDHE_ECDSA_CBC_SHA256: Self = Self(0xc023);

    /// With a key that both sides have, in the order of preference.
    pub const PSK: [Self; 4] = [
        Self::PSK_CCM_8,
        Self::PSK_CCM,
        Self::PSK_GCM,
        Self::PSK_CBC_SHA256,
    ];
    /// With certificates, in the order of preference.
    pub const ECDHE_ECDSA: [Self; 4] = [
        Self::ECDHE_ECDSA_CCM_8,
        Self::ECDHE_ECDSA_CCM,
        Self::ECDHE_ECDSA_GCM,
        Self::ECDHE_ECDSA_CBC_SHA256,
    ];

    /// Whether peers share a key by this suite.
    pub fn is_psk(self) -> bool {
        Self::PSK.contains(&self) || self == Self::PSK_CBC_SHA
    }

    /// Whether a session of this suite can be frozen: the library saves no state of CBC.
    pub(crate) fn is_aead(self) -> bool {
        !matches!(
            self,
            Self::PSK_CBC_SHA256 | Self::PSK_CBC_SHA | Self::ECDHE_ECDSA_CBC_SHA256
        )
    }
}
