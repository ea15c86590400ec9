//! Whom a server's certificate may be signed by.
//!
//! First the certificates of the server's own directory, then the system's roots, which are read
//! only when they are needed: that takes longer than everything else of a small request.
//!
//! Go takes a server's own certificate for a root when it is given as one, whatever its CA flag
//! says; webpki does not. The guides of docker's registry make such certificates, so they are
//! compared byte for byte here; their name and dates are still checked.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;
use signet_trust::cert::Certificate;

/// The directory's certificates, and the system's roots.
#[derive(Debug)]
pub(super) struct Roots {
    own: Vec<CertificateDer<'static>>,
    /// Of the directory; absent when it has none.
    directory: Option<Arc<WebPkiServerVerifier>>,
    system: OnceLock<Result<Verifier, Error>>,
    provider: Arc<CryptoProvider>,
}

impl Roots {
    /// Reads nothing of the system yet.
    ///
    /// # Errors
    ///
    /// When a certificate of the directory cannot be a root.
    pub(super) fn new(
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for certificate in &own {
            store.add(certificate.clone())?;
        }
        let directory = if store.is_empty() {
            None
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(&provider));
            Some(
                builder
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?,
            )
        };
        Ok(Self {
            own,
            directory,
            system: OnceLock::new(),
            provider,
        })
    }

    /// Whether the certificate is one of the directory's.
    fn is_own(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<bool, Error> {
        if !self.own.iter().any(|own| own == shown) {
            return Ok(false);
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        let dates = Certificate::from_der(shown)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < dates.not_before {
            return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now > dates.not_after {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        Ok(true)
    }
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_own(end_entity, server_name, now)? {
            return Ok(ServerCertVerified::assertion());
        }
        let by = |verifier: &dyn ServerCertVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        if let Some(directory) = &self.directory {
            match by(directory.as_ref()) {
                // Only somebody else's signature leaves the question open.
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                answer => return answer,
            }
        }
        let system = self
            .system
            .get_or_init(|| Verifier::new(Arc::clone(&self.provider)));
        match system {
            Ok(system) => by(system),
            Err(error) => Err(error.clone()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whatever a server shows that is not verified, certificates that webpki cannot read included.
#[derive(Debug)]
pub(super) struct Anything {
    schemes: Vec<SignatureScheme>,
}

impl Anything {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        let schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        Self { schemes }
    }
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
