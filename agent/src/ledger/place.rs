//! Where a home may not lie: on a network file system.
//!
//! There, locks and fsync do not promise what the ledger and the agent's lock rest on, and a second
//! host could run a second agent on the same guard state.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::LedgerError;

/// `f_type` of network file systems (statfs(2), linux/magic.h).
const NETWORK: &[(u32, &str)] = &[
    (0x0000_6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0000_517b, "smb"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x00c3_6400, "ceph"),
    (0x7375_7245, "coda"),
    (0x0bd0_0bd0, "lustre"),
    (0x0000_564c, "ncp"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
];
/// Any file system in user space: the mount's own type says which.
const FUSE: u32 = 0x6573_5546;
/// Types in user space that reach over a network.
const NETWORK_FUSE: &[&str] = &[
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.glusterfs",
    "fuse.ceph-fuse",
    "fuse.davfs",
    "fuse.curlftpfs",
    "fuse.gcsfuse",
    "fuse.gvfsd-fuse",
    "fuse.smbnetfs",
];

/// Refuses a home on a network file system. The home exists.
///
/// # Errors
///
/// [`LedgerError::Network`]; [`LedgerError::Io`] when the system does not say.
pub fn refuse_network(home: &Path) -> Result<(), LedgerError> {
    let failed = |source| LedgerError::Io {
        path: home.to_owned(),
        source,
    };
    let facts = rustix::fs::statfs(home).map_err(|error| failed(error.into()))?;
    // The kernel's magic numbers have 32 bits; the field is wider, and signed on some machines.
    let kind = facts.f_type as u32;
    let network = match NETWORK.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Some(*name),
        None if kind == FUSE => {
            let device = fs::metadata(home).map_err(failed)?.dev();
            // Where /proc is hidden nothing says more, and most of FUSE is local.
            fs::read_to_string("/proc/self/mountinfo")
                .ok()
                .and_then(|mounts| network_fuse(&mounts, device))
        }
        None => None,
    };
    match network {
        Some(kind) => Err(LedgerError::Network {
            path: home.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// The type of the mount of `device`, if it is one of those that reach over a network (proc(5)).
fn network_fuse(mounts: &str, device: u64) -> Option<&'static str> {
    let wanted = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let kind = mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == wanted).then(|| file_system.split(' ').next())?
    })?;
    NETWORK_FUSE.iter().copied().find(|known| *known == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_is_fine() {
        refuse_network(tempfile::tempdir().unwrap().path()).unwrap();
    }

    #[test]
    fn only_the_mount_of_the_home_decides() {
        let mounts = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      90 24 0:55 / /home/a/mnt rw,nosuid shared:1 - fuse.sshfs host:/x rw\n\
                      91 24 0:56 / /home/a/enc rw - fuse.gocryptfs x rw\n";
        let device = |minor| rustix::fs::makedev(0, minor);
        assert_eq!(network_fuse(mounts, device(55)), Some("fuse.sshfs"));
        assert_eq!(network_fuse(mounts, device(56)), None);
        assert_eq!(network_fuse(mounts, device(57)), None);
    }
}
