//! Flags of `signet grant`.

use clap::{Args, Subcommand};

use super::seconds;

/// `signet grant`
///
/// Without a verb it gives one: `--here` unless digests are named.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct GrantArgs {
    #[command(subcommand)]
    pub(crate) command: Option<GrantCommand>,
    /// For requests of this terminal session (the default)
    #[arg(long, conflicts_with = "digest")]
    pub(crate) here: bool,
    /// For a tag that is to point to this digest, once, whoever asks; repeatable
    #[arg(long, value_name = "sha256:DIGEST", value_parser = parse_digest)]
    pub(crate) digest: Vec<Digest>,
    /// For how long: 90s, 15m, 1h (15m unless given; at most 24h)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_time)]
    pub(crate) duration: Option<u32>,
    /// Only for repositories that this pattern fits; * stands for any characters
    #[arg(long, value_name = "PATTERN")]
    pub(crate) gun: Option<String>,
}

/// Verbs of `signet grant`.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Show the grants that stand
    List,
    /// End a grant, or all of them
    Revoke(GrantRevokeArgs),
}

/// `signet grant revoke`
#[derive(Args, Debug)]
pub(crate) struct GrantRevokeArgs {
    /// As `signet grant list` shows it, or the beginning of it
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all",
          value_parser = parse_id)]
    pub(crate) id: Option<String>,
    /// Every grant
    #[arg(long)]
    pub(crate) all: bool,
}

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

fn parse_digest(text: &str) -> Result<Digest, String> {
    let mut digest = [0; 32];
    text.strip_prefix("sha256:")
        .and_then(|digits| hex::decode_to_slice(digits, &mut digest).ok())
        .map(|()| Digest(digest))
        .ok_or_else(|| "a digest is sha256: and 64 hexadecimal digits".to_owned())
}

/// One second to a day, which is as long as the agent takes.
fn parse_time(text: &str) -> Result<u32, String> {
    match seconds(text)? {
        seconds @ 1..=86_400 => Ok(seconds),
        _ => Err("must be between one second and 24 hours".into()),
    }
}

fn parse_id(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    match !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(text),
        false => Err("`signet grant list` shows the IDs of grants".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_times_and_ids_are_read_strictly() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(parse_digest(&digest), Ok(Digest([0xab; 32])));
        for wrong in ["", "ab", "sha256:", "sha256:ab", &digest[7..], "sha512:ab"] {
            assert!(parse_digest(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_time("24h"), Ok(86_400));
        assert!(parse_time("25h").is_err() && parse_time("0").is_err());
        assert_eq!(parse_id("0AfF"), Ok("0aff".to_owned()));
        assert!(parse_id("").is_err() && parse_id("xyz").is_err());
    }
}
