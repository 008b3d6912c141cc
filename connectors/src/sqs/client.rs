//! The calls to SQS that are needed, each bounded in time and tried once: whoever calls decides what a failure means.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageAttributeValue,
    MessageSystemAttributeName, QueueAttributeName,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;

use super::config::Queue;

/// Messages per request (Amazon SQS developer guide, "Message quotas").
pub(super) const BATCH: usize = 10;
/// A long poll (the longest that SQS has).
const WAIT: Duration = Duration::from_secs(20);
/// A poll without an answer is given up this long after SQS should have answered.
const GRACE: Duration = Duration::from_secs(10);
/// Any other call; the connection is given up sooner.
const CALL: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    /// The service's word for it, such as `AccessDenied`; empty when it did not answer.
    pub(super) code: String,
    /// The same for people.
    pub(super) text: String,
}

/// What a queue says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) region: String,
    pub(super) fifo: bool,
    /// The sender's dedup id is an identity: it was chosen, not computed from the body.
    pub(super) own_dedup_ids: bool,
    /// Dedup ids hold within a message group, not in the whole queue.
    pub(super) dedup_per_group: bool,
    /// For how long a received message stays away from others.
    pub(super) visibility: Duration,
}

/// A queue that can be talked to.
#[derive(Clone, Debug)]
pub(super) struct Sqs {
    polls: Client,
    calls: Client,
    url: String,
    name: String,
}

