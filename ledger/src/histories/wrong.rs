//! What went wrong, in few words: which assertion, where. A backtrace of an asynchronous test shows the runtime, and
//! buries that under hundreds of lines.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use futures::FutureExt;

tokio::task_local! {
    static WORDS: RefCell<String>;
}

/// Does something that may panic; an error is what the panic said, and where.
pub(super) async fn told<T>(doing: impl Future<Output = T>) -> Result<T, String> {
    listen();
    let words = async {
        let done = AssertUnwindSafe(doing).catch_unwind().await;
        done.map_err(|_| WORDS.with(RefCell::take))
    };
    WORDS.scope(RefCell::default(), words).await
}

/// Has panics under [`told`] noted instead of printed; those of anything else go where they went before.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if WORDS.try_with(|words| words.replace(panic.to_string())).is_err() {
                before(panic);
            }
        }));
    });
}

/// Failures of a test that returns them: printed last, and without a backtrace.
pub(crate) struct Wrong(pub Vec<String>);

/// Characters of one failure in the last lines.
const BRIEF: usize = 800;

impl std::fmt::Debug for Wrong {
    /// Each in full, and then each once more in one line: where output is cut, its end is what stays.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for failure in &self.0 {
            writeln!(f, "{failure}\n")?;
        }
        for failure in &self.0 {
            let words: Vec<_> = failure.split_whitespace().collect();
            let brief: String = words.join(" ").chars().take(BRIEF).collect();
            writeln!(f, "{brief}")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn failures_are_told_in_few_words() {
    assert_eq!(told(async { 7 }).await, Ok(7));
    let inner = told(async { told(async { assert_eq!(1, 2, "one is two") }).await.is_err() });
    assert_eq!(inner.await, Ok(true));
    let words = told(async { assert_eq!(1, 2, "one is two") }).await.unwrap_err();
    assert!(words.contains("wrong.rs") && words.contains("one is two"), "{words}");
    let told = format!("{:?}", Wrong(vec![format!("SEED=5, step 1: {words}"), "x".repeat(9_000)]));
    let last: Vec<_> = told.lines().rev().take(2).collect();
    assert!(
        last[1].starts_with("SEED=5, step 1: panicked at ") && last[1].contains("left: 1 right: 2"),
        "{told}"
    );
    assert_eq!(last[0].len(), BRIEF);
}
