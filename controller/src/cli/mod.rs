//! The command line: a client of `/v1` for every command but those that start or check something themselves.
//!
//! Nothing here decides about events; what a command shows is the API's answer, and `--json` prints that unchanged.
//! Read `args.rs` for the tree, `exit.rs` for how a command ends, then the file in `commands/` named like the
//! command. `live/` renders the log of `dev`.

mod args;
mod client;
mod commands;
mod endpoint;
mod exit;
mod later;
pub mod live;
mod out;
mod progress;
pub mod samples;
mod selector;
mod sse;
mod text;
pub mod times;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};

use clap::Parser;

use self::args::{Cli, Command};
use self::client::Client;
use self::endpoint::Endpoint;
use self::exit::{Answer, Exit, Failure};
use self::out::Out;
use self::text::{Paint, Style};

/// What every command is handed.
pub struct Context {
    /// Where its words go.
    out: Out,
    url: Option<String>,
    /// The ledger to read without a controller, and the door that was opened over it.
    ledger: Option<String>,
    post_mortem: OnceLock<Endpoint>,
    /// What Ctrl-C should say, when something goes on without us.
    farewell: Mutex<Option<String>>,
}

impl Context {
    /// A client of the controller that is meant.
    fn client(&self) -> Result<Client, Failure> {
        if let Some(endpoint) = self.post_mortem.get() {
            return Client::new(endpoint.clone());
        }
        let folder = std::env::current_dir()
            .map_err(|e| Failure::new(Exit::Internal, format!("find the current folder: {e}")))?;
        Client::new(Endpoint::find(self.url.as_deref(), |name| std::env::var(name).ok(), &folder)?)
    }

    /// What to say when Ctrl-C ends the command from here on.
    fn on_interrupt(&self, text: Option<String>) {
        *self.farewell.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = text;
    }
}

/// Runs the command of this process and gives its exit code.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "__exec") {
        return bellwire_workers::exec_main(args);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match later::refusal(&error, std::env::args().skip(1)) {
            Some(failure) => return fail(&failure, Paint(false)),
            None => {
                let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
                let _ = error.print();
                return code.into();
            }
        },
    };
    let global = cli.global;
    let out = Out::new(global.json, global.quiet, global.color, global.time);
    let paint = out.paint_errors(global.color);
    let context = Context {
        out,
        url: global.url,
        ledger: global.ledger,
        post_mortem: OnceLock::new(),
        farewell: Mutex::new(None),
    };
    match catch_unwind(AssertUnwindSafe(|| run(&context, cli.command))) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => fail(&failure, paint),
        Err(_) => {
            let report = uuid::Uuid::now_v7().simple();
            let failure =
                Failure::new(Exit::Internal, format!("this is a bug of bellwire (report id {report})"));
            fail(&failure.help("please report it with the lines above"), paint)
        }
    }
}

fn run(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    let answer = match command {
        Command::Init(args) => commands::init::run(context, &args),
        Command::Check(args) => commands::check::run(context, &args),
        Command::Schema => commands::check::schema(context),
        Command::Completions(args) => commands::completions(&args),
        Command::Version => commands::version(context),
        Command::Dev(args) => return commands::serve::dev(context, args),
        Command::Run(args) => return commands::serve::run(context, args),
        Command::Migrate(args) => commands::serve::migrate(context, &args),
        Command::Status => ask(context, commands::status::run(context)),
        Command::Send(args) => ask(context, commands::send::run(context, args)),
        Command::Invoke(args) => ask(context, commands::invoke::run(context, args)),
        Command::Events { command } => ask(context, commands::events::run(context, command)),
        Command::Explain(args) => ask(context, commands::explain::run(context, args)),
        Command::DeadLetters { command } => ask(context, commands::dead_letters::run(context, command)),
        Command::Deliveries { command } => ask(context, commands::deliveries::run(context, command)),
        Command::Replay(args) => ask(context, commands::replay::run(context, args)),
        Command::Bindings { command } => ask(context, commands::bindings::run(context, command)),
        Command::Sources { command } => ask(context, commands::sources::run(context, command)),
        Command::Functions { command } => ask(context, commands::functions::run(context, command)),
        Command::Verify(args) => ask(context, commands::verify::run(context, args)),
    };
    answer.map(ExitCode::from)
}

/// Runs a client command until it is done or Ctrl-C.
fn ask(context: &Context, command: impl Future<Output = Answer>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Internal, format!("start the runtime: {e}")))?;
    let answer = runtime.block_on(async {
        if let Some(url) = &context.ledger {
            let opened = crate::server::post_mortem::open(url).await;
            let (url, token) = opened.map_err(|e| Failure::new(Exit::Unreachable, format!("{e:#}")))?;
            let _ = context.post_mortem.set(Endpoint::with_token(&url, token)?);
        }
        tokio::select! {
            answer = command => answer,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    });
    // A blocking read of the terminal must not hold the exit up.
    runtime.shutdown_background();
    if let Ok(Exit::Interrupted) = answer
        && let Some(text) = context.farewell.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    {
        eprintln!("\n{text}");
    }
    answer
}

fn fail(failure: &Failure, paint: Paint) -> ExitCode {
    use std::io::Write;
    let mut stderr = std::io::stderr().lock();
    if !failure.message.is_empty() {
        let _ = writeln!(stderr, "{} {}", paint.style(Style::Red, "error:"), failure.message);
    }
    if let Some(help) = &failure.help {
        let _ = writeln!(stderr, "  {} {help}", paint.style(Style::Bold, "help:"));
    }
    failure.exit.into()
}
