//! Which trust server belongs to an image: `--server`, else `DOCKER_CONTENT_TRUST_SERVER`, else
//! `[servers]` of `config.toml`, else Docker's rule.

use std::{fs, io, path::Path, time::Duration};

use super::cache::{make_directory, remove_stale, write_beside};
use crate::{
    Context,
    docker::{
        config::{DockerConfig, read_bounded},
        credentials::CredentialSource,
        endpoint,
        engine::Engine,
    },
    failure::{Failure, exit},
    image::{Image, is_loopback},
    net::{
        NetError,
        registry::Registry,
        trust_server::{Access, TrustServer},
    },
};

/// Everything that belongs to one image outside this machine.
#[derive(Debug)]
pub(crate) struct Remote {
    /// Shared by trust server, registry and engine.
    pub(crate) credentials: CredentialSource,
    /// The collection at its server.
    pub(crate) trust: TrustServer,
    /// The repository's registry.
    pub(crate) registry: Registry,
}

/// The server of Docker Hub; it closes on 8 December 2026.
const HUB_SERVER: &str = "https://notary.docker.io";
/// How long the engine may take to say which registries are insecure.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);
/// `config.toml` holds a few lines.
const MAX_CONFIG: u64 = 1 << 20;

/// Finds trust server, registry and credentials of an image. Connects to nothing, but for asking
/// the engine whether a registry is insecure where the image's certificate may matter.
///
/// # Errors
///
/// Exit 2 for URLs and files of the configuration that are not usable.
pub(crate) async fn remote(
    ctx: &Context,
    image: &Image,
    access: Access,
) -> Result<Remote, Failure> {
    let docker = &ctx.places.docker;
    // Not needed by all, but better said now than when a server asks who we are.
    DockerConfig::read(docker)
        .map_err(|error| Failure::new(exit::FAILED, "docker.config", error))?;
    let credentials = CredentialSource::new(docker.clone(), image.credentials_key());
    let url = trust_server_url(ctx, image)?;
    let insecure = is_insecure(ctx, image).await;
    let trust = TrustServer::new(&url, image, insecure, access, docker, credentials.clone())?;
    let registry = Registry::new(image, insecure, &credentials)?;
    Ok(Remote {
        credentials,
        trust,
        registry,
    })
}

/// The trust server's URL by the order above; `--save` remembers `--server`.
pub(crate) fn trust_server_url(ctx: &Context, image: &Image) -> Result<String, Failure> {
    let file = ctx.places.config.join("config.toml");
    if let Some(url) = &ctx.globals.server {
        if ctx.globals.save {
            check_url(url)?;
            save(&file, &image.domain, url)?;
        }
        return Ok(url.clone());
    }
    if let Some(url) = std::env::var_os("DOCKER_CONTENT_TRUST_SERVER").filter(|v| !v.is_empty()) {
        return url
            .into_string()
            .map_err(|_| Failure::usage("DOCKER_CONTENT_TRUST_SERVER is not UTF-8"));
    }
    if let Some(url) = configured(&file, &image.domain)? {
        return Ok(url);
    }
    Ok(if image.is_hub() {
        HUB_SERVER.to_owned()
    } else {
        format!("https://{}", image.domain)
    })
}

fn check_url(url: &str) -> Result<(), Failure> {
    if url.starts_with("https://") {
        return Ok(());
    }
    Err(NetError::Setup(format!(
        "valid https URL required for trust server, got {url}"
    ))
    .into())
}

/// Lines of `[servers]`, for `status`: registry and URL. A file that cannot be read is the business
/// of the commands that need it.
pub(crate) fn configured_servers(ctx: &Context) -> Vec<(String, String)> {
    let file = ctx.places.config.join("config.toml");
    let Ok(Some(table)) = read(&file).and_then(|text| text.map(|t| parse(&file, &t)).transpose())
    else {
        return Vec::new();
    };
    let servers = table.get("servers").and_then(toml::Value::as_table);
    servers
        .into_iter()
        .flatten()
        .filter_map(|(registry, url)| Some((registry.clone(), url.as_str()?.to_owned())))
        .collect()
}

fn configured(file: &Path, domain: &str) -> Result<Option<String>, Failure> {
    let Some(text) = read(file)? else {
        return Ok(None);
    };
    let table = parse(file, &text)?;
    let Some(servers) = table.get("servers") else {
        return Ok(None);
    };
    let entry = servers.as_table().and_then(|servers| servers.get(domain));
    match entry {
        None if servers.is_table() => Ok(None),
        Some(toml::Value::String(url)) => Ok(Some(url.clone())),
        _ => Err(Failure::usage(format!(
            "{}: [servers] must be lines like \"{domain}\" = \"https://notary.example\"",
            file.display()
        ))),
    }
}

