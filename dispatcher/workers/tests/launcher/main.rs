//! Tests that need a launcher: this program is the launcher (`__exec`), a controller to be killed (`__controller`),
//! and the test that starts both. It has no harness of its own, so it answers `--list` itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bellwire_schemas::service::{Format, FunctionSpec, RequestSpec, Target, Warm};
use bellwire_schemas::{ByteSize, FunctionName};
use bellwire_workers::{Invocation, Invoker as _, Workers, WorkersConfig};

const SOURCE: &str = "
import os, resource
def handler(event, context):
    status = dict(line.split(':', 1) for line in open('/proc/self/status'))
    limits = [resource.getrlimit(n)[0] for n in (resource.RLIMIT_CORE, resource.RLIMIT_DATA)]
    return [os.getpid(), os.getpgid(0), status['NoNewPrivs'].strip(), limits]
";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|arg| arg.to_str()) {
        Some("__exec") => return bellwire_workers::exec_main(args),
        Some("__controller") => controller(Path::new(&args.next().unwrap())),
        Some("--list") => {
            if !args.any(|arg| arg == "--ignored") {
                println!("workers_are_confined_and_die_with_their_controller: test");
            }
        }
        _ => workers_are_confined_and_die_with_their_controller(),
    }
    ExitCode::SUCCESS
}

/// Calls a function once, prints what it said, and waits to be killed.
#[tokio::main]
async fn controller(dir: &Path) {
    let mut config = WorkersConfig::new(dir.join("state"));
    config.launcher = Some(std::env::current_exe().unwrap());
    let workers = Workers::new(config).unwrap();
    std::fs::write(dir.join("app.py"), SOURCE).unwrap();
    let spec = FunctionSpec {
        name: FunctionName::new("f"),
        target: Target::Python { handler: "app.handler".into(), version: None },
        code: dir.to_owned(),
        timeout: Duration::from_secs(20),
        memory: ByteSize(100 << 20),
        concurrency: 1,
        warm: Warm { min: 0, idle: Duration::from_secs(60) },
        environment: Default::default(),
        format: Format::Lambda,
        request: RequestSpec::default(),
    };
    workers.apply(vec![spec]).await.unwrap();
    let call = Invocation {
        function: FunctionName::new("f"),
        request_id: "1".into(),
        idempotency_key: "1".into(),
        payload: "{}".into(),
        content_type: "application/json".into(),
        headers: Vec::new(),
        traceparent: None,
        outgoing: None,
        consent: bellwire_workers::Consent::default(),
    };
    let answer = workers.invoke(call).await.answer.unwrap();
    println!("{}", String::from_utf8_lossy(&answer.payload));
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

fn workers_are_confined_and_die_with_their_controller() {
    let dir = tempfile::tempdir().unwrap();
    let me = std::env::current_exe().unwrap();
    let mut controller =
        Command::new(me).arg("__controller").arg(dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(controller.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said[0], said[1], "it leads its own process group");
    assert_eq!(said[2], "1", "no new privileges");
    assert_eq!(said[3], serde_json::json!([0, (2 * 100 + 256) << 20]), "limits");
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", said[0])).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(alive());
    controller.kill().unwrap();
    controller.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while alive() {
        assert!(Instant::now() < deadline, "the worker outlived its controller");
        std::thread::yield_now();
    }
}
