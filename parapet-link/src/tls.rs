//! TLS 1.3 between two certificates, each of which the other side has pinned.
//!
//! The whole identity is the certificate's fingerprint. There is no chain, no name and no span of time to check: whoever has the private key of a pinned
//! certificate is that host, and a host whose clock is wrong after a crash is no other one. A certificate ends by `parapet link forget`, not by a date.
//!
//! A session is never resumed: that would pass by the pin.

use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct,
    DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::io;
use std::sync::Arc;

/// What both sides must say that they speak: a listener for something else is told apart by the first message.
const PROTOCOL: &[u8] = b"parapet-link";

/// A certificate that is not pinned.
#[derive(Debug, thiserror::Error)]
#[error("the certificate {0} is not trusted here")]
struct Stranger(Fingerprint);

/// The certificates that may be at the other end.
#[derive(Debug)]
struct Pins {
    trusted: Vec<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pins {
    fn new(trusted: Vec<Fingerprint>, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self {
            trusted,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let fingerprint = Fingerprint::of(certificate);
        if self.trusted.contains(&fingerprint) {
            return Ok(());
        }
        let stranger = OtherError(Arc::new(Stranger(fingerprint)));
        Err(Error::InvalidCertificate(CertificateError::Other(stranger)))
    }

    /// That the other side has the certificate's private key. Without this, anybody who has seen the certificate could show it.
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    /// Never asked for: only TLS 1.3 is spoken.
    fn old() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The sender's side, towards the one host with this certificate.
///
/// # Errors
/// The key cannot be used.
pub fn client(identity: &Identity, expected: Fingerprint) -> Result<Arc<ClientConfig>, LinkError> {
    let provider = provider();
    let pins = Pins::new(vec![expected], &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(LinkError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(pins)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(LinkError::Setup)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// What the sender calls the other side in TLS, where it matters to nobody.
#[must_use]
pub fn nominal_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// The listener's side, for these certificates and no others.
///
/// # Errors
/// The key cannot be used.
pub fn server(
    identity: &Identity,
    trusted: Vec<Fingerprint>,
) -> Result<Arc<ServerConfig>, LinkError> {
    let provider = provider();
    let pins = Pins::new(trusted, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(LinkError::Setup)?
        .with_client_cert_verifier(pins)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(LinkError::Setup)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who is at the other end of a connection whose handshake is done.
#[must_use]
pub fn peer(connection: &CommonState) -> Option<Fingerprint> {
    let certificate = connection.peer_certificates()?.first()?;
    Some(Fingerprint::of(certificate))
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The certificate that was not trusted here, if that is what went wrong.
#[must_use]
pub fn stranger(error: &io::Error) -> Option<Fingerprint> {
    let Error::InvalidCertificate(CertificateError::Other(other)) = cause(error)? else {
        return None;
    };
    other.0.downcast_ref().map(|Stranger(got)| *got)
}

/// Whether the other side does not trust our certificate.
#[must_use]
pub fn is_turned_away(error: &io::Error) -> bool {
    matches!(
        cause(error),
        Some(Error::AlertReceived(
            AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
        ))
    )
}
