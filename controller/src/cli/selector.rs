//! The selector grammar on the command line: the same flags for every command that chooses events or deliveries.

use std::str::FromStr;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingName, SourceName, Timestamp};
use clap::Args;
use serde_json::Value;

use super::exit::Failure;
use super::times::Moment;

/// States that can be asked for; words of the API.
const STATES: [&str; 10] = [
    "delivered",
    "filtered",
    "expired",
    "dead",
    "discarded",
    "waiting",
    "running",
    "retrying",
    "parked",
    "paused",
];

/// An address as an argument, with the binding that is meant: `1-3`, `1-3@thumbnail:s3.photos`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the event lies.
    pub address: Address,
    /// Whose delivery of it is meant.
    pub binding: Option<BindingName>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, binding) = match text.split_once('@') {
            None => (text, None),
            Some((_, "")) => return Err(format!("`{text}` names no binding after the @")),
            Some((address, binding)) => (address, Some(BindingName::new(binding))),
        };
        Ok(Self { address: address.parse()?, binding })
    }
}

/// Which events or deliveries are meant; conditions are joined by "and".
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Selector")]
pub struct SelectorArgs {
    /// Addresses, such as 1-3, or one delivery of an event, such as 1-3@thumbnail:s3.photos.
    #[arg(value_name = "ADDRESS")]
    pub places: Vec<Place>,
    /// CloudEvents id (may be repeated).
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// At or after: how long ago (2h) or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Before: how long ago (10m) or RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Of this source, such as s3.photos.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// Of this binding, such as thumbnail:s3.photos.
    #[arg(long, value_name = "BINDING")]
    pub binding: Option<String>,
    /// CloudEvents type.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Ordering key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// State of the delivery.
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    pub state: Option<String>,
    /// EventBridge pattern over the envelope, as JSON: '{"data":{"status":["NEW"]}}'.
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub filter: Option<Value>,
    /// Fingerprint of a group of failures, such as e41c, as `dead-letters groups` prints it.
    #[arg(long, value_name = "FINGERPRINT")]
    pub error: Option<String>,
}

fn pattern(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("a pattern is a JSON object, such as {\"type\":[\"github.push\"]}".into()),
        Err(error) => Err(format!("the pattern is no JSON: {error}")),
    }
}

impl SelectorArgs {
    /// The selector, with relative times seen from `now`.
    ///
    /// # Errors
    /// When the conditions contradict each other.
    pub fn resolve(&self, now: Timestamp) -> Result<Selector, Failure> {
        let since = self.since.map(|m| m.resolve(now));
        let until = self.until.map(|m| m.resolve(now));
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err(Failure::usage("--since is not before --until: nothing can match"));
        }
        Ok(Selector {
            addresses: self.places.iter().map(|p| p.address).collect(),
            ids: self.id.clone(),
            since,
            until,
            source: self.source.as_ref().map(SourceName::new),
            binding: self.one_binding()?,
            kind: self.kind.clone(),
            key: self.key.clone(),
            state: self.state.clone(),
            filter: self.filter.clone(),
            error: self.error.clone(),
        })
    }

    /// The selector of a write: choosing nothing is refused unless `all` says so aloud.
    ///
    /// # Errors
    /// When nothing, or both something and everything, was chosen.
    pub fn resolve_write(&self, all: bool, now: Timestamp) -> Result<Selector, Failure> {
        let selector = self.resolve(now)?;
        match (selector.is_empty(), all) {
            (true, false) => Err(Failure::usage("say which ones: a write without a selector is refused")
                .help("choose by address (1-3), --binding, --since, --error …; --all takes all")),
            (false, true) => Err(Failure::usage("--all and a selector contradict each other: drop one")),
            _ => Ok(selector),
        }
    }

    /// The binding of all conditions together: several different ones cannot be one selector.
    fn one_binding(&self) -> Result<Option<BindingName>, Failure> {
        let flag = self.binding.as_ref().map(BindingName::new);
        let mut named = flag.iter().chain(self.places.iter().filter_map(|p| p.binding.as_ref()));
        let Some(first) = named.next() else { return Ok(None) };
        if let Some(other) = named.find(|b| *b != first) {
            let message = format!("`{first}` and `{other}` are two bindings, a selector has one");
            return Err(Failure::usage(message).help("run the command once for each"));
        }
        if flag.is_none() && self.places.iter().any(|p| p.binding.is_none()) {
            let message = format!("some addresses name {first}, others name no binding");
            return Err(
                Failure::usage(message).help(format!("write --binding {first} for all, or run it twice"))
            );
        }
        Ok(Some(first.clone()))
    }
}

/// The selector as query parameters of the API.
pub fn query(selector: &Selector) -> Vec<(&'static str, String)> {
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    pairs.extend(selector.addresses.iter().map(|a| ("address", a.to_string())));
    pairs.extend(selector.ids.iter().map(|id| ("id", id.clone())));
    let single = [
        ("since", selector.since.map(|t| t.to_string())),
        ("until", selector.until.map(|t| t.to_string())),
        ("source", selector.source.as_ref().map(ToString::to_string)),
        ("binding", selector.binding.as_ref().map(ToString::to_string)),
        ("type", selector.kind.clone()),
        ("key", selector.key.clone()),
        ("state", selector.state.clone()),
        ("filter", selector.filter.as_ref().map(ToString::to_string)),
        ("error", selector.error.clone()),
    ];
    pairs.extend(single.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))));
    pairs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::exit::Exit;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        selector: SelectorArgs,
    }

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000); // 2026-01-01T00:00:00Z

    fn read(line: &str) -> Result<Selector, String> {
        let args = std::iter::once("x").chain(line.split_whitespace());
        let only = Only::try_parse_from(args).map_err(|e| e.to_string())?;
        only.selector.resolve(NOW).map_err(|f| f.to_string())
    }

    #[test]
    fn every_condition_reaches_the_selector_and_the_query() {
        let line = "1-3 1-4 --id a/b --since 2h --until 2025-12-31T23:00:00Z --source s3.photos --type t \
                    --key k --state dead --filter {\"type\":[\"t\"]} --error e41c --binding f:s3.photos";
        let selector = read(line).unwrap();
        let pairs = query(&selector);
        let text: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text.join(" "),
            "address=1-3 address=1-4 id=a/b since=2025-12-31T22:00:00.000Z until=2025-12-31T23:00:00.000Z \
             source=s3.photos binding=f:s3.photos type=t key=k state=dead filter={\"type\":[\"t\"]} error=e41c"
        );
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn an_address_may_name_its_binding() {
        let selector = read("1-3@f:s3.photos 1-4@f:s3.photos").unwrap();
        assert_eq!(selector.binding, Some("f:s3.photos".into()));
        assert_eq!(selector.addresses.len(), 2);
        assert!(read("1-3@f:a --binding f:a").is_ok());
        assert!(read("1-3 --binding f:a").is_ok());
        for bad in
            ["1-3@a:b 1-4@c:d", "1-3@a:b 1-4", "1-4 1-3@a:b", "1-3@", "1-3@a:b --binding c:d", "x-3", "1-3-4"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["--since yesterday", "--state broken", "--filter [", "--filter 3", "--since 1h --until 2h"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_write_says_which_ones_or_all() {
        let write = |line: &str, all| {
            let only = Only::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap();
            only.selector.resolve_write(all, NOW).map_err(|f| f.exit)
        };
        assert_eq!(write("", false), Err(Exit::Usage));
        assert_eq!(write("1-3", true), Err(Exit::Usage));
        assert!(write("", true).is_ok_and(|s| s.is_empty()));
        assert!(write("--error e41c", false).is_ok());
    }
}
