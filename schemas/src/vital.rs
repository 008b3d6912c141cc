//! Tasks without which a controller would look alive and do nothing.

/// Held by such a task: when it breaks down in a panic, the process ends with exit code 6, so that whoever watches it
/// starts a new one, which recovers. A task that ends in order just drops it.
#[derive(Debug)]
pub struct Vital(pub &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "error: {} broke down; the process ends, a new one recovers: nothing accepted is lost",
                self.0
            );
            std::process::exit(6);
        }
    }
}
