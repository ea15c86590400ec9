//! One lab: a directory, a certificate authority, and whichever peers a test asked for.
//!
//! ```no_run
//! use signet_tests::{Cli, Lab, Run};
//!
//! let lab = Lab::start();
//! let config = lab.client_config();
//! let image = lab.import_image("acme/app:v1");
//! lab.docker_trusted(Cli::Debian12, &config).args(["push", &image]).run().ok();
//! ```
//!
//! Everything that a lab starts ends with it: by [`Drop`], or, when the test itself is killed, by
//! a keeper process that notices.

pub mod bus;
pub mod cards;
mod certs;
pub mod command;
mod engine;
mod home;
mod keeper;
mod notary;
pub(crate) mod ports;
pub mod proxy;
mod registry;
pub mod ssh;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use tempfile::TempDir;

pub use self::certs::Certs;
pub use self::engine::Cli;
use self::engine::Engine;
pub use self::home::{Home, KEYRING_PASSPHRASE, built};
use self::keeper::Keeper;
use self::notary::{Server, Signer};
use self::proxy::Proxy;
use self::registry::Registry;
pub use self::registry::{BASIC_PASSWORD, BASIC_USER};

/// The passphrase of root keys in Docker's format.
pub const ROOT_PASSPHRASE: &str = "lab root passphrase";

/// The passphrase of every other key in Docker's format.
pub const REPOSITORY_PASSPHRASE: &str = "lab repository passphrase";

/// Says which peers a lab has.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    engine: bool,
    registry: bool,
    registry_auth: bool,
    notary: bool,
    local_notary: bool,
}

impl Builder {
    /// With Docker's engine, Debian 12's 20.10.24.
    #[must_use]
    pub fn engine(mut self) -> Self {
        self.engine = true;
        self
    }

    /// With a registry that speaks TLS and lets everybody in.
    #[must_use]
    pub fn registry(mut self) -> Self {
        self.registry = true;
        self
    }

    /// With a registry that asks for [`BASIC_USER`] and [`BASIC_PASSWORD`].
    #[must_use]
    pub fn registry_with_basic_auth(mut self) -> Self {
        self.registry = true;
        self.registry_auth = true;
        self
    }

    /// With `notary-server`, its ECDSA keys held by `notary-signer` behind mutual TLS.
    #[must_use]
    pub fn notary(mut self) -> Self {
        self.notary = true;
        self
    }

    /// With a second `notary-server`, its Ed25519 keys in its own memory.
    #[must_use]
    pub fn local_notary(mut self) -> Self {
        self.local_notary = true;
        self
    }

    /// Starts what was asked for, and returns when all of it answers.
    ///
    /// # Panics
    /// When a peer is missing or does not come up; the message ends with its log.
    #[must_use]
    pub fn build(self) -> Lab {
        match self.try_build() {
            Ok(lab) => lab,
            Err(err) => panic!("the lab does not start: {err:#}"),
        }
    }

    /// As [`Builder::build`], for those who would rather have the error.
    ///
    /// # Errors
    /// Names the peer that did not start, with the end of its log.
    pub fn try_build(self) -> Result<Lab> {
        // Short, because the path of a unix socket has at most 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("sl")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        let root = dir.path().to_path_buf();
        for sub in ["log", "home", "etc-docker"] {
            fs::create_dir(root.join(sub))?;
        }
        let certs = Certs::make(&root.join("certs"))?;
        let mut lab = Lab {
            engine: None,
            registry: None,
            server: None,
            local_server: None,
            signer: None,
            keeper: Keeper::start(&root)?,
            certs,
            root,
            names: AtomicU32::new(0),
            _dir: dir,
        };
        // Spawned first and awaited last, so that they come up side by side.
        if self.engine {
            lab.engine = Some(Engine::spawn(&lab.root, &mut lab.keeper)?);
        }
        if self.registry {
            let (root, certs, keeper) = (&lab.root, &lab.certs, &mut lab.keeper);
            lab.registry = Some(Registry::start(root, certs, self.registry_auth, keeper)?);
        }
        if self.notary {
            let (root, certs, keeper) = (&lab.root, &lab.certs, &mut lab.keeper);
            let signer = Signer::start(root, certs, keeper)?;
            lab.server = Some(Server::start(root, "server", certs, Some(&signer), keeper)?);
            lab.signer = Some(signer);
        }
        if self.local_notary {
            let (root, certs, keeper) = (&lab.root, &lab.certs, &mut lab.keeper);
            lab.local_server = Some(Server::start(root, "server-local", certs, None, keeper)?);
        }
        if let Some(engine) = &mut lab.engine {
            engine.ready()?;
        }
        Ok(lab)
    }
}

