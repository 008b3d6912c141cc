//! A running controller: `serve` is what `dev` and `run` do.
//!
//! Read `assemble.rs` first: it joins the rooms. `ingress.rs` and `admin/` are the two doors, `reload.rs` follows
//! changed files, `screen.rs` is what `dev` shows.

mod admin;
mod app;
mod assemble;
mod auth;
mod disk;
mod doors;
mod identity;
mod ingress;
pub mod ledgers;
mod metrics;
mod options;
pub mod post_mortem;
mod problem;
mod reads;
mod reload;
mod screen;
mod state_file;
mod telemetry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bellwire_config::{Loaded, Mode, SystemEnv};
use bellwire_ledger::Error as LedgerError;
use bellwire_schemas::Clock;
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::ControllerSpec;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;

pub use options::ServeOptions;

use assemble::{Running, assemble};
use reload::Reloader;
use screen::Screen;

/// How long running invocations may take to end after SIGTERM or Ctrl-C; a second signal ends at once.
const GRACE: Duration = Duration::from_secs(25);

/// Runs a controller until it is told to end.
///
/// # Errors
/// When it cannot start; the message says what to change. Exit code 1: the configuration has errors, they are printed.
pub async fn serve(options: ServeOptions) -> anyhow::Result<ExitCode> {
    let loaded = match bellwire_config::load_many(&options.files, options.mode, &SystemEnv) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprintln!("{}Nothing was started.", report.render(options.color));
            return Ok(ExitCode::from(1));
        }
    };
    let settings = settings(&loaded, &options)?;
    telemetry::init(&level(&settings, &options), settings.logs_json, options.color);
    eprint!("{}", loaded.render_warnings(options.color));
    let base = options.files.first().map_or_else(|| PathBuf::from("."), |file| parent(file));
    let folder = state_file::folder(&base)?;
    if options.reset
        && let Err(error) = ledgers::reset(&settings.ledger.url)
    {
        eprintln!("error: {error:#}");
        return Ok(ExitCode::from(if settings.ledger.url.is_postgres() { 2 } else { 1 }));
    }
    let mut screen = Screen::new(&options);
    // Listened for from the beginning: whoever sees a door open may ask for the end.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let assembled = tokio::select! {
        assembled = assemble(&loaded.services, settings, options.mode, folder, Clock::system()) => assembled,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    let running = match assembled {
        Ok(running) => running,
        Err(error) => return refuse(error),
    };
    let facts = running.app.live.subscribe();
    screen.opened(&running, &loaded).await;
    if options.samples {
        tokio::spawn(screen::send_samples(running.app.clone(), base.clone()));
    }
    let reloader = Reloader::new(&options, &loaded);
    follow(running, screen, reloader, facts, terminate).await
}

/// The life of a controller: facts on the screen, reloads, until a signal.
async fn follow(
    mut running: Running,
    mut screen: Screen,
    mut reloader: Reloader,
    mut facts: broadcast::Receiver<Fact>,
    mut terminate: Signal,
) -> anyhow::Result<ExitCode> {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            reason = &mut running.failed => {
                eprintln!("error: the ledger failed: {reason}\n  help: nothing more was acknowledged; free or repair the disk and start again");
                return Ok(ExitCode::from(6));
            }
            result = tokio::signal::ctrl_c() => { result.context("listen for Ctrl-C")?; break }
            fact = facts.recv() => screen.fact(&running.app, fact).await,
            _ = tick.tick() => {
                screen.tick(running.app.clock.now());
                if let Some(fact) = reloader.poll(&running.app).await {
                    screen.reloaded(&running.app).await;
                    let _ = running.app.live.send(fact);
                }
            }
        }
        // `dev` is its screen; `run` outlives whoever read its output.
        if screen.is_closed() && reloader.is_dev() {
            break;
        }
    }
    screen.closing();
    tracing::info!("stopping: no new events, running invocations may end");
    tokio::select! {
        () = running.stop(GRACE) => {}
        _ = terminate.recv() => tracing::warn!("second signal: ending at once"),
        _ = tokio::signal::ctrl_c() => tracing::warn!("second signal: ending at once"),
    }
    Ok(ExitCode::SUCCESS)
}

fn settings(loaded: &Loaded, options: &ServeOptions) -> anyhow::Result<ControllerSpec> {
    let mut settings = loaded.controller.clone();
    let door = |flag: &str, address: &str| {
        bellwire_config::door_of_flag(address, &loaded.controller)
            .map_err(|detail| anyhow::anyhow!("--{flag}: {detail}"))
    };
    if let Some(ingress) = &options.ingress {
        settings.ingress = door("ingress", ingress)?;
    }
    if let Some(admin) = &options.admin {
        settings.admin = door("admin", admin)?;
    }
    Ok(settings)
}

/// The screen of `dev` shows what happens, workers that cannot start included; its log is for what went wrong besides.
fn level(settings: &ControllerSpec, options: &ServeOptions) -> String {
    match (options.mode, settings.log_level.as_str()) {
        (Mode::Dev, "info") if options.json => "warn".into(),
        (Mode::Dev, "info") => format!("warn,{}=error", bellwire_workers::START_LOG),
        (_, level) => level.into(),
    }
}

fn parent(file: &Path) -> PathBuf {
    file.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Exit codes of a refused start: 5 for a newer schema or a ledger in use, 3 for one that cannot be reached.
fn refuse(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    let code = match error.downcast_ref::<LedgerError>() {
        Some(LedgerError::Incompatible(_) | LedgerError::Locked(_)) => 5,
        Some(LedgerError::Unavailable(_) | LedgerError::Full(_)) => 3,
        _ => return Err(error),
    };
    eprintln!("error: {error:#}");
    if code == 3 {
        eprintln!("  help: start it, or mend `ledger` in the file, and start again; nothing was lost");
    }
    Ok(ExitCode::from(code))
}
