//! The only wiring: reads top to bottom as the flow. Ledger, feed, workers, dispatcher, intake, doors.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use bellwire_config::Mode;
use bellwire_connectors::{Intake, Limits};
use bellwire_dispatcher::{Configuration, Handle, LeaseOptions, Rooms};
use bellwire_ledger::{BindingRecord, Feed};
use bellwire_schemas::api::Listen;
use bellwire_schemas::live::Fact;
use bellwire_schemas::service::{
    BindingSpec, ControllerSpec, FunctionSpec, Role, Secret, Service, SourceKind, SourceSpec, TokenSpec,
};
use bellwire_schemas::{BindingId, Clock};
use bellwire_workers::{Opener, Workers, WorkersConfig};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::app::{App, Declared, Shared};
use super::auth::{Tokens, new_token};
use super::identity::{self, Identity};
use super::ledgers::{self, Failed};
use super::metrics::Observed;
use super::state_file::{self, ControllerFile};
use super::{admin, disk, doors, ingress};

/// Facts kept for slow readers of the live stream; a reader further behind is told how many it missed.
const LIVE_BUFFER: usize = 8_192;

/// A controller with its doors open.
pub struct Running {
    /// Its rooms.
    pub app: Shared,
    /// The state folder.
    pub folder: PathBuf,
    /// The tasks that serve the two doors.
    pub doors: Vec<tokio::task::JoinHandle<()>>,
    /// Cancelled to close the ingress door.
    pub close_ingress: CancellationToken,
    /// Ends with the reason when the ledger's disk failed: what was not acknowledged must not be believed any more,
    /// so the process ends and a new one recovers.
    pub failed: Failed,
    /// Who this is, while it runs.
    pub identity: Identity,
}

/// Opens everything in the order of the flow, the doors last.
///
/// # Errors
/// When a part cannot be opened; what was opened before is closed by dropping it.
pub async fn assemble(
    services: &[Service],
    mut settings: ControllerSpec,
    mode: Mode,
    folder: PathBuf,
    clock: Clock,
) -> anyhow::Result<Running> {
    let identity = identity::claim(&folder)?;
    let token = admit_local_token(&mut settings, &folder);
    let (live, _) = broadcast::channel(LIVE_BUFFER);
    let (ledger, failed) = ledgers::open(&settings.ledger).await?;
    let feed = Arc::new(Feed::new(ledger, clock.clone()).await.context("read the ledger")?);
    let workers = Arc::new(Workers::new(WorkersConfig {
        launcher: std::env::current_exe().ok(),
        clock: clock.clone(),
        dev: mode == Mode::Dev,
        outlets: Opener::new(bellwire_connectors::outlets::open),
        emitted_bytes: usize::try_from(settings.event_size.0).unwrap_or(usize::MAX),
        ..WorkersConfig::new(runtime_folder(&folder, identity.place))
    })?);
    let (ingress_listener, ingress_address) = doors::bind(&settings.ingress, "ingress").await?;
    let (admin_listener, admin_address) = doors::bind(&settings.admin, "admin").await?;
    let dispatcher = Handle::start(Rooms {
        feed: Arc::clone(&feed),
        invoker: Arc::clone(&workers) as _,
        clock: clock.clone(),
        controller: identity.id,
        name: identity.name.clone(),
        lease: LeaseOptions::default(),
        live: live.clone(),
        event_bytes: usize::try_from(settings.event_size.0).unwrap_or(usize::MAX),
        seed: rand::random(),
    });
    let (bounds, us) = (limits(&settings), identity.id.0.to_string());
    let intake = Arc::new(Intake::new(Arc::clone(&feed), live.clone(), clock.clone(), bounds, us));
    let listen =
        Listen { ingress: format!("http://{ingress_address}"), admin: format!("http://{admin_address}") };
    let app = Arc::new(App {
        feed,
        intake,
        dispatcher,
        workers,
        live,
        observed: Arc::new(Observed::default()),
        tokens: Arc::new(Tokens::new(&settings.tokens)),
        settings,
        services: RwLock::default(),
        listen,
        started_at: clock.now(),
        clock,
        stopping: CancellationToken::new(),
    });
    if let Err(error) = declare(&app, services).await {
        // Others need not wait for the leases to end.
        app.dispatcher.shutdown(Duration::ZERO).await;
        return Err(error);
    }
    let file = ControllerFile {
        url: app.listen.admin.clone(),
        ingress: app.listen.ingress.clone(),
        token,
        pid: std::process::id(),
    };
    let running = open_doors(app, folder, failed, identity, ingress_listener, admin_listener);
    state_file::write(&running.folder, running.identity.place, &file)?;
    Ok(running)
}

