//! Which certificates a server may show, and which one we show.
//!
//! Docker's rules: a directory per `host[:port]` with `*.crt` (roots added to the system's) and
//! `X.cert` + `X.key` (a client pair; one without the other is an error). Servers on loopback, or
//! in the engine's list of insecure registries, are not verified.

use std::{fs, io::Read, path::PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity};
use zeroize::Zeroizing;

use super::NetError;

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

/// Applies the rules to a client.
pub(crate) fn configure(
    mut builder: ClientBuilder,
    trust: &Trust,
) -> Result<ClientBuilder, NetError> {
    let mut roots = Vec::new();
    let mut identity = None;
    for directory in &trust.directories {
        let files = list(directory)?;
        for file in &files {
            let Some(extension) = file.extension().and_then(|e| e.to_str()) else {
                continue;
            };
            match extension {
                "crt" if trust.verify => {
                    let pem = read(file)?;
                    let bundle = Certificate::from_pem_bundle(&pem)
                        .ok()
                        .filter(|bundle| !bundle.is_empty())
                        .ok_or_else(|| unusable(file, "holds no PEM certificate"))?;
                    roots.extend(bundle);
                }
                "cert" => {
                    let key = file.with_extension("key");
                    if !files.contains(&key) {
                        return Err(unusable(
                            file,
                            "has no .key file of the same name beside it",
                        ));
                    }
                    if identity.is_none() {
                        let mut pem = read(&key)?;
                        pem.push(b'\n');
                        pem.extend_from_slice(&read(file)?);
                        identity = Some(Identity::from_pem(&pem).map_err(|_| {
                            unusable(file, "and its .key are not a PEM certificate and key")
                        })?);
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
    builder = if trust.verify {
        builder.tls_certs_merge(roots)
    } else {
        builder.tls_danger_accept_invalid_certs(true)
    };
    Ok(match identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    })
}

fn unusable(file: &std::path::Path, why: &str) -> NetError {
    NetError::Setup(format!("{} {why}", file.display()))
}

/// Files of a directory by name; none when there is no such directory.
fn list(directory: &std::path::Path) -> Result<Vec<PathBuf>, NetError> {
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

fn read(file: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, NetError> {
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
        assert!(refused(&[("a.cert", "x"), ("a.key", "y")]).contains("a.cert and its .key"));
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
        assert!(configure(reqwest::Client::builder(), &trust).is_ok());
    }
}
