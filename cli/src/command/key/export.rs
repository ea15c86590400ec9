//! `signet key export`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use serde_json::json;
use signet_proto::v1::{ExportKey, key_change::Change};
use zeroize::Zeroizing;

use super::{to_json, versioned};
use crate::{
    Context,
    agent::{change, find::describe},
    args::KeyExportArgs,
    failure::{Failure, exit},
};

/// Writes a key to stdout or a new file.
pub(crate) async fn run(args: KeyExportArgs, ctx: &mut Context) -> Result<(), Failure> {
    // Before anything is asked: a passphrase chosen for nothing is annoying.
    if let Some(path) = args.output.as_deref()
        && path.exists()
    {
        return Err(exists(path));
    }
    let wanted = Change::Export(ExportKey {
        key: args.key,
        public_only: args.public,
    });
    let done = change(ctx, wanted, &[]).await?;
    let key = done.key.unwrap_or_default();
    let pem = Zeroizing::new(done.pem);
    if let Some(path) = &args.output {
        write_new(path, &pem).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => Failure::file("write", path, error),
        })?;
    }
    if ctx.ui.is_json() {
        let mut object = versioned(to_json(&key));
        object["file"] = json!(args.output);
        object["pem"] = json!(args.output.is_none().then(|| String::from_utf8_lossy(&pem)));
        ctx.ui.json(&object);
        return Ok(());
    }
    match &args.output {
        Some(path) => ctx.ui.say(format_args!(
            "exported {} to {}",
            describe(&key),
            path.display()
        )),
        None => ctx.ui.bytes(&pem)?,
    }
    Ok(())
}

fn exists(path: &Path) -> Failure {
    Failure::new(
        exit::FAILED,
        "file_exists",
        format!("{} exists already", path.display()),
    )
    .fix("choose another name; nothing is ever overwritten")
}

/// A new file, whole and on disk, or none.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".signet-")
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_is_new_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_new(&path, b"one").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            write_new(&path, b"two").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