fn read(file: &Path) -> Result<Option<String>, Failure> {
    match read_bounded(file, MAX_CONFIG) {
        Ok(bytes) => String::from_utf8(bytes.to_vec())
            .map(Some)
            .map_err(|_| Failure::usage(format!("{} is not UTF-8", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read", file, error)),
    }
}

fn parse(file: &Path, text: &str) -> Result<toml::Table, Failure> {
    text.parse().map_err(|error: toml::de::Error| {
        Failure::usage(format!("{}: {}", file.display(), error.message()))
    })
}

/// Writes one line of `[servers]`; everything else in the file stays as it is, comments too.
fn save(file: &Path, domain: &str, url: &str) -> Result<(), Failure> {
    let text = read(file)?.unwrap_or_default();
    parse(file, &text)?;
    if configured(file, domain)?.as_deref() == Some(url) {
        return Ok(());
    }
    let key = toml::Value::String(domain.to_owned()).to_string();
    let line = format!("{key} = {}", toml::Value::String(url.to_owned()));
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|line| line.trim() == "[servers]") {
        Some(header) => {
            let end = lines[header + 1..]
                .iter()
                .position(|line| line.trim_start().starts_with('['))
                .map_or(lines.len(), |found| header + 1 + found);
            let old = (header + 1..end).find(|at| {
                lines[*at].split_once('=').is_some_and(|(name, _)| {
                    let name = name.trim();
                    name == key || name == domain
                })
            });
            match old {
                Some(at) => lines[at] = &line,
                None => lines.insert(header + 1, &line),
            }
        }
        None => lines.extend(["[servers]", &line]),
    }
    let mut new = lines.join("\n");
    new.push('\n');
    let unchanged = parse(file, &new).is_ok_and(|table| {
        table
            .get("servers")
            .and_then(|s| s.get(domain))
            .and_then(|v| v.as_str())
            == Some(url)
    });
    if !unchanged {
        return Err(Failure::usage(format!(
            "{}: cannot add a line to [servers]; write it by hand: {line}",
            file.display()
        )));
    }
    let failed = |error| Failure::file("write", file, error);
    let directory = file
        .parent()
        .expect("the configuration lies in a directory");
    make_directory(directory).map_err(failed)?;
    remove_stale(directory);
    write_beside(file, new.as_bytes())
        .map_err(failed)?
        .persist(file)
        .map_err(|error| failed(error.error))?;
    fs::File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(failed)
}

/// Whether certificates of this registry and its trust server are verified: not on loopback, nor
/// where the engine was told so. The engine is asked only where one could be: an engine that does
/// not answer has nothing to say.
async fn is_insecure(ctx: &Context, image: &Image) -> bool {
    if is_loopback(&image.domain) {
        return true;
    }
    if image.is_hub() {
        return false;
    }
    let env = |name: &str| std::env::var_os(name);
    let Ok(endpoint) = endpoint::resolve(&ctx.places.docker, &env) else {
        return false;
    };
    let ask = async {
        Engine::connect(endpoint, &env)
            .await
            .ok()?
            .is_insecure(&image.domain)
            .await
            .ok()
    };
    tokio::time::timeout(ENGINE_PATIENCE, ask)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}

/// The engine of this user.
///
/// # Errors
///
/// As [`endpoint::resolve`] and [`Engine::connect`].
pub(crate) async fn engine(ctx: &Context) -> Result<Engine, Failure> {
    let env = |name: &str| std::env::var_os(name);
    Engine::connect(endpoint::resolve(&ctx.places.docker, &env)?, &env).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_keeps_the_rest_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("signet/config.toml");
        save(&file, "reg:5000", "https://a").unwrap();
        assert_eq!(
            configured(&file, "reg:5000").unwrap().as_deref(),
            Some("https://a")
        );
        assert_eq!(configured(&file, "other").unwrap(), None);
        fs::write(
            &file,
            "# mine\n[servers]\n\"reg:5000\" = \"https://a\" # old\n\n[x]\ny = 1\n",
        )
        .unwrap();
        save(&file, "reg:5000", "https://b").unwrap();
        save(&file, "other", "https://c").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# mine\n[servers]\n"), "{text}");
        assert!(text.contains("\n[x]\ny = 1\n"), "{text}");
        assert_eq!(
            configured(&file, "reg:5000").unwrap().as_deref(),
            Some("https://b")
        );
        assert_eq!(
            configured(&file, "other").unwrap().as_deref(),
            Some("https://c")
        );
    }

    #[test]
    fn a_broken_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        for text in ["x = ", "servers = 1", "[servers]\nreg = 1"] {
            fs::write(&file, text).unwrap();
            let failure = configured(&file, "reg").unwrap_err();
            assert!(failure.message.contains("config.toml"), "{failure}");
        }
    }
}
