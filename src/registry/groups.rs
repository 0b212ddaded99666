//! Groups: a parent and its children, stored in one commit and then begun.

use actix::prelude::*;

use super::actor::{Spec, first};
use super::{Error, Submitted};
use crate::model::WatchUid;
use crate::mq::Nudge;
use crate::store::AnyConnection;
use crate::store::provisioning::accept::{Accepted, Submit};
use crate::store::provisioning::group;

/// Store a group with its children and have them run.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Submitted, Error>")]
pub struct SubmitGroup {
    /// The parent.
    pub group: Box<Submit>,
    /// Its children, at most [`group::MOST`].
    pub children: Vec<Submit>,
}

pub(super) async fn submit(spec: Spec, ask: SubmitGroup) -> Result<Submitted, Error> {
    let (watch, announce) = (WatchUid::random(), spec.queue.announce());
    let (uid, delayed) = (ask.group.uid, !ask.group.delay.is_zero());
    let children: Vec<_> = ask.children.iter().map(|child| (child.uid, child.params.kind())).collect();
    let kind = ask.group.params.kind();
    let noted = children.clone();
    let item = move |c: &mut AnyConnection| {
        let accepted = group::accept(c, &ask.group, &ask.children, watch)?;
        if matches!(accepted, Accepted::Stored(_)) && !delayed {
            for (uid, _) in &noted {
                announce.note(c, Nudge::Job(*uid))?;
            }
        }
        Ok(accepted)
    };
    match spec.store.write(item).await? {
        Accepted::Stored(row) => {
            spec.metrics.job_submitted(kind.as_str());
            spec.changes.tell(uid);
            for (uid, kind) in children {
                spec.metrics.job_submitted(kind.as_str());
                spec.changes.tell(uid);
                if !delayed {
                    spec.queue.publish(Nudge::Job(uid));
                }
            }
            Ok(Submitted { row, fresh: true })
        }
        Accepted::Same(answer) => first(&spec.store, &answer).await,
        Accepted::Conflict => Err(Error::Conflict),
        Accepted::Replayed => Err(Error::Replayed),
    }
}
