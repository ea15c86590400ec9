//! What the agent gives up before it opens a key: files that are not its own, the network, programs.
//!
//! Landlock (landlock(7)) leaves it its home, the directory of its socket, Docker's keys, the
//! witness of the log, and for reading its settings, `/proc`, `/sys` and libraries. A system-call
//! filter (seccomp(2), `filter`) leaves it what files, unix sockets and threads need. Programs run
//! in the `helper`, which is outside.
//!
//! Both hold for the calling thread and those that it starts, so they are applied before there are
//! others. A kernel that lacks one of them is told of in `status` and in the log; the agent starts
//! all the same.
//!
//! Rules of landlock are about files that are there. So the agent's directories are made first, with
//! what is usual for them; Docker's own directory too, since somebody may make a key there later.

mod filter;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

/// What is handled: all that Linux 6.10 knows of files. (Later ones restrict connecting to unix
/// sockets by path, too, which the buses and pcscd are reached by.)
const FILES: ABI = ABI::V5;
/// Places that programs of this system need to read: libraries that are loaded late (pcscd's
/// client, name services), time zones, users.
const SYSTEM: [&str; 17] = [
    "/dev/random",
    "/dev/urandom",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/gnu/store",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc",
    "/sys",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
];

/// What the agent keeps.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox<'a> {
    /// Keys and ledger.
    pub home: &'a Path,
    /// Where `agent.toml` is read.
    pub config: &'a Path,
    /// Docker's configuration directory.
    pub docker: &'a Path,
    /// Where sockets are bound, and removed at the end.
    pub sockets: Option<&'a Path>,
    /// The file that the log's checkpoints are appended to.
    pub witness: Option<&'a Path>,
    /// Roots of attestations.
    pub roots: Option<&'a Path>,
}

/// Why it cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// Landlock is there and refuses.
    #[error("landlock does not take the rules: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// Seccomp is there and refuses.
    #[error("seccomp does not take the filter: {0}")]
    Filter(#[from] seccompiler::Error),
    /// A directory that must be there cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What could not be had; set once the sandbox is applied.
static MISSING: OnceLock<Vec<String>> = OnceLock::new();

/// What the kernel lacks, one line each; nothing before [`Sandbox::apply`].
pub(super) fn warnings() -> &'static [String] {
    MISSING.get().map_or(&[], Vec::as_slice)
}

impl Sandbox<'_> {
    /// Gives up everything else, for this thread and all that it starts from here on. `no_new_privs`
    /// is set with it.
    ///
    /// # Errors
    ///
    /// [`SandboxError`]. That the kernel has no such thing is none: see `status`.
    pub fn apply(&self) -> Result<(), SandboxError> {
        // Docker makes it with this mode as well. Without it (no such parent, say) the store is
        // empty, and stays so until the agent is started anew.
        let _ = DirBuilder::new().mode(0o700).create(self.docker);
        // Whoever writes settings later has them read at the next SIGHUP.
        let _ = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.config);
        let mut missing = Vec::new();
        match self.landlock()? {
            RulesetStatus::FullyEnforced => {}
            RulesetStatus::PartiallyEnforced => missing.push(
                "this kernel knows only a part of landlock: the agent's own files and directories \
                 are all that it can open, but not all that it could do with them is restricted; \
                 Linux 6.12 does it"
                    .to_owned(),
            ),
            RulesetStatus::NotEnforced => missing.push(
                "this kernel has no landlock: the agent could open all files of its user; use \
                 Linux 6.12 or later, with \"landlock\" among those of the boot option lsm="
                    .to_owned(),
            ),
        }
        if let Err(why) = filter::apply()? {
            missing.push(format!("system calls of the agent are not filtered: {why}"));
        }
        for line in &missing {
            tracing::warn!("{line}");
        }
        // The first one counts: there is one agent in a process.
        let _ = MISSING.set(missing);
        Ok(())
    }

    fn landlock(&self) -> Result<RulesetStatus, SandboxError> {
        let all = AccessFs::from_all(FILES);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = read
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        let mut rules = Rules(
            Ruleset::default()
                .handle_access(all)?
                // No rule opens a port.
                .handle_access(AccessNet::from_all(ABI::V4))?
                .scope(Scope::Signal)?
                .create()?,
        );
        for place in SYSTEM {
            rules.allow(Path::new(place), read)?;
        }
        rules.allow(Path::new("/dev/null"), read | AccessFs::WriteFile)?;
        // By default the sockets lie in the home.
        rules.must_allow(self.home, write | AccessFs::MakeSock)?;
        if let Some(directory) = self.sockets {
            rules.allow(directory, read | AccessFs::MakeSock | AccessFs::RemoveFile)?;
        }
        rules.allow(self.config, read)?;
        // Settings are often a link into a directory that holds many programs' settings.
        if let Ok(real) = fs::canonicalize(self.config.join("agent.toml"))
            && let Some(directory) = real.parent()
        {
            rules.allow(directory, read)?;
        }
        for place in docker(self.docker) {
            rules.allow(&place, write)?;
        }
        if let Some(directory) = self.witness.and_then(Path::parent) {
            rules.allow(
                directory,
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::MakeReg,
            )?;
        }
        if let Some(file) = self.roots {
            rules.allow(file, AccessFs::ReadFile.into())?;
        }
        Ok(rules.0.restrict_self()?.ruleset)
    }
}

/// What is needed of Docker's directory: the part that holds trust, where it is there; that may be a
/// link to another place, and so may the keys in it. `config.json` beside it holds passwords.
fn docker(directory: &Path) -> Vec<PathBuf> {
    let trust = directory.join("trust");
    if trust.is_dir() {
        vec![trust.join("private"), trust]
    } else {
        vec![directory.to_owned()]
    }
}

struct Rules(RulesetCreated);

impl Rules {
    /// Allows what is below `path`; a path that is not there cannot be opened later either.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        match PathFd::new(path) {
            Ok(opened) => self.add(path, opened, access),
            Err(_) => Ok(()),
        }
    }

    fn must_allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        match PathFd::new(path) {
            Ok(opened) => self.add(path, opened, access),
            Err(error) => Err(SandboxError::Directory {
                path: path.to_owned(),
                source: io::Error::other(error),
            }),
        }
    }

    fn add(
        &mut self,
        path: &Path,
        opened: PathFd,
        access: BitFlags<AccessFs>,
    ) -> Result<(), SandboxError> {
        // Of a file there is less to allow than of a directory.
        let access = match path.is_dir() {
            true => access,
            false => access & AccessFs::from_file(FILES),
        };
        (&mut self.0).add_rule(PathBeneath::new(opened, access))?;
        Ok(())
    }
}
