//! Errors → `Status`: the one place that decides what callers learn.
//!
//! Every failure carries the exit code of the contract, a stable word, a sentence, and what to do
//! about it. Nothing of other callers' requests, and no secret, is in any of them.

use prost::Message as _;
use signet_proto::v1::Failure;
use tonic::{Code, Status};

use crate::{
    keyring::{Fault, fault::chain},
    ledger::LedgerError,
    migration::Refusal,
    presence::NoSecret,
    store::StoreError,
};

/// Exit codes of the contract.
mod exit {
    pub(super) const FAILED: u32 = 1;
    pub(super) const USAGE: u32 = 2;
    pub(super) const NO_TRUST: u32 = 3;
    pub(super) const REFUSED: u32 = 4;
    pub(super) const LOCKED: u32 = 5;
    pub(super) const NO_AGENT: u32 = 6;
    pub(super) const INTERRUPTED: u32 = 130;
}

/// A fault as the caller sees it.
#[must_use]
pub fn status(fault: &Fault) -> Status {
    let failure = failure(fault);
    let code = match failure.exit {
        exit::USAGE => Code::InvalidArgument,
        exit::NO_TRUST => Code::FailedPrecondition,
        exit::REFUSED => Code::PermissionDenied,
        exit::LOCKED => Code::Unauthenticated,
        exit::NO_AGENT => Code::Unavailable,
        exit::INTERRUPTED => Code::Cancelled,
        _ => Code::Internal,
    };
    Status::with_details(
        code,
        failure.message.clone(),
        failure.encode_to_vec().into(),
    )
}

/// A fault as it is encoded into the details of its status.
#[must_use]
pub fn failure(fault: &Fault) -> Failure {
    let (exit, code) = kind(fault);
    let mut failure = Failure {
        exit,
        code: code.to_owned(),
        message: chain(fault),
        fix: fix(fault).unwrap_or_default(),
        ..Failure::default()
    };
    match fault {
        Fault::Ambiguous { candidates, .. } => failure.candidates.clone_from(candidates),
        Fault::RootInUse { used_by, .. } => failure.candidates.clone_from(used_by),
        Fault::Refetch { rule, next, .. } => {
            failure.rule = rule.to_string();
            failure.next = *next;
        }
        Fault::Refused {
            rule,
            next,
            can_override,
            ..
        } => {
            failure.next = *next;
            if *can_override {
                failure.rule = rule.to_string();
            }
        }
        _ => {}
    }
    failure
}

/// The stable word of a fault, for the log.
#[must_use]
pub fn word(fault: &Fault) -> &'static str {
    kind(fault).1
}

