//! The check before a signature: a command of a policy rule that has to agree before tags are
//! signed, such as a scanner.
//!
//! It gets one line of JSON on standard input:
//!
//! ```text
//! {"v":1,"gun":"reg.corp/app","images":[{"image":"reg.corp/app:1.2","tag":"1.2",
//!  "digest":"sha256:…","size":528,"was":"sha256:…"}],"summary":["…"],"caller":"pid 7 signet"}
//! ```
//!
//! `was` is null for a new tag. Exit 0 agrees; any other end refuses, which `--allow check`
//! overrides. What it says first is shown to the person and written to the log. It runs once for a
//! request and has no key, no secret and no connection to the agent.
//!
//! However long it takes, it keeps only those waiting who want to sign for the same collection, and
//! it is killed when the caller goes away. Only so many run at once.

use std::time::Duration;

use serde_json::{Value, json};
use signet_trust::{
    Gun,
    base::VerifiedBase,
    document::{Document, TargetRef},
    payload::{Item, escape},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Fault, allowed::Check};
use crate::daemon::{caller::Caller, helper};

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Checks that run at once; others wait for one of these to end.
const MAX_RUNNING: usize = 8;
static ROOM: Semaphore = Semaphore::const_new(MAX_RUNNING);
/// Checks for other machines that run at once: they leave room for those of this one.
const MAX_FORWARDED: usize = 1;
static FORWARDED_ROOM: Semaphore = Semaphore::const_new(MAX_FORWARDED);
/// Lines and characters of what it says that are shown and logged.
const LINES: usize = 5;
const LINE: usize = 200;

/// What the checks said.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// For the person and the log.
    pub(super) words: Vec<String>,
    /// Why it is refused.
    pub(super) refused: Option<String>,
}

/// A place among the checks that run.
#[derive(Debug)]
struct Place {
    _forwarded: Option<SemaphorePermit<'static>>,
    _one: SemaphorePermit<'static>,
}

impl Place {
    async fn of(caller: &Caller) -> Result<Self, Fault> {
        let closed = |_| Fault::Internal("no room for checks");
        let forwarded = match caller.is_forwarded() {
            true => Some(FORWARDED_ROOM.acquire().await.map_err(closed)?),
            false => None,
        };
        Ok(Self {
            _forwarded: forwarded,
            _one: ROOM.acquire().await.map_err(closed)?,
        })
    }
}

/// Runs each check on the tags that the rule was about; nothing where there are none. Dropped, it
/// kills the check that runs.
pub(super) async fn run(
    checks: &[Check],
    gun: &Gun,
    base: Option<&VerifiedBase>,
    items: &[Item],
    summary: &[String],
    caller: &Caller,
) -> Result<Checked, Fault> {
    let mut checked = Checked::default();
    for check in checks {
        let images: Vec<Value> = items
            .iter()
            .filter(|item| check.roles.contains(&item.role))
            .flat_map(|item| images(gun, base, item))
            .collect();
        if images.is_empty() {
            continue;
        }
        let asked = json!({
            "v": 1,
            "gun": gun.as_str(),
            "images": images,
            "summary": summary,
            "caller": caller.describe(),
        });
        let (command, text) = (check.command.clone(), format!("{asked}\n"));
        let place = Place::of(caller).await?;
        let ran = helper::run_apart(command, text, PATIENCE, place).await;
        let program = check.command.first().map_or("", String::as_str);
        let (verdict, said) = match ran {
            Err(error) => (Some(format!("cannot be run: {error}")), Vec::new()),
            Ok(ran) => match ran.status {
                Some(status) if status.success() => (None, ran.said),
                Some(status) => (Some(format!("refuses it ({status})")), ran.said),
                None => (
                    Some(format!(
                        "took longer than {} minutes",
                        PATIENCE.as_secs() / 60
                    )),
                    ran.said,
                ),
            },
        };
        let program = escape(program);
        checked.words.push(match &verdict {
            None => format!("check {program}: agrees"),
            Some(why) => format!("check {program}: {why}"),
        });
        checked.words.extend(lines(&said));
        if let Some(why) = verdict {
            let said = lines(&said).join("; ");
            let said = match said.trim() {
                "" => String::new(),
                said => format!(": {said}"),
            };
            checked.refused = Some(format!("the check {program} {why}{said}"));
            break;
        }
    }
    Ok(checked)
}

/// The first lines of what it said, fit to be shown.
fn lines(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .take(LINES)
        .map(|line| {
            let shown: String = escape(line).chars().take(LINE).collect();
            format!("  {shown}")
        })
        .collect()
}

/// Tags of a document that are new or point elsewhere than before.
fn images(gun: &Gun, base: Option<&VerifiedBase>, item: &Item) -> Vec<Value> {
    let Ok(Document::Targets(targets)) = item.payload.document() else {
        return Vec::new();
    };
    let old = base
        .and_then(|base| base.targets(&item.role))
        .map(|old| &old.doc().targets);
    let changed = targets.targets.iter().filter_map(|(tag, target)| {
        let was = old.and_then(|old| old.get(tag));
        (was != Some(target)).then(|| {
            json!({
                "image": format!("{gun}:{tag}"),
                "tag": tag,
                "digest": digest(&target),
                "size": target.length,
                "was": was.as_ref().and_then(digest),
            })
        })
    });
    changed.collect()
}

/// `sha256:…`
fn digest(target: &TargetRef<'_>) -> Option<String> {
    let mut hashes = target.hashes.iter();
    let (_, digest) = hashes.find(|(algorithm, _)| *algorithm == "sha256")?;
    Some(format!("sha256:{}", hex::encode(digest)))
}
