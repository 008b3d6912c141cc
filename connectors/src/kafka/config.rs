//! The settings of librdkafka that a source or a destination comes to.

use bellwire_schemas::brokers::{KafkaCluster, SaslMechanism, Tls};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Settings that Bellwire's promises rest on, or that have a key of their own in the configuration.
const OURS: [&str; 23] = [
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.key.pem",
    "statistics.interval.ms",
    "topic.blacklist",
];

/// The same for destinations.
const OURS_OUT: [&str; 6] = [
    "acks",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "request.required.acks",
    "retries",
    "transactional.id",
];

/// Settings of a consumer, under the name of its group and of itself.
///
/// # Errors
/// When a setting in `librdkafka` is one of ours, or librdkafka knows none like it.
pub(super) fn consumer(cluster: &KafkaCluster, group: &str, member: &str) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config
        // A member that comes back soon gets its partitions back without a rebalance.
        .set("session.timeout.ms", "15000")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        // Partitions are found this soon.
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("queued.max.messages.kbytes", "16384")
        // The default of a second is felt whenever the queue was full for a moment.
        .set("fetch.queue.backoff.ms", "10");
    shared(&mut config, cluster, &[])?;
    config
        .set("group.id", group)
        .set("group.instance.id", member)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        // How far reading has come, for the watchdog.
        .set("statistics.interval.ms", "5000")
        .set("auto.offset.reset", "error");
    checked(config)
}

/// Settings of a producer.
///
/// # Errors
/// As [`consumer`].
pub(super) fn producer(cluster: &KafkaCluster) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config
        .set("message.timeout.ms", "20000")
        // Results go out one by one more often than in crowds.
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", "65536")
        // What is too large for the topic, the broker says.
        .set("message.max.bytes", "8388608");
    shared(&mut config, cluster, &OURS_OUT)?;
    config.set("acks", "all").set("enable.idempotence", "true");
    checked(config)
}

fn shared(config: &mut ClientConfig, cluster: &KafkaCluster, more: &[&str]) -> Result<(), String> {
    config
        .set("client.id", "bellwire")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set("log.connection.close", "false")
        .set("ssl.ca.location", "probe");
    if let Some(name) = cluster.librdkafka.keys().find(|name| is_ours(name, more)) {
        return Err(format!(
            "librdkafka: `{name}` is set by bellwire, or has a key of its own beside `librdkafka`: remove it"
        ));
    }
    for (name, value) in &cluster.librdkafka {
        config.set(name, value);
    }
    // The binding sets a level of its own over the one in the settings.
    config.set_log_level(log_level(cluster.librdkafka.get("log_level")));
    config.set("bootstrap.servers", cluster.bootstrap_servers.join(","));
    if let Tls::On(files) = &cluster.tls {
        if let Some(ca) = &files.ca {
            config.set("ssl.ca.pem", ca).remove("ssl.ca.location");
        }
        if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
            config.set("ssl.certificate.pem", cert).set("ssl.key.pem", key.expose());
        }
    }
    let protocol = match (&cluster.tls, &cluster.sasl) {
        (Tls::Off, None) => "plaintext",
        (Tls::On(_), None) => "ssl",
        (Tls::Off, Some(_)) => "sasl_plaintext",
        (Tls::On(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(sasl) = &cluster.sasl {
        let mechanism: SaslMechanism = sasl.mechanism;
        config
            .set("sasl.mechanisms", mechanism.protocol_name())
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.expose());
    }
    Ok(())
}

/// The level of a number of syslog, as librdkafka's setting has it; warnings when none is set.
fn log_level(number: Option<&String>) -> RDKafkaLogLevel {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    let levels = [Emerg, Alert, Critical, Error, Warning, Notice, Info, Debug];
    let number = number.and_then(|number| number.parse::<usize>().ok());
    number.and_then(|number| levels.get(number).copied()).unwrap_or(Warning)
}

fn is_ours(name: &str, more: &[&str]) -> bool {
    OURS.contains(&name) || more.contains(&name) || name.starts_with("test.mock.")
}

/// librdkafka checks each name and value; what they mean together it checks when the client is made.
fn checked(config: ClientConfig) -> Result<ClientConfig, String> {
    match config.create_native_config() {
        Ok(_) => Ok(config),
        Err(rdkafka::error::KafkaError::ClientConfig(_, problem, name, _)) => {
            Err(format!("librdkafka does not take the setting `{name}`: {problem}"))
        }
        Err(error) => Err(format!("librdkafka does not take the settings: {error}")),
    }
}

/// A name for a member of a group, out of a source's and a controller's: letters, digits, `.`, `_` and `-` only, as
/// Kafka's own client asks.
pub(super) fn member(source: &str, controller: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    format!("bellwire-{source}-{controller}").chars().map(clean).take(249).collect()
}