fn kind(fault: &Fault) -> (u32, &'static str) {
    use signet_trust::guard::Rule;
    match fault {
        Fault::Ambiguous { .. } => (exit::USAGE, "ambiguous_key"),
        Fault::Archive(_) => (exit::FAILED, "archive"),
        Fault::Base(_) => (exit::NO_TRUST, "base"),
        Fault::Certificate(_) => (exit::FAILED, "certificate"),
        Fault::Conflict { .. } => (exit::FAILED, "key_conflict"),
        Fault::Declined => (exit::REFUSED, "declined"),
        Fault::DockerDir { .. } => (exit::USAGE, "docker_dir"),
        Fault::Forwarded => (exit::LOCKED, "forwarded"),
        Fault::ForwardedOnly => (exit::REFUSED, "forwarded_only"),
        Fault::TooMany => (exit::LOCKED, "too_many"),
        Fault::Gone => (exit::INTERRUPTED, "gone"),
        Fault::Internal(_) => (exit::FAILED, "internal"),
        Fault::KeyRole { .. } => (exit::REFUSED, "key_role"),
        Fault::Ledger(error) => (exit::FAILED, ledger(error)),
        Fault::Malformed(_) => (exit::FAILED, "malformed"),
        Fault::Migration(refusal) => migration(refusal),
        Fault::NeedsYes(_) => (exit::LOCKED, "needs_yes"),
        Fault::NobodyAnswered => (exit::LOCKED, "nobody_answered"),
        Fault::NoKeyHere { .. } => (exit::FAILED, "no_key"),
        Fault::NoSecret(NoSecret::Cancelled | NoSecret::Gone) => (exit::INTERRUPTED, "cancelled"),
        Fault::NoSecret(NoSecret::Unavailable) => (exit::LOCKED, "locked"),
        Fault::NotEnrolled(_) => (exit::REFUSED, "not_enrolled"),
        Fault::NothingToConfirmWith(..) => (exit::REFUSED, "nothing_to_confirm_with"),
        Fault::Policy { .. } => (exit::REFUSED, "policy"),
        Fault::Refetch { .. } => (exit::REFUSED, "guard.refetch"),
        Fault::Refused { rule, .. } => (
            exit::REFUSED,
            match rule {
                Rule::Check => "guard.check",
                Rule::Expiry => "guard.expiry",
                Rule::Gap => "guard.gap",
                Rule::Key => "guard.key",
                Rule::Lineage => "guard.lineage",
                Rule::Opaque => "guard.opaque",
                Rule::Restart => "guard.restart",
                Rule::Rollback => "guard.rollback",
                Rule::Threshold => "guard.threshold",
            },
        ),
        Fault::Retired { .. } => (exit::REFUSED, "retired"),
        Fault::RootInUse { .. } => (exit::REFUSED, "root_in_use"),
        Fault::Slow => (exit::FAILED, "slow"),
        Fault::Stopping => (exit::NO_AGENT, "stopping"),
        Fault::Store(error) => store(error),
        Fault::TooLarge { .. } => (exit::FAILED, "too_large"),
        Fault::UnknownKey(_) => (exit::USAGE, "unknown_key"),
        Fault::Usage(_) => (exit::USAGE, "usage"),
        Fault::WrongUser(_) => (exit::NO_AGENT, "wrong_user"),
    }
}

fn migration(refusal: &Refusal) -> (u32, &'static str) {
    match refusal {
        Refusal::Forged(_) => (exit::NO_TRUST, "migration.forged"),
        Refusal::NotSealed => (exit::NO_TRUST, "migration.forged"),
        Refusal::Cancelled(_) => (exit::FAILED, "migration.cancelled"),
        Refusal::Finished(_) => (exit::FAILED, "migration.finished"),
        Refusal::Message(_) => (exit::FAILED, "migration.message"),
        Refusal::TooEarly(_) => (exit::FAILED, "migration.too_early"),
        _ => (exit::FAILED, "migration.other"),
    }
}

fn ledger(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Damaged { .. } => "ledger.damaged",
        LedgerError::Moved(_) => "ledger.moved",
        LedgerError::Network { .. } => "ledger.network",
        LedgerError::Newer { .. } => "ledger.newer",
        _ => "ledger",
    }
}

fn store(error: &StoreError) -> (u32, &'static str) {
    match error {
        StoreError::Card(fault) => fault.kind(),
        StoreError::BadPassphrase { .. } => (exit::LOCKED, "bad_passphrase"),
        StoreError::Changed { .. } => (exit::FAILED, "changed"),
        StoreError::Damaged { .. } => (exit::FAILED, "damaged"),
        StoreError::Exists { .. } => (exit::FAILED, "exists"),
        StoreError::KeyFile { .. } => (exit::FAILED, "key_file"),
        StoreError::KeyringMissing { .. } => (exit::FAILED, "keyring_missing"),
        StoreError::Locked { .. } => (exit::LOCKED, "locked"),
        StoreError::NotFound(_) => (exit::FAILED, "unknown_key"),
        StoreError::TooManyWrong { .. } => (exit::LOCKED, "too_many_wrong"),
        StoreError::Unsupported(_) => (exit::USAGE, "unsupported"),
        StoreError::WrongId { .. } => (exit::FAILED, "wrong_id"),
        StoreError::WrongPassphrase { .. } => (exit::LOCKED, "wrong_passphrase"),
        _ => (exit::FAILED, "store"),
    }
}