/// A running lab. Dropping it stops its peers and removes its directory.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they are dropped: those who call others before those they call.
    engine: Option<Engine>,
    registry: Option<Registry>,
    server: Option<Server>,
    local_server: Option<Server>,
    signer: Option<Signer>,
    keeper: Keeper,
    certs: Certs,
    root: PathBuf,
    names: AtomicU32,
    _dir: TempDir,
}

impl Lab {
    /// A lab with an engine, an open registry, and `notary-server` with `notary-signer`.
    ///
    /// # Panics
    /// As [`Builder::build`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().engine().registry().notary().build()
    }

    /// A lab without any peer, to be filled.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The throwaway directory. What a test puts there goes with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.root
    }

    /// A directory in the lab that nobody has used before.
    #[must_use]
    pub fn fresh_dir(&self, prefix: &str) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(format!("{prefix}{number}"));
        fs::create_dir(&dir).expect("the lab's directory is ours");
        dir
    }

    /// The lab's certificates.
    #[must_use]
    pub fn certs(&self) -> &Certs {
        &self.certs
    }

    /// What the peers of this lab have written to their logs, one file each.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The pids of the lab's peers, children of theirs not counted.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.keeper.pids()
    }

    /// The registry, as `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// When this lab has none.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.registry
            .as_ref()
            .expect("this lab was built without a registry")
            .host()
    }

    /// The URL of the trust server with ECDSA keys.
    ///
    /// # Panics
    /// When this lab has none.
    #[must_use]
    pub fn trust_server(&self) -> &str {
        self.server
            .as_ref()
            .expect("this lab was built without notary()")
            .url()
    }

    /// The URL of the trust server with Ed25519 keys.
    ///
    /// # Panics
    /// When this lab has none.
    #[must_use]
    pub fn local_trust_server(&self) -> &str {
        self.local_server
            .as_ref()
            .expect("this lab was built without local_notary()")
            .url()
    }

    /// `notary-signer`, as `127.0.0.1:PORT`; it wants the client certificate of [`Lab::certs`].
    ///
    /// # Panics
    /// When this lab has none.
    #[must_use]
    pub fn signer(&self) -> &str {
        self.signer
            .as_ref()
            .expect("this lab was built without notary()")
            .host()
    }

    /// The full name of an image in this lab's registry: `acme/app:v1` → `127.0.0.1:PORT/acme/app:v1`.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry())
    }

    /// Puts a new image with content of its own into the engine, and returns its full name.
    ///
    /// # Panics
    /// When the engine refuses it.
    #[must_use]
    pub fn import_image(&self, name: &str) -> String {
        let image = self.image(name);
        self.import_image_as(&image);
        image
    }

    /// As [`Lab::import_image`], the full name given: for a registry behind a proxy.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub fn import_image_as(&self, image: &str) {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        self.engine
            .as_ref()
            .expect("this lab was built without an engine")
            .import(image, number);
    }

    /// A reverse proxy before `upstream` (a URL, or `HOST:PORT`).
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn proxy(&self, upstream: &str) -> Proxy {
        let upstream = if upstream.contains("://") {
            upstream.to_owned()
        } else {
            format!("https://{upstream}")
        };
        Proxy::start(&upstream, &self.certs).expect("the proxy starts")
    }
}
