//! The `bellwire` binary. `cli/` is what users type, `server/` is what runs.

mod cli;
mod server;

fn main() -> std::process::ExitCode {
    // Arms the points that FAILPOINTS names; they stay armed until the process ends.
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    cli::main()
}
