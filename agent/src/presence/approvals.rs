//! Standing approvals, which users call grants: a yes that was given beforehand, for a terminal
//! session and a time, or for digests, each once.
//!
//! A grant stands for a yes of an attendant and for nothing more: root keys, overrides, opaque
//! payloads, and rules that want a secret or a touch, ask all the same. Grants live in memory; they
//! end with the agent, with `signet lock`, by `signet grant revoke`, and when their time is over by
//! either of two clocks.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use signet_proto::v1::GrantInfo;

use super::{SessionId, question};
use crate::{
    keyring::Fault,
    policy::fits,
    store::hold::{Now, system_clock},
};

/// The longest time that a grant stands.
pub const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Grants that stand at once.
const MAX_GRANTS: usize = 64;
/// Digests of one grant.
pub const MAX_DIGESTS: usize = 1000;
/// Digits of a grant's name.
const NAME: usize = 8;

/// All that stand.
#[derive(Debug, Default)]
pub struct Approvals(Mutex<Vec<Approval>>);

/// For what a grant stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Callers of a terminal session, with the terminal's name.
    Session(SessionId, String),
    /// Tags that point to these digests (SHA-256), each once.
    Digests(Vec<[u8; 32]>),
}

#[derive(Debug)]
struct Approval {
    id: String,
    scope: Scope,
    gun: String,
    given_at: i64,
    ends: Now,
    used: u32,
}

/// A request, as far as grants look at it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its repository.
    pub gun: &'a str,
    /// The caller's terminal session; `None` for callers whose facts are uncertain or forwarded.
    pub session: Option<SessionId>,
    /// What its tags point to, where it only adds tags or points them elsewhere.
    pub digests: Option<&'a [[u8; 32]]>,
}

impl Approvals {
    fn standing(&self, now: Now) -> MutexGuard<'_, Vec<Approval>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| now.boot < one.ends.boot && now.wall < one.ends.wall);
        all
    }

    /// Gives a grant for a time, at most [`MAX_TIME`]; `gun` may be empty: any repository.
    ///
    /// # Errors
    ///
    /// [`Fault::Usage`] when too many stand.
    pub fn give(&self, scope: Scope, gun: &str, time: Duration) -> Result<GrantInfo, Fault> {
        self.give_at(system_clock()(), scope, gun, time)
    }

    fn give_at(
        &self,
        now: Now,
        scope: Scope,
        gun: &str,
        time: Duration,
    ) -> Result<GrantInfo, Fault> {
        let mut all = self.standing(now);
        if all.len() >= MAX_GRANTS {
            return Err(Fault::Usage(format!(
                "{MAX_GRANTS} grants stand already; `signet grant revoke` ends some"
            )));
        }
        let time = time.min(MAX_TIME);
        let mut id = question::fresh_id()?;
        id.truncate(NAME);
        let approval = Approval {
            id,
            scope,
            gun: gun.to_owned(),
            given_at: seconds(now),
            ends: Now {
                boot: now.boot + time,
                wall: now.wall + time,
            },
            used: 0,
        };
        let info = approval.info();
        all.push(approval);
        Ok(info)
    }

    /// The grant that answers for a request, if one does; digests that it has answered for are
    /// spent, whatever becomes of the request.
    pub fn answer(&self, wanted: &Wanted<'_>) -> Option<String> {
        self.answer_at(system_clock()(), wanted)
    }

    fn answer_at(&self, now: Now, wanted: &Wanted<'_>) -> Option<String> {
        let mut all = self.standing(now);
        let place = all.iter().position(|one| one.answers(wanted))?;
        let one = &mut all[place];
        one.used += 1;
        let id = one.id.clone();
        if let (Scope::Digests(left), Some(used)) = (&mut one.scope, wanted.digests) {
            left.retain(|digest| !used.contains(digest));
            if left.is_empty() {
                all.remove(place);
            }
        }
        Some(id)
    }

    /// All that stand.
    #[must_use]
    pub fn list(&self) -> Vec<GrantInfo> {
        let all = self.standing(system_clock()());
        all.iter().map(Approval::info).collect()
    }

    /// Ends a grant, by its name or the beginning of it; all if it is empty. How many ended.
    pub fn revoke(&self, id: &str) -> u32 {
        let mut all = self.standing(system_clock()());
        let before = all.len();
        all.retain(|one| !one.id.starts_with(id));
        u32::try_from(before - all.len()).unwrap_or(u32::MAX)
    }
}

