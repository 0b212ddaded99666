//! Writes that need no job: recorded and done in one item, a repeat answered by its idempotency key.

use diesel::QueryResult;

use super::super::Fault;
use super::call::Call;
use super::reply::Reply;
use crate::registry;
use crate::store::AnyConnection;
use crate::store::provisioning::accept::{self, Answer, Entered};
use crate::store::provisioning::job;

/// The first answer to this idempotency key, if there was one; 409 when the key stands for another request.
pub(super) async fn earlier(call: &Call) -> Result<Option<Reply>, Fault> {
    let entry = call.caller.entry();
    let Some(key) = entry.idem.clone() else { return Ok(None) };
    match call.read(move |c| accept::earlier(c, &entry, &key)).await? {
        None => Ok(None),
        Some(Entered::Same(answer)) => again(call, &answer).await.map(Some),
        Some(_) => Err(registry::Error::Conflict.into()),
    }
}

/// The first answer once more.
async fn again(call: &Call, answer: &Answer) -> Result<Reply, Fault> {
    match (answer.job, answer.created) {
        (Some(uid), _) => {
            let row = call.read(move |c| job::by_uid(c, uid)).await?;
            let row = row.filter(|row| row.customer == call.customer().0);
            row.as_ref().map(Reply::job).ok_or_else(|| registry::Error::Unknown.into())
        }
        (None, Some(id)) => Ok(Reply::Created(id)),
        (None, None) => Ok(Reply::Done),
    }
}

/// Does a write at once. `check` looks whether it may be done and writes nothing; `apply` does it and cannot legally
/// fail. Both run inside the item that also records the request, so they may run twice.
pub(super) async fn at_once(
    call: &Call,
    answer: Answer,
    check: impl Fn(&mut AnyConnection) -> QueryResult<Option<Fault>> + Send + 'static,
    apply: impl Fn(&mut AnyConnection) -> QueryResult<()> + Send + 'static,
) -> Result<Reply, Fault> {
    let entry = call.caller.entry();
    let wanted = answer.clone();
    let entered = call
        .state
        .store
        .write(move |c| {
            // A repeat is answered as the first time, even where the check would fail now.
            let known = match &entry.idem {
                Some(key) => accept::earlier(c, &entry, key)?,
                None => None,
            };
            if known.is_none()
                && let Some(fault) = check(c)?
            {
                return Ok(Err(fault));
            }
            let entered = accept::enter(c, &entry, &answer)?;
            if entered == Entered::Fresh {
                apply(c)?;
            }
            Ok(Ok(entered))
        })
        .await??;
    match entered {
        Entered::Fresh => again(call, &wanted).await,
        Entered::Same(first) => again(call, &first).await,
        Entered::Conflict => Err(registry::Error::Conflict.into()),
        Entered::Replayed => Err(registry::Error::Replayed.into()),
    }
}

/// 204.
pub(super) const NO_CONTENT: Answer = Answer { job: None, status: 204, created: None };
