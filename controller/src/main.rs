//! The `bellwire` binary. `cli/` is what users type, `server/` is what runs.

mod cli;
mod server;

fn main() -> std::process::ExitCode {
    cli::main()
}
