//! Named places where a test may end the process, as `kill -9` would.

/// Ends the process at once when a test armed this point (`FAILPOINTS="append.before=3*off->return"`). Compiled to
/// nothing unless the feature `failpoints` is on. Every gap between two durable writes has one.
pub fn crash_point(name: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| std::process::abort());
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}
