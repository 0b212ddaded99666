//! Reports panics to the log, once each, with place, thread and what was being done.

use std::any::Any;
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Arc;

thread_local! {
    static DOING: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Sends every panic of this process to the log at level error, instead of the default report on standard error.
pub fn install() {
    std::panic::set_hook(Box::new(|info| log::error!("{}", report(info))));
}

/// Runs `work` so that a panic inside it is reported together with `name`.
pub fn within<T>(name: &Arc<str>, work: impl FnOnce() -> T) -> T {
    let before = DOING.with(|doing| doing.replace(Some(Arc::clone(name))));
    let _back = Back(before);
    work()
}

/// What this thread does just now, as given to [`within`].
#[must_use]
pub fn doing() -> Option<Arc<str>> {
    DOING.try_with(|doing| doing.try_borrow().ok().and_then(|name| name.clone())).ok().flatten()
}

/// The text of a panic, from what `catch_unwind` or a join error gives.
#[must_use]
pub fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".to_owned())
}

/// Puts the outer name back, also while unwinding: the hook ran before that.
struct Back(Option<Arc<str>>);

impl Drop for Back {
    fn drop(&mut self) {
        let outer = self.0.take();
        DOING.with(|doing| *doing.borrow_mut() = outer);
    }
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let text = info.payload_as_str().unwrap_or("without a text");
    match doing() {
        Some(name) => format!("panic at {place} in {name}, thread {thread}: {text}"),
        None => format!("panic at {place}, thread {thread}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{report, text_of, within};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_report_names_place_thread_text_and_actor() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let me = std::thread::current().id();
        let before = Arc::new(std::panic::take_hook());
        let fallback = Arc::clone(&before);
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().id() == me {
                sink.lock().expect("list").push(report(info));
            } else {
                fallback(info);
            }
        }));
        let name: Arc<str> = "job 7".into();
        let caught = catch_unwind(AssertUnwindSafe(|| within(&name, || panic!("bad {}", 7))));
        let outside = catch_unwind(|| panic!("plain"));
        std::panic::set_hook(Box::new(move |info| before(info)));
        assert_eq!(text_of(&*caught.expect_err("it panics")), "bad 7");
        assert_eq!(text_of(&*outside.expect_err("it panics")), "plain");
        assert_eq!(text_of(&7_u8), "panic without a text");
        let seen = seen.lock().expect("list");
        assert!(seen[0].contains("panic_hook.rs") && seen[0].contains(" in job 7, thread "), "{seen:?}");
        assert!(seen[0].ends_with(": bad 7"), "{seen:?}");
        assert!(!seen[1].contains(" in job") && seen[1].ends_with(": plain"), "{seen:?}");
    }
}
