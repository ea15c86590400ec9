//! News of secrets that come to be held: a request that waits for one goes on with it, whoever gave
//! it. What is held for one terminal session is no news to others, who would be asked anew.

use std::collections::HashMap;

use tokio::sync::watch;

use super::SessionId;

/// Terminal sessions that are counted apart.
const MAX_SESSIONS: usize = 1024;

/// Tells whoever waits.
#[derive(Debug, Default)]
pub struct News(watch::Sender<Opened>);

/// How often secrets came to be held, for everybody and for callers of one terminal session.
#[derive(Debug, Default)]
struct Opened {
    all: u64,
    sessions: HashMap<SessionId, u64>,
}

impl Opened {
    fn times(&self, session: Option<SessionId>) -> (u64, u64) {
        let of = session.and_then(|session| self.sessions.get(&session));
        (self.all, of.copied().unwrap_or(0))
    }
}

/// Tells of secrets that come to be held for a request; see [`News::opening`].
#[derive(Debug)]
pub struct Opening {
    opened: watch::Receiver<Opened>,
    session: Option<SessionId>,
    before: (u64, u64),
}

impl Opening {
    /// Resolves when one came to be held since this was made.
    pub async fn happens(mut self) {
        let (session, before) = (self.session, self.before);
        let happened = |opened: &Opened| opened.times(session) != before;
        // They live as long as the keyring.
        let _ = self.opened.wait_for(happened).await;
    }
}

impl News {
    /// A secret came to be held, for callers of this session or for everybody.
    pub fn opened(&self, session: Option<SessionId>) {
        self.0.send_modify(|opened| match session {
            Some(session) if opened.sessions.len() < MAX_SESSIONS => {
                *opened.sessions.entry(session).or_default() += 1;
            }
            Some(_) => {
                opened.sessions.clear();
                opened.all += 1;
            }
            None => opened.all += 1,
        });
    }

    /// Tells of secrets that come to be held from now on for callers of this session.
    #[must_use]
    pub fn opening(&self, session: Option<SessionId>) -> Opening {
        let opened = self.0.subscribe();
        let before = opened.borrow().times(session);
        Opening {
            opened,
            session,
            before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_for_one_session_is_no_news_to_another() {
        let news = News::default();
        let [mine, other] = [1, 2].map(|id| Some(SessionId(id)));
        let opening = news.opening(mine);
        let mine_is = opening.happens();
        tokio::pin!(mine_is);
        news.opened(other);
        tokio::select! {
            biased;
            () = &mut mine_is => panic!("it is held for others"),
            () = std::future::ready(()) => {}
        }
        news.opened(mine);
        mine_is.await;
        let opening = news.opening(None);
        news.opened(None);
        opening.happens().await;
    }
}