fn fix(fault: &Fault) -> Option<String> {
    Some(match fault {
        Fault::Ambiguous { .. } => "name one of them by its key ID".to_owned(),
        Fault::DockerDir { ours, .. } => format!(
            "set DOCKER_CONFIG to {ours}, or run `signet agent stop` so that the next command \
             starts an agent with its own DOCKER_CONFIG"
        ),
        Fault::Forwarded => {
            "run `signet watch` on the machine that holds the keys, and repeat this without \
             --no-input"
                .to_owned()
        }
        Fault::TooMany => "answer those that wait, or repeat this later".to_owned(),
        Fault::ForwardedOnly => "run the command on the machine that holds the keys".to_owned(),
        Fault::Ledger(LedgerError::Sqlite(_)) => {
            "nothing was signed; look for a full disk or lost permissions in the home".to_owned()
        }
        Fault::NeedsYes(_) => "add --yes, or run it without --no-input".to_owned(),
        Fault::Migration(refusal) => return migration_fix(refusal).map(str::to_owned),
        Fault::NoKeyHere { .. } => {
            "import one of them with `signet key import`, or sign where they are".to_owned()
        }
        Fault::NoSecret(NoSecret::Unavailable) => {
            "run it in a terminal, run `signet unlock` before, or give the passphrase by \
             --passphrase-fd or SIGNET_PASSPHRASE_FILE"
                .to_owned()
        }
        Fault::NotEnrolled(id) => format!(
            "take it in with `signet key import`, then use {id}; a key on a card is used here once \
             it was made or moved there by signet"
        ),
        Fault::NothingToConfirmWith(id, _) => format!(
            "give it a passphrase with `signet key passphrase {id}`; a key on a card whose policies \
             ask for neither PIN nor touch cannot be confirmed with"
        ),
        Fault::Refused {
            rule,
            can_override: true,
            ..
        } => {
            format!("if that is what you want, repeat it with --allow {rule}")
        }
        Fault::Retired { id, .. } => {
            format!("sign where it is now; `signet key revive {id}` lets it come back")
        }
        Fault::RootInUse { .. } => "confirm with --yes if you have a copy of it".to_owned(),
        Fault::Stopping => "repeat the command".to_owned(),
        Fault::Store(error) => return error.fix(),
        Fault::TooLarge { .. } => {
            "max_request_mib in agent.toml raises the limit, up to 100".to_owned()
        }
        Fault::UnknownKey(_) => "`signet key list` shows the keys and their names".to_owned(),
        _ => return None,
    })
}

fn migration_fix(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::Cancelled(_) | Refusal::Finished(_) | Refusal::SecondPackage(_) => {
            "begin a new one: `signet migrate receive` on the new host"
        }
        Refusal::Forged(_) | Refusal::OtherPackage(_) | Refusal::OtherKey(_) => {
            "nothing was retired; have the new host issue its receipt again with `signet migrate \
             receive --receipt ID`"
        }
        Refusal::NotSealed => {
            "nothing was changed; `signet migrate finish RECEIPT` on the old host writes the note \
             again"
        }
        Refusal::Message(_) | Refusal::Other { .. } => {
            "nothing was changed; `signet migrate status` says what is awaited here"
        }
        Refusal::TooEarly(_) => "take in its package first: `signet migrate receive FILE`",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_rule_its_override_and_the_version_that_would_pass() {
        let status = status(&Fault::Refused {
            rule: signet_trust::guard::Rule::Gap,
            reason: "version 9 skips 8".to_owned(),
            next: 8,
            can_override: true,
        });
        let failure = Failure::decode(status.details()).unwrap();
        assert_eq!((failure.exit, failure.code.as_str()), (4, "guard.gap"));
        assert_eq!((failure.rule.as_str(), failure.next), ("gap", 8));
        assert_eq!(
            failure.fix,
            "if that is what you want, repeat it with --allow gap"
        );
        assert_eq!(status.message(), "version 9 skips 8");
    }
}
