//! Panics of tasks, which a runtime swallows: a hook remembers them per thread, and the run asks.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// While it lives, panics of this thread are remembered and not printed.
pub(crate) struct Watch;

impl Watch {
    pub(crate) fn begin() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                let watched = SEEN.with_borrow_mut(|seen| match seen {
                    Some(first) => {
                        first.get_or_insert_with(|| info.to_string());
                        true
                    }
                    None => false,
                });
                if !watched {
                    before(info);
                }
            }));
        });
        SEEN.set(Some(None));
        Self
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SEEN.set(None);
    }
}

/// The first panic since the last call.
pub(crate) fn taken() -> Option<String> {
    SEEN.with_borrow_mut(|seen| seen.as_mut().and_then(Option::take))
}
