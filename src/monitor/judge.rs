//! What a look means: pure.

use crate::cloud::{Capabilities, Machine};
use crate::jobs::watching::Sight;
use crate::model::{ServerStatus, Verdict};
use std::time::Duration;

/// What the time since the call that is watched allows to conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// Nothing: the cloud may still show how it was before.
    Fresh,
    /// What the call was about would be shown by now, so that absence means something.
    Shown,
    /// The call and every earlier one have landed and are shown: a state that lasts is what they came to.
    Settled,
}

impl Age {
    /// The age of a call at this provider. Only a call that moves a server to a state it can be moved away from again
    /// ever settles.
    #[must_use]
    pub fn of(age: Duration, provider: &Capabilities, moves: bool) -> Self {
        if moves && age > provider.quiet() {
            Self::Settled
        } else if age > provider.t_vis {
            Self::Shown
        } else {
            Self::Fresh
        }
    }
}

/// Whether a server stays in this state until somebody moves it.
const fn lasts(state: ServerStatus) -> bool {
    matches!(state, ServerStatus::Running | ServerStatus::Paused | ServerStatus::Stopped)
}

/// Compares what was seen with what is expected; nothing when it does not decide yet.
#[must_use]
pub fn judge(target: &str, expected: ServerStatus, seen: Option<&Machine>, age: Age) -> Option<Sight> {
    let raw = seen.and_then(|machine| serde_json::to_string(machine).ok()).unwrap_or_default();
    let sight = |verdict, text| Some(Sight { verdict, text, raw: raw.clone() });
    let Some(machine) = seen else {
        return match (expected, age >= Age::Shown) {
            (ServerStatus::Terminated, true) => {
                sight(Verdict::Reached, format!("describe {target}: absent, as a terminated server is"))
            }
            (_, true) => {
                sight(Verdict::Lost, format!("describe {target}: the cloud shows no such server any more"))
            }
            (_, false) => None,
        };
    };
    let state = machine.state;
    if state == expected {
        return sight(Verdict::Reached, format!("describe {target}: {state}"));
    }
    match state {
        ServerStatus::Terminated => {
            sight(Verdict::Lost, format!("describe {target}: {state}, although {expected} was expected"))
        }
        ServerStatus::Error => {
            sight(Verdict::Failed, format!("describe {target}: the cloud reports {state}: {}", machine.raw))
        }
        _ if lasts(state) && age == Age::Settled => sight(
            Verdict::Lost,
            format!("describe {target}: {state}, although {expected} was asked for and accepted"),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Age, judge};
    use crate::cloud::Machine;
    use crate::model::{Micros, ServerStatus, Verdict};

    fn machine(state: ServerStatus) -> Machine {
        Machine {
            id: "i-1".into(),
            state,
            tag: None,
            name: "web".into(),
            product: "m1.small".into(),
            image: "img".into(),
            data_center: "dc".into(),
            private_ip: None,
            public_ip: None,
            launched_at: Micros(0),
            raw: String::new(),
        }
    }

    fn verdict(expected: ServerStatus, seen: Option<ServerStatus>, age: Age) -> Option<Verdict> {
        let seen = seen.map(machine);
        judge("i-1", expected, seen.as_ref(), age).map(|sight| sight.verdict)
    }

    #[test]
    fn only_what_was_seen_decides() {
        use Age::{Fresh, Settled, Shown};
        use ServerStatus::{Error, Paused, Pending, Running, Stopped, Stopping, Terminated};
        let table = [
            (Running, Some(Running), Fresh, Some(Verdict::Reached)),
            (Running, Some(Pending), Shown, None),
            (Running, Some(Terminated), Fresh, Some(Verdict::Lost)),
            (Running, Some(Error), Fresh, Some(Verdict::Failed)),
            (Running, None, Fresh, None),
            (Running, None, Shown, Some(Verdict::Lost)),
            (Terminated, None, Fresh, None),
            (Terminated, None, Shown, Some(Verdict::Reached)),
            (Terminated, Some(Terminated), Fresh, Some(Verdict::Reached)),
            (Stopped, Some(Running), Shown, None),
            (Stopped, Some(Stopping), Settled, None),
            (Stopped, Some(Running), Settled, Some(Verdict::Lost)),
            (Running, Some(Paused), Settled, Some(Verdict::Lost)),
            (Running, Some(Pending), Settled, None),
            (Stopped, Some(Stopped), Settled, Some(Verdict::Reached)),
        ];
        for (expected, seen, age, wanted) in table {
            assert_eq!(verdict(expected, seen, age), wanted, "{expected} {seen:?} {age:?}");
        }
    }
}
