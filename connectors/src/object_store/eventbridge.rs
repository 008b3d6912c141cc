//! EventBridge's form of the same notifications: one event, its key not encoded, other names for what happened.

use serde_json::Value;

use super::envelope::{Object, found, time};

/// Reads an EventBridge event of Amazon S3 (`source: aws.s3`).
pub(super) fn object(event: &Value) -> Result<Object, String> {
    if event["source"] != "aws.s3" {
        return Err(format!("an EventBridge event of {}, not of aws.s3", event["source"]));
    }
    let text = |pointer: &str| found(event, pointer);
    let kind = text("/detail-type").ok_or("the event has no detail-type")?;
    Ok(Object {
        event: name(
            &kind,
            &text("/detail/reason").unwrap_or_default(),
            &text("/detail/deletion-type").unwrap_or_default(),
        ),
        bucket: text("/detail/bucket/name").ok_or("the event names no bucket")?,
        key: text("/detail/object/key").ok_or("the event names no object")?,
        version: text("/detail/object/version-id"),
        sequencer: text("/detail/object/sequencer"),
        request_id: text("/detail/request-id"),
        region: text("/region").unwrap_or_default(),
        time: time(text("/time")),
    })
}

/// The notification's name for what EventBridge calls by detail type, reason and deletion type (Amazon S3 user guide,
/// "EventBridge event message structure"); an unknown one keeps its words.
fn name(kind: &str, reason: &str, deletion: &str) -> String {
    let name = match (kind, reason, deletion) {
        ("Object Created", "PutObject", _) => "ObjectCreated:Put",
        ("Object Created", "POST Object", _) => "ObjectCreated:Post",
        ("Object Created", "CopyObject", _) => "ObjectCreated:Copy",
        ("Object Created", "CompleteMultipartUpload", _) => "ObjectCreated:CompleteMultipartUpload",
        ("Object Deleted", "Lifecycle Expiration", "Delete Marker Created") => {
            "LifecycleExpiration:DeleteMarkerCreated"
        }
        ("Object Deleted", "Lifecycle Expiration", _) => "LifecycleExpiration:Delete",
        ("Object Deleted", _, "Delete Marker Created") => "ObjectRemoved:DeleteMarkerCreated",
        ("Object Deleted", ..) => "ObjectRemoved:Delete",
        ("Object Restore Initiated", ..) => "ObjectRestore:Post",
        ("Object Restore Completed", ..) => "ObjectRestore:Completed",
        ("Object Restore Expired", ..) => "ObjectRestore:Delete",
        ("Object Tags Added", ..) => "ObjectTagging:Put",
        ("Object Tags Deleted", ..) => "ObjectTagging:Delete",
        ("Object ACL Updated", ..) => "ObjectAcl:Put",
        ("Object Storage Class Changed", ..) => "LifecycleTransition",
        ("Object Access Tier Changed", ..) => "IntelligentTiering",
        _ => return kind.replace(' ', ""),
    };
    name.to_owned()
}
