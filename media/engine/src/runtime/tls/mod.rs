//! The certificate of the TLS listeners: the configured one, or one of the node's own making.
//!
//! | file | contents |
//! | --- | --- |
//! | `server_tls` | which of the two the listeners use |
//! | `configured` | reads the certificate that `[tls]` names |
//! | `own_certificate` | stores the self-signed one, and renews it while it is served |
//! | `self_signed` | makes and parses a self-signed one; a value that takes the time as an argument |
//! | `names` | the names that it is valid for |

mod configured;
mod names;
mod own_certificate;
mod self_signed;
mod server_tls;

pub use configured::TlsError;
pub use self_signed::CertificateError;
pub use server_tls::ServerTls;
