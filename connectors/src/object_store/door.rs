//! The door that all buckets share.

use std::sync::Arc;

use bellwire_schemas::Timestamp;
use bellwire_schemas::service::SourceSpec;
use http::{Method, StatusCode};
use serde_json::json;

use super::Buckets;
use super::envelope::{Notification, Record, read};
use crate::{Admitted, Content, Door, DoorRequest, DoorResponse, Parcel, Refused};

/// Takes notifications in at `/s3`.
#[derive(Debug)]
pub struct StoreDoor(Buckets);

impl StoreDoor {
    /// The door of these sources.
    pub fn new(sources: &[Arc<SourceSpec>]) -> Self {
        Self(Buckets::new(sources))
    }

    fn parcels(&self, record: Record) -> Vec<Parcel> {
        let aside = |source: &Arc<SourceSpec>, reason, record: &Record| Parcel {
            source: source.clone(),
            content: Content::Quarantine { reason, bytes: record.raw.clone(), meta: "{}".into() },
        };
        let object = match &record.object {
            Ok(object) => object,
            Err(reason) => return vec![aside(self.0.stray(), reason.clone(), &record)],
        };
        let sources = self.0.of(&object.bucket);
        if sources.is_empty() {
            let reason = format!("no source is declared for bucket `{}`", object.bucket);
            return vec![aside(self.0.stray(), reason, &record)];
        }
        let parcel = |source: &Arc<SourceSpec>| Parcel {
            source: source.clone(),
            content: Content::Event(Box::new(record.draft(object))),
        };
        sources.iter().map(parcel).collect()
    }
}

impl Door for StoreDoor {
    fn admit(&self, request: &DoorRequest, _now: Timestamp) -> Result<Admitted, Refused> {
        match request.method {
            Method::HEAD => return Ok(Admitted::Reply(DoorResponse::empty(StatusCode::OK))),
            Method::POST => {}
            _ => return Err(Refused::method(&request.method, "POST, HEAD")),
        }
        match read(&request.body).map_err(Refused::bad_request)? {
            Notification::Test => {
                let body = json!({ "accepted": 0, "items": [] });
                Ok(Admitted::Reply(DoorResponse::json(StatusCode::OK, body)))
            }
            Notification::Records(records) => {
                Ok(Admitted::Parcels(records.into_iter().flat_map(|record| self.parcels(record)).collect()))
            }
        }
    }
}