impl Approval {
    fn answers(&self, wanted: &Wanted<'_>) -> bool {
        let here = match &self.scope {
            Scope::Session(session, _) => wanted.session == Some(*session),
            Scope::Digests(left) => wanted.digests.is_some_and(|digests| {
                !digests.is_empty() && digests.iter().all(|digest| left.contains(digest))
            }),
        };
        here && (self.gun.is_empty() || fits(&self.gun, wanted.gun))
    }

    fn info(&self) -> GrantInfo {
        let (what, digests) = match &self.scope {
            Scope::Session(_, terminal) if terminal.is_empty() => {
                ("callers of one session".to_owned(), Vec::new())
            }
            Scope::Session(_, terminal) => (format!("callers of {terminal}"), Vec::new()),
            Scope::Digests(left) => {
                let what = match left.len() {
                    1 => "1 digest, once".to_owned(),
                    count => format!("{count} digests, each once"),
                };
                (what, left.iter().map(hex::encode).collect())
            }
        };
        GrantInfo {
            id: self.id.clone(),
            what,
            gun: self.gun.clone(),
            until: seconds(self.ends),
            given_at: self.given_at,
            used: self.used,
            digests,
        }
    }
}

fn seconds(time: Now) -> i64 {
    let since = time.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const GUN: &str = "reg.corp/acme/app";

    fn at(minutes: u32) -> Now {
        Now {
            boot: MINUTE * minutes,
            wall: SystemTime::UNIX_EPOCH + MINUTE * minutes,
        }
    }

    fn from(session: Option<SessionId>, digests: Option<&[[u8; 32]]>) -> Wanted<'_> {
        Wanted {
            gun: GUN,
            session,
            digests,
        }
    }

    #[test]
    fn a_terminals_grant_answers_for_its_session_and_its_time() {
        let all = Approvals::default();
        let mine = SessionId(7);
        let scope = Scope::Session(mine, "pts/3".into());
        let given = all
            .give_at(at(0), scope, "reg.corp/*", 15 * MINUTE)
            .unwrap();
        assert_eq!(
            (given.what.as_str(), given.until),
            ("callers of pts/3", 900)
        );
        let answered = all.answer_at(at(14), &from(Some(mine), None));
        assert_eq!(answered.as_ref(), Some(&given.id));
        assert!(
            all.answer_at(at(14), &from(Some(SessionId(8)), None))
                .is_none()
        );
        assert!(all.answer_at(at(14), &from(None, None)).is_none());
        let elsewhere = Wanted {
            gun: "other/app",
            ..from(Some(mine), None)
        };
        assert!(all.answer_at(at(14), &elsewhere).is_none());
        assert!(all.answer_at(at(15), &from(Some(mine), None)).is_none());
    }

    #[test]
    fn digests_are_answered_for_once_and_only_all_together() {
        let all = Approvals::default();
        let [a, b, c] = [[1; 32], [2; 32], [3; 32]];
        all.give_at(at(0), Scope::Digests(vec![a, b]), "", MINUTE)
            .unwrap();
        assert!(all.answer_at(at(0), &from(None, Some(&[a, c]))).is_none());
        assert!(all.answer_at(at(0), &from(None, Some(&[]))).is_none());
        assert!(all.answer_at(at(0), &from(None, None)).is_none());
        assert!(all.answer_at(at(0), &from(None, Some(&[a]))).is_some());
        assert!(all.answer_at(at(0), &from(None, Some(&[a]))).is_none());
        assert!(all.answer_at(at(0), &from(None, Some(&[b]))).is_some());
        assert!(all.standing(at(0)).is_empty());
    }

    #[test]
    fn the_number_is_bounded_and_they_can_be_revoked() {
        let all = Approvals::default();
        let give = || all.give(Scope::Digests(vec![[1; 32]]), "", MAX_TIME);
        let first = give().unwrap();
        for _ in 1..MAX_GRANTS {
            give().unwrap();
        }
        assert!(give().is_err());
        assert_eq!(all.revoke(&first.id), 1);
        assert_eq!(all.revoke(""), u32::try_from(MAX_GRANTS - 1).unwrap());
        assert!(all.list().is_empty());
    }
}
