//! What a look means: pure.

use crate::cloud::Machine;
use crate::jobs::watching::Sight;
use crate::model::{ServerStatus, Verdict};

/// Compares what was seen with what is expected; nothing when it does not decide yet.
///
/// `visible` says that the target has existed for longer than the provider needs to show it, so that absence means
/// something.
#[must_use]
pub fn judge(target: &str, expected: ServerStatus, seen: Option<&Machine>, visible: bool) -> Option<Sight> {
    let raw = seen.and_then(|machine| serde_json::to_string(machine).ok()).unwrap_or_default();
    let sight = |verdict, text| Some(Sight { verdict, text, raw: raw.clone() });
    let Some(machine) = seen else {
        return match (expected, visible) {
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
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
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

    fn verdict(expected: ServerStatus, seen: Option<ServerStatus>, visible: bool) -> Option<Verdict> {
        let seen = seen.map(machine);
        judge("i-1", expected, seen.as_ref(), visible).map(|sight| sight.verdict)
    }

    #[test]
    fn only_what_was_seen_decides() {
        use ServerStatus::{Error, Pending, Running, Stopped, Terminated};
        let table = [
            (Running, Some(Running), false, Some(Verdict::Reached)),
            (Running, Some(Pending), true, None),
            (Running, Some(Terminated), false, Some(Verdict::Lost)),
            (Running, Some(Error), false, Some(Verdict::Failed)),
            (Running, None, false, None),
            (Running, None, true, Some(Verdict::Lost)),
            (Terminated, None, false, None),
            (Terminated, None, true, Some(Verdict::Reached)),
            (Terminated, Some(Terminated), false, Some(Verdict::Reached)),
            (Stopped, Some(Running), true, None),
        ];
        for (expected, seen, visible, wanted) in table {
            assert_eq!(verdict(expected, seen, visible), wanted, "{expected} {seen:?} {visible}");
        }
    }
}
