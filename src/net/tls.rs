//! TLS 1.3 on a stream, with the node's own key.
//!
//! The listener shows its node key as a raw public key (RFC 7250): there is no certificate, no name and no authority,
//! because the id *is* the key. The dialer takes that one key, which `hello_ack` has named and proven, and no other. It
//! shows none itself: its proof is `auth`, inside. Nothing is remembered from one connection to the next: no tickets, no
//! resumption, no data before the handshake is done.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::{fmt, io};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, PeerIncompatible,
    ServerConfig, ServerConnection, SignatureAlgorithm, SignatureScheme,
};

use super::handshake::HandshakeError;
use crate::error::CloseReason;
use crate::identity::{Identity, NodeId, verify};
use crate::mesh::handshake::{Binding, Refusal};

/// The protocol inside, version 1.
const ALPN: &[u8] = b"elo/1";

/// RFC 9266, section 2: the label, and no context.
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What an ed25519 public key has before its 32 bytes as a `SubjectPublicKeyInfo` in DER (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

pub(super) fn spki(node: &NodeId) -> Vec<u8> {
    [&SPKI_PREFIX[..], node.as_bytes()].concat()
}

/// What a node needs for TLS in both roles; made once.
#[derive(Clone, Debug)]
pub struct TlsKeys {
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

impl TlsKeys {
    /// With that key.
    pub fn new(identity: &Identity) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = NodeKey { identity: Arc::new(identity.clone()), spki: spki(&identity.id()) };
        // What a raw public key travels in is called a certificate there.
        let shown = CertificateDer::from(key.spki.clone());
        let certified = CertifiedKey::new(vec![shown], Arc::new(key));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has what TLS 1.3 needs")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.max_early_data_size = 0;
        Self { provider, server: Arc::new(server) }
    }

    pub(super) fn client(&self, listener: NodeId) -> ClientConfig {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has what TLS 1.3 needs")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OneKey { listener, spki: spki(&listener) }))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        client
    }

    /// The dialer's end of a TLS connection to `listener`, and to nobody else.
    pub(super) fn dialer(&self, listener: NodeId) -> Result<Box<Connection>, rustls::Error> {
        // Asked for by rustls, sent to nobody and looked at by nobody.
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        ClientConnection::new(Arc::new(self.client(listener)), name).map(|tls| Box::new(tls.into()))
    }

    /// The listener's end.
    pub(super) fn listener(&self) -> Result<Box<Connection>, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.server)).map(|tls| Box::new(tls.into()))
    }
}

/// Checks what both sides agreed on, and gives what names the connection.
pub(super) fn binding(tls: &Connection) -> Result<Binding, Refusal> {
    // Who offers no protocol gets none, and no error: only other protocols are refused by themselves.
    if tls.alpn_protocol() != Some(ALPN) {
        return Err(bad("the other side does not say `elo/1` (ALPN)"));
    }
    tls.export_keying_material([0; 32], BINDING_LABEL, None).map_err(bad)
}

fn bad(what: impl fmt::Display) -> Refusal {
    Refusal::new(CloseReason::BadHandshake, format!("TLS: {what}"))
}

/// What a failed read or write on a stream under TLS means for a handshake.
pub(super) fn failure(error: io::Error) -> HandshakeError {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let refusal = match tls {
        None if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted) => {
            return HandshakeError::Ended { heard: true };
        }
        None => return error.into(),
        Some(rustls::Error::AlertReceived(alert)) => {
            let message = format!("the other side refused: TLS alert {alert:?}");
            Refusal { reason: CloseReason::BadHandshake, message, by_peer: true }
        }
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::PeerIncompatible(PeerIncompatible::IncorrectCertificateTypeExtension),
        ) => bad(
            "the key that was shown is not that of the node that answered: somebody is in between, or the other side \
                  is broken",
        ),
        Some(error) => bad(error),
    };
    refusal.into()
}

/// The node's key, as rustls wants to use one. What it signs begins with 64 spaces and a text of TLS (RFC 8446, section
/// 4.4.3), and never passes for a message, which begins with `{`.
#[derive(Debug)]
struct NodeKey {
    identity: Arc<Identity>,
    spki: Vec<u8>,
}

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || Box::new(NodeSigner(Arc::clone(&self.identity))) as Box<dyn Signer>;
        offered.contains(&SignatureScheme::ED25519).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

#[derive(Debug)]
struct NodeSigner(Arc<Identity>);

impl Signer for NodeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Takes one raw public key, and nothing else.
#[derive(Debug)]
struct OneKey {
    listener: NodeId,
    spki: Vec<u8>,
}

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Both are public: the time this takes tells nothing.
        if more.is_empty() && shown.as_ref() == self.spki {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // By the key that must be there, whatever was shown; and as strictly as everything else.
        let signature: Option<&[u8; 64]> = signed.signature().try_into().ok();
        match signature {
            Some(signature)
                if signed.scheme == SignatureScheme::ED25519 && verify(&self.listener, message, signature) =>
            {
                Ok(HandshakeSignatureValid::assertion())
            }
            _ => Err(CertificateError::BadSignature.into()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