impl Sqs {
    /// Finds credentials by the standard chain of AWS, and the queue's URL.
    pub(super) async fn connect(queue: &Queue) -> Result<Self, Failure> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            // An idle long poll looks like a stalled stream.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(region) = &queue.region {
            loader = loader.region(Region::new(region.clone()));
        }
        #[cfg(test)]
        let loader = loader.credentials_provider(test_login());
        let shared = loader.load().await;
        let client = |longest: Duration| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT)
                .operation_attempt_timeout(longest)
                .operation_timeout(longest)
                .build();
            let mut config = aws_sdk_sqs::config::Builder::from(&shared).timeout_config(timeouts);
            if let Some(endpoint) = &queue.endpoint {
                config = config.endpoint_url(endpoint);
                if shared.region().is_none() {
                    // A server of one's own has no regions, but the signature needs one.
                    config = config.region(Region::new("us-east-1"));
                }
            }
            Client::from_conf(config.build())
        };
        if shared.region().is_none() && queue.endpoint.is_none() {
            let text = format!("no region is known for queue `{}`: set `region`", queue.name);
            return Err(Failure { code: String::new(), text });
        }
        let calls = client(CALL);
        let url = match &queue.url {
            Some(url) => url.clone(),
            None => {
                let call = calls.get_queue_url().queue_name(&queue.name);
                let call = call.set_queue_owner_aws_account_id(queue.account.clone());
                let found = call.send().await.map_err(|e| failure("find", &queue.name, &e))?;
                found.queue_url.unwrap_or_default()
            }
        };
        Ok(Self { polls: client(WAIT + GRACE), calls, url, name: queue.name.clone() })
    }

    /// Reads what a receiver has to know of the queue.
    pub(super) async fn about(&self, queue: &Queue) -> Result<About, Failure> {
        let names = [
            QueueAttributeName::QueueArn,
            QueueAttributeName::VisibilityTimeout,
            QueueAttributeName::FifoQueue,
            QueueAttributeName::ContentBasedDeduplication,
            QueueAttributeName::DeduplicationScope,
        ];
        // A standard queue knows no attributes of FIFO queues, and asking for them is an error.
        let names = names.into_iter().take(if queue.is_fifo() { 5 } else { 2 }).collect();
        let call = self.calls.get_queue_attributes().queue_url(&self.url).set_attribute_names(Some(names));
        let answer = call.send().await.map_err(|e| self.failure("look at", &e))?;
        let found = answer.attributes.unwrap_or_default();
        let text = |name: QueueAttributeName| found.get(&name).map(String::as_str).unwrap_or_default();
        let arn = text(QueueAttributeName::QueueArn).to_owned();
        let region = arn.split(':').nth(3).filter(|region| !region.is_empty()).map(str::to_owned);
        let seconds = text(QueueAttributeName::VisibilityTimeout).parse().unwrap_or(30);
        Ok(About {
            name: queue.name.clone(),
            region: region.or_else(|| queue.region.clone()).unwrap_or_default(),
            arn,
            fifo: queue.is_fifo(),
            own_dedup_ids: text(QueueAttributeName::ContentBasedDeduplication) != "true",
            dedup_per_group: text(QueueAttributeName::DeduplicationScope) == "messageGroup",
            visibility: Duration::from_secs(seconds),
        })
    }

    /// About how many messages could be received now. In a FIFO queue some of them may wait for one of their group that
    /// somebody has; while anybody has any, nothing is known.
    pub(super) async fn waiting(&self, fifo: bool) -> Result<Option<u64>, Failure> {
        let (there, away) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let names = Some(vec![there.clone(), away.clone()]);
        let call = self.calls.get_queue_attributes().queue_url(&self.url).set_attribute_names(names);
        let answer = call.send().await.map_err(|e| self.failure("look at", &e))?;
        let found = answer.attributes.unwrap_or_default();
        let number = |name| found.get(&name).and_then(|text| text.parse::<u64>().ok());
        Ok(if fifo && number(away) != Some(0) { None } else { number(there) })
    }

    /// One long poll.
    pub(super) async fn receive(&self, visibility: Duration) -> Result<Vec<Message>, Failure> {
        let call = self
            .polls
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH as i32)
            .wait_time_seconds(seconds(WAIT))
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        let answer = call.send().await.map_err(|e| self.failure("read", &e))?;
        Ok(answer.messages.unwrap_or_default())
    }

    /// Deletes up to ten messages by their handles; answers which of them failed, and why.
    pub(super) async fn delete(&self, handles: &[String]) -> Result<Vec<(usize, Failure)>, Failure> {
        let entry = |(index, handle): (usize, &String)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(handle).build()
        };
        let entries: Result<Vec<_>, _> = handles.iter().enumerate().map(entry).collect();
        let entries = entries.map_err(|e| self.failed("delete from", String::new(), e.to_string()))?;
        let call = self.calls.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = call.send().await.map_err(|e| self.failure("delete from", &e))?;
        Ok(self.entries("delete from", answer.failed))
    }

    /// Keeps up to ten messages away from others for this long from now; zero gives them back.
    pub(super) async fn keep(
        &self,
        handles: &[String],
        visibility: Duration,
    ) -> Result<Vec<(usize, Failure)>, Failure> {
        let entry = |(index, handle): (usize, &String)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle)
                .visibility_timeout(seconds(visibility))
                .build()
        };
        let entries: Result<Vec<_>, _> = handles.iter().enumerate().map(entry).collect();
        let entries = entries.map_err(|e| self.failed("keep messages of", String::new(), e.to_string()))?;
        let call =
            self.calls.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = call.send().await.map_err(|e| self.failure("keep messages of", &e))?;
        Ok(self.entries("keep messages of", answer.failed))
    }

    /// Sends one message; answers its id.
    pub(super) async fn send(&self, letter: Letter) -> Result<String, Failure> {
        let value =
            |text: String| MessageAttributeValue::builder().data_type("String").string_value(text).build();
        let mut attributes = std::collections::HashMap::new();
        for (name, text) in letter.attributes {
            let value = value(text).map_err(|e| self.failed("send to", String::new(), e.to_string()))?;
            attributes.insert(name, value);
        }
        let call = self
            .calls
            .send_message()
            .queue_url(&self.url)
            .message_body(letter.body)
            .set_message_attributes(Some(attributes))
            .set_message_group_id(letter.group)
            .set_message_deduplication_id(letter.dedup);
        let answer = call.send().await.map_err(|e| self.failure("send to", &e))?;
        Ok(answer.message_id.unwrap_or_default())
    }

    fn entries(
        &self,
        verb: &str,
        failed: Vec<aws_sdk_sqs::types::BatchResultErrorEntry>,
    ) -> Vec<(usize, Failure)> {
        let read = |entry: aws_sdk_sqs::types::BatchResultErrorEntry| {
            let text = entry.message.unwrap_or_else(|| entry.code.clone());
            Some((entry.id.parse().ok()?, self.failed(verb, entry.code, text)))
        };
        failed.into_iter().filter_map(read).collect()
    }

    fn failed(&self, verb: &str, code: String, text: String) -> Failure {
        Failure { code, text: format!("cannot {verb} queue `{}`: {text}", self.name) }
    }

    fn failure<E>(&self, verb: &str, error: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        failure(verb, &self.name, error)
    }
}

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) body: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) group: Option<String>,
    pub(super) dedup: Option<String>,
}

/// The body of a received message, without a copy.
pub(super) fn body_of(message: &mut Message) -> Bytes {
    Bytes::from(message.body.take().unwrap_or_default())
}

fn failure<E>(verb: &str, queue: &str, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.code().unwrap_or_default().to_owned();
    let said = match error {
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::ServiceError(service) => {
            let status = service.raw().status();
            let message = error.message().unwrap_or("no further word");
            format!("{status} {code}: {message}")
        }
        other => innermost(other),
    };
    let hint = match code.as_str() {
        c if c.ends_with("QueueDoesNotExist") || c.ends_with("NonExistentQueue") => {
            " (is the queue's name, account and region right?)"
        }
        c if c.starts_with("AccessDenied") => " (see the permissions that the documentation lists)",
        _ => "",
    };
    Failure { code, text: format!("cannot {verb} queue `{queue}`: {said}{hint}") }
}

/// The cause that says most: the end of the chain.
fn innermost<E>(error: &SdkError<E>) -> String
where
    E: std::error::Error + 'static,
{
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    if text.is_empty() { DisplayErrorContext(error).to_string() } else { text }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// Credentials that a stand-in takes.
#[cfg(test)]
pub(super) fn test_login() -> aws_sdk_sqs::config::Credentials {
    aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test")
}
