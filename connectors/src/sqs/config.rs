//! A queue as the user wrote it, taken apart. Pure.

use bellwire_schemas::brokers::SqsQueue;

/// Where a queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Its name.
    pub(super) name: String,
    /// Its URL, unless an ARN was given: then SQS is asked for it.
    pub(super) url: Option<String>,
    /// The account that owns it, where an ARN says so.
    pub(super) account: Option<String>,
    /// The region; `None`: what the environment or the profile says.
    pub(super) region: Option<String>,
    /// The service's URL; `None`: the region's own.
    pub(super) endpoint: Option<String>,
}

impl Queue {
    /// Reads a queue's URL (`https://sqs.<region>.amazonaws.com/<account>/<name>`, or any server's) or its ARN
    /// (`arn:aws:sqs:<region>:<account>:<name>`); Amazon SQS developer guide, "Queue and message identifiers".
    pub(super) fn parse(spec: &SqsQueue) -> Result<Self, String> {
        let text = spec.queue.trim();
        let mut queue = if text.starts_with("arn:") { of_arn(text)? } else { of_url(text)? };
        if spec.region.is_some() {
            queue.region.clone_from(&spec.region);
        }
        if let Some(endpoint) = &spec.endpoint {
            if origin(endpoint).is_none() {
                return Err(format!("endpoint `{endpoint}` is no http(s) URL"));
            }
            queue.endpoint = Some(endpoint.clone());
        }
        Ok(queue)
    }

    /// Whether the queue keeps order: SQS demands this ending of such queues.
    pub(super) fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }
}

fn of_arn(arn: &str) -> Result<Queue, String> {
    let parts: Vec<&str> = arn.split(':').collect();
    let [_, _, "sqs", region, account, name] = parts[..] else {
        return Err(format!("`{arn}` is no queue's ARN: write arn:aws:sqs:<region>:<account>:<name>"));
    };
    if region.is_empty() || name.is_empty() {
        return Err(format!("`{arn}` names no region or no queue"));
    }
    Ok(Queue {
        name: name.to_owned(),
        url: None,
        account: Some(account.to_owned()).filter(|account| !account.is_empty()),
        region: Some(region.to_owned()),
        endpoint: None,
    })
}

fn of_url(url: &str) -> Result<Queue, String> {
    let wrong = || format!("`{url}` is neither a queue's URL (http or https) nor its ARN");
    let (origin, path) = origin(url).ok_or_else(wrong)?;
    let name = path.split(['?', '#']).next().and_then(|p| p.trim_end_matches('/').rsplit('/').next());
    let name = name.filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    let host = origin.split("://").nth(1).unwrap_or_default();
    // The old host names (`<region>.queue.amazonaws.com`) do not speak today's protocol: the region's own does.
    let old = host.strip_suffix("queue.amazonaws.com");
    let region = match old {
        Some("") => Some("us-east-1".to_owned()),
        Some(region) => Some(region.trim_end_matches('.').to_owned()),
        None => region_of(host),
    };
    Ok(Queue {
        name: name.to_owned(),
        url: Some(url.to_owned()),
        account: None,
        region,
        endpoint: old.is_none().then(|| origin.to_owned()),
    })
}

/// `scheme://host:port` and what follows.
fn origin(url: &str) -> Option<(&str, &str)> {
    let after = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let end = url.len() - after.len() + after.find(['/', '?', '#']).unwrap_or(after.len());
    (after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')).then(|| url.split_at(end))
}

/// The label after `sqs` in a host's name, if it looks like a region: `eu-central-1`, `us-gov-west-1`.
fn region_of(host: &str) -> Option<String> {
    let mut labels = host.split(':').next()?.split('.').skip_while(|label| !label.starts_with("sqs"));
    let region = labels.nth(1)?;
    let (area, number) = region.rsplit_once('-')?;
    let looks = area.contains('-') && number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit());
    looks.then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(queue: &str) -> Result<Queue, String> {
        Queue::parse(&SqsQueue { queue: queue.into(), endpoint: None, region: None })
    }

    #[test]
    fn urls_and_arns_say_name_region_and_endpoint() {
        for (text, name, region, endpoint) in [
            (
                "https://sqs.eu-central-1.amazonaws.com/123456789012/orders",
                "orders",
                Some("eu-central-1"),
                Some("https://sqs.eu-central-1.amazonaws.com"),
            ),
            (
                "https://vpce-1.sqs.us-gov-west-1.vpce.amazonaws.com/1/o.fifo/",
                "o.fifo",
                Some("us-gov-west-1"),
                Some("https://vpce-1.sqs.us-gov-west-1.vpce.amazonaws.com"),
            ),
            ("https://eu-west-1.queue.amazonaws.com/1/old", "old", Some("eu-west-1"), None),
            ("https://queue.amazonaws.com/1/old", "old", Some("us-east-1"), None),
            ("http://127.0.0.1:4566/000000000000/q", "q", None, Some("http://127.0.0.1:4566")),
            ("arn:aws:sqs:us-east-1:123456789012:orders", "orders", Some("us-east-1"), None),
        ] {
            let queue = parse(text).unwrap();
            assert_eq!(queue.name, name);
            assert_eq!((queue.region.as_deref(), queue.endpoint.as_deref()), (region, endpoint), "{text}");
        }
        assert!(parse("http://localhost/1/o.fifo").unwrap().is_fifo());
    }

    #[test]
    fn what_is_given_beats_what_the_url_says() {
        let spec = SqsQueue {
            queue: "arn:aws:sqs:us-east-1:1:q".into(),
            endpoint: Some("http://localhost:9324".into()),
            region: Some("eu-west-2".into()),
        };
        let queue = Queue::parse(&spec).unwrap();
        assert_eq!(queue.endpoint.as_deref(), Some("http://localhost:9324"));
        assert_eq!((queue.region.as_deref(), queue.account.as_deref()), (Some("eu-west-2"), Some("1")));
        assert!(Queue::parse(&SqsQueue { endpoint: Some("localhost:9324".into()), ..spec }).is_err());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "orders", "https://", "https:///q", "http://host", "arn:aws:s3:::bucket", "arn:aws:sqs:::q"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
