//! Which certificates a server may show, and which one we show.
//!
//! Docker's rules: a directory per `host[:port]` with `*.crt` (roots added to the system's) and
//! `X.cert` + `X.key` (a client pair; one without the other is an error). Servers on loopback, or
//! in the engine's list of insecure registries, are not verified. A certificate that lies in the
//! directory may be the server's own, as docker's guide to self-signed registries has it.

mod roots;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use reqwest::ClientBuilder;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use zeroize::Zeroizing;

use super::NetError;
use roots::{Anything, Roots};

/// How one server is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// False: any certificate will do.
    pub(crate) verify: bool,
    /// Directories with extra roots and a client pair; they need not exist.
    pub(crate) directories: Vec<PathBuf>,
}

/// Largest PEM file that is read.
const MAX_PEM: u64 = 1 << 20;

/// A client's certificate with its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Applies the rules to a client.
pub(crate) fn configure(builder: ClientBuilder, trust: &Trust) -> Result<ClientBuilder, NetError> {
    let mut roots = Vec::new();
    let mut pair = None;
    for directory in &trust.directories {
        let files = list(directory)?;
        for file in &files {
            let Some(extension) = file.extension().and_then(|e| e.to_str()) else {
                continue;
            };
            match extension {
                "crt" if trust.verify => roots.extend(certificates(file)?),
                "cert" => {
                    let key = file.with_extension("key");
                    if !files.contains(&key) {
                        return Err(unusable(
                            file,
                            "has no .key file of the same name beside it",
                        ));
                    }
                    if pair.is_none() {
                        pair = Some((certificates(file)?, private_key(&key)?));
                    }
                }
                "key" if !files.contains(&file.with_extension("cert")) => {
                    return Err(unusable(
                        file,
                        "has no .cert file of the same name beside it",
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(builder.tls_backend_preconfigured(config(trust.verify, roots, pair)?))
}

fn config(
    verify: bool,
    roots: Vec<CertificateDer<'static>>,
    pair: Option<Pair>,
) -> Result<ClientConfig, NetError> {
    let failed = |error: rustls::Error| NetError::Setup(format!("TLS cannot be set up: {error}"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous();
    let builder = if verify {
        let verifier = Roots::new(roots, provider).map_err(failed)?;
        builder.with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.with_custom_certificate_verifier(Arc::new(Anything::new(&provider)))
    };
    let mut config = match pair {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            NetError::Setup(format!("the client certificate is not usable: {error}"))
        })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let pem = read(file)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| unusable(file, "holds no PEM certificate"))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| unusable(file, "holds no PEM private key without a passphrase"))
}

fn unusable(file: &Path, why: &str) -> NetError {
    NetError::Setup(format!("{} {why}", file.display()))
}

/// Files of a directory by name; none when there is no such directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, NetError> {
    let failed = |error| NetError::Setup(format!("{}: {error}", directory.display()));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut files = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, NetError> {
    let failed = |error: std::io::Error| NetError::Setup(format!("{}: {error}", file.display()));
    let mut bytes = Zeroizing::new(Vec::new());
    let size = fs::File::open(file)
        .and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if size as u64 > MAX_PEM {
        return Err(unusable(file, "is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let trust = Trust {
            verify: true,
            directories: vec![directory.path().to_owned()],
        };
        configure(reqwest::Client::builder(), &trust)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn half_a_client_pair_is_an_error_that_names_the_file() {
        assert!(refused(&[("client.cert", "x")]).contains("client.cert has no .key"));
        assert!(refused(&[("client.key", "x")]).contains("client.key has no .cert"));
        assert!(refused(&[("a.cert", "x"), ("a.key", "y")]).contains("a.cert holds no PEM"));
    }

    #[test]
    fn a_root_that_is_no_certificate_is_an_error() {
        assert!(refused(&[("ca.crt", "hello")]).contains("ca.crt holds no PEM certificate"));
    }

    #[test]
    fn a_directory_need_not_exist() {
        let trust = Trust {
            verify: false,
            directories: vec!["/nonexistent/x".into()],
        };
        let builder = configure(reqwest::Client::builder(), &trust).unwrap();
        builder.build().unwrap();
    }
}
