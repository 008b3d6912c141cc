//! The topic's door.

use bellwire_schemas::Timestamp;
use http::Method;

use super::TopicConfig;
use super::envelope::contents;
use crate::{Admitted, Door, DoorRequest, Parcel, Refused};

/// Takes events in at `/topics/<name>`.
#[derive(Debug)]
pub struct TopicDoor(TopicConfig);

impl TopicDoor {
    /// The door of a topic.
    pub fn new(config: TopicConfig) -> Self {
        Self(config)
    }
}

impl Door for TopicDoor {
    fn admit(&self, request: &DoorRequest, _now: Timestamp) -> Result<Admitted, Refused> {
        if request.method != Method::POST {
            return Err(Refused::method(&request.method, "POST"));
        }
        let parcel = |content| Parcel { source: self.0.source.clone(), content };
        Ok(Admitted::Parcels(contents(request, &self.0.topic)?.into_iter().map(parcel).collect()))
    }
}
