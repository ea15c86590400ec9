//! Compiles `proto/` with protox, so that no `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = protox::compile(["signet/v1/signet.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("signet.v1.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
