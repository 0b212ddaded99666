//! The worker: decides watches that no cloud need be asked for, such as the result of a guest's command, from what
//! the guest's agent reported.
//!
//! It never runs a command itself and never guesses: a command that was sent and never answered ends as unknown.

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use crate::jobs::ports::Clock;
use crate::jobs::watching::{Look, Sight, Watcher};
use crate::model::{CustomerId, Micros, ServerId, ServerStatus, Verdict, WatchKind};
use crate::mq::Topic;
use crate::store::provisioning::agent::{self, CommandRow, command};
use crate::store::provisioning::job::{self, History};
use crate::store::provisioning::server;
use crate::store::provisioning::watch::Watch;
use crate::store::{self, Store};

/// The worker's actor.
pub type Worker = Watcher<ReportLook>;

/// Looks at what guests reported.
pub struct ReportLook {
    /// Rows.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Pause between looks without a nudge.
    pub pause: Duration,
}

#[async_trait(?Send)]
impl Look for ReportLook {
    const ROLE: &'static str = "worker";
    const KINDS: &'static [WatchKind] = &[WatchKind::Guest, WatchKind::Noop];
    const TOPIC: Topic = Topic::Work;

    async fn follow(&self, watch: &Watch, news: &Notify) -> Option<Sight> {
        if watch.kind == WatchKind::Noop {
            return Some(Sight {
                verdict: Verdict::Reached,
                text: "nothing was to be done".to_owned(),
                raw: String::new(),
            });
        }
        loop {
            match self.look(watch).await {
                Ok(Some(sight)) => return Some(sight),
                Ok(None) => {}
                Err(error) => log::warn!("report cannot be read: {error}; job={}", watch.job),
            }
            tokio::select! {
                () = self.clock.sleep(self.pause) => {}
                () = news.notified() => {}
            }
        }
    }
}

impl ReportLook {
    async fn look(&self, watch: &Watch) -> Result<Option<Sight>, store::Error> {
        let (uid, id) = (watch.job, watch.target.clone());
        let found = self.store.read(move |c| {
            let Some(row) = agent::command_by_id(c, &id)? else { return Ok(None) };
            let server = server::by_id(c, CustomerId(row.customer), ServerId(row.server))?;
            let gone = server.is_none_or(|s| s.status == ServerStatus::Terminated.as_str());
            Ok(job::history(c, uid)?.map(|history| (history, row, gone)))
        });
        let Some((history, row, gone)) = found.await? else {
            return Ok(Some(unknown("its command is not in the database")));
        };
        if let Some(sight) = reported(&history, &row) {
            return Ok(Some(sight));
        }
        match silence(&row, gone, self.clock.now(), watch.deadline) {
            Silence::Wait => Ok(None),
            Silence::Unanswered if gone => Ok(Some(unknown(
                "the command was sent, and its server was terminated before the guest answered",
            ))),
            Silence::Unanswered => Ok(Some(unknown("the command was sent and the guest never answered"))),
            Silence::Unsent => {
                let id = row.id.clone();
                let never_sent = self.store.write(move |c| agent::expire(c, &id)).await?;
                Ok(never_sent.then(|| Sight {
                    verdict: Verdict::Lost,
                    text: "the guest's agent did not come before the command expired; it was never sent"
                        .to_owned(),
                    raw: String::new(),
                }))
            }
        }
    }
}

pub(crate) fn unknown(text: &str) -> Sight {
    Sight { verdict: Verdict::Unknown, text: text.to_owned(), raw: String::new() }
}

/// The guest's own answer, if it is stored.
pub(crate) fn reported(history: &History, row: &CommandRow) -> Option<Sight> {
    let answer =
        history.evidence.iter().find(|e| e.subject == row.attempt && e.verdict != Verdict::Pending)?;
    Some(Sight { verdict: answer.verdict, text: answer.text.clone(), raw: answer.raw.clone() })
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Wait,
    Unsent,
    Unanswered,
}

/// What it means that no answer is stored. A command that was sent is waited for until its expiry, its longest run
/// and a margin have passed, because the guest may still be working on it; unless the guest is gone for good.
pub(crate) fn silence(row: &CommandRow, gone: bool, now: Micros, deadline: Micros) -> Silence {
    if row.state == command::WAITING && (gone || row.expires_at <= now.0) {
        Silence::Unsent
    } else if gone || deadline <= now {
        Silence::Unanswered
    } else {
        Silence::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::{Silence, silence};
    use crate::model::Micros;
    use crate::store::provisioning::agent::{CommandRow, command};

    fn row(state: &str) -> CommandRow {
        CommandRow {
            id: String::new(),
            seq: 1,
            job: String::new(),
            attempt: String::new(),
            customer: 1,
            server: 1,
            epoch: 1,
            operation: String::new(),
            user_name: String::new(),
            state: state.to_owned(),
            made_at: 0,
            expires_at: 100,
            sent_at: None,
            done_at: None,
            result: None,
            cancel_epoch: None,
        }
    }

    #[test]
    fn an_unsent_command_is_lost_at_its_expiry_and_a_sent_one_unknown_only_at_the_deadline() {
        let deadline = Micros(200);
        assert_eq!(silence(&row(command::WAITING), false, Micros(99), deadline), Silence::Wait);
        assert_eq!(silence(&row(command::WAITING), false, Micros(100), deadline), Silence::Unsent);
        assert_eq!(silence(&row(command::SENT), false, Micros(150), deadline), Silence::Wait);
        assert_eq!(silence(&row(command::SENT), false, Micros(200), deadline), Silence::Unanswered);
        assert_eq!(silence(&row(command::WAITING), true, Micros(0), deadline), Silence::Unsent);
        assert_eq!(silence(&row(command::SENT), true, Micros(0), deadline), Silence::Unanswered);
    }
}
