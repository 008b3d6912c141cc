//! The example `orders` as a user runs it: Kafka in, RabbitMQ between, SQS and S3 beside, Kafka out, driven by its own
//! script with public clients.

use std::path::Path;

use bellwire_integration_tests::Stack;
use bellwire_test_servers::{python, shared};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_orders_example_goes_through_every_broker() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/orders");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let handlers =
        ["notes.py", "price.py", "ship.py", "invoice.py", "apologise.py"].map(|name| (name, read(name)));
    let files: Vec<(&str, &str)> = handlers.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut stack = Stack::new(&read("bellwire.yaml"), &files).unwrap();
    let brokers = [
        ("KAFKA_BOOTSTRAP_SERVERS", shared::kafka().unwrap()),
        ("AMQP_URL", shared::amqp().unwrap()),
        ("AWS_ENDPOINT_URL", shared::aws().unwrap()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ];
    for (name, value) in &brokers {
        stack.set_env(name, value);
    }
    let script = |verb: &'static str| {
        let mut command = Command::new(python::python().unwrap());
        command.arg(example.join("brokers.py")).arg(verb).kill_on_drop(true);
        command.envs(brokers.clone()).env("OUT_DIR", stack.folder.path().join("out"));
        command
    };
    let (mut setup, mut check) = (script("setup"), script("check"));
    let made = setup.output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    stack.start(None).await.unwrap();
    let checked = check.output().await.unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}\n{}", String::from_utf8_lossy(&said), stack.log());
}