/// Makes service files run: functions first, then the bindings that call them, then the sources that feed those.
/// Called at start and by every reload; what did not change keeps going.
///
/// # Errors
/// When the ledger refuses a binding or two sources want the same door.
pub async fn declare(app: &Shared, services: &[Service]) -> anyhow::Result<()> {
    let functions: Vec<FunctionSpec> = services.iter().flat_map(|s| s.functions.iter().cloned()).collect();
    let bindings: Vec<BindingSpec> = services.iter().flat_map(|s| s.bindings.iter().cloned()).collect();
    let sources: Vec<SourceSpec> = services.iter().flat_map(|s| s.sources.iter().cloned()).collect();
    let inside = |source: &&SourceSpec| matches!(source.kind, SourceKind::Topic { .. } | SourceKind::Outbox);
    app.workers.let_emit(sources.iter().filter(inside).map(|source| source.name.clone()).collect());
    *app.services.write().expect("no code panics while it holds this lock") =
        Arc::new(Declared::new(services));
    for applied in app.workers.apply(functions).await? {
        if applied.changed {
            app.dispatcher.retry_function(&applied.name);
        }
    }
    let records = bindings.iter().map(record).collect();
    let records =
        app.ledger().declare_bindings(records, app.clock.now()).await.context("declare the bindings")?;
    let declared = app.declared();
    app.dispatcher
        .apply(Configuration {
            bindings: bindings.into_iter().zip(records).collect(),
            functions: declared.functions.clone(),
            kinds: declared.kinds.clone(),
        })
        .await?;
    app.intake.apply(sources).await.map_err(|error| anyhow::anyhow!("{error}")).context("open the sources")
}

/// Where workers keep what they need: never shared by two controllers, each clears its own when it starts.
fn runtime_folder(folder: &Path, place: u16) -> PathBuf {
    folder.join(if place == 1 { "runtime".into() } else { format!("runtime-{place}") })
}

/// Without configured tokens one admin token is made, the same as in the last run of this folder.
fn admit_local_token(settings: &mut ControllerSpec, folder: &Path) -> Option<String> {
    if !settings.tokens.is_empty() {
        return None;
    }
    let token = state_file::last_token(folder).unwrap_or_else(new_token);
    settings.tokens.push(TokenSpec {
        name: "local".into(),
        role: Role::Admin,
        secret: Secret::new(token.clone()),
    });
    Some(token)
}

fn limits(settings: &ControllerSpec) -> Limits {
    Limits {
        event_bytes: usize::try_from(settings.event_size.0).unwrap_or(usize::MAX),
        memory_bytes: usize::try_from(settings.memory.0).unwrap_or(usize::MAX),
        ..Limits::default()
    }
}

fn record(binding: &BindingSpec) -> BindingRecord {
    BindingRecord {
        id: BindingId(0),
        name: binding.name.clone(),
        source: binding.source.clone(),
        function: binding.function.clone(),
        filter: binding.filter.clone(),
        start: binding.start,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    }
}

fn open_doors(
    app: Shared,
    folder: PathBuf,
    failed: Failed,
    identity: Identity,
    ingress_door: TcpListener,
    admin_door: TcpListener,
) -> Running {
    let close_ingress = CancellationToken::new();
    let serve_ingress = doors::serve(ingress_door, ingress::router(Arc::clone(&app)), close_ingress.clone());
    let serve_admin = doors::serve(admin_door, admin::router(Arc::clone(&app)), app.stopping.clone());
    let observe = Arc::clone(&app.observed).follow(app.live.subscribe(), app.stopping.clone());
    tokio::spawn(observe);
    tokio::spawn(retain(Arc::clone(&app)));
    tokio::spawn(disk::watch(Arc::clone(&app)));
    Running {
        app,
        folder,
        doors: vec![tokio::spawn(serve_ingress), tokio::spawn(serve_admin)],
        close_ingress,
        failed,
        identity,
    }
}

/// Removes what retention allows, once a minute; of several controllers the one that leads.
async fn retain(app: Shared) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        if !app.dispatcher.leads() {
            continue;
        }
        let now = app.clock.now();
        match app.ledger().retain(now.minus(app.settings.ledger.retention), now).await {
            Ok(removed) if removed.events > 0 => {
                tracing::info!(events = removed.events, "retention removed events")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "retention could not run; it tries again in a minute"),
        }
    }
}

impl Running {
    /// Ends in the order of the flow: the doors, intake, the dispatcher with its last flush, the workers, the ledger.
    pub async fn stop(self, grace: Duration) {
        let (live, doors) = (self.app.live.clone(), self.doors);
        self.close_ingress.cancel();
        self.app.intake.shutdown(grace).await;
        self.app.dispatcher.shutdown(grace).await;
        self.app.workers.shutdown(Duration::from_secs(2)).await;
        self.app.stopping.cancel();
        for door in doors {
            let _ = door.await;
        }
        self.app.ledger().close().await;
        state_file::retire(&self.folder, self.identity.place);
        let _ = live.send(Fact::Condition {
            at: self.app.clock.now(),
            subject: "controller".into(),
            state: "stopped".into(),
            detail: String::new(),
        });
    }
}
