//! A pool over a temporary folder, and small helpers.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwire_schemas::service::{Format, FunctionSpec, RequestSpec, Target, Warm};
use bellwire_schemas::{ByteSize, ErrorInfo, FailureClass, FunctionName};
use bellwire_workers::{FunctionStatus, Invocation, InvocationResult, Invoker as _, Workers, WorkersConfig};
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

pub struct Stage {
    dir: TempDir,
    pub workers: Workers,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut WorkersConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = WorkersConfig::new(dir.path().join("state"));
        config.tick = Duration::from_millis(50);
        change(&mut config);
        fs::create_dir(dir.path().join("code")).unwrap();
        Self { workers: Workers::new(config).unwrap(), dir }
    }

    pub fn code(&self) -> PathBuf {
        self.dir.path().join("code")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.code().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn spec(&self, target: Target) -> FunctionSpec {
        spec(&self.code(), target)
    }

    /// A Python function `app.handler` with this source.
    pub fn python(&self, source: &str) -> FunctionSpec {
        self.write("app.py", source);
        self.spec(Target::Python { handler: "app.handler".into(), version: None })
    }

    /// A Node.js function `handler` in a file of this name with this source.
    pub fn node(&self, file: &str, source: &str) -> FunctionSpec {
        self.write(file, source);
        self.spec(Target::Node { handler: "app.handler".into(), version: None })
    }

    /// The native worker of `native.rs`.
    pub fn native(&self, mode: &str) -> FunctionSpec {
        let me = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let words = [&me, "native::worker", "--exact", "--nocapture"].map(|word| word.to_string());
        let mut spec = self.spec(Target::Command(words.to_vec()));
        spec.environment.insert("NATIVE_WORKER".into(), bellwire_schemas::service::Secret::new(mode));
        spec
    }

    pub async fn apply(&self, spec: &FunctionSpec) -> bool {
        self.workers.apply(vec![spec.clone()]).await.unwrap()[0].changed
    }

    pub async fn call(&self, payload: &str) -> InvocationResult {
        self.workers.invoke(invocation(payload)).await
    }

    /// Calls, and insists on an answer.
    pub async fn ok(&self, payload: &str) -> Value {
        let result = self.call(payload).await;
        let answer = result.answer.unwrap_or_else(|error| panic!("{error:?} {:?}", result.logs));
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Calls, and insists on a failure of this class and type.
    pub async fn fails(
        &self,
        payload: &str,
        class: FailureClass,
        kind: &str,
    ) -> (ErrorInfo, InvocationResult) {
        let result = self.call(payload).await;
        let error = result.answer.clone().expect_err("an error");
        assert_eq!((error.class, error.kind.as_str()), (class, kind), "{error:?} {:?}", result.logs);
        (error, result)
    }

    pub fn status(&self) -> FunctionStatus {
        self.workers.status().remove(0)
    }

    /// Waits until the status is as wanted.
    pub async fn until(&self, wanted: impl Fn(&FunctionStatus) -> bool) -> FunctionStatus {
        until(async || Some(self.status()).filter(|status| wanted(status))).await
    }
}

pub fn spec(code: &Path, target: Target) -> FunctionSpec {
    FunctionSpec {
        name: FunctionName::new("f"),
        target,
        code: code.to_owned(),
        timeout: Duration::from_secs(20),
        memory: ByteSize(1 << 30),
        // One, so that a busy machine does not make the pool start a second worker in the middle of a test.
        concurrency: 1,
        warm: Warm { min: 0, idle: Duration::from_secs(600) },
        environment: BTreeMap::new(),
        format: Format::Lambda,
        request: RequestSpec::default(),
    }
}

pub fn invocation(payload: &str) -> Invocation {
    Invocation {
        function: FunctionName::new("f"),
        request_id: uuid::Uuid::new_v4().to_string(),
        idempotency_key: "1-42@f:s3.photos".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        content_type: "application/json".into(),
        headers: Vec::new(),
        traceparent: None,
        outgoing: None,
        consent: bellwire_workers::Consent::default(),
    }
}

/// Asks again and again, up to a minute.
pub async fn until<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("it never became so")
}

/// Waits until a process is gone, or a zombie that somebody else has to reap.
pub async fn gone(pid: u64) {
    until(async || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}
